//! The kinds of tools: built in, sql, command, http, function; what must hold before a call; and [`execute`], the only place where
//! a call happens. Whether it may happen is `policy`'s; when it happens, what is recorded of it, and agents as tools are `engine`'s.

mod bench;
mod execute;
mod feed;
mod functions;
mod kinds;
mod outcome;
mod output;
mod patch;
mod precondition;
mod project;
mod reason;
mod schema;
mod sql;
mod terminals;
mod toolbox;

pub use bench::{Bench, Progress};
pub use execute::execute;
pub use functions::{Context, Functions, Reply};
pub use outcome::Outcome;
pub use output::WHOLE_BYTES_MAX;
pub use precondition::{Expected, Needed, expect};
pub use reason::Reason;
pub use schema::Rejection;
pub use terminals::{TERMINALS_MAX, Terminals, calls_in};
pub use toolbox::{Error, Toolbox, nested_message};

/// Names that are taken by built-in tools, whether they are offered or not.
pub const BUILT_IN: [&str; 5] = ["apply_patch", "exec_command", "read_output", "view_image", "write_stdin"];
