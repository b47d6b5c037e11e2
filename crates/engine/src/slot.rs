//! The session's sandbox as calls see it: wanted, made, on record, or waiting with its session. What makes one lives in `bench`.

use crate::terms::Terms;
use domain::record::Snapshot;
use domain::{Digest, Id, id};
use machine::Files;
use parking_lot::Mutex;
use sandbox::{FileKind, RelPath, Sandbox, Stat};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tools::Terminals;

pub(crate) type Answer = Result<Arc<dyn Sandbox>, sandbox::Error>;

/// The session's sandbox.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    state: Mutex<Held>,
    asked: Notify,
    /// It was made, could not be made, or was closed.
    settled: Notify,
    pub(crate) terminals: Terminals,
    /// The workspace's files when the sandbox was opened.
    pub(crate) before: Mutex<Listing>,
    /// What the model has to know of the workspace, told with the next output.
    pub(crate) note: Mutex<Option<String>>,
    /// What is known of the sandbox that was made last.
    pub(crate) origin: Mutex<Option<Box<Origin>>>,
    /// A sandbox that nobody uses now.
    pub(crate) resting: Mutex<Option<Resting>>,
}

#[derive(Debug, Default)]
enum Held {
    #[default]
    Nothing,
    /// Calls wait for it.
    Wanted(Vec<oneshot::Sender<Answer>>),
    /// It was made, and that is not on record yet.
    Made(Arc<dyn Sandbox>, Vec<oneshot::Sender<Answer>>),
    Ready(Arc<dyn Sandbox>),
}

/// A sandbox that waits with its session.
#[derive(Debug)]
pub(crate) struct Resting {
    pub(crate) sandbox: Arc<dyn Sandbox>,
    pub(crate) origin: Box<Origin>,
    /// Since when its programs stand still; `None`: they go on.
    pub(crate) since: Option<Duration>,
}

/// What is known of a sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) provider: String,
    pub(crate) terms: Terms,
    /// The generation of its workspace.
    pub(crate) generation: u64,
    /// The agent that it was made for, as it was pinned.
    pub(crate) closure: Digest,
    /// What the log does not know of it yet; `None`: that it was opened is on record.
    pub(crate) unrecorded: Option<Unrecorded>,
}

/// What is to be on record of a sandbox once a run has it.
#[derive(Clone, Debug)]
pub(crate) struct Unrecorded {
    /// Where its files came from, as the log says it until then.
    pub(crate) source: Source,
    pub(crate) manifest: Option<Digest>,
    pub(crate) restored: Option<Id<id::Checkpoint>>,
}

impl Origin {
    /// Whether its files are those that the log knows.
    pub(crate) fn has(&self, source: &Source) -> bool {
        match &self.unrecorded {
            Some(unrecorded) => unrecorded.source == *source,
            None => matches!(source.files, Files::Kept { generation } if generation == self.generation),
        }
    }
}

/// Where the files of a sandbox that is to be made come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) files: Files,
    pub(crate) snapshot: Option<Snapshot>,
}

/// The files of a workspace, as far as they are looked at.
pub(crate) type Listing = BTreeMap<RelPath, Stat>;

/// Files of a workspace that are looked at when a run's changes are told.
const LISTED_MAX: usize = 20_000;

/// The workspace's files. Empty when they can't be listed: what a run changed is then not told, and nothing else depends on it.
pub(crate) async fn listing(sandbox: &dyn Sandbox) -> Listing {
    match sandbox.changed(LISTED_MAX).await {
        Ok(files) => files.into_iter().filter(|(_, stat)| stat.kind != FileKind::Directory).collect(),
        Err(error) => {
            tracing::warn!(code = error.code(), %error, "the workspace can't be listed");
            Listing::new()
        }
    }
}

