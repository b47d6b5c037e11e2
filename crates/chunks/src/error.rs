//! What can go wrong with checkpoints in chunks.

/// Why an archive could not be kept, read back or swept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The objects could not be kept or fetched.
    #[error("{0}")]
    Objects(blob::Error),
    /// What was to be kept could not be read.
    #[error("the archive could not be read: {0}")]
    Source(std::io::Error),
    /// The archive is larger than allowed.
    #[error("the archive has more than {bytes_max} bytes")]
    TooLarge {
        /// The limit.
        bytes_max: u64,
    },
    /// The archive has more chunks than a manifest holds.
    #[error("the archive has more than {chunks_max} chunks")]
    TooManyChunks {
        /// The limit.
        chunks_max: u64,
    },
    /// The tenant's key could not be had.
    #[error("the key of tenant `{tenant}`: {reason}")]
    Key {
        /// The tenant.
        tenant: String,
        /// Why.
        reason: String,
    },
    /// An object was changed, cut, put in the place of another, or sealed under another tenant's key.
    #[error("the object {object} was damaged: {what}; hint: restore it from a backup")]
    Damaged {
        /// Its key.
        object: String,
        /// What was found.
        what: &'static str,
    },
    /// An object that the manifest needs is gone.
    #[error("the object {object} is missing; hint: restore it from a backup")]
    Missing {
        /// Its key.
        object: String,
    },
    /// A manifest of another archive than the log names.
    #[error("the manifest {object} is of another archive than the log says")]
    Mismatch {
        /// Its key.
        object: String,
    },
    /// A manifest that a later version wrote.
    #[error("the manifest {object} was written by a later version; hint: use that version or a later one")]
    Newer {
        /// Its key.
        object: String,
    },
    /// An earlier checkpoint that this one shares chunks with was deleted meanwhile. Asking again stores it whole.
    #[error("the checkpoint {base}, which this one shares chunks with, was deleted meanwhile; hint: store it again")]
    BaseGone {
        /// The earlier one's manifest.
        base: String,
    },
    /// It took so long that a sweep might have taken its first chunks away.
    #[error("storing took longer than {duration_ms_max} ms")]
    TooSlow {
        /// The limit.
        duration_ms_max: u64,
    },
    /// The process is ending, or a part of the work broke off.
    #[error("the work was broken off: {0}")]
    BrokenOff(String),
}

impl Error {
    /// Stable code, with a page under `docs/errors/`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Objects(error) => error.code(),
            Self::Source(_) => "chunks_source",
            Self::TooLarge { .. } => "chunks_too_large",
            Self::TooManyChunks { .. } => "chunks_too_many",
            Self::Key { .. } => "chunks_key",
            Self::Damaged { .. } => "chunks_damaged",
            Self::Missing { .. } => "chunks_missing",
            Self::Mismatch { .. } => "chunks_mismatch",
            Self::Newer { .. } => "chunks_newer",
            Self::BaseGone { .. } => "chunks_base_gone",
            Self::TooSlow { .. } => "chunks_too_slow",
            Self::BrokenOff(_) => "chunks_broken_off",
        }
    }
}

impl From<blob::Error> for Error {
    fn from(error: blob::Error) -> Self {
        match error {
            blob::Error::Missing { key } => Self::Missing { object: key },
            error => Self::Objects(error),
        }
    }
}
