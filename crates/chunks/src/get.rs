//! Gives a stored archive back.
//!
//! The manifest is checked whole before anything else: sealed under the tenant's key, and of the archive whose digest the
//! caller's log names. It lists the keyed hash of every chunk, and a chunk is given out only when it opened and has that hash. So
//! every byte is verified before it leaves here, without reading the archive twice. What is given out before a chunk turns out to
//! be damaged or missing is the true begin of the archive; its last piece comes only when the digest of the whole is right.

use crate::form::{Piece, Places};
use crate::keys::{Keys, Kind};
use crate::pack::PACK_BYTES_MAX;
use crate::store::{damaged, pack_key};
use crate::{Chunks, Error, Inner};
use blob::Key;
use bytes::Bytes;
use domain::Digest;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Plain bytes that one read gives at most, but for a single chunk.
const READ_BYTES: u64 = 2 << 20;
/// Reads at once; so much is read ahead.
const READS_AT_ONCE: usize = 4;
/// Sealed bytes that nobody asked for, which are read rather than asking twice.
const GAP_BYTES: u64 = 64 << 10;

/// An archive that is read back.
pub struct Archive {
    /// Its length.
    pub bytes: u64,
    /// Its chunks.
    pub chunks: u64,
    /// Its bytes in pieces, every one verified.
    pub pieces: BoxStream<'static, Result<Bytes, Error>>,
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive").field("bytes", &self.bytes).field("chunks", &self.chunks).finish_non_exhaustive()
    }
}

/// What a manifest says of its archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// SHA-256 of the archive.
    pub digest: Digest,
    /// Its length.
    pub bytes: u64,
    /// Its chunks.
    pub chunks: u64,
    /// Packs that it needs.
    pub packs: u64,
    /// Bytes that it needs of them.
    pub packed_bytes: u64,
}

impl Chunks {
    /// What a manifest says of its archive: only for whoever has no log to hold it against.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Missing`], [`Error::Newer`], [`Error::Key`], [`Error::Objects`].
    pub async fn describe(&self, tenant: &str, manifest: &Key) -> Result<Described, Error> {
        let inner = &self.0;
        let keys = inner.keys(tenant)?;
        let (listed, _) = inner.manifest(&keys, manifest).await?;
        Ok(Described {
            digest: listed.digest,
            bytes: listed.bytes,
            chunks: listed.chunks,
            packs: listed.packs.len() as u64,
            packed_bytes: listed.packs.values().sum(),
        })
    }

    /// Opens an archive by its manifest, which must be of the archive with this digest.
    ///
    /// # Errors
    /// [`Error::Mismatch`], [`Error::Damaged`], [`Error::Missing`], [`Error::Newer`], [`Error::TooLarge`], [`Error::Key`],
    /// [`Error::Objects`]; of the packs they come from the pieces.
    pub async fn get(&self, tenant: &str, manifest: &Key, digest: Digest, bytes_max: u64) -> Result<Archive, Error> {
        let inner = &self.0;
        let keys = inner.keys(tenant)?;
        let (listed, _) = inner.manifest(&keys, manifest).await?;
        if listed.digest != digest {
            return Err(Error::Mismatch { object: manifest.to_string() });
        }
        if listed.bytes > bytes_max {
            return Err(Error::TooLarge { bytes_max });
        }
        let chunks = inner.chunks(&keys, manifest, &listed).await?;
        let source = Arc::new(Source { inner: inner.clone(), keys, indexes: Mutex::default() });
        let reads = stream::iter(reads(&chunks)).map(move |read| {
            let source = source.clone();
            async move { source.read(read).await }
        });
        let opened = reads.buffered(READS_AT_ONCE).map_ok(|opened| stream::iter(opened).map(Ok)).try_flatten();
        let pieces = checked(opened.boxed(), manifest.clone(), digest);
        Ok(Archive { bytes: listed.bytes, chunks: listed.chunks, pieces })
    }
}

/// Chunks that are read at once: they lie close together in one pack.
struct Read {
    chunks: Vec<Piece>,
    begin: u64,
    end: u64,
}

