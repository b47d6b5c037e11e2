//! Links to one object for a while: signed tokens for the local directory (the service answers them), presigned URLs for
//! S3-compatible storage (the storage answers them).

use crate::{Error, Key};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use std::fmt;
use stdx::Clock;

const NAME_BYTES_MAX: usize = 255;
const TOKEN_BYTES_MAX: usize = 2_048;
const MAC_BYTES: usize = 32;

/// Where an object can be fetched for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// A token that [`Links::open`] takes; the service makes a URL of it.
    Token(String),
    /// A URL of the storage itself.
    Url(String),
}

/// What a token leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    /// The object.
    pub key: Key,
    /// The file name to offer; may hold any character but control characters.
    pub name: String,
}

/// Signs and opens tokens. A token is `base64url(expiry ‖ key length ‖ key ‖ name ‖ HMAC-SHA-256)`.
pub struct Links {
    key: hmac::Key,
    clock: Clock,
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Links")
    }
}

impl Links {
    /// Links under this key. It should outlive the process, or links end with it.
    pub fn new(key: &[u8; 32], clock: Clock) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), clock }
    }

    /// A token for an object, with the file name to offer, for `lasts_ms`.
    pub fn sign(&self, object: &Key, name: &str, lasts_ms: u64) -> Result<String, Error> {
        if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(Error::KeyMalformed { reason: "a file name longer than 255 bytes or with control characters" });
        }
        let expires_ms = self.clock.wall_ms().saturating_add(lasts_ms);
        let object = object.as_str();
        let length =
            u16::try_from(object.len()).map_err(|_| Error::KeyMalformed { reason: "longer than 512 bytes" })?;
        let mut token = expires_ms.to_be_bytes().to_vec();
        token.extend_from_slice(&length.to_be_bytes());
        token.extend_from_slice(object.as_bytes());
        token.extend_from_slice(name.as_bytes());
        let mac = hmac::sign(&self.key, &token);
        token.extend_from_slice(mac.as_ref());
        Ok(URL_SAFE_NO_PAD.encode(token))
    }

    /// What a token leads to. Compares in constant time; says "expired" only of tokens that were made here.
    pub fn open(&self, token: &str) -> Result<Linked, Error> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Error::LinkForged);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Error::LinkForged)?;
        let signed_bytes = bytes.len().checked_sub(MAC_BYTES).ok_or(Error::LinkForged)?;
        let (signed, mac) = bytes.split_at(signed_bytes);
        hmac::verify(&self.key, signed, mac).map_err(|_| Error::LinkForged)?;
        let (expires_ms, rest) = signed.split_first_chunk().ok_or(Error::LinkForged)?;
        let (length, rest) = rest.split_first_chunk().ok_or(Error::LinkForged)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (object, name) = rest.split_at_checked(length).ok_or(Error::LinkForged)?;
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Error::LinkForged);
        let key = text(object)?.parse().map_err(|_| Error::LinkForged)?;
        if u64::from_be_bytes(*expires_ms) <= self.clock.wall_ms() {
            return Err(Error::LinkExpired);
        }
        Ok(Linked { key, name: text(name)?.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_link_opens_until_it_expires_and_never_when_forged() {
        let clock = Clock::manual(1_000);
        let links = Links::new(&[1; 32], clock.clone());
        let key: Key = "outputs/default/run_1/art_2".parse().unwrap();
        let token = links.sign(&key, "Bericht über alles.md", 500).unwrap();
        let linked = Linked { key: key.clone(), name: "Bericht über alles.md".to_owned() };
        assert_eq!(links.open(&token).unwrap(), linked);

        let raw = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for at in 0..raw.len() {
            let mut changed = raw.clone();
            changed[at] ^= 1;
            let refused = links.open(&URL_SAFE_NO_PAD.encode(&changed)).unwrap_err();
            assert_eq!(refused.code(), "link_forged", "byte {at}");
        }
        let shifted = [&raw[..raw.len() - 33], &raw[raw.len() - 32..]].concat();
        for (name, forged) in [
            ("nothing", String::new()),
            ("no base64", "!!!!".to_owned()),
            ("cut short", token[..token.len() - 4].to_owned()),
            ("a shorter name", URL_SAFE_NO_PAD.encode(shifted)),
            ("padded", format!("{token}=")),
            ("far too long", "A".repeat(10_000)),
            ("another key's", Links::new(&[2; 32], clock.clone()).sign(&key, "x", 500).unwrap()),
        ] {
            assert_eq!(links.open(&forged).unwrap_err().code(), "link_forged", "{name}");
        }
        clock.advance(Duration::from_millis(499));
        assert_eq!(links.open(&token).unwrap(), linked);
        clock.advance(Duration::from_millis(1));
        assert_eq!(links.open(&token).unwrap_err().code(), "link_expired");
        for name in ["a\nb".to_owned(), "x".repeat(256)] {
            assert_eq!(links.sign(&key, &name, 1).unwrap_err().code(), "blob_key_malformed");
        }
    }
}
