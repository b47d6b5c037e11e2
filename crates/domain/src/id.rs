//! Typed ids that print their kind: `run_0198…`. Sixteen bytes: 48 bits of milliseconds, then randomness, so that
//! ids of one kind sort by the time they were made.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::str::FromStr;

/// What an id names; gives it its prefix.
pub trait Kind {
    /// Written before the underscore.
    const PREFIX: &'static str;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {}
        impl Kind for $name { const PREFIX: &'static str = $prefix; }
    )*};
}

kinds! {
    /// A session: one log, one run at a time.
    Session = "ses";
    /// A run: from one input to one end.
    Run = "run";
    /// One tool call of a run.
    Call = "call";
    /// A live sandbox.
    Sandbox = "sbx";
    /// A file that a run left behind.
    Artifact = "art";
    /// The files of a workspace at the end of a turn.
    Checkpoint = "chk";
    /// A content item of a session.
    Content = "con";
    /// Who asks.
    Principal = "prn";
}

/// An id of kind `K`.
pub struct Id<K>([u8; 16], PhantomData<fn() -> K>);

impl<K: Kind> Id<K> {
    /// An id made at `at_ms` with the given randomness.
    pub fn new(at_ms: u64, random: [u8; 10]) -> Self {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&at_ms.to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&random);
        Self(bytes, PhantomData)
    }

    /// An id with these very bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes, PhantomData)
    }

    /// The id that a name of the client's choosing always leads to within its tenant: the first 16 bytes of
    /// SHA-256 over kind, tenant and name, each closed by a zero byte. The name itself is not in it.
    pub fn from_name(tenant: &str, name: &str) -> Self {
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        for part in [K::PREFIX, tenant, name] {
            hash.update(part.as_bytes());
            hash.update(&[0]);
        }
        let digest = hash.finish();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest.as_ref()[..16]);
        Self(bytes, PhantomData)
    }

    /// The sixteen bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> Copy for Id<K> {}
impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<K> Eq for Id<K> {}
impl<K> PartialOrd for Id<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Id<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}
impl<K> Hash for Id<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<K: Kind> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut hex = [0; 32];
        // The buffer is exactly twice the id, so this cannot fail.
        let _ = hex::encode_to_slice(self.0, &mut hex);
        write!(f, "{}_{}", K::PREFIX, std::str::from_utf8(&hex).unwrap_or_default())
    }
}

impl<K: Kind> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no id of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id of kind `{prefix}`: expected {prefix}_ and 32 hexadecimal digits")]
pub struct BadId {
    /// The kind's prefix.
    pub prefix: &'static str,
}

impl<K: Kind> FromStr for Id<K> {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = BadId { prefix: K::PREFIX };
        let Some(hex) = text.strip_prefix(K::PREFIX).and_then(|rest| rest.strip_prefix('_')) else {
            return Err(bad);
        };
        if hex.len() != 32 || hex.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(bad);
        }
        let mut bytes = [0; 16];
        hex::decode_to_slice(hex, &mut bytes).map_err(|_| bad)?;
        Ok(Self(bytes, PhantomData))
    }
}

impl<K: Kind> Serialize for Id<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, K: Kind> Deserialize<'de> for Id<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_prints_its_kind_and_reads_back() {
        let id = Id::<Run>::new(0x0198_0000_0001, [7; 10]);
        let text = id.to_string();
        assert_eq!(text, "run_01980000000107070707070707070707");
        assert_eq!(text.parse::<Id<Run>>(), Ok(id));
        for wrong in ["", "run_", "ses_01980000000107070707070707070707", &text[..35], &text.to_uppercase()] {
            assert!(wrong.parse::<Id<Run>>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_leads_to_one_session_of_its_tenant() {
        let id = Id::<Session>::from_name("default", "alice");
        assert_eq!(id, Id::from_name("default", "alice"));
        assert_ne!(id, Id::from_name("other", "alice"));
        assert_ne!(id, Id::from_name("default", "alicf"));
    }
}
