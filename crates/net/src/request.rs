//! What is asked of the network, and on whose word.

use bytes::Bytes;
use http::{HeaderMap, Method};
use url::Url;

/// Who wrote the target's host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The operator, in configuration: taken as written, private addresses included.
    Operator,
    /// A model's argument, an answer or a redirect: only public addresses, vetted as they are dialled.
    Untrusted,
}

/// How long the parts of an exchange may take. Connecting has its own limit in [`crate::Settings::connect_ms`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From sending to the first byte of the answer's body, connecting included.
    pub first_byte_ms: u64,
    /// Between two pieces of the body.
    pub idle_ms: u64,
    /// From sending to the last byte.
    pub total_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { first_byte_ms: 30_000, idle_ms: 30_000, total_ms: 60_000 }
    }
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The target; `http` or `https`.
    pub url: Url,
    /// Headers. Everything but a few plain ones stays behind when a redirect leads to another origin.
    pub headers: HeaderMap,
    /// The body; empty for none.
    pub body: Bytes,
    /// Who wrote the target's host.
    pub origin: Origin,
    /// Its time limits.
    pub timeouts: Timeouts,
    /// Bytes of the answer's body at most.
    pub response_bytes_max: u64,
    /// Redirects followed at most; at 0 the redirecting answer itself is given back.
    pub redirects_max: u32,
}

impl Request {
    /// A request without headers and body, with the default limits: 16 MiB, no redirects.
    pub fn new(method: Method, url: Url, origin: Origin) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            origin,
            timeouts: Timeouts::default(),
            response_bytes_max: 16 * 1024 * 1024,
            redirects_max: 0,
        }
    }
}
