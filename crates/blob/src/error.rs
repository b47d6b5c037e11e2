//! What can go wrong with objects and links.

use std::path::PathBuf;

/// Why an object could not be kept, fetched or linked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a key of an object.
    #[error("not an object's key: {reason}")]
    KeyMalformed {
        /// What is wrong.
        reason: &'static str,
    },
    /// The object is larger than allowed.
    #[error("the object is larger than {bytes_max} bytes")]
    TooLarge {
        /// The limit.
        bytes_max: u64,
    },
    /// There is no such object.
    #[error("there is no object {key}")]
    Missing {
        /// Its key.
        key: String,
    },
    /// The local directory can't be used.
    #[error("the object directory {path}: {error}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The storage's settings are wrong.
    #[error("the object storage's settings: {reason}")]
    Settings {
        /// What is wrong.
        reason: String,
    },
    /// The storage refused or could not be reached.
    #[error("the object storage: {0}")]
    Storage(object_store::Error),
    /// The storage answered with an error, or with what is no answer.
    #[error("the object storage answered with {answer}")]
    Answer {
        /// Its status, or what is wrong with it.
        answer: String,
        /// The status, where there was one.
        status: Option<u16>,
    },
    /// The object is not the one any more that was asked for.
    #[error("the object {key} has changed since it was looked at")]
    Changed {
        /// Its key.
        key: String,
    },
    /// What was to be stored could not be read.
    #[error("the object's bytes could not be read: {0}")]
    Source(std::io::Error),
    /// A link that was not made here, or was changed.
    #[error("not a link of this service")]
    LinkForged,
    /// A link whose time is over.
    #[error("the link has expired; hint: ask the run for its artifacts again")]
    LinkExpired,
}

impl Error {
    /// Stable code, with a page under `docs/errors/`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::KeyMalformed { .. } => "blob_key_malformed",
            Self::TooLarge { .. } => "blob_too_large",
            Self::Missing { .. } => "blob_missing",
            Self::Directory { .. } => "blob_directory",
            Self::Settings { .. } => "blob_settings",
            Self::Storage(_) => "blob_storage",
            Self::Answer { .. } => "blob_answer",
            Self::Changed { .. } => "blob_changed",
            Self::Source(_) => "blob_source",
            Self::LinkForged => "link_forged",
            Self::LinkExpired => "link_expired",
        }
    }

    /// Whether the storage knows the asker and says no.
    pub const fn is_denied(&self) -> bool {
        use object_store::Error as Storage;
        match self {
            Self::Answer { status, .. } => matches!(status, Some(401 | 403)),
            Self::Storage(error) => matches!(error, Storage::PermissionDenied { .. } | Storage::Unauthenticated { .. }),
            _ => false,
        }
    }
}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { path, .. } => Self::Missing { key: path },
            object_store::Error::Precondition { path, .. } => Self::Changed { key: path },
            error => Self::Storage(error),
        }
    }
}
