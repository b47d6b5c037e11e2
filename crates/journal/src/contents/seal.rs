//! How an item is sealed and opened.
//!
//! | form | the row's `item_key` | the row's `body` | the object |
//! |---|---|---|---|
//! | sealed | – | nonce ‖ AES-256-GCM(data key, item key ‖ plain) | – |
//! | sealed object | – | nonce ‖ AES-256-GCM(data key, item key) | nonce ‖ AES-256-GCM(object key, plain) |
//! | plain | item key | plain | – |
//! | plain object | item key | – | plain |
//!
//! The object key is HKDF-SHA-256 of the item key. Everything sealed is bound to tenant, session, item and media type.

use super::{CONTENT_BYTES_MAX, Content, DataKey, INLINE_BYTES_MAX};
use crate::{ContentsMode, Error, SessionKey};
use domain::{ContentRef, Digest, Id, id};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::{hkdf, hmac};
use std::fmt;
use std::sync::Arc;
use stdx::Random;
use zeroize::Zeroize;

const ITEM_KEY_BYTES: usize = 32;

/// How an item lies in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Sealed,
    SealedObject,
    Plain,
    PlainObject,
}

impl Form {
    /// As it is stored; for ever.
    pub(crate) const fn number(self) -> i64 {
        match self {
            Self::Sealed => 0,
            Self::SealedObject => 1,
            Self::Plain => 2,
            Self::PlainObject => 3,
        }
    }

    pub(crate) const fn from_number(number: i64) -> Option<Self> {
        Some(match number {
            0 => Self::Sealed,
            1 => Self::SealedObject,
            2 => Self::Plain,
            3 => Self::PlainObject,
            _ => return None,
        })
    }

    pub(crate) const fn has_object(self) -> bool {
        matches!(self, Self::SealedObject | Self::PlainObject)
    }
}

/// An item's row.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) form: Form,
    pub(crate) item_key: Option<Vec<u8>>,
    pub(crate) body: Vec<u8>,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stored({:?}, {} bytes)", self.form, self.body.len())
    }
}

/// An item that is ready to be stored with the record that points to it.
#[derive(Clone)]
pub struct SealedItem {
    pub(crate) id: Id<id::Content>,
    pub(crate) key: Arc<DataKey>,
    pub(crate) stored: Stored,
    /// What goes among the objects before the record is written.
    pub(crate) object: Option<Vec<u8>>,
}

impl SealedItem {
    /// What it weighs in the database, in bytes.
    pub(crate) fn row_bytes(&self) -> usize {
        self.stored.body.len() + self.stored.item_key.as_ref().map_or(0, Vec::len) + 48
    }
}

impl fmt::Debug for SealedItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedItem({}, {:?})", self.id, self.stored)
    }
}

/// Seals the contents of one session. Cheap to clone; hold it no longer than the session is driven.
#[derive(Clone, Debug)]
pub struct Sealer {
    pub(crate) key: Arc<DataKey>,
    pub(crate) mode: ContentsMode,
    pub(crate) random: Random,
}

impl Sealer {
    /// The session.
    pub fn session(&self) -> &SessionKey {
        self.key.session()
    }

