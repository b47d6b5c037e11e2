//! A typed client of the service: requests, answers, event streams that resume by themselves.
//! What deliberately does not live here: the contract (`api`), the way out (`net`), anything of the engine.

mod client;
mod error;
mod events;
mod sandboxes;
mod sse;
mod transport;
mod wishes;
mod workspaces;

pub use client::{Client, PostOptions, Wait};
pub use error::Error;
pub use events::{Events, Follow};
pub use sandboxes::{Exec, ExecInput, ExecOutput, Given};
pub use wishes::Once;
pub use workspaces::Archive;
