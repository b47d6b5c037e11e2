//! What the operator decides about the service, as data. Who reads it from files is `topside`.

use api::{Operation, Scope};
use domain::{Digest, TENANT_DEFAULT};
use std::fmt;
use std::net::SocketAddr;

/// How the service listens, whom it lets in, and how much it does at once.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who may ask. Without keys, a loopback address serves everybody on the machine as principal `local`.
    pub keys: Vec<Key>,
    /// The tenant of principal `local`.
    pub tenant: String,
    /// Names under which the service may be asked for, besides the loopback's own; on a public address empty means any.
    pub hosts_allowed: Vec<String>,
    /// Origins of web pages that may ask (`https://console.example`), besides the service's own.
    pub origins_allowed: Vec<String>,
    /// The service's address as clients see it (`https://topside.example`), for links; else taken from each request.
    pub public_url: Option<String>,
    /// Signs links to ports in sandboxes; without it there are none. Of its own purpose, and it should outlive the process.
    pub link_key: Option<LinkKey>,
    /// What it answers.
    pub surface: Surface,
    /// Its limits.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            tenant: TENANT_DEFAULT.to_owned(),
            hosts_allowed: Vec::new(),
            origins_allowed: Vec::new(),
            public_url: None,
            link_key: None,
            surface: Surface::default(),
            limits: Limits::default(),
        }
    }
}

/// A key that signs links.
#[derive(Clone)]
pub struct LinkKey([u8; 32]);

impl LinkKey {
    /// The key of these bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkKey")
    }
}

/// What a service answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Surface {
    /// The whole contract.
    #[default]
    Whole,
    /// `/healthz`, `/readyz` and `/metrics`: a worker says how it does, and takes no requests for runs.
    Upkeep,
}

impl Surface {
    /// Whether it has this.
    pub(crate) const fn has(self, operation: Operation) -> bool {
        match self {
            Self::Whole => true,
            Self::Upkeep => matches!(operation, Operation::Live | Operation::Ready | Operation::Metrics),
        }
    }
}

/// The service's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's body.
    pub request_bytes_max: usize,
    /// How long a request's headers may take to arrive, and a connection may lie idle.
    pub headers_ms_max: u64,
    /// How long its body may take.
    pub body_ms_max: u64,
    /// How long `POST /runs` waits for a run's end.
    pub wait_seconds_max: u64,
    /// Open connections.
    pub connections_max: usize,
    /// Requests under way, event streams apart.
    pub requests_at_once_max: usize,
    /// Event streams.
    pub streams_at_once_max: usize,
    /// Requests to ports in sandboxes and commands of operators in them.
    pub tunnels_at_once_max: usize,
    /// Requests of one principal in a second; `None`: no limit.
    pub requests_per_second_max: Option<u32>,
    /// Silence after which a stream says that it lives.
    pub heartbeat_ms: u64,
    /// How long requests may take to end once the service shuts down.
    pub drain_ms_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes_max: api::REQUEST_BYTES_MAX,
            headers_ms_max: 30_000,
            body_ms_max: 30_000,
            wait_seconds_max: 120,
            connections_max: 8_192,
            requests_at_once_max: 4_096,
            streams_at_once_max: 1_024,
            tunnels_at_once_max: 512,
            requests_per_second_max: None,
            heartbeat_ms: 15_000,
            drain_ms_max: 10_000,
        }
    }
}

/// A key as `keys.yaml` declares it. The key itself is nowhere; only its hash is.
#[derive(Clone, Debug)]
pub struct Key {
    /// Whose it is.
    pub principal: String,
    /// The tenant in which it opens anything.
    pub tenant: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// The hash that its bearer's key must have.
    pub hash: KeyHash,
}

/// The hash of a key. Keys are long and random, so a fast hash is enough.
#[derive(Clone, PartialEq, Eq)]
pub enum KeyHash {
    /// SHA-256(key).
    Sha256(Digest),
    /// SHA-256(salt ‖ key).
    Salted {
        /// The salt.
        salt: Vec<u8>,
        /// The hash.
        digest: Digest,
    },
}

// A hash of a weak key is worth stealing; it stays out of logs.
impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash")
    }
}

/// Why the service does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A public address without keys.
    #[error(
        "{address} can be reached from other machines and no keys are declared; hint: declare keys in keys.yaml, or listen on 127.0.0.1"
    )]
    PublicWithoutKeys {
        /// The address.
        address: SocketAddr,
    },
    /// A key that can't be meant.
    #[error("the key of `{principal}` can't be used: {reason}")]
    KeyUnusable {
        /// Whose it is.
        principal: String,
        /// Why not.
        reason: &'static str,
    },
    /// The listener failed.
    #[error("the service can't listen: {0}")]
    Listen(#[from] std::io::Error),
}

impl Error {
    /// Stable code, with a page under `docs/errors/`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::PublicWithoutKeys { .. } => "public_without_keys",
            Self::KeyUnusable { .. } => "key_unusable",
            Self::Listen(_) => "listen_failed",
        }
    }
}

impl Config {
    /// Whether this configuration may serve on `address`.
    ///
    /// # Errors
    /// [`Error::PublicWithoutKeys`] and [`Error::KeyUnusable`].
    pub fn check(&self, address: SocketAddr) -> Result<(), Error> {
        self.check_keys()?;
        if self.keys.is_empty() && !address.ip().to_canonical().is_loopback() {
            return Err(Error::PublicWithoutKeys { address });
        }
        Ok(())
    }

    pub(crate) fn check_keys(&self) -> Result<(), Error> {
        for (at, key) in self.keys.iter().enumerate() {
            let unusable = |reason| Err(Error::KeyUnusable { principal: key.principal.clone(), reason });
            if key.principal.is_empty() || key.tenant.is_empty() {
                return unusable("it names no principal or no tenant");
            }
            if key.scopes.is_empty() {
                return unusable(
                    "it has no scope; expected runs:read, runs:write, approvals:write, metrics:read or admin",
                );
            }
            if self.keys[..at].iter().any(|other| other.hash == key.hash) {
                return unusable("another entry has the same hash");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(principal: &str, scopes: &[Scope]) -> Key {
        let hash = KeyHash::Sha256(Digest::of(b"k"));
        Key { principal: principal.into(), tenant: "default".into(), scopes: scopes.to_vec(), hash }
    }

    #[test]
    fn a_public_address_needs_keys_that_can_be_used() {
        let good = key("alice", &[Scope::Admin]);
        for (address, keys, expected) in [
            ("127.0.0.1:8787", vec![], "ok"),
            ("[::1]:8787", vec![], "ok"),
            ("[::ffff:127.0.0.1]:8787", vec![], "ok"),
            ("0.0.0.0:8787", vec![], "public_without_keys"),
            ("[::]:8787", vec![], "public_without_keys"),
            ("192.168.1.2:8787", vec![], "public_without_keys"),
            ("0.0.0.0:8787", vec![good.clone()], "ok"),
            ("0.0.0.0:8787", vec![good.clone(), good.clone()], "key_unusable"),
            ("127.0.0.1:8787", vec![key("", &[Scope::Admin])], "key_unusable"),
            ("127.0.0.1:8787", vec![key("bob", &[])], "key_unusable"),
        ] {
            let config = Config { keys, ..Config::default() };
            let got = config.check(address.parse().unwrap()).map_or_else(|error| error.code(), |()| "ok");
            assert_eq!(got, expected, "{address}");
        }
    }
}
