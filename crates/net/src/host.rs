//! One spelling for every host: lower case, no trailing dot, numbers in any of their forms read as the address they mean.
//! Whether the host may be dialled is judged elsewhere.

use std::fmt;
use std::net::IpAddr;
use url::{Host, Url};

/// A host in its one spelling.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Canonical {
    /// A name, lower case, ASCII (IDNA), without trailing dot.
    Name(String),
    /// An address.
    Address(IpAddr),
}

impl fmt::Display for Canonical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// A text that is no host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no host: {reason}")]
pub struct BadHost {
    /// The text, cut to 100 characters.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The one spelling of `text`, read as the WHATWG URL standard reads a host: `0x7f.1`, `2130706433`, `017700000001` and
/// `127.0.0.1.` are all `127.0.0.1`. IPv6 addresses stand in brackets.
pub fn canonical(text: &str) -> Result<Canonical, BadHost> {
    let bad = |reason: String| BadHost { text: text.chars().take(100).collect(), reason };
    match Host::parse(text).map_err(|error| bad(error.to_string()))? {
        Host::Ipv4(address) => Ok(Canonical::Address(IpAddr::V4(address))),
        Host::Ipv6(address) => Ok(Canonical::Address(IpAddr::V6(address))),
        Host::Domain(name) => name_of(&name).map(Canonical::Name).ok_or_else(|| bad("empty label".into())),
    }
}

/// The canonical host of an http or https URL; `None` when it has none.
pub(crate) fn of_url(url: &Url) -> Option<Canonical> {
    match url.host()? {
        Host::Ipv4(address) => Some(Canonical::Address(IpAddr::V4(address))),
        Host::Ipv6(address) => Some(Canonical::Address(IpAddr::V6(address))),
        Host::Domain(name) => name_of(name).map(Canonical::Name),
    }
}

fn name_of(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    (name.len() <= 253 && name.split('.').all(|label| !label.is_empty())).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_host_becomes_one() {
        for (text, expected) in [
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("EXAMPLE.com%2e", "example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1.", "127.0.0.1"),
            ("127.1", "127.0.0.1"),
            ("2130706433", "127.0.0.1"),
            ("0x7f000001", "127.0.0.1"),
            ("0x7f.0.0.1", "127.0.0.1"),
            ("017700000001", "127.0.0.1"),
            ("0177.0.0.01", "127.0.0.1"),
            ("0", "0.0.0.0"),
            ("127。0。0。1", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[0:0:0:0:0:ffff:7f00:1]", "[::ffff:127.0.0.1]"),
            ("[FE80::1]", "[fe80::1]"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(canonical(text).unwrap().to_string(), expected, "{text}");
        }
        for text in
            ["", ".", "a..b", "256.1.1.1", "1.2.3.4.5", "[::1", "a b", "a@b", "[fe80::1%25eth0]", "0xffffffffff"]
        {
            assert!(canonical(text).is_err(), "{text} was taken");
        }
    }
}
