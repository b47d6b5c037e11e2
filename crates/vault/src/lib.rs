//! Where secrets are kept and leased, and what is taken out before anything leaves.
//!
//! [`Keys`] holds the tenants' keys in files of their own, apart from the database, and wraps data keys with them.
//! [`Secrets`] leases named values; [`Redactor`] takes every leased value, in the forms it is likely to appear in, out of
//! text and bytes. What deliberately does not live here: who may lease what (`policy`), and what is sealed with a data
//! key (`journal`).

mod keys;
mod redact;
mod secrets;

pub use keys::Keys;
pub use redact::{REDACT_BYTES_MIN, Redactor, Stream};
pub use secrets::{Secret, Secrets};

use std::path::PathBuf;

/// Why a key or a secret could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key file could not be read or made.
    #[error("the key file {path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A key file does not hold 32 bytes.
    #[error(
        "the key file {path} holds {bytes} bytes, not 32; hint: restore it from a backup, nothing else opens what it sealed"
    )]
    KeyMalformed {
        /// The file.
        path: PathBuf,
        /// What it holds.
        bytes: u64,
    },
    /// A key file, or its directory, is open to others.
    #[error("{path} has mode {mode:o}; hint: chmod go= {path}")]
    KeyExposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A tenant's name can't name a file.
    #[error("not a tenant's name: {tenant:?}; hint: 1 to 64 letters, digits, `-` and `_`")]
    TenantMalformed {
        /// The name.
        tenant: String,
    },
    /// The tenant has no key: everything sealed under it is lost.
    #[error("the key file {path} is missing; hint: restore it from a backup, nothing else opens what it sealed")]
    KeyMissing {
        /// The file.
        path: PathBuf,
    },
    /// A wrapped key does not open with the tenant's key, or was wrapped for something else.
    #[error(
        "the wrapped key does not open with the key of tenant `{tenant}`; hint: database and keys must come from one backup"
    )]
    Unwrap {
        /// The tenant.
        tenant: String,
    },
}

impl Error {
    /// Stable code, with a page under `docs/errors/`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "vault_io",
            Self::KeyMalformed { .. } => "vault_key_malformed",
            Self::KeyExposed { .. } => "vault_key_exposed",
            Self::TenantMalformed { .. } => "vault_tenant_malformed",
            Self::KeyMissing { .. } => "vault_key_missing",
            Self::Unwrap { .. } => "vault_unwrap",
        }
    }
}
