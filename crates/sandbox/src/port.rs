//! Ports inside a sandbox, and the bounds of connections to them. No socket outside leads to one: bytes go over the guest's wire.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;
use tokio::io::{AsyncRead, AsyncWrite};

/// Connections into one sandbox at once.
pub const CONNECTIONS_MAX: usize = 32;
/// How long a program inside may take to take a connection.
pub const CONNECT_MS_MAX: u64 = 5_000;
/// How long a connection may be silent in both directions.
pub const IDLE_MS_MAX: u64 = 600_000;

/// A TCP port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Port(NonZeroU16);

impl Port {
    /// The port of this number; `None` for 0, which is none.
    pub const fn new(number: u16) -> Option<Self> {
        match NonZeroU16::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Its number.
    pub const fn number(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Port {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A stream of bytes in both directions. Dropping it closes the connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + fmt::Debug {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + fmt::Debug> Duplex for T {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_a_number_that_is_not_0() {
        assert_eq!("8000".parse::<Port>().unwrap().number(), 8_000);
        for text in ["0", "65536", "-1", "", "8 0"] {
            assert!(text.parse::<Port>().is_err(), "{text}");
        }
        assert!(serde_json::from_str::<Port>("0").is_err());
    }
}