    /// Seals plain bytes: what the record holds, and the item that [`crate::Append`] must carry with it.
    pub fn seal(&self, media: &str, plain: &[u8]) -> Result<(ContentRef, SealedItem), Error> {
        if plain.len() > CONTENT_BYTES_MAX {
            let (size, max) = (plain.len() as u64, CONTENT_BYTES_MAX as u64);
            return Err(Error::TooLarge { what: "bytes in one content item", size, max });
        }
        // One call to the operating system for everything random.
        let mut random: [u8; 16 + ITEM_KEY_BYTES + 2 * NONCE_LEN] = self.random.bytes();
        let (id, rest) = random.split_at(16);
        let (item_key, rest) = rest.split_at(ITEM_KEY_BYTES);
        let (nonce, object_nonce) = rest.split_at(NONCE_LEN);
        let id = Id::from_bytes(array(id));
        let item_key: [u8; ITEM_KEY_BYTES] = array(item_key);
        let aad = aad(self.session(), id, media);
        let large = plain.len() > INLINE_BYTES_MAX;
        let (stored, object) = match (self.mode, large) {
            (ContentsMode::Sealed, false) => {
                let body = seal(&self.key.cipher, array(nonce), &aad, &[&item_key, plain])?;
                (Stored { form: Form::Sealed, item_key: None, body }, None)
            }
            (ContentsMode::Sealed, true) => {
                let body = seal(&self.key.cipher, array(nonce), &aad, &[&item_key])?;
                let object = seal(&cipher_of_object(&item_key)?, array(object_nonce), &aad, &[plain])?;
                (Stored { form: Form::SealedObject, item_key: None, body }, Some(object))
            }
            (ContentsMode::Plain, false) => {
                (Stored { form: Form::Plain, item_key: Some(item_key.to_vec()), body: plain.to_vec() }, None)
            }
            (ContentsMode::Plain, true) => {
                let stored = Stored { form: Form::PlainObject, item_key: Some(item_key.to_vec()), body: Vec::new() };
                (stored, Some(plain.to_vec()))
            }
        };
        let content = ContentRef { id, bytes: plain.len() as u64, media: media.to_owned(), mac: mac(&item_key, plain) };
        random.zeroize();
        Ok((content, SealedItem { id, key: self.key.clone(), stored, object }))
    }
}

/// Opens an item whose bytes lie in its row.
pub(crate) fn open(key: &DataKey, content: &ContentRef, stored: Stored) -> Result<Content, Error> {
    let (item_key, plain) = match stored.form {
        Form::Sealed => {
            let mut opened = unseal(&key.cipher, &aad(key.session(), content.id, &content.media), stored.body)
                .ok_or_else(|| damaged(content, "does not open"))?;
            if opened.len() < ITEM_KEY_BYTES {
                return Err(damaged(content, "is too short"));
            }
            let plain = opened.split_off(ITEM_KEY_BYTES);
            (opened, plain)
        }
        Form::Plain => (stored.item_key.unwrap_or_default(), stored.body),
        Form::SealedObject | Form::PlainObject => return Err(damaged(content, "has its bytes among the objects")),
    };
    check(content, &item_key, plain)
}

/// Opens an item whose bytes lie among the objects.
pub(crate) fn open_object(
    key: &DataKey,
    content: &ContentRef,
    stored: Stored,
    object: Vec<u8>,
) -> Result<Content, Error> {
    let (item_key, plain) = match stored.form {
        Form::SealedObject => {
            let aad = aad(key.session(), content.id, &content.media);
            let item_key = unseal(&key.cipher, &aad, stored.body).ok_or_else(|| damaged(content, "does not open"))?;
            let cipher = cipher_of_object(&item_key)?;
            let plain =
                unseal(&cipher, &aad, object).ok_or_else(|| damaged(content, "has an object that does not open"))?;
            (item_key, plain)
        }
        Form::PlainObject => (stored.item_key.unwrap_or_default(), object),
        Form::Sealed | Form::Plain => return Err(damaged(content, "has its bytes in its row")),
    };
    check(content, &item_key, plain)
}

/// Where an item's object lies.
pub(crate) fn object_key(session: &SessionKey, item: Id<id::Content>) -> String {
    format!("contents/{}/{}/{item}", session.tenant, session.session)
}

fn check(content: &ContentRef, item_key: &[u8], plain: Vec<u8>) -> Result<Content, Error> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, item_key);
    if plain.len() as u64 != content.bytes || hmac::verify(&key, &plain, &content.mac.0).is_err() {
        return Err(damaged(content, "is not what its record says"));
    }
    Ok(Content::Bytes(plain))
}

fn damaged(content: &ContentRef, what: &str) -> Error {
    Error::corrupt(format_args!("content {} {what}", content.id))
}

fn mac(item_key: &[u8], plain: &[u8]) -> Digest {
    let key = hmac::Key::new(hmac::HMAC_SHA256, item_key);
    Digest(array(hmac::sign(&key, plain).as_ref()))
}

