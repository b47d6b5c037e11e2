//! Objects and artifacts: a local directory or S3-compatible storage, and links through which one object can be fetched
//! for a while.
//!
//! [`Bucket`] reads a bucket that others fill, whatever its keys are.
//!
//! What deliberately does not live here: sockets (only `net` opens one), who may read an object (that is `server` and
//! `policy`), and what an object means. Objects are written once under keys that nobody guesses; nothing here relies on
//! conditional writes, which some S3-compatible servers accept and ignore.

mod blobs;
mod bucket;
mod connector;
mod error;
mod key;
mod link;
mod settings;

pub use blobs::{Blobs, Object, Stored, Stream};
pub use bucket::{Bucket, Found, LIST_KEYS_MAX, Page};
pub use error::Error;
pub use key::Key;
pub use link::{Link, Linked, Links};
pub use settings::{Addressing, S3};

/// Bytes of one object at most that is kept or fetched as a whole.
pub const OBJECT_BYTES_MAX: u64 = 1 << 30;
/// Bytes of one object at most that is kept or fetched in pieces.
pub const STREAM_BYTES_MAX: u64 = 64 << 30;
/// How long a link lasts by default.
pub const LINK_MS: u64 = 3_600_000;
