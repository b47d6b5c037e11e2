//! A live event stream: records without a gap, deltas between them, bounded. It is a state machine that is only driven while
//! its reader reads, so a slow reader costs no memory: it loses deltas, is told so, and its records come from the journal. What
//! is told is encoded once for all who follow the session (`feed`). A run that waits keeps its streams: they stay open, say that
//! they live, and cost the run nothing.

use crate::app::App;
use crate::feed::{self, Feed, Shown};
use crate::order;
use api::Resync;
use bytes::{BufMut, Bytes, BytesMut};
use domain::record::{Deferred, InDoubt, Returned};
use domain::{Event, Id, id};
use engine::{LiveKind, Watch};
use futures::FutureExt;
use journal::hints::Told;
use journal::{Hint, Hints, SessionKey, StoredRecord};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{OwnedSemaphorePermit, watch};

/// Records that are read from the journal at once.
const PAGE_RECORDS: usize = 64;
/// Live events that wait to be told; more are dropped, and the reader is told so.
const WAITING_EVENTS_MAX: usize = 1_024;
/// Bytes after which a piece goes out, however much more is ready.
const PIECE_BYTES: usize = 16 << 10;

/// Follows a session, or one run of it.
#[derive(Debug)]
pub(crate) struct Follower {
    app: Arc<App>,
    key: SessionKey,
    /// Only this run, if one is named; then the stream ends with it.
    run: Option<Id<id::Run>>,
    /// The next position to tell.
    position: u64,
    hints: Hints,
    /// Wakes; what there is to see comes from the feed.
    watch: Watch,
    feed: Arc<Feed>,
    /// The number of the next live event to look at.
    next_live: u64,
    draining: watch::Receiver<bool>,
    /// Records that are known and not yet told.
    page: VecDeque<StoredRecord>,
    /// Whether the journal had nothing beyond `page` when it was last looked at.
    caught_up: bool,
    /// What was seen live and is not yet told.
    waiting: VecDeque<Arc<Shown>>,
    /// Calls that have begun and not returned, so far as was told.
    open: HashSet<Id<id::Call>>,
    out: BytesMut,
    ended: bool,
    _place: OwnedSemaphorePermit,
}

/// Why a stream that waited goes on.
enum Woken {
    Drained,
    Told(Option<Told>),
    Seen(Result<(), RecvError>),
    Silent,
}

/// What to follow, and from where.
#[derive(Debug)]
pub(crate) struct From {
    pub(crate) key: SessionKey,
    pub(crate) run: Option<Id<id::Run>>,
    pub(crate) position: u64,
}

impl Follower {
    /// Subscribes; what was written before is read afterwards, so that nothing falls between. `None` when the journal is
    /// closed.
    pub(crate) fn new(app: Arc<App>, from: From, place: OwnedSemaphorePermit) -> Option<Self> {
        let From { key, run, position } = from;
        let watch = app.engine.watch(&key.tenant, key.session);
        let feed = app.feeds.join(&app.engine, &key);
        let next_live = feed.next_live();
        let hints = app.engine.journal().subscribe(&key)?;
        let draining = app.draining.clone();
        let mut out = BytesMut::new();
        // Something at once, so that the client knows that it is heard.
        out.put_slice(b": topside\n\n");
        Some(Self {
            app,
            key,
            run,
            position,
            hints,
            watch,
            feed,
            next_live,
            draining,
            page: VecDeque::new(),
            caught_up: false,
            waiting: VecDeque::new(),
            open: HashSet::new(),
            out,
            ended: false,
            _place: place,
        })
    }

