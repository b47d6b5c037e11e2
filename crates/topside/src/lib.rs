//! Topside as a library: a project and a data directory become a running service inside this process, with Rust functions
//! as tools. What deliberately does not live here: the command line (`main.rs` and what it names) and anything that
//! another room does already; this one only joins them.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
//! # let project = tempfile::tempdir()?;
//! # for (name, text) in [
//! #     ("topside.yaml", "default_agent: clerk\n"),
//! #     ("agents/clerk.md", "---\nmodel: main\ntools: [add]\n---\nYou add numbers.\n"),
//! #     ("models/main.yaml", "main: {provider: script, transcript: sum.yaml}\n"),
//! #     ("tools/add.yaml", "description: Adds.\ninput_schema: {type: object, properties: {a: {type: integer}, b: {type: integer}}, required: [a, b]}\neffect: read\nrun: {function: {}}\n"),
//! #     ("sum.yaml", "title: sum\nsteps:\n- reply:\n  - call: {id: c1, tool: add, arguments: {a: 2, b: 3}}\n- expect: {outputs: {c1: '(?<sum>\\d+)'}}\n  reply:\n  - text: 'The sum is ${sum}.'\n"),
//! # ] {
//! #     let file = project.path().join(name);
//! #     std::fs::create_dir_all(file.parent().ok_or("no parent")?)?;
//! #     std::fs::write(file, text)?;
//! # }
//! # let project = project.path();
//! // A tool of kind `function`, declared in `tools/add.yaml`, is this closure.
//! let app = topside::Builder::new(project)
//!     .function("add", |arguments, _context| async move {
//!         let number = |name: &str| arguments[name].as_i64().ok_or(format!("`{name}` is no number"));
//!         Ok::<_, String>((number("a")? + number("b")?).to_string())
//!     })
//!     .start()
//!     .await?;
//! let run = app.run("clerk", "What is 2 + 3?").await?;
//! assert_eq!(run.reply.as_deref(), Some("The sum is 5."));
//! app.close(std::time::Duration::from_secs(5)).await?;
//! # Ok(()) })
//! # }
//! ```
#![warn(missing_docs)]

mod adapters;
mod app;
mod builder;
mod data;
mod environment;
mod error;
mod keys;
mod provider;
mod secrets;
mod settings;
mod yaml;

pub use app::App;
pub use builder::{Builder, Drives, network, read_journal};
pub use data::{DATA_DIRECTORY, Data};
pub use environment::Environment;
pub use error::Error;
pub use keys::{NewKey, new_key};

pub use engine::Engine;
pub use jail::{Launcher, launch};
pub use tools::{Context, Reply};
