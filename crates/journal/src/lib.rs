//! The append-only, hash-linked log of every session and its sealed contents, with fencing. Stores: memory,
//! SQLite, PostgreSQL.
//!
//! What deliberately does not live here: what a record means (that is `machine`), who may append (that is `engine` and
//! `policy`), where keys are kept (that is `vault`, behind [`Wrap`]) and where large objects are kept (that is `blob`,
//! behind [`Objects`]). Records are only added: there is no call that changes or drops one.

pub mod append;
pub mod backup;
pub mod claims;
pub mod contents;
mod error;
mod heads;
pub mod hints;
pub mod index;
mod journal;
mod leases;
mod link;
mod memory;
mod postgres;
pub mod query;
pub mod repair;
mod sqlite;
mod store;
pub mod upkeep;
pub mod waiting;

pub use append::{Append, Appended, Existing, Fence, Idempotency, PreparedDraft, SessionKey, Written};
pub use backup::restore;
pub use claims::{Backend, Claim, Lease, Ready, Release, Worker, WorkerSpec};
pub use contents::{Content, INLINE_BYTES_MAX, MemoryObjects, Objects, PlainWrap, SealedItem, Sealer, Wrap};
pub use error::Error;
pub use hints::{Hint, Hints};
pub use index::{ArtifactRow, Change, DueRow, RunRow, SessionRow};
pub use journal::{Claimants, Config, ContentsMode, Disk, Health, Journal, Kept, Limits, Parts, Threads, Vfs};
pub use postgres::{PostgresSettings, Statements};
pub use query::{Head, Page, RunFilter, StoredRecord, Verified};
pub use repair::repair;
pub use upkeep::{Quarantine, Tombstone};
pub use waiting::{HeldCursor, HeldRow, OutboxRow};
