//! Manifests, their segments and the indexes of packs as bytes and back. What is read back is held to exactly what is written
//! here, every length checked: it comes from storage.
//!
//! Numbers are little-endian. A **manifest** names an archive (digest, bytes, chunks), the segments of its list, and every pack
//! that it needs with the bytes that it needs of it, so that a sweep reads manifests and nothing below them. A **segment** is a
//! stretch of the list: chunks in the archive's order, each with its place. Segments are pieces like chunks, kept in packs and
//! shared between manifests; they are cut where a chunk's id says so, so that a change in one place changes one segment. A
//! pack's **index** says which pieces lie where in it.

use crate::keys::{self, ID_BYTES, Id};
use crate::{CHUNK_BYTES_MAX, CHUNKS_MAX};
use domain::Digest;
use std::collections::BTreeMap;
use std::fmt;

/// What a manifest begins with. A later form begins otherwise.
pub(crate) const MAGIC: &[u8; 16] = b"topside chunks 1";
/// What every form of a manifest begins with.
pub(crate) const MAGIC_ANY: &[u8] = b"topside chunks ";
/// What a pack ends with.
pub(crate) const PACK_MAGIC: &[u8; 8] = b"tspack 1";
/// Pieces in one segment at most; one in [`SEGMENT_CHUNKS`] ids ends a segment.
const SEGMENT_CHUNKS_MAX: usize = 1_024;
const SEGMENT_CHUNKS: u8 = 64;
/// Packs that one manifest needs at most.
pub(crate) const PACKS_MAX: usize = 1 << 16;
/// Pieces in one pack at most.
pub(crate) const PACK_PIECES_MAX: usize = 1 << 16;

pub(crate) const PACK_ID_BYTES: usize = 16;

/// A pack's name: random, so that no later pack ever has the name of one that is about to be swept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PackId(pub(crate) [u8; PACK_ID_BYTES]);

impl PackId {
    /// What its index is bound to.
    pub(crate) fn bound(self) -> Id {
        let mut id = [0; ID_BYTES];
        id[..PACK_ID_BYTES].copy_from_slice(&self.0);
        Id(id)
    }
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A piece, and where it was put. A pack that was rewritten has it elsewhere: then its index says where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) id: Id,
    pub(crate) pack: PackId,
    pub(crate) offset: u32,
    pub(crate) sealed_bytes: u32,
    pub(crate) plain_bytes: u32,
}

/// A manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// SHA-256 of the archive, and its length.
    pub(crate) digest: Digest,
    pub(crate) bytes: u64,
    /// Chunks in all segments.
    pub(crate) chunks: u64,
    pub(crate) segments: Vec<Piece>,
    /// Every pack that it needs, with the sealed bytes that it needs of it.
    pub(crate) packs: BTreeMap<PackId, u64>,
}

/// Why bytes are not what they should be.
pub(crate) type Malformed = &'static str;

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or("it ends too early")?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.take().map(u64::from_le_bytes)
    }

    /// A number of things that follow: never more than there are bytes for.
    fn count(&mut self, max: usize, bytes_each: usize) -> Result<usize, Malformed> {
        let count = usize::try_from(self.u32()?).map_err(|_| "too many")?;
        if count > max || count.saturating_mul(bytes_each) > self.0.len() {
            return Err("it counts more than it holds");
        }
        Ok(count)
    }

    fn packs(&mut self, bytes_beside: usize) -> Result<Vec<PackId>, Malformed> {
        let count = self.count(PACKS_MAX, PACK_ID_BYTES + bytes_beside)?;
        let mut packs = Vec::with_capacity(count);
        for _ in 0..count {
            packs.push(PackId(self.take()?));
        }
        Ok(packs)
    }

    fn piece(&mut self, packs: &[PackId]) -> Result<Piece, Malformed> {
        let (id, pack) = (Id(self.take()?), self.u16()?);
        let pack = *packs.get(usize::from(pack)).ok_or("a pack that it does not name")?;
        let (offset, sealed_bytes, plain_bytes) = (self.u32()?, self.u32()?, self.u32()?);
        if !keys::fits(sealed_bytes, plain_bytes) || offset.checked_add(sealed_bytes).is_none() {
            return Err("a piece of an impossible length");
        }
        Ok(Piece { id, pack, offset, sealed_bytes, plain_bytes })
    }

    fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err("it goes on after its end") }
    }
}

