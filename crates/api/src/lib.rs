//! The HTTP contract: wire types, paths, refusals with their codes, the table of endpoints and the OpenAPI document made from it.
//! What deliberately does not live here: how a request is answered (`server`) or made (`client`).
#![warn(missing_docs)]

mod approval;
mod compare;
mod endpoint;
mod event;
mod fork;
mod happened;
mod health;
mod link;
mod list;
mod openapi;
mod problem;
mod refusal;
mod run;
mod sandbox;
mod schema;
mod scope;
mod session;
mod table;
mod upkeep;
mod wish;
mod workspace;

pub use approval::{Approval, ApprovalList, ApprovalStatus, PostApproval};
pub use compare::{Diff, Difference, Replay, ReplayDifference};
pub use endpoint::{Access, Answer, Body, Endpoint, Method, Operation, Parameter, Request, SchemaOf};
pub use event::{Delta, Event, Record, RecordPage, Resync};
pub use fork::{Checkpoint, CheckpointList, Fork, ForkSession, OutsideEffect};
pub use happened::{CallView, FileChange, Happened, Obligation, Text};
pub use health::{Backends, Health, Ready};
pub use link::{BASE, approval_path, error_page, run_path, sandbox_path, session_path};
pub use list::{RunList, RunQuery, SessionList};
pub use openapi::openapi;
pub use problem::{PROBLEM_MEDIA, Problem};
pub use refusal::Refusal;
pub use run::{Artifact, ArtifactList, Callback, Cost, LimitChange, Limits, PostRun, Run, RunError, Usage};
pub use sandbox::{
    EXEC_DATA_BYTES_MAX, EXEC_MESSAGE_BYTES_MAX, EXEC_STDERR, EXEC_STDOUT, ExecExit, ExecSays, ExecSize, ExecStart,
    ExecTold, LinkPort, PORT_LINK_SECONDS_DEFAULT, PORT_LINK_SECONDS_MAX, PortLink, Sandbox, SandboxAbout,
    SandboxCommand, SandboxDetail, SandboxEnd, SandboxEnded, SandboxLimits, SandboxList, SandboxShown, SandboxStage,
    SandboxStart, SandboxStatus, SandboxUsage, SandboxWall,
};
pub use scope::{BadScope, Scope};
pub use session::Session;
pub use table::ENDPOINTS;
pub use upkeep::{Delivery, DeliveryList, DeliveryStatus, Purged, Quarantine};
pub use wish::{CancelRun, Outcome, QuarantineSession, ResolveCall, Steer, SteerRun};
pub use workspace::{FileDiff, FileState, RestoreWorkspace, RestoredWorkspace, WORKSPACE_MEDIA, WorkspaceDiff};

/// Rows in one page of a list at most.
pub const LIST_ROWS_MAX: usize = 200;
/// Rows in one page of a list when the client does not say.
pub const LIST_ROWS_DEFAULT: usize = 50;
/// Bytes of a request's body at most.
pub const REQUEST_BYTES_MAX: usize = 2 << 20;
/// Bytes of an `Idempotency-Key` at most.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Bytes of one text in an event at most; the rest is cut and the event says so.
pub const EVENT_TEXT_BYTES_MAX: usize = 64 << 10;
