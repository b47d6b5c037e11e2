//! The HTTP contract: wire types, paths, refusals with their codes, the table of endpoints and the OpenAPI document made from it.
//! What deliberately does not live here: how a request is answered (`server`) or made (`client`).
#![warn(missing_docs)]

mod endpoint;
mod event;
mod health;
mod link;
mod list;
mod openapi;
mod problem;
mod refusal;
mod run;
mod schema;
mod scope;
mod session;
mod table;

pub use endpoint::{Access, Answer, Body, Endpoint, Method, Operation, Parameter, SchemaOf};
pub use event::{CallView, Delta, Event, FileChange, Happened, Record, RecordPage, Resync, Text};
pub use health::{Backends, Health, Ready};
pub use link::{BASE, error_page, run_path, session_path};
pub use list::{RunList, RunQuery, SessionList};
pub use openapi::openapi;
pub use problem::{PROBLEM_MEDIA, Problem};
pub use refusal::Refusal;
pub use run::{Artifact, ArtifactList, Cost, PostRun, Run, RunError, Usage};
pub use scope::{BadScope, Scope};
pub use session::Session;
pub use table::ENDPOINTS;

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