const PIECE_BYTES: usize = ID_BYTES + 2 + 3 * 4;

/// Writes numbers that were bounded before: the callers keep within the maxima above.
fn number(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

/// The names of the packs of some pieces, in order: pieces name them by their place in it.
fn names<'a>(pieces: impl Iterator<Item = &'a Piece>) -> Vec<PackId> {
    let mut packs: Vec<_> = pieces.map(|piece| piece.pack).collect();
    packs.sort_unstable();
    packs.dedup();
    packs
}

fn write_piece(out: &mut Vec<u8>, packs: &[PackId], piece: &Piece) {
    let place = packs.binary_search(&piece.pack).unwrap_or(usize::MAX);
    out.extend_from_slice(&piece.id.0);
    out.extend_from_slice(&u16::try_from(place).unwrap_or(u16::MAX).to_le_bytes());
    for part in [piece.offset, piece.sealed_bytes, piece.plain_bytes] {
        out.extend_from_slice(&part.to_le_bytes());
    }
}

fn write_packs(out: &mut Vec<u8>, packs: &[PackId]) {
    number(out, packs.len());
    for pack in packs {
        out.extend_from_slice(&pack.0);
    }
}

/// Cuts a list of chunks into segments.
pub(crate) fn segments(chunks: &[Piece]) -> impl Iterator<Item = &[Piece]> {
    let mut rest = chunks;
    std::iter::from_fn(move || {
        let ends = |piece: &Piece| piece.id.0[0].is_multiple_of(SEGMENT_CHUNKS);
        let room = rest.len().min(SEGMENT_CHUNKS_MAX);
        let length = rest[..room].iter().position(ends).map_or(room, |at| at + 1);
        let (segment, after) = rest.split_at(length);
        rest = after;
        (!segment.is_empty()).then_some(segment)
    })
}

pub(crate) fn write_segment(chunks: &[Piece]) -> Vec<u8> {
    let packs = names(chunks.iter());
    let mut out = Vec::with_capacity(8 + packs.len() * PACK_ID_BYTES + chunks.len() * PIECE_BYTES);
    write_packs(&mut out, &packs);
    number(&mut out, chunks.len());
    for chunk in chunks {
        write_piece(&mut out, &packs, chunk);
    }
    out
}

pub(crate) fn read_segment(bytes: &[u8]) -> Result<Vec<Piece>, Malformed> {
    let mut bytes = Bytes(bytes);
    let packs = bytes.packs(0)?;
    let count = bytes.count(SEGMENT_CHUNKS_MAX, PIECE_BYTES)?;
    let chunks = (0..count).map(|_| bytes.piece(&packs)).collect::<Result<_, _>>()?;
    bytes.end()?;
    Ok(chunks)
}

impl Manifest {
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.digest.0);
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.chunks.to_le_bytes());
        let packs: Vec<_> = self.packs.keys().copied().collect();
        write_packs(&mut out, &packs);
        for bytes in self.packs.values() {
            out.extend_from_slice(&bytes.to_le_bytes());
        }
        number(&mut out, self.segments.len());
        for segment in &self.segments {
            write_piece(&mut out, &packs, segment);
        }
        out
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut bytes = Bytes(bytes);
        let digest = Digest(bytes.take()?);
        let (length, chunks) = (bytes.u64()?, bytes.u64()?);
        if chunks > CHUNKS_MAX || length > chunks.saturating_mul(CHUNK_BYTES_MAX as u64) || chunks > length {
            return Err("a length that its chunks can't have");
        }
        let names = bytes.packs(8)?;
        if !names.is_sorted_by(|a, b| a < b) {
            return Err("packs out of order");
        }
        let mut packs = BTreeMap::new();
        for name in &names {
            packs.insert(*name, bytes.u64()?);
        }
        let count = bytes.count(usize::try_from(CHUNKS_MAX).unwrap_or(usize::MAX), PIECE_BYTES)?;
        let segments = (0..count).map(|_| bytes.piece(&names)).collect::<Result<Vec<_>, _>>()?;
        bytes.end()?;
        Ok(Self { digest, bytes: length, chunks, segments, packs })
    }
}

/// What lies where in a pack: id, offset, sealed bytes.
pub(crate) type Places = Vec<(Id, u32, u32)>;

const PLACE_BYTES: usize = ID_BYTES + 2 * 4;

