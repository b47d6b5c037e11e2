//! The one driver: takes inputs, performs what `machine` wants, records what came of it, takes runs up again after a crash.
//! It owns concurrency, leases and timers. What deliberately does not live here: what a record means (`machine`), whether a
//! call may happen (`policy`), how a tool is done (`tools`), HTTP (`server`).

mod answer;
mod approvals;
mod ask;
mod bench;
mod counts;
mod diff;
mod dispatch;
mod driver;
mod engine;
mod error;
mod facts;
mod finish;
mod fold;
mod fork;
mod idle;
mod inputs;
mod keep;
mod kept;
mod lay;
mod live;
mod liveness;
mod operate;
mod perform;
mod places;
mod points;
mod prompt;
mod ready;
mod replay;
mod retention;
mod retry;
mod settle;
mod slot;
mod stages;
mod submit;
mod takeover;
mod tend;
mod terms;
mod totals;
mod view;
mod webhooks;
mod workspace;

pub use approvals::{ApprovalCursor, ApprovalStatus, ApprovalView, Ballot, REASON_BYTES_MAX};
pub use counts::{Counts, Halts};
pub use diff::{DIFFERENCES_MAX, Difference, Differing, SIDE_BYTES_MAX};
pub use engine::{Engine, Environment, Health, Limits, Parts};
pub use error::{Error, FilesThere};
pub use fork::{CHECKPOINTS_MAX, CheckpointView, Fork, ForkView, OUTSIDE_EFFECTS_MAX, OutsideEffect};
pub use inputs::{LimitChange, STEERS_MAX, Settlement};
pub use kept::Kept;
pub use live::{Live, LiveKind, Watch};
pub use operate::Operation;
pub use replay::Replay;
pub use retention::{Purged, SWEEP_SESSIONS_MAX};
pub use retry::BreakerView;
pub use submit::{IdempotencyKey, MESSAGE_BYTES_MAX, SessionName, Submission, Ticket};
pub use tend::Tending;
pub use view::{ArtifactView, RunView, SessionView};
pub use webhooks::{Callback, DeliveryStatus, DeliveryView};
pub use workspace::{
    FILES_DIFFERING_MAX, FileDiff, PATCHED_BYTES_MAX, PATCHES_BYTES_MAX, Patches, Restoration, RestoredView,
    WorkspaceArchive, WorkspaceDiff,
};
