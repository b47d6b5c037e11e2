//! A folder of declarations becomes validated closures with digests, and is read again when it changes. What a
//! declaration means at run time is not known here: models, tools and sandboxes are opened by others.

mod agents;
mod catalog;
mod closure;
mod contracts;
mod folder;
mod front;
mod kinds;
mod link;
mod live;
mod load;
mod manifests;
mod models;
mod named;
mod problem;
mod project;
mod query;
mod reference;
mod report;
mod roots;
mod schema;
mod settings;
mod shape;
mod tools;
mod urls;
mod yaml;

pub use catalog::{Catalog, NoAgent, Part, SwitchedOff};
pub use closure::{BadClosure, CLOSURE_BYTES_MAX, Closure, NESTED_DEPTH_MAX};
pub use kinds::Kind;
pub use live::{Live, Look, Variables};
pub use problem::{PROBLEMS_MAX, Problem, Problems, Rule};
pub use reference::reference;
pub use schema::schema;
pub use settings::{
    Breaker, Concurrency, Contents, Database, LEASE_SECONDS_DEFAULT, RETRY_DEPENDENCY, RETRY_MODEL, RETRY_SANDBOX,
    Retention, Retries, SandboxSettings, Settings, WEBHOOK_EVENTS_DEFAULT, Webhook, Worker,
};
