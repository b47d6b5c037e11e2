//! Index rows: what a record changes in the tables that lists and recovery read. [`of`] is pure and needs nothing but the
//! record, so the tables can be rebuilt from the log.

use domain::content::ContentRef;
use domain::record::{ArtifactSaved, Finished, Snapshot};
use domain::{Cost, Event, Id, RunStatus, Usage, Wait, id};
use std::sync::Arc;

/// The timer of a run that is parked.
pub const PARK: &str = "park";

/// One change to the index, applied in the record's own transaction.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A run was asked for.
    Submitted {
        /// The run.
        run: Id<id::Run>,
        /// Its agent's name.
        agent: String,
        /// Who asked.
        principal: Id<id::Principal>,
        /// When.
        at_ms: u64,
    },
    /// A session goes on from another's.
    Forked {
        /// The other session's run that stood last.
        run: Id<id::Run>,
        /// That one's agent.
        agent: String,
        /// Who asked.
        principal: Id<id::Principal>,
        /// When.
        at_ms: u64,
    },
    /// A run that has not ended stands differently.
    Status {
        /// The run.
        run: Id<id::Run>,
        /// How it stands; [`RunStatus::Queued`] is never stored, see [`RunRow::status`].
        status: RunStatus,
        /// What it waits for, when it waits.
        waits_for: Option<Wait>,
        /// When it goes on by itself, in milliseconds since the Unix epoch.
        waits_until_ms: Option<u64>,
        /// Since when.
        at_ms: u64,
    },
    /// A run ended.
    Finished(Box<Finish>),
    /// A file was kept.
    Artifact(Box<ArtifactChange>),
    /// A workspace was kept, or one of another session is gone on from.
    Checkpoint {
        /// Its id.
        checkpoint: Id<id::Checkpoint>,
        /// Its place among the objects.
        object: String,
    },
    /// A run is to be woken.
    Due {
        /// The run.
        run: Id<id::Run>,
        /// What for; one timer of a kind per run.
        kind: String,
        /// When, in milliseconds since the Unix epoch.
        at_ms: u64,
    },
    /// It is no longer to be woken.
    NotDue {
        /// The run.
        run: Id<id::Run>,
        /// What for.
        kind: String,
    },
    /// A call waits for approval, or does until another time than before.
    Held {
        /// The call.
        call: Id<id::Call>,
        /// Its run.
        run: Id<id::Run>,
        /// Until when it can be approved.
        expires_ms: u64,
        /// When it was held.
        at_ms: u64,
    },
    /// It waits no more.
    Unheld {
        /// The call.
        call: Id<id::Call>,
    },
    /// Others are told of a run from its beginning on.
    Announced {
        /// The run.
        run: Id<id::Run>,
        /// When.
        at_ms: u64,
    },
    /// Something happened that others are told, when they are told of the run.
    Told {
        /// The run.
        run: Id<id::Run>,
        /// The record's kind, one of [`TOLD_KINDS`](crate::waiting::TOLD_KINDS).
        kind: &'static str,
        /// When.
        at_ms: u64,
    },
}

