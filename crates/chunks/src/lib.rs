//! Checkpoints as content-defined chunks: a stream of archive bytes goes in, a small manifest stands for it, and exactly the
//! same bytes come out.
//!
//! An archive is cut where its files begin and end and where its content says so ([`cut`](self)'s rules), so that two archives of
//! nearly the same files share nearly all chunks. A chunk is named by the keyed hash of its bytes under a key of the tenant,
//! compressed, sealed, and put into a pack with others; the manifest lists chunks with their places. A chunk that an earlier
//! manifest has is not stored again.
//!
//! | object | key |
//! |---|---|
//! | manifest | given by the caller, `checkpoints/TENANT/…` ending in [`MANIFEST_SUFFIX`] |
//! | pack | `packs/TENANT/RANDOM` |
//!
//! Packs are durable before the manifest that needs them, and the manifest before the caller records it: a crash leaves only
//! what no manifest names, and [`Chunks::sweep`] takes that away. What deliberately does not live here: what an archive means
//! (the guest writes and reads it), where a tenant's key is kept ([`TenantKeys`]), and when anything is stored or swept.
#![warn(missing_docs)]

mod compute;
mod cut;
mod error;
mod form;
mod get;
mod keys;
mod pack;
mod put;
mod store;
mod sweep;

pub use error::Error;
pub use get::{Archive, Described};
pub use put::Stored;
pub use sweep::Swept;

use blob::Blobs;
use std::fmt;
use std::sync::Arc;
use stdx::{Clock, Random};
use store::Known;

/// Bytes of a chunk at least (but for the last of a stretch), on average and at most.
pub const CHUNK_BYTES_MIN: usize = 16 << 10;
/// See [`CHUNK_BYTES_MIN`].
pub const CHUNK_BYTES_AVERAGE: usize = 64 << 10;
/// See [`CHUNK_BYTES_MIN`].
pub const CHUNK_BYTES_MAX: usize = 256 << 10;
/// Chunks of one archive at most.
pub const CHUNKS_MAX: u64 = 1 << 20;
/// Bytes of a manifest at most.
pub const MANIFEST_BYTES_MAX: u64 = 8 << 20;
/// What a manifest's key ends with: what lies beside it among the objects is none.
pub const MANIFEST_SUFFIX: &str = ".chunks";
/// How long storing one archive may take. Below [`Config::grace_ms`] by far: a sweep must not meet its packs without it.
pub const PUT_MS_MAX: u64 = 1_800_000;

/// Gives each tenant's key for checkpoints: 32 bytes that are the same after every restart. Without them nothing opens.
pub trait TenantKeys: Send + Sync + fmt::Debug {
    /// The tenant's key.
    ///
    /// # Errors
    /// Why there is none.
    fn key(&self, tenant: &str) -> Result<[u8; 32], String>;
}

/// One key for every tenant: for tests and simulations. Nothing tells one tenant's objects from another's but their names.
#[derive(Clone, Copy)]
pub struct SameKey(pub [u8; 32]);

impl fmt::Debug for SameKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SameKey")
    }
}

impl TenantKeys for SameKey {
    fn key(&self, _tenant: &str) -> Result<[u8; 32], String> {
        Ok(self.0)
    }
}

/// What the store is made of.
#[derive(Debug)]
pub struct Parts {
    /// Where the objects lie.
    pub blobs: Blobs,
    /// Gives the tenants' keys.
    pub keys: Arc<dyn TenantKeys>,
    /// Reads time.
    pub clock: Clock,
    /// Names packs.
    pub random: Random,
}

/// Where chunks are compressed and sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Threads {
    /// On the runtime's threads for blocking work.
    #[default]
    Blocking,
    /// In the task itself: for simulations that must come out the same each time.
    Inline,
}

/// How the store behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a sweep leaves what nothing needs any more; at least twice [`PUT_MS_MAX`] where others store meanwhile.
    pub grace_ms: u64,
    /// A pack that holds so many bytes is stored.
    pub pack_bytes: usize,
    /// Chunks of earlier manifests that are remembered, over all manifests.
    pub known_chunks_max: usize,
    /// Where the work is done.
    pub threads: Threads,
}

impl Default for Config {
    fn default() -> Self {
        let (grace_ms, pack_bytes, known_chunks_max) = (2 * PUT_MS_MAX, 8 << 20, 1 << 16);
        Self { grace_ms, pack_bytes, known_chunks_max, threads: Threads::Blocking }
    }
}

/// The store. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Chunks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Parts,
    config: Config,
    known: Known,
    sweeper: tokio::sync::Mutex<sweep::Sweeper>,
}

impl Chunks {
    /// A store over these objects.
    pub fn new(parts: Parts, config: Config) -> Self {
        let known = Known::new(config.known_chunks_max);
        Self(Arc::new(Inner { parts, config, known, sweeper: tokio::sync::Mutex::default() }))
    }
}
