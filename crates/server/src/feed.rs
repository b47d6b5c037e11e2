//! What those who follow one session share: its records and what is seen live, each opened and encoded once, however many
//! follow. Nothing here runs by itself: whoever looks first does the work for all, and a session that nobody follows has no
//! feed.

use crate::resolve;
use api::Delta;
use bytes::{BufMut, Bytes, BytesMut};
use domain::{Event, Id, id};
use engine::{Engine, Live, LiveKind, Watch};
use journal::{Journal, SessionKey, StoredRecord};
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use tokio::sync::OnceCell;
use tokio::sync::broadcast::error::TryRecvError;

/// Records of a session that are kept encoded.
const FRAMES_MAX: usize = 256;
/// Their bytes.
const FRAMES_BYTES_MAX: usize = 4 << 20;
/// Live events of a session that are kept for those who have not looked.
const LIVE_EVENTS_MAX: usize = 1_024;
/// Their bytes.
const LIVE_BYTES_MAX: usize = 1 << 20;
/// Calls whose output ended in the middle of a character.
const HALVES_MAX: usize = 256;

/// A record as every follower is told it.
#[derive(Debug)]
pub(crate) struct Frame {
    /// What it says.
    pub(crate) event: Event,
    /// The event of the stream, ready to be sent.
    pub(crate) bytes: Bytes,
}

/// Something seen live, as every follower is told it.
#[derive(Debug)]
pub(crate) struct Shown {
    /// What was seen.
    pub(crate) live: Arc<Live>,
    /// The event of the stream, ready to be sent.
    pub(crate) bytes: Bytes,
}

/// The feeds of the sessions that somebody follows.
#[derive(Debug, Default)]
pub(crate) struct Feeds(Mutex<HashMap<SessionKey, Weak<Feed>>>);

impl Feeds {
    /// The session's feed. What happens live from here on is in it.
    pub(crate) fn join(&self, engine: &Engine, key: &SessionKey) -> Arc<Feed> {
        let mut feeds = self.0.lock();
        if let Some(feed) = feeds.get(key).and_then(Weak::upgrade) {
            return feed;
        }
        // Feeds that nobody follows go whenever a new one comes, so the map is bounded by the followers alive.
        feeds.retain(|_, feed| feed.strong_count() > 0);
        let feed = Arc::new(Feed::new(engine.watch(&key.tenant, key.session)));
        feeds.insert(key.clone(), Arc::downgrade(&feed));
        feed
    }
}

/// What the followers of one session share.
#[derive(Debug)]
pub(crate) struct Feed {
    frames: Mutex<Frames>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Frames {
    slots: HashMap<u64, Slot>,
    /// The positions in the order in which they were asked for first.
    order: VecDeque<u64>,
    bytes: usize,
}

/// A record that is encoded by whoever comes first, while the others wait for it.
#[derive(Debug, Default)]
struct Slot {
    frame: Arc<OnceCell<Arc<Frame>>>,
    /// Its bytes, once they count.
    counted: Option<usize>,
}

#[derive(Debug)]
struct Seen {
    watch: Watch,
    ring: VecDeque<Arc<Shown>>,
    bytes: usize,
    /// The number of the ring's first event; every event has one more than the one before, those that were lost included.
    first: u64,
    /// The beginnings of characters whose ends are still to come, by call.
    halves: HashMap<Id<id::Call>, Vec<u8>>,
}

impl Feed {
    fn new(watch: Watch) -> Self {
        let seen = Seen { watch, ring: VecDeque::new(), bytes: 0, first: 0, halves: HashMap::new() };
        Self { frames: Mutex::default(), seen: Mutex::new(seen) }
    }

    /// A record as it is told.
    pub(crate) async fn frame(
        self: &Arc<Self>,
        journal: &Journal,
        key: &SessionKey,
        stored: &StoredRecord,
    ) -> Result<Arc<Frame>, journal::Error> {
        if Arc::strong_count(self) == 1 {
            // Nobody to share it with.
            return encode(journal, key, stored).await;
        }
        let slot = self.frames.lock().slot(stored.position);
        let frame = slot.get_or_try_init(|| encode(journal, key, stored)).await?.clone();
        self.frames.lock().count(stored.position, frame.bytes.len());
        Ok(frame)
    }

    /// The number of the next live event.
    pub(crate) fn next_live(&self) -> u64 {
        let mut seen = self.seen.lock();
        seen.pump();
        seen.first + seen.ring.len() as u64
    }

