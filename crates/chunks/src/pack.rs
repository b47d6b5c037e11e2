//! A pack: sealed pieces one after the other, its index, and where that begins.
//!
//! ```text
//! piece … piece │ sealed index │ length of the sealed index, u32 │ `tspack 1`
//! ```
//!
//! Whoever has a manifest needs no index. It is for packs that were rewritten since, and for rewriting them.

use crate::Error;
use crate::form::{self, PACK_MAGIC, PACK_PIECES_MAX, PackId, Piece, Places};
use crate::keys::{Id, Keys, Kind, Press};

/// Bytes after the index.
pub(crate) const TAIL_BYTES: u64 = 4 + PACK_MAGIC.len() as u64;
/// Bytes of an index at most, sealed or not.
pub(crate) const INDEX_BYTES_MAX: usize = 4 << 20;
/// Bytes of a pack at most: what it is filled to, a piece and the index.
pub(crate) const PACK_BYTES_MAX: u64 = 64 << 20;
/// What [`crate::Config::pack_bytes`] may say at most.
const FILLED_BYTES_MAX: usize = 32 << 20;

/// A pack that is being filled.
#[derive(Debug)]
pub(crate) struct Filling {
    pub(crate) id: PackId,
    bytes: Vec<u8>,
    places: Places,
}

impl Filling {
    pub(crate) fn new(id: PackId) -> Self {
        Self { id, bytes: Vec::new(), places: Vec::new() }
    }

    pub(crate) fn is_full(&self, pack_bytes: usize) -> bool {
        self.bytes.len() >= pack_bytes.min(FILLED_BYTES_MAX) || self.places.len() >= PACK_PIECES_MAX
    }

    /// Puts a sealed piece in.
    pub(crate) fn add(&mut self, id: Id, sealed: &[u8], plain_bytes: u32) -> Piece {
        // Both are far below the limit of a pack.
        let number = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let (offset, sealed_bytes) = (number(self.bytes.len()), number(sealed.len()));
        self.bytes.extend_from_slice(sealed);
        self.places.push((id, offset, sealed_bytes));
        Piece { id, pack: self.id, offset, sealed_bytes, plain_bytes }
    }

    /// The whole pack.
    pub(crate) fn end(mut self, keys: &Keys) -> Result<Vec<u8>, Error> {
        let index = form::write_index(&self.places);
        let sealed = keys.seal(&mut Press::new(), Kind::Index, self.id.bound(), &index)?;
        self.bytes.extend_from_slice(&sealed);
        self.bytes.extend_from_slice(&u32::try_from(sealed.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.bytes.extend_from_slice(PACK_MAGIC);
        Ok(self.bytes)
    }
}

/// How many bytes of sealed index stand before a pack's tail.
pub(crate) fn index_bytes(tail: &[u8]) -> Option<u64> {
    let (length, magic) = tail.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length);
    (magic == PACK_MAGIC && length as usize <= INDEX_BYTES_MAX).then_some(u64::from(length))
}

/// Opens a pack's index.
pub(crate) fn open_index(keys: &Keys, pack: PackId, sealed: &[u8]) -> Option<Places> {
    let plain = keys.open_bound(Kind::Index, pack.bound(), sealed, INDEX_BYTES_MAX)?;
    form::read_index(&plain).ok()
}
