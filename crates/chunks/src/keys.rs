//! A tenant's keys for chunks, and how what is stored is sealed and opened.
//!
//! Everything derives from one key of the tenant by BLAKE3's key derivation, one key for each use. A piece's id is the keyed
//! hash of its plain bytes: within a tenant the same bytes have the same id, and nobody without the key can tell or guess
//! what an id stands for. A piece is sealed by AES-256-GCM under a key of its own, derived from its id, with kind, id and
//! tenant as associated data. The nonce is a keyed hash of what is sealed: one key meets several texts only when the same
//! plain bytes were compressed in another way, and then the nonces differ. AES-GCM does not commit to its key; the id, which is
//! worked out again over what was opened, does.

use crate::{CHUNK_BYTES_MAX, Error};
use bytes::Bytes;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use std::fmt;
use zeroize::Zeroize;

const KEY_BYTES: usize = 32;
pub(crate) const ID_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
/// Nonce, the byte that says how the rest is compressed, tag.
pub(crate) const SEAL_BYTES: usize = NONCE_LEN + 1 + TAG_BYTES;
/// The level of zstd: about the speed of the hashes beside it.
const LEVEL: i32 = 3;
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// The keyed hash of a piece's plain bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id(pub(crate) [u8; ID_BYTES]);

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// What a piece is: no piece of one kind opens as one of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Bytes of an archive.
    Chunk,
    /// A stretch of a manifest's list.
    Segment,
    /// What lies where in a pack.
    Index,
    /// A manifest.
    Manifest,
}

impl Kind {
    /// As it is sealed; for ever.
    const fn number(self) -> u8 {
        match self {
            Self::Chunk => 1,
            Self::Segment => 2,
            Self::Index => 3,
            Self::Manifest => 4,
        }
    }
}

/// A tenant's keys.
pub(crate) struct Keys {
    tenant: Box<str>,
    id: [u8; KEY_BYTES],
    seal: [u8; KEY_BYTES],
    nonce: [u8; KEY_BYTES],
    cut: [u8; KEY_BYTES],
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        for key in [&mut self.id, &mut self.seal, &mut self.nonce, &mut self.cut] {
            key.zeroize();
        }
    }
}

impl Keys {
    pub(crate) fn new(tenant: &str, mut tenant_key: [u8; KEY_BYTES]) -> Self {
        let derive = |context| blake3::derive_key(context, &tenant_key);
        let keys = Self {
            tenant: tenant.into(),
            id: derive("topside checkpoints 1 ids"),
            seal: derive("topside checkpoints 1 seals"),
            nonce: derive("topside checkpoints 1 nonces"),
            cut: derive("topside checkpoints 1 cuts"),
        };
        tenant_key.zeroize();
        keys
    }

    pub(crate) fn tenant(&self) -> &str {
        &self.tenant
    }

    /// What decides where archives are cut: others can't foretell it.
    pub(crate) const fn cut(&self) -> &[u8; KEY_BYTES] {
        &self.cut
    }

    pub(crate) fn id(&self, kind: Kind, plain: &[u8]) -> Id {
        // The kind stands last: before the bytes it would shift all of them out of the hash's stride.
        Id(*keyed(&self.id, &[plain, &[kind.number()]]).as_bytes())
    }

    fn cipher(&self, kind: Kind, id: Id) -> Option<LessSafeKey> {
        let mut key = *keyed(&self.seal, &[&id.0, &[kind.number()]]).as_bytes();
        let cipher = UnboundKey::new(&AES_256_GCM, &key).ok().map(LessSafeKey::new);
        key.zeroize();
        cipher
    }

    fn bound(&self, kind: Kind, id: Id) -> Vec<u8> {
        [b"topside checkpoint 1\0", &[kind.number()][..], &id.0, self.tenant.as_bytes()].concat()
    }

    /// Compresses a piece where that helps, and seals it: nonce ‖ AES-256-GCM(how ‖ bytes).
    pub(crate) fn seal(&self, press: &mut Press, kind: Kind, id: Id, plain: &[u8]) -> Result<Vec<u8>, Error> {
        let refused = || Error::Key { tenant: self.tenant.to_string(), reason: "the cipher refused the key".into() };
        let mut out = press.frame(plain);
        let nonce = keyed(&self.nonce, &[&out[NONCE_LEN..], &id.0, &[kind.number()]]);
        let mut short = [0; NONCE_LEN];
        short.copy_from_slice(&nonce.as_bytes()[..NONCE_LEN]);
        out[..NONCE_LEN].copy_from_slice(&short);
        let cipher = self.cipher(kind, id).ok_or_else(refused)?;
        let (nonce, bound) = (Nonce::assume_unique_for_key(short), Aad::from(self.bound(kind, id)));
        let tag = cipher.seal_in_place_separate_tag(nonce, bound, &mut out[NONCE_LEN..]).map_err(|_| refused())?;
        out.extend_from_slice(tag.as_ref());
        Ok(out)
    }

    /// Opens a piece of exactly `plain_bytes`; `None` for any other, and for everything that was not sealed as it.
    pub(crate) fn open(&self, kind: Kind, id: Id, sealed: &[u8], plain_bytes: usize) -> Option<Bytes> {
        let plain = self.open_bound(kind, id, sealed, plain_bytes)?;
        (plain.len() == plain_bytes && self.id(kind, &plain) == id).then_some(plain)
    }

