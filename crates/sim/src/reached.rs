//! What a world can come to besides its ordinary course: faults of the network and what the engine made of them. Each is counted,
//! so that a kind which no seed reaches is seen and not taken for one that goes well.

use domain::{Event, Record, Wait};
use parking_lot::Mutex;
use std::sync::Arc;

macro_rules! kinds {
    ($($kind:ident => $name:literal),+ $(,)?) => {
        /// Something that must be reached.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind {
            $(#[doc = $name] $kind),+
        }

        /// Every kind, in order, with its name.
        pub const KINDS: &[(Kind, &str)] = &[$((Kind::$kind, $name)),+];
    };
}

kinds! {
    ModelSlow => "a model is slow",
    ModelLimited => "a model limits its rate",
    ModelFailed => "a model fails",
    ModelCut => "a model's stream is cut",
    ModelUnread => "a model's answer is no reply",
    ModelRefused => "a model refuses the connection",
    ModelSilent => "a model never answers",
    ModelTwice => "a model answers twice",
    ModelRefusal => "a model refuses the request for good",
    ModelDeferred => "asking a model is put off",
    BreakerOpen => "a breaker is open",
    ParkedRetry => "a run is parked until a retry",
    ParkedApproval => "a run is parked for an approval",
    InDoubt => "a call is in doubt",
    ScopeOpened => "a nested agent begins",
    ScopeAnswered => "a nested agent answers",
    ScopeReserved => "a nested agent's budget is reserved",
    ScopeExhausted => "a nested agent's budget ends",
    Forked => "a session goes on from another",
    Checkpointed => "a workspace is kept",
    Restored => "a workspace is made from what was kept",
    WorkspaceLost => "a workspace is lost",
    HookTold => "others are told",
    HookLost => "the answer to what others were told is lost",
    HookRepeated => "others are told once more",
    HookRefused => "others can't be told",
    Replayed => "a run that ended is replayed",
}

/// How often each kind was reached.
pub type Counts = [u64; KINDS.len()];

/// Counts the kinds of one world. Cloning is cheap; clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reached(Arc<Mutex<Counts>>);

impl Reached {
    /// A kind was reached.
    pub(crate) fn note(&self, kind: Kind) {
        self.0.lock()[kind as usize] += 1;
    }

    /// How often each was reached.
    pub(crate) fn counts(&self) -> Counts {
        *self.0.lock()
    }

    /// What a log says was reached.
    pub(crate) fn log(&self, records: &[Record]) {
        records.iter().filter_map(|record| of_record(&record.event)).for_each(|kind| self.note(kind));
    }
}

fn of_record(event: &Event) -> Option<Kind> {
    Some(match event {
        Event::Deferred(body) if body.failure.code == "breaker_open" => Kind::BreakerOpen,
        Event::Deferred(body) if body.call.is_none() => Kind::ModelDeferred,
        Event::Parked(body) if body.waits_for == Wait::Retry => Kind::ParkedRetry,
        Event::Parked(body) if body.waits_for == Wait::Approval => Kind::ParkedApproval,
        Event::InDoubt(_) => Kind::InDoubt,
        Event::ScopeOpened(_) => Kind::ScopeOpened,
        Event::Reserved(_) => Kind::ScopeReserved,
        Event::Replied(body) if body.scope.is_some() && body.calls.is_empty() => Kind::ScopeAnswered,
        Event::Returned(body) if body.code.as_deref() == Some("nested_limit") => Kind::ScopeExhausted,
        Event::Forked(_) => Kind::Forked,
        Event::Checkpointed(_) => Kind::Checkpointed,
        Event::SandboxOpened(body) if body.restored.is_some() => Kind::Restored,
        Event::WorkspaceLost(_) => Kind::WorkspaceLost,
        _ => return None,
    })
}