/// Puts a list of chunks together into reads, in order.
fn reads(chunks: &[Piece]) -> Vec<Read> {
    let mut reads: Vec<(Read, u64)> = Vec::new();
    for chunk in chunks {
        let (begin, plain) = (u64::from(chunk.offset), u64::from(chunk.plain_bytes));
        let end = begin + u64::from(chunk.sealed_bytes);
        if let Some((read, bytes)) = reads.last_mut()
            && read.chunks.last().is_some_and(|last| last.pack == chunk.pack)
            && *bytes + plain <= READ_BYTES
            && begin >= read.begin
            && begin <= read.end + GAP_BYTES
        {
            read.chunks.push(*chunk);
            read.end = read.end.max(end);
            *bytes += plain;
            continue;
        }
        reads.push((Read { chunks: vec![*chunk], begin, end }, plain));
    }
    reads.into_iter().map(|(read, _)| read).collect()
}

struct Source {
    inner: Arc<Inner>,
    keys: Arc<Keys>,
    /// Indexes of packs that were rewritten since the manifest.
    indexes: Mutex<HashMap<Key, Arc<Places>>>,
}

impl Source {
    async fn read(&self, read: Read) -> Result<Vec<Bytes>, Error> {
        let Some(first) = read.chunks.first() else { return Ok(Vec::new()) };
        let pack = pack_key(self.keys.tenant(), first.pack)?;
        if read.end > PACK_BYTES_MAX {
            return Err(damaged(&pack, "a place beyond the end of every pack"));
        }
        let rewritten = self.indexes.lock().get(&pack).cloned();
        if rewritten.is_none()
            && let Some(sealed) = self.inner.span(&pack, read.begin..read.end).await?
        {
            let (keys, chunks, begin) = (self.keys.clone(), read.chunks.clone(), read.begin);
            if let Some(opened) = self.inner.compute(move || open(&keys, &chunks, begin, &sealed)).await? {
                return Ok(opened);
            }
        }
        let places = match rewritten {
            Some(places) => places,
            None => {
                let places = Arc::new(self.inner.index(&self.keys, first.pack).await?);
                self.indexes.lock().insert(pack, places.clone());
                places
            }
        };
        let mut opened = Vec::with_capacity(read.chunks.len());
        for chunk in &read.chunks {
            opened.push(self.inner.moved(&self.keys, Kind::Chunk, chunk, &places).await?);
        }
        Ok(opened)
    }
}

/// Opens the chunks of a read; `None` when one is not where it should be.
fn open(keys: &Keys, chunks: &[Piece], begin: u64, sealed: &Bytes) -> Option<Vec<Bytes>> {
    let mut opened: Vec<Bytes> = Vec::with_capacity(chunks.len());
    let mut last: Option<&Piece> = None;
    for chunk in chunks {
        if let (Some(last), Some(plain)) = (last, opened.last())
            && last.id == chunk.id
        {
            opened.push(plain.clone());
            continue;
        }
        let at = usize::try_from(u64::from(chunk.offset).checked_sub(begin)?).ok()?;
        let sealed = sealed.get(at..at.checked_add(chunk.sealed_bytes as usize)?)?;
        opened.push(keys.open(Kind::Chunk, chunk.id, sealed, chunk.plain_bytes as usize)?);
        last = Some(chunk);
    }
    Some(opened)
}

/// Holds each piece back until the next one is there, and the last until the digest of the whole is right.
fn checked(
    pieces: BoxStream<'static, Result<Bytes, Error>>,
    manifest: Key,
    digest: Digest,
) -> BoxStream<'static, Result<Bytes, Error>> {
    struct State {
        pieces: BoxStream<'static, Result<Bytes, Error>>,
        hash: Option<ring::digest::Context>,
        held: Option<Bytes>,
    }
    let state = State { pieces, hash: Some(ring::digest::Context::new(&ring::digest::SHA256)), held: None };
    stream::try_unfold((state, manifest), move |(mut state, manifest)| async move {
        loop {
            let Some(hash) = &mut state.hash else { return Ok(None) };
            match state.pieces.try_next().await? {
                Some(piece) => {
                    hash.update(&piece);
                    if let Some(held) = state.held.replace(piece) {
                        return Ok(Some((held, (state, manifest))));
                    }
                }
                None => {
                    let found = state.hash.take().map(ring::digest::Context::finish);
                    if found.is_none_or(|found| found.as_ref() != digest.0) {
                        return Err(damaged(&manifest, "its chunks are not the archive that it names"));
                    }
                    return Ok(state.held.take().map(|held| (held, (state, manifest))));
                }
            }
        }
    })
    .boxed()
}
