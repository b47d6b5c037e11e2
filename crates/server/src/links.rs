//! Links to ports: signed, expiring tokens. Whoever has one reaches the port; nobody can make one without the key.

use crate::config::LinkKey;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::{Id, id};
use ring::hmac;
use sandbox::Port;
use std::fmt;
use stdx::Clock;

/// What every token's signature begins with, so that one made for another purpose under the same key would not pass.
const PURPOSE: &[u8] = b"topside port link 1\0";
/// When it ends, the port, the sandbox.
const SIGNED_BYTES: usize = 8 + 2 + 16;
const MAC_BYTES: usize = 32;

/// What a token leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Linked {
    pub(crate) sandbox: Id<id::Sandbox>,
    pub(crate) port: Port,
}

/// Signs and opens tokens: `base64url(expiry ‖ port ‖ sandbox ‖ HMAC-SHA-256(purpose ‖ …))`.
pub(crate) struct PortLinks {
    key: hmac::Key,
    clock: Clock,
}

impl fmt::Debug for PortLinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PortLinks")
    }
}

impl PortLinks {
    pub(crate) fn new(key: &LinkKey, clock: Clock) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key.bytes()), clock }
    }

    /// A token that ends at a moment.
    pub(crate) fn sign(&self, linked: Linked, expires_ms: u64) -> String {
        let mut token = expires_ms.to_be_bytes().to_vec();
        token.extend_from_slice(&linked.port.number().to_be_bytes());
        token.extend_from_slice(linked.sandbox.as_bytes());
        token.extend_from_slice(self.mac(&token).as_ref());
        URL_SAFE_NO_PAD.encode(token)
    }

    fn mac(&self, signed: &[u8]) -> hmac::Tag {
        hmac::sign(&self.key, &[PURPOSE, signed].concat())
    }

    /// What a token leads to. Compares in constant time; says that it has ended only of one that was made here.
    pub(crate) fn open(&self, token: &str) -> Result<Linked, blob::Error> {
        const FORGED: blob::Error = blob::Error::LinkForged;
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| FORGED)?;
        if bytes.len() != SIGNED_BYTES + MAC_BYTES {
            return Err(FORGED);
        }
        let (signed, mac) = bytes.split_at(SIGNED_BYTES);
        hmac::verify(&self.key, &[PURPOSE, signed].concat(), mac).map_err(|_| FORGED)?;
        let (expires_ms, rest) = signed.split_first_chunk().ok_or(FORGED)?;
        let (port, sandbox) = rest.split_first_chunk().ok_or(FORGED)?;
        let port = Port::new(u16::from_be_bytes(*port)).ok_or(FORGED)?;
        let sandbox = Id::from_bytes(sandbox.try_into().map_err(|_| FORGED)?);
        if u64::from_be_bytes(*expires_ms) <= self.clock.wall_ms() {
            return Err(blob::Error::LinkExpired);
        }
        Ok(Linked { sandbox, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_link_opens_until_it_expires_and_never_when_forged() {
        let clock = Clock::manual(1_000);
        let links = PortLinks::new(&LinkKey::new([1; 32]), clock.clone());
        let linked = Linked { sandbox: Id::from_bytes([3; 16]), port: Port::new(8_000).unwrap() };
        let token = links.sign(linked, 1_500);
        assert_eq!(links.open(&token).unwrap(), linked);
        let raw = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for at in 0..raw.len() {
            let mut changed = raw.clone();
            changed[at] ^= 1;
            assert_eq!(links.open(&URL_SAFE_NO_PAD.encode(&changed)).unwrap_err().code(), "link_forged", "byte {at}");
        }
        let of_purpose_none = {
            let signed = &raw[..SIGNED_BYTES];
            let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]), signed);
            URL_SAFE_NO_PAD.encode([signed, mac.as_ref()].concat())
        };
        let of_files = blob::Links::new(&[1; 32], clock.clone());
        for (name, forged) in [
            ("nothing", String::new()),
            ("no base64", "!!!!".to_owned()),
            ("cut short", token[..token.len() - 4].to_owned()),
            ("padded", format!("{token}=")),
            ("far too long", "A".repeat(10_000)),
            ("another key's", PortLinks::new(&LinkKey::new([2; 32]), clock.clone()).sign(linked, 1_500)),
            ("of no purpose", of_purpose_none),
            ("of a file", of_files.sign(&"outputs/default/run_1/art_2".parse().unwrap(), "x", 500).unwrap()),
        ] {
            assert_eq!(links.open(&forged).unwrap_err().code(), "link_forged", "{name}");
        }
        assert_eq!(of_files.open(&token).unwrap_err().code(), "link_forged", "a port is no file");
        clock.advance(Duration::from_millis(499));
        assert_eq!(links.open(&token).unwrap(), linked);
        clock.advance(Duration::from_millis(1));
        assert_eq!(links.open(&token).unwrap_err().code(), "link_expired");
    }
}
