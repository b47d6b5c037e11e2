//! The one driver: takes inputs, performs what `machine` wants, records what came of it, takes runs up again after a crash.
//! It owns concurrency, leases and timers. What deliberately does not live here: what a record means (`machine`), whether a
//! call may happen (`policy`), how a tool is done (`tools`), HTTP (`server`).

mod answer;
mod ask;
mod bench;
mod counts;
mod dispatch;
mod driver;
mod engine;
mod error;
mod facts;
mod finish;
mod fold;
mod keep;
mod live;
mod perform;
mod places;
mod points;
mod prompt;
mod ready;
mod retry;
mod settle;
mod submit;
mod tend;
mod view;

pub use counts::Counts;
pub use engine::{Engine, Environment, Health, Limits, Parts};
pub use error::Error;
pub use live::{Live, LiveKind, Watch};
pub use retry::{Breaker, Retries, Retry};
pub use submit::{IdempotencyKey, MESSAGE_BYTES_MAX, SessionName, Submission, Ticket};
pub use tend::Tending;
pub use view::{ArtifactView, RunView, SessionView};
