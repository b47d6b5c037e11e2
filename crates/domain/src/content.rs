//! What a record says of content without holding it.

use crate::{Digest, Id, id};
use serde::{Deserialize, Serialize};

/// Points to a content item. The authentication code is HMAC-SHA-256 of the plain bytes under the item's own random
/// key, which is stored with the item: once the item is erased, nothing can be learnt or guessed from the code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContentRef {
    /// The item.
    pub id: Id<id::Content>,
    /// Length of the plain bytes.
    pub bytes: u64,
    /// Media type, one of [`media`] or a tool's own.
    pub media: String,
    /// HMAC-SHA-256 of the plain bytes.
    pub mac: Digest,
}

/// Media types of the contents that Topside writes.
pub mod media {
    /// Text.
    pub const TEXT: &str = "text/plain; charset=utf-8";
    /// JSON whose form belongs to a tool or a client.
    pub const JSON: &str = "application/json";
    /// A JSON array of [`crate::Item`]: one reply of a model.
    pub const ITEMS: &str = "application/vnd.topside.items+json";
    /// A JSON array of [`crate::Part`]: what a call gave the model.
    pub const PARTS: &str = "application/vnd.topside.parts+json";
    /// Bytes of no known form.
    pub const BYTES: &str = "application/octet-stream";
}