/// What an item is bound to. The tenant is closed by a zero byte, which no tenant's name has, the ids have a fixed
/// length: no two items share these bytes.
fn aad(session: &SessionKey, item: Id<id::Content>, media: &str) -> Vec<u8> {
    let parts: [&[u8]; 6] = [
        b"topside content 1\0",
        session.tenant.as_bytes(),
        &[0],
        session.session.as_bytes(),
        item.as_bytes(),
        media.as_bytes(),
    ];
    parts.concat()
}

fn cipher_of_object(item_key: &[u8]) -> Result<LessSafeKey, Error> {
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"topside content object 1").extract(item_key);
    let okm = prk.expand(&[], &AES_256_GCM).map_err(|_| cipher_refused())?;
    Ok(LessSafeKey::new(UnboundKey::from(okm)))
}

fn cipher_refused() -> Error {
    Error::Key { reason: "the cipher refused the key".into() }
}

/// nonce ‖ ciphertext ‖ tag of the parts one after the other.
fn seal(cipher: &LessSafeKey, nonce: [u8; NONCE_LEN], aad: &[u8], parts: &[&[u8]]) -> Result<Vec<u8>, Error> {
    let plain_bytes: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(NONCE_LEN + plain_bytes + AES_256_GCM.tag_len());
    out.extend_from_slice(&nonce);
    for part in parts {
        out.extend_from_slice(part);
    }
    let tag = cipher
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut out[NONCE_LEN..])
        .map_err(|_| cipher_refused())?;
    out.extend_from_slice(tag.as_ref());
    Ok(out)
}

fn unseal(cipher: &LessSafeKey, aad: &[u8], mut sealed: Vec<u8>) -> Option<Vec<u8>> {
    let nonce = Nonce::try_assume_unique_for_key(sealed.get(..NONCE_LEN)?).ok()?;
    let plain_bytes = cipher.open_within(nonce, Aad::from(aad), &mut sealed, NONCE_LEN..).ok()?.len();
    sealed.truncate(plain_bytes);
    Some(sealed)
}

/// The slice as an array; the callers cut it to length themselves.
fn array<const N: usize>(slice: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(slice);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> DataKey {
        let session = SessionKey::new("default", Id::from_bytes([1; 16]));
        DataKey::new(session, &[2; 32], Vec::new(), true).unwrap()
    }

    const SMALL: &str = "a53c36d76cec99e0758527124a5bcb57b7407a54399c3122e6291f3dff482a0a924f0854ad9f08bf5b5fbcdb699321c88271d5e6108d22f5ae4c9b7d10b394937a";
    const LARGE: &str = "3b4a79a517cec22a630bfdb715d58c7b5c5c0933d91765eef2c397a2af0fc0f900ce001e049c478ff465d2996007be5ace42bb23fdbdf12cfb596323";
    const OBJECT: &str = "ca7e8c20ec51fb0ab0344f8e330a31e854be3c924e69f501749da97b60c41643";

    /// Items that exist were sealed like this: these bytes never change, and open for ever.
    #[test]
    fn sealed_bytes_are_fixed() {
        let sealer = Sealer { key: Arc::new(key()), mode: ContentsMode::Sealed, random: Random::seeded(1) };
        let (content, item) = sealer.seal("text/plain", b"hello").unwrap();
        assert_eq!(content.mac.to_string(), "b9f209fe74701a38eee4e422bcce5e79528c20e0b6a621e594664e91e5c5dc96");
        assert_eq!((item.stored.form.number(), hex::encode(&item.stored.body).as_str()), (0, SMALL));
        assert_eq!(open(&key(), &content, item.stored).unwrap(), Content::Bytes(b"hello".to_vec()));

        let large = vec![b'x'; INLINE_BYTES_MAX + 1];
        let (content, item) = sealer.seal("text/plain", &large).unwrap();
        let object = item.object.unwrap();
        assert_eq!((item.stored.form.number(), hex::encode(&item.stored.body).as_str()), (1, LARGE));
        assert_eq!(Digest::of(&object).to_string(), OBJECT);
        assert_eq!(open_object(&key(), &content, item.stored.clone(), object.clone()).unwrap(), Content::Bytes(large));

        let mut changed = object;
        changed[40] ^= 1;
        let refused = open_object(&key(), &content, item.stored, changed).unwrap_err();
        assert_eq!(refused.code(), "journal_corrupt");
    }
}