    /// The live events from `next` on, which is moved behind them; gives how many of them were lost before.
    pub(crate) fn look(self: &Arc<Self>, next: &mut u64, mut take: impl FnMut(&Arc<Shown>)) -> u64 {
        let mut seen = self.seen.lock();
        seen.pump();
        let lost = seen.first.saturating_sub(*next);
        *next = (*next).max(seen.first);
        let skip = usize::try_from(*next - seen.first).unwrap_or(usize::MAX);
        seen.ring.iter().skip(skip).for_each(&mut take);
        *next = seen.first + seen.ring.len() as u64;
        if Arc::strong_count(self) == 1 {
            seen.clear();
        }
        lost
    }
}

impl Frames {
    fn slot(&mut self, position: u64) -> Arc<OnceCell<Arc<Frame>>> {
        if let Some(slot) = self.slots.get(&position) {
            return slot.frame.clone();
        }
        while self.order.len() >= FRAMES_MAX {
            self.evict();
        }
        self.order.push_back(position);
        self.slots.entry(position).or_default().frame.clone()
    }

    fn count(&mut self, position: u64, bytes: usize) {
        let Some(slot) = self.slots.get_mut(&position).filter(|slot| slot.counted.is_none()) else { return };
        slot.counted = Some(bytes);
        self.bytes += bytes;
        while self.bytes > FRAMES_BYTES_MAX {
            self.evict();
        }
    }

