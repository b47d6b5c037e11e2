//! HTTP: routing over `api`'s table, authentication, event streams, the offline documentation, metrics.
//! What deliberately does not live here: the contract (`api`), what a run does (`engine`), where keys and settings are read
//! (`topside`).

mod answer;
mod app;
mod approvals;
mod artifacts;
mod auth;
mod body;
mod compare;
mod config;
mod door;
mod events;
mod exec;
mod feed;
mod handlers;
mod links;
mod listen;
mod markdown;
mod metrics;
mod order;
mod pages;
mod passing;
mod ports;
mod problem;
mod query;
mod request;
mod resolve;
mod route;
mod runs;
mod sandboxes;
mod serve;
mod sessions;
mod stream;
mod tunnel;
mod wishes;
mod workspaces;

pub use config::{Config, Error, Key, KeyHash, Limits, LinkKey, Surface};
pub use listen::{Listener, MemoryConnector, memory};
pub use resolve::record as resolved;
pub use sandboxes::walls as sandbox_walls;
pub use serve::serve;