impl Change {
    /// The run that it brings, if it brings one.
    pub(crate) const fn submitted(&self) -> Option<Id<id::Run>> {
        match self {
            Self::Submitted { run, .. } => Some(*run),
            _ => None,
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Finish {
    /// The run.
    pub run: Id<id::Run>,
    /// How it ended.
    pub status: RunStatus,
    /// When.
    pub at_ms: u64,
    /// Turns taken.
    pub turns: u32,
    /// Calls made.
    pub tool_calls: u32,
    /// Tokens used.
    pub usage: Usage,
    /// What they cost.
    pub cost: Cost,
    /// Whether a sandbox was used.
    pub used_sandbox: bool,
}

/// A file that was kept.
#[derive(Clone, Debug, PartialEq)]
pub struct ArtifactChange {
    /// The artifact.
    pub artifact: Id<id::Artifact>,
    /// Its run.
    pub run: Id<id::Run>,
    /// Its file name.
    pub name: ContentRef,
    /// Its media type.
    pub media: String,
    /// Its length.
    pub bytes: u64,
    /// Its place among the objects.
    pub object: String,
    /// When it was kept.
    pub at_ms: u64,
}

/// What a record changes in the index.
pub fn of(at_ms: u64, principal: Id<id::Principal>, event: &Event) -> Vec<Change> {
    let told = || Change::Told { run: event.run(), kind: event.kind(), at_ms };
    match event {
        Event::Submitted(body) => {
            let (run, agent) = (body.run, body.agent.clone());
            let told = body.callback.as_ref().map(|_| Change::Announced { run, at_ms });
            std::iter::once(Change::Submitted { run, agent, principal, at_ms }).chain(told).collect()
        }
        Event::Resumed(body) => {
            let (status, waits_for, waits_until_ms) = (RunStatus::Running, None, None);
            let status = Change::Status { run: body.run, status, waits_for, waits_until_ms, at_ms };
            vec![status, Change::NotDue { run: body.run, kind: PARK.to_owned() }, told()]
        }
        Event::Parked(body) => {
            let (run, kind) = (body.run, PARK.to_owned());
            let timer = match body.until_ms {
                Some(at_ms) => Change::Due { run, kind, at_ms },
                None => Change::NotDue { run, kind },
            };
            let (status, waits_for, waits_until_ms) = (body.waits_for.status(), Some(body.waits_for), body.until_ms);
            vec![Change::Status { run, status, waits_for, waits_until_ms, at_ms }, timer, told()]
        }
        Event::InDoubt(body) => {
            let (run, status, waits_for) = (body.run, RunStatus::NeedsResolution, Some(Wait::Resolution));
            vec![Change::Status { run, status, waits_for, waits_until_ms: None, at_ms }, told()]
        }
        Event::Finished(body) => {
            let done = Change::Finished(Box::new(finish(body, at_ms)));
            vec![done, Change::NotDue { run: body.run, kind: PARK.to_owned() }, told()]
        }
        Event::ArtifactSaved(body) => vec![Change::Artifact(Box::new(artifact(body, at_ms))), told()],
        Event::Checkpointed(body) => body.snapshot.iter().map(kept).collect(),
        Event::Forked(body) => {
            let session = Change::Forked { run: body.run, agent: body.agent.clone(), principal, at_ms };
            std::iter::once(session).chain(body.checkpoint.iter().map(kept)).collect()
        }
        Event::Judged(body) => match &body.obligation {
            Some(obligation) => {
                let expires_ms = obligation.expires_ms;
                vec![Change::Held { call: body.call, run: body.run, expires_ms, at_ms }]
            }
            None if body.held => vec![Change::Unheld { call: body.call }],
            None => Vec::new(),
        },
        Event::Returned(body) if body.held => vec![Change::Unheld { call: body.call }],
        Event::Reserved(_)
        | Event::CancelRequested(_)
        | Event::PauseRequested(_)
        | Event::ResumeRequested(_)
        | Event::Steered(_)
        | Event::Voted(_)
        | Event::Resolved(_)
        | Event::Raised(_)
        | Event::Operated(_)
        | Event::WorkspaceRestored(_)
        | Event::WorkspaceLost(_)
        | Event::Deferred(_)
        | Event::ScopeOpened(_)
        | Event::CallAdded(_)
        | Event::WorkspaceChanged(_)
        | Event::SandboxOpened(_)
        | Event::SandboxClosed(_)
        | Event::Replied(_)
        | Event::Began(_)
        | Event::Returned(_) => Vec::new(),
    }
}

fn finish(body: &Finished, at_ms: u64) -> Finish {
    let Finished { run, status, turns, tool_calls, usage, cost, used_sandbox, .. } = *body;
    Finish { run, status, at_ms, turns, tool_calls, usage, cost, used_sandbox }
}

fn artifact(body: &ArtifactSaved, at_ms: u64) -> ArtifactChange {
    ArtifactChange {
        artifact: body.artifact,
        run: body.run,
        name: body.name.clone(),
        media: body.media.clone(),
        bytes: body.bytes,
        object: body.object.clone(),
        at_ms,
    }
}

fn kept(snapshot: &Snapshot) -> Change {
    Change::Checkpoint { checkpoint: snapshot.checkpoint, object: snapshot.object.clone() }
}

/// A run, as lists show it.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRow {
    /// The tenant.
    pub tenant: Arc<str>,
    /// The run.
    pub run: Id<id::Run>,
    /// Its session.
    pub session: Id<id::Session>,
    /// Its agent's name.
    pub agent: String,
    /// Who asked for it.
    pub principal: Id<id::Principal>,
    /// How it stands. [`RunStatus::Queued`] is worked out when the row is read: an earlier run of its session has not ended.
    pub status: RunStatus,
    /// What it waits for, when it waits.
    pub waits_for: Option<Wait>,
    /// When it goes on by itself, in milliseconds since the Unix epoch.
    pub waits_until_ms: Option<u64>,
    /// When it was asked for.
    pub created_ms: u64,
    /// When this row last changed.
    pub updated_ms: u64,
    /// When it ended.
    pub finished_ms: Option<u64>,
    /// Position of its `submitted`.
    pub submitted_position: u64,
    /// Position of its `finished`.
    pub finished_position: Option<u64>,
    /// Turns taken, once it ended.
    pub turns: u32,
    /// Calls made, once it ended.
    pub tool_calls: u32,
    /// Tokens used, once it ended.
    pub usage: Usage,
    /// What they cost, once it ended.
    pub cost: Cost,
    /// Whether a sandbox was used, once it ended.
    pub used_sandbox: bool,
}

/// A session, as lists show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// The tenant.
    pub tenant: Arc<str>,
    /// The session.
    pub session: Id<id::Session>,
    /// When its first run was asked for.
    pub created_ms: u64,
    /// When its last run was asked for.
    pub updated_ms: u64,
    /// Runs asked for.
    pub runs: u64,
    /// The last one.
    pub last_run: Id<id::Run>,
    /// That one's agent.
    pub agent: String,
    /// Who asked for the first.
    pub principal: Id<id::Principal>,
    /// The next position of its log.
    pub next_position: u64,
}

/// A kept file, as lists show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactRow {
    /// The artifact.
    pub artifact: Id<id::Artifact>,
    /// Its run.
    pub run: Id<id::Run>,
    /// Its session.
    pub session: Id<id::Session>,
    /// Position of its record.
    pub position: u64,
    /// Its file name.
    pub name: ContentRef,
    /// Its media type.
    pub media: String,
    /// Its length.
    pub bytes: u64,
    /// Its place among the objects.
    pub object: String,
    /// When it was kept.
    pub created_ms: u64,
}

/// A timer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueRow {
    /// The session to wake.
    pub key: crate::SessionKey,
    /// The run.
    pub run: Id<id::Run>,
    /// What for.
    pub kind: String,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}
