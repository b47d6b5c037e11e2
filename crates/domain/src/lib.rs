//! Nouns that two rooms share, as plain data: no IO, no clock, no randomness, no vendor's JSON.
#![warn(missing_docs)]

pub mod agent;
pub mod call;
pub mod content;
pub mod contract;
pub mod digest;
pub mod failure;
pub mod id;
pub mod item;
pub mod limits;
pub mod record;
pub mod root;
pub mod status;
pub mod template;
pub mod usage;
pub mod verdict;

pub use agent::{Agent, AgentSandbox, ModelDecl, Tool, ToolRun};
pub use call::Call;
pub use content::ContentRef;
pub use contract::{Contract, Effect};
pub use digest::Digest;
pub use failure::{Failure, FailureClass};
pub use id::Id;
pub use item::{Item, Part, ToolSpec};
pub use limits::Limits;
pub use record::{Event, Record};
pub use root::Root;
pub use status::{CallStatus, RunStatus, Wait};
pub use usage::{Cost, Usage};
pub use verdict::{Hold, Judgement, Obligation, Verdict};

/// The tenant that everything belongs to until told otherwise.
pub const TENANT_DEFAULT: &str = "default";

/// The version of this program, as its records and answers name it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