    /// Opens what was sealed under an id that is not the hash of its bytes.
    pub(crate) fn open_bound(&self, kind: Kind, id: Id, sealed: &[u8], plain_bytes_max: usize) -> Option<Bytes> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut opened = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let cipher = self.cipher(kind, id)?;
        let length = cipher.open_in_place(nonce, Aad::from(self.bound(kind, id)), &mut opened).ok()?.len();
        opened.truncate(length);
        let (how, body) = opened.split_first()?;
        match *how {
            PLAIN if body.len() <= plain_bytes_max => Some(Bytes::from(opened).slice(1..)),
            ZSTD => {
                // Never more than was said, whatever the frame says of itself.
                let plain = zstd::bulk::decompress(body, plain_bytes_max).ok()?;
                Some(plain.into())
            }
            _ => None,
        }
    }
}

fn keyed(key: &[u8; KEY_BYTES], parts: &[&[u8]]) -> blake3::Hash {
    let mut hash = blake3::Hasher::new_keyed(key);
    for part in parts {
        hash.update(part);
    }
    hash.finalize()
}

/// A number below 2^32 that follows from a name, and that nobody without the key can foretell.
pub(crate) fn lot(key: &[u8; KEY_BYTES], name: &[&[u8]]) -> u32 {
    let [a, b, c, d, ..] = *keyed(key, name).as_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Compresses, piece after piece.
pub(crate) struct Press(Option<zstd::bulk::Compressor<'static>>);

impl fmt::Debug for Press {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Press")
    }
}

impl Press {
    /// Without memory for it, nothing is compressed.
    pub(crate) fn new() -> Self {
        Self(zstd::bulk::Compressor::new(LEVEL).ok())
    }

    /// Room for a nonce, how the bytes are compressed, the bytes.
    fn frame(&mut self, plain: &[u8]) -> Vec<u8> {
        const HEAD: usize = NONCE_LEN + 1;
        let mut out = vec![0; HEAD + plain.len() + TAG_BYTES];
        // What saves less than a thirty-second is not worth its opening.
        let room = plain.len() - plain.len() / 32;
        let pressed =
            self.0.as_mut().and_then(|press| press.compress_to_buffer(plain, &mut out[HEAD..HEAD + room]).ok());
        let length = match pressed {
            Some(length) if length < plain.len() => {
                out[NONCE_LEN] = ZSTD;
                length
            }
            _ => {
                out[NONCE_LEN] = PLAIN;
                out[HEAD..HEAD + plain.len()].copy_from_slice(plain);
                plain.len()
            }
        };
        out.truncate(HEAD + length);
        out
    }
}

/// Whether a sealed piece of this length can hold plain bytes of that one.
pub(crate) const fn fits(sealed_bytes: u32, plain_bytes: u32) -> bool {
    let sealed = sealed_bytes as usize;
    let plain = plain_bytes as usize;
    plain > 0 && plain <= CHUNK_BYTES_MAX && sealed > SEAL_BYTES && sealed <= plain + SEAL_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(tenant: &str, key: u8) -> Keys {
        Keys::new(tenant, [key; 32])
    }

    /// Pieces that exist were named and sealed like this: these bytes never change, and open for ever.
    #[test]
    fn sealed_bytes_are_fixed() {
        let keys = keys("default", 1);
        let id = keys.id(Kind::Chunk, b"hello");
        assert_eq!(format!("{id:?}"), ID);
        let sealed = keys.seal(&mut Press::new(), Kind::Chunk, id, b"hello").unwrap();
        assert_eq!(hex::encode(&sealed), SEALED);
        assert_eq!(keys.open(Kind::Chunk, id, &sealed, 5).unwrap(), "hello");
    }

    const ID: &str = "3d3602995aca6c8f6d7b550492b39a8a39beb26c16498953e57300dfb46018cc";
    const SEALED: &str = "3ea59664992728fffce47e31a775fa9101e246fb382f40f41d824aa3d542c558a8c7";

    #[test]
    fn what_does_not_fit_does_not_open() {
        let (ours, press) = (keys("default", 1), &mut Press::new());
        let plain = vec![b'x'; 10_000];
        let id = ours.id(Kind::Chunk, &plain);
        let sealed = ours.seal(press, Kind::Chunk, id, &plain).unwrap();
        assert!(sealed.len() < 200, "it was not compressed");
        assert_eq!(ours.open(Kind::Chunk, id, &sealed, 10_000).unwrap(), plain);
        let other = ours.id(Kind::Chunk, b"other");
        // Sealed under an id that is not its own, as somebody with the key and a wrong idea would.
        let lying = ours.seal(press, Kind::Chunk, other, &plain).unwrap();
        let mut flipped = sealed.clone();
        flipped[20] ^= 1;
        for (name, keys, kind, id, sealed, bytes) in [
            ("another tenant's key", &keys("default", 2), Kind::Chunk, id, &sealed, 10_000),
            ("another tenant", &keys("other", 1), Kind::Chunk, id, &sealed, 10_000),
            ("another kind", &ours, Kind::Segment, id, &sealed, 10_000),
            ("another id", &ours, Kind::Chunk, other, &sealed, 10_000),
            ("not its hash", &ours, Kind::Chunk, other, &lying, 10_000),
            ("too little room", &ours, Kind::Chunk, id, &sealed, 9_999),
            ("a flipped bit", &ours, Kind::Chunk, id, &flipped, 10_000),
            ("cut short", &ours, Kind::Chunk, id, &sealed[..40].to_vec(), 10_000),
            ("nothing", &ours, Kind::Chunk, id, &Vec::new(), 10_000),
        ] {
            assert!(keys.open(kind, id, sealed, bytes).is_none(), "{name}");
        }
        let random = stdx::Random::seeded(1).bytes::<4096>();
        let id = ours.id(Kind::Chunk, &random);
        let sealed = ours.seal(press, Kind::Chunk, id, &random).unwrap();
        assert_eq!(sealed.len(), random.len() + SEAL_BYTES, "what does not compress grows by the seal alone");
    }
}
