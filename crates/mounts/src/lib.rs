//! Buckets shown as read-only file systems: a small FUSE server over object storage, and the helper process that alone holds a
//! mount's credential. It raises no wall around the helper: whoever forks it hands that in. Requests come from the kernel on
//! behalf of a guest, names come from the bucket, and both are hostile: everything has a limit, every operation a deadline.
//!
//! The protocol is spoken here rather than by a library: what is needed of it is a dozen questions, and the libraries either
//! give a thread to each wait or keep names and handles without a bound.

mod blocks;
mod copy;
mod helper;
mod listings;
mod mount;
mod names;
mod nodes;
mod server;
mod wire;

pub use copy::{Object, objects};
pub use helper::{Network, Order, Storage, begin, help};
pub use mount::{Readers, device, mount};
pub use server::serve;

use serde::{Deserialize, Serialize};

/// Limits of one mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// How long one operation may take; then it fails with `ETIMEDOUT`.
    pub operation_ms_max: u64,
    /// How long names, sizes and lists are taken to hold.
    pub valid_ms: u64,
    /// Operations at once.
    pub operations_max: usize,
    /// Questions to the storage at once.
    pub fetches_max: usize,
    /// Bytes of file contents that are kept.
    pub cache_bytes_max: usize,
    /// Entries of one directory; a larger one can't be listed, but what is in it can be opened by name.
    pub directory_entries_max: usize,
    /// Entries of all lists that are kept or being read.
    pub listed_entries_max: usize,
    /// Bytes of the names of all files that the kernel remembers.
    pub names_bytes_max: usize,
    /// Files and directories open at once.
    pub handles_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            operation_ms_max: 15_000,
            valid_ms: 5_000,
            operations_max: 512,
            fetches_max: 8,
            cache_bytes_max: 32 << 20,
            directory_entries_max: 50_000,
            listed_entries_max: 100_000,
            names_bytes_max: 32 << 20,
            handles_max: 1_024,
        }
    }
}

/// Why there is no mount.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel gives no FUSE device or mount, or it broke.
    #[error("{what}: {detail}{}", if *.missing { "; hint: load the kernel module `fuse`, and let /dev/fuse be opened by whoever makes sandboxes" } else { "" })]
    Device {
        /// What was done.
        what: &'static str,
        /// What the kernel said.
        detail: String,
        /// Whether it can't be opened at all.
        missing: bool,
    },
    /// The prefix of a mount can't be shown as a directory.
    #[error("the prefix of a mount has an empty, relative or overlong component, or control characters")]
    Prefix,
    /// The bucket can't be read.
    #[error("the bucket of a mount: {detail}")]
    Bucket {
        /// The code of the refusal.
        code: String,
        /// Why.
        detail: String,
    },
    /// A bucket that is to be copied holds too much.
    #[error("the bucket is too large to be copied: entries_max = {entries_max}, bytes_max = {bytes_max}")]
    TooLarge {
        /// Files and directories at most.
        entries_max: usize,
        /// Bytes of them together at most.
        bytes_max: u64,
    },
    /// The helper broke its protocol, or ended.
    #[error("the helper of a mount: {detail}")]
    Helper {
        /// What happened.
        detail: String,
    },
}

impl Error {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Device { .. } => "mount_device",
            Self::Prefix => "mount_prefix",
            Self::Bucket { .. } => "mount_bucket",
            Self::TooLarge { .. } => "mount_too_large",
            Self::Helper { .. } => "mount_helper",
        }
    }
}