    fn evict(&mut self) {
        let oldest = self.order.pop_front().and_then(|position| self.slots.remove(&position));
        self.bytes -= oldest.and_then(|slot| slot.counted).unwrap_or_default();
    }
}

impl Seen {
    /// Takes in what was seen live, as far as it has come.
    fn pump(&mut self) {
        loop {
            match self.watch.try_recv() {
                Ok(live) => self.push(live),
                Err(TryRecvError::Lagged(lost)) => {
                    self.clear();
                    self.halves.clear();
                    self.first += lost;
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn push(&mut self, live: Arc<Live>) {
        let bytes = self.encode(&live);
        self.bytes += bytes.len();
        self.ring.push_back(Arc::new(Shown { live, bytes }));
        while self.ring.len() > LIVE_EVENTS_MAX || (self.bytes > LIVE_BYTES_MAX && self.ring.len() > 1) {
            if let Some(oldest) = self.ring.pop_front() {
                self.bytes -= oldest.bytes.len();
                self.first += 1;
            }
        }
    }

    /// Everybody has looked.
    fn clear(&mut self) {
        self.first += self.ring.len() as u64;
        self.ring.clear();
        self.bytes = 0;
    }

    fn encode(&mut self, live: &Live) -> Bytes {
        let run_id = live.run;
        let delta = match &live.kind {
            LiveKind::Asking { turn } => Delta::Asking { run_id, turn: *turn },
            LiveKind::Text(text) => Delta::Text { run_id, text: text.clone() },
            LiveKind::Reasoning(text) => Delta::Reasoning { run_id, text: text.clone() },
            LiveKind::Performing { call, tool, arguments } => {
                self.halves.remove(call);
                Delta::Performing { run_id, call: *call, tool: tool.clone(), arguments: resolve::cut(arguments) }
            }
            LiveKind::Output { call, bytes } => {
                if self.halves.len() >= HALVES_MAX {
                    self.halves.clear();
                }
                let mut half = self.halves.remove(call).unwrap_or_default();
                let text = whole_characters(&mut half, bytes);
                if !half.is_empty() {
                    self.halves.insert(*call, half);
                }
                Delta::Output { run_id, call: *call, text }
            }
        };
        event(delta.name(), None, &delta)
    }
}

async fn encode(journal: &Journal, key: &SessionKey, stored: &StoredRecord) -> Result<Arc<Frame>, journal::Error> {
    let record = stored.decode()?;
    let kept = record.event.clone();
    let shown = resolve::record(journal, key, record).await?;
    Ok(Arc::new(Frame { bytes: event(kept.kind(), Some(stored.position), &shown), event: kept }))
}

/// An event of the stream.
pub(crate) fn event(name: &str, position: Option<u64>, data: &impl Serialize) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    out.put_slice(b"event: ");
    out.put_slice(name.as_bytes());
    if let Some(position) = position {
        out.put_slice(b"\nid: ");
        out.put_slice(position.to_string().as_bytes());
    }
    out.put_slice(b"\ndata: ");
    // JSON has no line break of its own, so one `data` line holds it. Plain data to memory cannot fail.
    let written = serde_json::to_writer((&mut out).writer(), data);
    debug_assert!(written.is_ok());
    out.put_slice(b"\n\n");
    out.freeze()
}

/// The text of bytes that come in pieces; the beginning of a character that is still to come stays in `half`.
fn whole_characters(half: &mut Vec<u8>, bytes: &[u8]) -> String {
    let mut joined = std::mem::take(half);
    joined.extend_from_slice(bytes);
    let tail = joined.utf8_chunks().last().map_or(0, |last| {
        let invalid = last.invalid();
        // Only what could still become a character waits; at most three bytes.
        let open = !invalid.is_empty()
            && joined.ends_with(invalid)
            && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
        if open { invalid.len() } else { 0 }
    });
    let rest = joined.split_off(joined.len() - tail);
    *half = rest;
    String::from_utf8_lossy(&joined).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::broadcast;

    #[test]
    fn a_character_that_comes_in_two_pieces_is_told_whole() {
        for (pieces, expected) in [
            (vec![&b"gr\xc3"[..], b"\xbc\xc3\x9f"], vec!["gr", "üß"]),
            (vec![b"a\xff", b"b"], vec!["a\u{fffd}", "b"]),
            (vec![b"\xf0\x9f", b"\x98\x80!"], vec!["", "😀!"]),
            (vec![b"\xe2\x82", b"x"], vec!["", "\u{fffd}x"]),
        ] {
            let mut half = Vec::new();
            let told: Vec<String> = pieces.iter().map(|piece| whole_characters(&mut half, piece)).collect();
            assert_eq!(told, expected, "{pieces:?}");
        }
    }

    fn live(text: &str) -> Arc<Live> {
        Arc::new(Live { run: Id::from_bytes([1; 16]), kind: LiveKind::Text(text.to_owned()) })
    }

    fn looked(feed: &Arc<Feed>, next: &mut u64) -> (u64, Vec<String>) {
        let mut texts = Vec::new();
        let lost = feed.look(next, |shown| match &shown.live.kind {
            LiveKind::Text(text) => texts.push(text.clone()),
            other => panic!("{other:?}"),
        });
        (lost, texts)
    }

    #[test]
    fn every_follower_sees_each_event_once_or_learns_how_many_it_lost() {
        let (sender, watch) = broadcast::channel(8);
        let feed = Arc::new(Feed::new(watch));
        let mut quick = feed.next_live();
        let mut slow = feed.next_live();
        let _other = feed.clone();
        sender.send(live("a")).unwrap();
        assert_eq!(looked(&feed, &mut quick), (0, vec!["a".to_owned()]));
        let mut late = feed.next_live();
        sender.send(live("b")).unwrap();
        assert_eq!(looked(&feed, &mut late), (0, vec!["b".to_owned()]));
        assert_eq!(looked(&feed, &mut slow), (0, vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(looked(&feed, &mut quick), (0, vec!["b".to_owned()]));
        // More than the ring holds, taken in by one follower while another sleeps.
        for at in 0..LIVE_EVENTS_MAX + 10 {
            sender.send(live(&at.to_string())).unwrap();
            looked(&feed, &mut quick);
        }
        let (lost, texts) = looked(&feed, &mut slow);
        assert_eq!((lost, texts.len()), (10, LIVE_EVENTS_MAX));
        // More than anybody took in.
        for _ in 0..20 {
            sender.send(live("x")).unwrap();
        }
        assert_eq!(looked(&feed, &mut slow).0, 12);
        assert_eq!(looked(&feed, &mut quick).0, 12);
        assert!(feed.seen.lock().ring.len() <= LIVE_EVENTS_MAX);
    }

    #[test]
    fn frames_are_kept_within_their_bounds() {
        let mut frames = Frames::default();
        for position in 0..2_000 {
            frames.slot(position);
            frames.count(position, 100_000);
            frames.count(position, 100_000);
            assert!(frames.bytes <= FRAMES_BYTES_MAX && frames.order.len() <= FRAMES_MAX);
            assert_eq!(frames.order.len(), frames.slots.len());
        }
        assert!(frames.slots.contains_key(&1_999) && !frames.slots.contains_key(&0));
    }
}
