//! Images of root file systems: what `docker save` and OCI layouts hold, verified and unpacked layer by layer, and the cache in
//! which unpacked layers are kept and shared. Nothing here mounts, starts a sandbox or raises a wall.
//!
//! Decisions, with their reasons:
//! - **Whoever made an image is hostile.** [`perform`] does all that looks into one: containers' forms, JSON, compression, tar.
//!   It is meant for a process of its own that can do nothing but read the image and write below one directory; whoever runs it
//!   raises those walls. The harness sees only its bounded [`Done`].
//! - **One owner, or several.** All files of a layer belong to one user that is nobody on the host; a sandbox is shown them as
//!   its own user's. For sandboxes with users a layer is kept once more, with the owners that it names, in ids that are nobody's
//!   either. Set-uid and set-gid bits, devices and extended attributes don't survive.
//! - **A layer is its content.** It is kept under the digest of its uncompressed archive, so images share what they have in
//!   common, however it was packed. It enters the cache whole, by one rename, or not at all.

mod archive;
mod config;
mod image;
mod layer;
mod path;
mod store;
mod tar;
mod unpack;

#[cfg(test)]
mod fixture;

pub use config::{Accounts, Config, Identity, accounts, identify};
pub use image::Layer;
pub use store::{Held, Key, Meta, Stage, Store};
pub use unpack::{Done, Image, Limits, Owners, Task, Unpacked, perform};

use sandbox::Rule;
use serde::{Deserialize, Serialize};

/// Why an image is not taken, or can't be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    /// A layer holds what no layer may.
    #[error("the image was refused at `{entry}`: {rule}")]
    Refused {
        /// Which rule it broke.
        rule: Rule,
        /// Where; control characters escaped.
        entry: String,
    },
    /// It is not in a form that is known, or its parts do not fit together.
    #[error("not a usable image: {detail}")]
    Form {
        /// What is wrong with it, and what would be right.
        detail: String,
    },
    /// A part is not what its digest says.
    #[error("{part} has the digest sha256:{found}, not sha256:{expected}; hint: save or copy the image again")]
    Digest {
        /// Which part.
        part: String,
        /// What the image says.
        expected: String,
        /// What it is.
        found: String,
    },
    /// It is larger than it may be.
    #[error("the image is too large: {limit}")]
    Limit {
        /// The limit's name, with its unit and value.
        limit: String,
    },
    /// It can't be read.
    #[error("the image can't be read: {detail}")]
    Read {
        /// What the kernel said.
        detail: String,
    },
    /// It can't be unpacked here.
    #[error("the image can't be unpacked: {detail}")]
    Unpack {
        /// Where, and what the kernel said.
        detail: String,
    },
    /// The cache can't be used.
    #[error("the cache of layers can't be used: {detail}")]
    Cache {
        /// Where, and what the kernel said.
        detail: String,
    },
}

impl Error {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "image_refused",
            Self::Form { .. } => "image_form",
            Self::Digest { .. } => "image_digest",
            Self::Limit { .. } => "image_limit",
            Self::Read { .. } => "image_read",
            Self::Unpack { .. } => "image_unpack",
            Self::Cache { .. } => "image_cache",
        }
    }

    pub(crate) fn form(detail: impl Into<String>) -> Self {
        Self::Form { detail: detail.into() }
    }

    /// What reading a blob gave: an error of this room on its way through a decoder, or the kernel's, or the decoder's own.
    pub(crate) fn of_source(error: &std::io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()) {
            Some(own) => own.clone(),
            None if error.raw_os_error().is_some() => Self::Read { detail: error.to_string() },
            None => Self::Form { detail: format!("a layer can't be decompressed: {error}") },
        }
    }
}
