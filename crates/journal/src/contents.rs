//! Content items: sealed before they are stored, erased by destroying their keys.
//!
//! A record never holds content; it holds a [`ContentRef`]. The item itself lies in a row of its own, or, above
//! [`INLINE_BYTES_MAX`], among the objects. Each item has a random key of its own, which authenticates it
//! (HMAC-SHA-256, in the record) and encrypts its object; the item's key (with the plain bytes when they are small) is
//! sealed under the session's data key, and that is wrapped by the tenant's key, which [`Wrap`] keeps elsewhere.
//! Destroying the row kills the item and every copy of its object; destroying the data key kills the session's contents
//! in every backup.

mod cache;
mod objects;
mod seal;

pub(crate) use cache::{DataKey, DataKeys};
pub use objects::{MemoryObjects, Objects};
pub(crate) use seal::{Form, Stored, object_key, open, open_object};
pub use seal::{SealedItem, Sealer};

use std::fmt;

/// Contents above this many plain bytes are kept among the objects.
pub const INLINE_BYTES_MAX: usize = 64 << 10;
/// Plain bytes of one item at most.
pub const CONTENT_BYTES_MAX: usize = 64 << 20;

/// What opening an item gives.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// The plain bytes, authenticated against the record.
    Bytes(Vec<u8>),
    /// The item, or its session's data key, was erased.
    Erased,
}

impl Content {
    /// The bytes, unless erased.
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Erased => None,
        }
    }
}

// Content stays out of logs.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::Erased => f.write_str("Erased"),
        }
    }
}

/// Wraps data keys with a tenant's key. Called once per session and process, not per item; may touch a local file.
pub trait Wrap: Send + Sync + fmt::Debug {
    /// Wraps a data key for a tenant; `context` is bound to it and must be the same when it is unwrapped.
    fn wrap(&self, tenant: &str, context: &[u8], data_key: &[u8; 32]) -> Result<Vec<u8>, String>;

    /// Unwraps it.
    fn unwrap(&self, tenant: &str, context: &[u8], wrapped: &[u8]) -> Result<[u8; 32], String>;
}

/// Keeps data keys as they are: for tests and for `contents: plain`, where nothing is sealed anyway.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainWrap;

impl Wrap for PlainWrap {
    fn wrap(&self, _tenant: &str, _context: &[u8], data_key: &[u8; 32]) -> Result<Vec<u8>, String> {
        Ok(data_key.to_vec())
    }

    fn unwrap(&self, _tenant: &str, _context: &[u8], wrapped: &[u8]) -> Result<[u8; 32], String> {
        wrapped.try_into().map_err(|_| "not a key of 32 bytes".to_owned())
    }
}