impl Slot {
    /// The sandbox, made when there is none.
    pub(crate) async fn get(&self) -> Answer {
        let receiver = {
            let mut state = self.state.lock();
            let (sender, receiver) = oneshot::channel();
            match &mut *state {
                Held::Ready(sandbox) => return Ok(sandbox.clone()),
                Held::Wanted(waiting) | Held::Made(_, waiting) => waiting.push(sender),
                Held::Nothing => *state = Held::Wanted(vec![sender]),
            }
            receiver
        };
        self.asked.notify_one();
        let gone = || sandbox::Error::Gone { detail: "the run ended before the sandbox was made".into() };
        receiver.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Wants it before somebody waits for it.
    pub(crate) fn want(&self) {
        let mut state = self.state.lock();
        if matches!(*state, Held::Nothing) {
            *state = Held::Wanted(Vec::new());
            drop(state);
            self.asked.notify_one();
        }
    }

    /// Whether somebody waits for it.
    pub(crate) fn is_awaited(&self) -> bool {
        matches!(&*self.state.lock(), Held::Wanted(waiting) if !waiting.is_empty())
    }

    /// Waits until a call wants it.
    pub(crate) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// Whether it is to be made.
    pub(crate) fn is_wanted(&self) -> bool {
        matches!(*self.state.lock(), Held::Wanted(_))
    }

    /// Waits until what stands still goes on, or what is on its way is there; has nothing made where nothing stands still. Who
    /// waits here does without one if need be: a start that fails meanwhile fails no run on that account.
    pub(crate) async fn awake(&self) {
        if self.is_resting() {
            self.want();
        }
        loop {
            // Heard before the look, so that nothing is missed between the two.
            let settled = self.settled.notified();
            if !self.is_on_its_way() {
                return;
            }
            settled.await;
        }
    }

    /// Whether one is being made, or woken.
    fn is_on_its_way(&self) -> bool {
        matches!(*self.state.lock(), Held::Wanted(_) | Held::Made(..))
    }

    /// The sandbox, if it is there.
    pub(crate) fn ready(&self) -> Option<Arc<dyn Sandbox>> {
        match &*self.state.lock() {
            Held::Ready(sandbox) => Some(sandbox.clone()),
            Held::Nothing | Held::Wanted(_) | Held::Made(..) => None,
        }
    }

    /// The workspace's files when the sandbox was opened.
    pub(crate) fn before(&self) -> Listing {
        self.before.lock().clone()
    }

    pub(crate) fn made(&self, made: Answer) {
        let mut state = self.state.lock();
        let waiting = match std::mem::take(&mut *state) {
            Held::Wanted(waiting) => waiting,
            other => {
                *state = other;
                return;
            }
        };
        match made {
            Ok(sandbox) => *state = Held::Made(sandbox, waiting),
            Err(error) => waiting.into_iter().for_each(|waiter| {
                // A call that was ended meanwhile does not listen any more.
                let _ = waiter.send(Err(error.clone()));
            }),
        }
        drop(state);
        self.settled.notify_waiters();
    }

    /// That it was made is on record: whoever waits gets it.
    pub(crate) fn recorded(&self) {
        let mut state = self.state.lock();
        match std::mem::take(&mut *state) {
            Held::Made(sandbox, waiting) => {
                for waiter in waiting {
                    let _ = waiter.send(Ok(sandbox.clone()));
                }
                *state = Held::Ready(sandbox);
            }
            other => *state = other,
        }
        drop(state);
        self.settled.notify_waiters();
    }

    /// What the model has to know of the workspace and was not told yet.
    pub(crate) fn take_note(&self) -> Option<String> {
        self.note.lock().take()
    }

    /// A sandbox that an earlier driver left alive is this one's, once that is on record.
    pub(crate) fn take_over(&self, sandbox: Arc<dyn Sandbox>) {
        let mut state = self.state.lock();
        if matches!(*state, Held::Nothing) {
            *state = Held::Made(sandbox, Vec::new());
        }
    }

    /// The sandbox that is to stand still while the session has nothing to do; `None`: there is none, or it does already.
    pub(crate) fn unhalted(&self) -> Option<Arc<dyn Sandbox>> {
        let aside =
            || self.resting.lock().as_ref().filter(|aside| aside.since.is_none()).map(|aside| aside.sandbox.clone());
        self.ready().or_else(aside)
    }

    /// The sandbox stands still, and is nobody's until it is wanted again; whether there is one.
    pub(crate) fn rest(&self, now: Duration) -> bool {
        let (mut state, origin) = (self.state.lock(), self.origin.lock().clone());
        let mut resting = self.resting.lock();
        match (std::mem::take(&mut *state), origin) {
            (Held::Ready(sandbox), Some(origin)) => *resting = Some(Resting { sandbox, origin, since: Some(now) }),
            (other, _) => {
                *state = other;
                resting.iter_mut().for_each(|aside| aside.since = Some(now));
            }
        }
        resting.is_some()
    }

    /// Its run waits, and nobody has needed it so far: it waits, too.
    pub(crate) fn lay_aside(&self, sandbox: Arc<dyn Sandbox>, origin: Box<Origin>) {
        let mut state = self.state.lock();
        // One that was closed meanwhile is dropped, and that closes the sandbox.
        if matches!(*state, Held::Wanted(_)) {
            *state = Held::Nothing;
            *self.resting.lock() = Some(Resting { sandbox, origin, since: None });
        }
        drop(state);
        self.settled.notify_waiters();
    }

    /// Since when its sandbox stands still; `None`: there is none that does.
    pub(crate) fn still_since(&self) -> Option<Duration> {
        self.resting.lock().as_ref().and_then(|resting| resting.since)
    }

    /// Whether it has one that nobody uses now.
    pub(crate) fn is_resting(&self) -> bool {
        self.resting.lock().is_some()
    }

    /// Whether it has one in which programs may have stood still while their run waited.
    pub(crate) fn has_programs(&self) -> bool {
        self.resting.lock().as_ref().is_some_and(|resting| resting.origin.unrecorded.is_none())
    }

    /// The live processes of the sandbox.
    pub(crate) fn terminals(&self) -> &Terminals {
        &self.terminals
    }

    /// The sandbox is gone: the next call that wants one gets a new one.
    pub(crate) fn lost(&self) {
        let mut state = self.state.lock();
        if matches!(*state, Held::Ready(_)) {
            *state = Held::Nothing;
        }
    }

    /// Ends everything inside and lets the sandbox go.
    pub(crate) async fn close(&self) {
        let held = std::mem::take(&mut *self.state.lock());
        self.settled.notify_waiters();
        let resting = self.resting.lock().take();
        self.terminals.close().await;
        if let Some(Resting { sandbox, .. }) = resting {
            sandbox.close().await;
        }
        match held {
            Held::Made(sandbox, _) | Held::Ready(sandbox) => sandbox.close().await,
            Held::Nothing | Held::Wanted(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_until_it_is_awake_has_none_made_and_does_not_need_it() {
        let slot = Slot::default();
        slot.awake().await;
        assert!(!slot.is_wanted(), "nothing stood still");
        slot.want();
        let fails = async {
            assert!(slot.is_wanted() && !slot.is_awaited());
            slot.made(Err(sandbox::Error::NoProcess));
        };
        tokio::join!(slot.awake(), fails);
        assert!(!slot.is_wanted());
    }
}