    /// The stream's next piece; `None` at its end.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.out.len() >= PIECE_BYTES {
                return Some(self.out.split().freeze());
            }
            let ready = !self.ended && (!self.page.is_empty() || !self.caught_up || self.may_tell_live());
            if !ready && !self.out.is_empty() {
                return Some(self.out.split().freeze());
            }
            if self.ended {
                return None;
            }
            if let Err(error) = Box::pin(self.step()).await {
                // The client comes back behind the last record it saw.
                tracing::error!(code = error.code(), %error, session_id = %self.key.session, "an event stream is cut");
                self.ended = true;
            }
        }
    }

    async fn step(&mut self) -> Result<(), journal::Error> {
        if let Some(record) = self.page.pop_front() {
            return self.tell_record(&record).await;
        }
        if !self.caught_up {
            // What is seen live from here on came after the records that are about to be read.
            self.look();
            let found = self.app.engine.journal().records(&self.key, self.position, PAGE_RECORDS).await?;
            self.caught_up = found.is_empty();
            self.page.extend(found);
            return Ok(());
        }
        match self.waiting.front().cloned() {
            Some(live) if self.may_tell_live() => {
                self.waiting.pop_front();
                self.tell_live(&live);
            }
            _ => self.wait().await,
        }
        Ok(())
    }

    /// Whether there is something seen live that no record must come before. The results of quick calls are written a
    /// little later, together with what follows them; what the model says next waits for them.
    fn may_tell_live(&self) -> bool {
        self.waiting
            .front()
            .is_some_and(|shown| self.open.is_empty() || !matches!(shown.live.kind, LiveKind::Asking { .. }))
    }

    /// Waits until there is something to tell.
    async fn wait(&mut self) {
        let heartbeat = Duration::from_millis(self.app.config.limits.heartbeat_ms);
        let woken = {
            let Self { draining, hints, watch, .. } = self;
            let drained = async {
                // An error means that the service is gone, which is the end too.
                drop(draining.wait_for(|draining| *draining).await);
            };
            tokio::select! {
                biased;
                () = drained => Woken::Drained,
                told = hints.next() => Woken::Told(told),
                live = watch.recv() => Woken::Seen(live.map(drop)),
                () = tokio::time::sleep(heartbeat) => Woken::Silent,
            }
        };
        match woken {
            Woken::Drained => self.ended = true,
            Woken::Silent => self.out.put_slice(b": alive\n\n"),
            Woken::Told(told) => {
                // Deltas first: those that belong before the records of the hint have come by now.
                self.look();
                self.heed(told);
            }
            Woken::Seen(Ok(()) | Err(RecvError::Lagged(_))) => self.look(),
            // The session's channel goes only with the engine.
            Woken::Seen(Err(RecvError::Closed)) => self.ended = true,
        }
        // Records that were written before a delta was seen have their hint by now.
        while let Some(told) = self.hints.next().now_or_never() {
            self.heed(told);
            if self.ended {
                return;
            }
        }
    }

    fn heed(&mut self, told: Option<Told>) {
        match told {
            None => self.ended = true,
            Some(Told::Lagged { .. }) => self.caught_up = false,
            Some(Told::Hint(hint)) => self.take(&hint),
        }
    }

    /// Takes the records that come with a hint when they are the next ones; else they are read.
    fn take(&mut self, hint: &Hint) {
        let next = self.page.back().map_or(self.position, |last| last.position + 1);
        if hint.next_position <= next {
            return;
        }
        let fits = self.caught_up && hint.records.first().is_some_and(|first| first.position <= next);
        if fits && hint.records.len() <= PAGE_RECORDS && self.page.len() <= PAGE_RECORDS {
            self.page.extend(hint.records.iter().filter(|record| record.position >= next).cloned());
        } else {
            self.page.clear();
            self.caught_up = false;
        }
    }

    /// Takes in what was seen live, as far as it has come.
    fn look(&mut self) {
        // What wakes is not what is told: whatever it has told of is in the feed by now.
        while !matches!(self.watch.try_recv(), Err(TryRecvError::Empty | TryRecvError::Closed)) {}
        let Self { feed, next_live, waiting, run, .. } = self;
        let lost = feed.look(next_live, |shown| {
            if run.is_none_or(|run| run == shown.live.run) {
                waiting.push_back(shown.clone());
            }
        });
        if lost > 0 || self.waiting.len() > WAITING_EVENTS_MAX {
            self.resync(lost);
        }
    }

    fn resync(&mut self, dropped: u64) {
        let dropped = dropped + self.waiting.len() as u64;
        self.waiting.clear();
        self.caught_up = false;
        self.page.clear();
        let resync = Resync { next_position: self.position, dropped };
        self.out.extend_from_slice(&feed::event(Resync::NAME, None, &resync));
    }

    async fn tell_record(&mut self, stored: &StoredRecord) -> Result<(), journal::Error> {
        self.position = stored.position + 1;
        let frame = self.feed.frame(self.app.engine.journal(), &self.key, stored).await?;
        if self.run.is_some_and(|run| run != frame.event.run()) {
            return Ok(());
        }
        for live in self.waiting.drain(..order::owed(&frame.event, &self.waiting)).collect::<Vec<_>>() {
            self.tell_live(&live);
        }
        self.follow(&frame.event);
        self.out.extend_from_slice(&frame.bytes);
        Ok(())
    }

    /// Keeps in mind what a record changes for the stream itself.
    fn follow(&mut self, event: &Event) {
        match event {
            Event::Began(body) => {
                self.open.insert(body.call);
            }
            Event::Returned(Returned { call, .. })
            | Event::InDoubt(InDoubt { call, .. })
            | Event::Deferred(Deferred { call: Some(call), .. }) => {
                self.open.remove(call);
            }
            // Calls of a process that died are judged and begun again; of a run that waits none is under way.
            Event::Resumed(_) | Event::Parked(_) | Event::Finished(_) => self.open.clear(),
            Event::Deferred(Deferred { call: None, .. })
            | Event::Submitted(_)
            | Event::Forked(_)
            | Event::CancelRequested(_)
            | Event::PauseRequested(_)
            | Event::ResumeRequested(_)
            | Event::Steered(_)
            | Event::Voted(_)
            | Event::Resolved(_)
            | Event::Raised(_)
            | Event::Operated(_)
            | Event::WorkspaceRestored(_)
            | Event::SandboxOpened(_)
            | Event::SandboxClosed(_)
            | Event::WorkspaceLost(_)
            | Event::Replied(_)
            | Event::ScopeOpened(_)
            | Event::Reserved(_)
            | Event::CallAdded(_)
            | Event::Judged(_)
            | Event::Checkpointed(_)
            | Event::WorkspaceChanged(_)
            | Event::ArtifactSaved(_) => {}
        }
        self.ended = self.run.is_some() && matches!(event, Event::Finished(_));
    }

    fn tell_live(&mut self, shown: &Shown) {
        self.out.extend_from_slice(&shown.bytes);
    }
}