pub(crate) fn write_index(places: &Places) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + places.len() * PLACE_BYTES);
    number(&mut out, places.len());
    for (id, offset, sealed_bytes) in places {
        out.extend_from_slice(&id.0);
        out.extend_from_slice(&offset.to_le_bytes());
        out.extend_from_slice(&sealed_bytes.to_le_bytes());
    }
    out
}

pub(crate) fn read_index(bytes: &[u8]) -> Result<Places, Malformed> {
    let mut bytes = Bytes(bytes);
    let count = bytes.count(PACK_PIECES_MAX, PLACE_BYTES)?;
    let mut places = Vec::with_capacity(count);
    for _ in 0..count {
        places.push((Id(bytes.take()?), bytes.u32()?, bytes.u32()?));
    }
    bytes.end()?;
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(number: u32) -> Piece {
        let mut id = [7; ID_BYTES];
        id[..4].copy_from_slice(&number.to_be_bytes());
        id[0] = u8::try_from(number % 251).unwrap();
        let pack = PackId([u8::try_from(number / 100).unwrap(); PACK_ID_BYTES]);
        Piece { id: Id(id), pack, offset: number * 10, sealed_bytes: 200, plain_bytes: 300 }
    }

    fn manifest() -> Manifest {
        let segments: Vec<_> = (0..20).map(piece).collect();
        let packs = [(PackId([0; 16]), 7), (PackId([9; 16]), 8)].into();
        Manifest { digest: Digest([1; 32]), bytes: 5_000, chunks: 100, segments, packs }
    }

    /// Every proper beginning of what is read, and everything with a byte more, is refused; and a changed byte never panics.
    fn check<T: PartialEq + fmt::Debug>(
        name: &str,
        bytes: &[u8],
        value: &T,
        read: impl Fn(&[u8]) -> Result<T, Malformed>,
    ) {
        assert_eq!(&read(bytes).unwrap(), value, "{name}");
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "{name} of {length} bytes");
        }
        assert!(read(&[bytes, &[0]].concat()).is_err(), "{name} with a byte more");
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] = 0xff;
            let _ = read(&changed);
        }
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        check("manifest", &manifest().write(), &manifest(), Manifest::read);
        let chunks: Vec<_> = (0..300).map(piece).collect();
        check("segment", &write_segment(&chunks), &chunks, read_segment);
        let places: Places = chunks.iter().map(|piece| (piece.id, piece.offset, piece.sealed_bytes)).collect();
        check("index", &write_index(&places), &places, read_index);
    }

    #[test]
    fn impossible_lengths_are_refused() {
        for (name, chunks, bytes) in [
            ("more bytes than chunks hold", 1, CHUNK_BYTES_MAX as u64 + 1),
            ("too many chunks", CHUNKS_MAX + 1, CHUNKS_MAX + 1),
            ("more chunks than bytes", 2, 1),
        ] {
            assert!(Manifest::read(&Manifest { chunks, bytes, ..manifest() }.write()).is_err(), "{name}");
        }
        for (name, sealed_bytes, plain_bytes, offset) in [
            ("an empty piece", 30, 0, 0),
            ("a seal alone", 29, 1, 0),
            ("grown too much", 1_000, 100, 0),
            ("too large a piece", 1_000, u32::MAX, 0),
            ("beyond every pack", 200, 300, u32::MAX),
        ] {
            let piece = Piece { sealed_bytes, plain_bytes, offset, ..piece(1) };
            assert!(read_segment(&write_segment(&[piece])).is_err(), "{name}");
        }
    }

    #[test]
    fn a_change_in_one_place_changes_one_segment() {
        let before: Vec<_> = (0..3_000).map(piece).collect();
        assert_eq!(segments(&before).map(<[Piece]>::len).sum::<usize>(), 3_000);
        let mut after = before.clone();
        after.insert(1_500, Piece { id: Id([1; ID_BYTES]), ..piece(1) });
        let known: Vec<_> = segments(&before).collect();
        assert!(known.len() > 20, "{}", known.len());
        assert_eq!(segments(&after).filter(|segment| !known.contains(segment)).count(), 1);
        let same = vec![Piece { id: Id([1; ID_BYTES]), ..piece(1) }; 3_000];
        assert_eq!(segments(&same).map(<[Piece]>::len).collect::<Vec<_>>(), [1_024, 1_024, 952]);
        assert_eq!(segments(&[]).count(), 0);
    }
}
