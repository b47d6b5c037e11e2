//! What can go wrong on the way out. Messages name hosts, never paths, queries or headers, which may hold secrets.

use crate::Class;
use std::net::IpAddr;

/// Why a request got no answer, or only a part of one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings make no client.
    #[error("bad network settings: {reason}")]
    Settings {
        /// What is wrong.
        reason: String,
    },
    /// The URL can't be requested.
    #[error("bad url: {reason}")]
    BadUrl {
        /// What is wrong.
        reason: String,
    },
    /// The host came from a model, an answer or a redirect, and leads where such hosts may not.
    #[error(
        "{host} leads to {address}, which is a {class} address and refused to a host that the operator did not write; \
         hint: name the network in `untrusted_networks_allowed` if it must be reached"
    )]
    AddressRefused {
        /// The host.
        host: String,
        /// The first denied address.
        address: IpAddr,
        /// Its class.
        class: Class,
    },
    /// The name has no address.
    #[error("{host} can't be resolved: {message}")]
    Resolve {
        /// The host.
        host: String,
        /// What the resolver said.
        message: String,
    },
    /// No connection.
    #[error("no connection to {host}: {message}")]
    Connect {
        /// The host.
        host: String,
        /// What the system said.
        message: String,
    },
    /// The other side could not prove who it is, or spoke no TLS.
    #[error(
        "no trusted connection to {host}: {message}; \
         hint: a private certificate authority goes into the configured CA file"
    )]
    Tls {
        /// The host.
        host: String,
        /// What is wrong.
        message: String,
    },
    /// Connecting took too long.
    #[error("no connection to {host} within {ms} ms")]
    TimeoutConnect {
        /// The host.
        host: String,
        /// The limit.
        ms: u64,
    },
    /// The answer did not begin in time.
    #[error("{host} did not begin to answer within {ms} ms")]
    TimeoutFirstByte {
        /// The host.
        host: String,
        /// The limit.
        ms: u64,
    },
    /// The answer stopped in its middle.
    #[error("{host} fell silent for {ms} ms in the middle of its answer")]
    TimeoutIdle {
        /// The host.
        host: String,
        /// The limit.
        ms: u64,
    },
    /// The answer took too long as a whole.
    #[error("{host} did not finish its answer within {ms} ms")]
    TimeoutTotal {
        /// The host.
        host: String,
        /// The limit.
        ms: u64,
    },
    /// The answer is longer than allowed.
    #[error("{host} answered with more than {bytes_max} bytes")]
    TooLarge {
        /// The host.
        host: String,
        /// The limit.
        bytes_max: u64,
    },
    /// A redirect was not followed.
    #[error("redirect from {host} refused: {reason}")]
    RedirectRefused {
        /// The host that redirected.
        host: String,
        /// Why.
        reason: String,
    },
    /// The connection broke, or what came is no HTTP.
    #[error("the connection to {host} broke: {message}")]
    Broken {
        /// The host.
        host: String,
        /// What the library said.
        message: String,
    },
}

impl Error {
    /// The stable code, with a page under `docs/errors/`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Settings { .. } => "net_settings",
            Self::BadUrl { .. } => "net_bad_url",
            Self::AddressRefused { .. } => "net_address_refused",
            Self::Resolve { .. } => "net_resolve",
            Self::Connect { .. } => "net_connect",
            Self::Tls { .. } => "net_tls",
            Self::TimeoutConnect { .. } => "net_timeout_connect",
            Self::TimeoutFirstByte { .. } => "net_timeout_first_byte",
            Self::TimeoutIdle { .. } => "net_timeout_idle",
            Self::TimeoutTotal { .. } => "net_timeout_total",
            Self::TooLarge { .. } => "net_too_large",
            Self::RedirectRefused { .. } => "net_redirect_refused",
            Self::Broken { .. } => "net_broken",
        }
    }
}
