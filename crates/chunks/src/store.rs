//! Manifests, segments and packs as objects: where they lie, how they are fetched, and which chunks are known to be there.

use crate::form::{self, MAGIC, MAGIC_ANY, Manifest, PackId, Piece, Places};
use crate::keys::{ID_BYTES, Id, Keys, Kind, Press};
use crate::pack::{self, TAIL_BYTES};
use crate::{CHUNK_BYTES_MAX, Error, Inner, MANIFEST_BYTES_MAX};
use blob::Key;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// Segments of one manifest that are fetched at once.
const SEGMENTS_AT_ONCE: usize = 8;

pub(crate) fn pack_key(tenant: &str, pack: PackId) -> Result<Key, Error> {
    Ok(format!("packs/{tenant}/{pack}").parse::<Key>()?)
}

pub(crate) fn damaged(object: &Key, what: &'static str) -> Error {
    Error::Damaged { object: object.to_string(), what }
}

impl Inner {
    pub(crate) fn keys(&self, tenant: &str) -> Result<Arc<Keys>, Error> {
        let key = self.parts.keys.key(tenant);
        let key = key.map_err(|reason| Error::Key { tenant: tenant.to_owned(), reason })?;
        Ok(Arc::new(Keys::new(tenant, key)))
    }

    /// A manifest as it is stored.
    pub(crate) fn seal_manifest(keys: &Keys, manifest: &Manifest) -> Result<Vec<u8>, Error> {
        let plain = manifest.write();
        let id = keys.id(Kind::Manifest, &plain);
        let sealed = keys.seal(&mut Press::new(), Kind::Manifest, id, &plain)?;
        Ok([&MAGIC[..], &id.0, &sealed].concat())
    }

    /// Fetches a manifest, also as it is stored.
    pub(crate) async fn manifest(&self, keys: &Keys, key: &Key) -> Result<(Manifest, Bytes), Error> {
        let stored = match self.parts.blobs.get(key, MANIFEST_BYTES_MAX).await {
            Ok(stored) => stored,
            Err(blob::Error::TooLarge { .. }) => return Err(damaged(key, "it is too large for a manifest")),
            Err(error) => return Err(error.into()),
        };
        let Some(rest) = stored.strip_prefix(MAGIC) else {
            let is_newer = stored.starts_with(MAGIC_ANY) && stored.len() > MAGIC.len();
            return Err(match is_newer {
                true => Error::Newer { object: key.to_string() },
                false => damaged(key, "it is no manifest"),
            });
        };
        let (id, sealed) = rest.split_first_chunk::<ID_BYTES>().ok_or_else(|| damaged(key, "it ends too early"))?;
        let id = Id(*id);
        let room = usize::try_from(MANIFEST_BYTES_MAX).unwrap_or(usize::MAX);
        let plain = keys.open_bound(Kind::Manifest, id, sealed, room);
        let plain = plain.filter(|plain| keys.id(Kind::Manifest, plain) == id);
        let plain = plain.ok_or_else(|| damaged(key, "it does not open"))?;
        let manifest = Manifest::read(&plain).map_err(|what| damaged(key, what))?;
        Ok((manifest, stored))
    }

    /// Every chunk of an archive, in order.
    pub(crate) async fn chunks(
        self: &Arc<Self>,
        keys: &Arc<Keys>,
        key: &Key,
        manifest: &Manifest,
    ) -> Result<Vec<Piece>, Error> {
        let fetched = stream::iter(manifest.segments.clone()).map(|segment| {
            let (inner, keys, key) = (self.clone(), keys.clone(), key.clone());
            async move {
                let plain = inner.piece(&keys, Kind::Segment, &segment).await?;
                form::read_segment(&plain).map_err(|what| damaged(&key, what))
            }
        });
        let mut chunks = Vec::new();
        let mut fetched = std::pin::pin!(fetched.buffered(SEGMENTS_AT_ONCE));
        while let Some(segment) = fetched.try_next().await? {
            chunks.extend(segment);
            if chunks.len() as u64 > manifest.chunks {
                return Err(damaged(key, "its segments hold more chunks than it says"));
            }
        }
        let bytes: u64 = chunks.iter().map(|chunk| u64::from(chunk.plain_bytes)).sum();
        if (chunks.len() as u64, bytes) != (manifest.chunks, manifest.bytes) {
            return Err(damaged(key, "its segments hold another archive than it says"));
        }
        Ok(chunks)
    }

    /// Fetches one piece and opens it.
    pub(crate) async fn piece(&self, keys: &Keys, kind: Kind, piece: &Piece) -> Result<Bytes, Error> {
        let key = pack_key(keys.tenant(), piece.pack)?;
        let open = |sealed: &[u8]| keys.open(kind, piece.id, sealed, piece.plain_bytes as usize);
        let there = self.range(&key, piece.offset, piece.sealed_bytes).await?;
        if let Some(plain) = there.as_deref().and_then(open) {
            return Ok(plain);
        }
        let places = self.index(keys, piece.pack).await?;
        self.moved(keys, kind, piece, &places).await
    }

    /// Fetches a piece of a pack that was rewritten.
    pub(crate) async fn moved(&self, keys: &Keys, kind: Kind, piece: &Piece, places: &Places) -> Result<Bytes, Error> {
        let key = pack_key(keys.tenant(), piece.pack)?;
        let place = places.iter().find(|(id, ..)| *id == piece.id);
        let (_, offset, sealed_bytes) = *place.ok_or_else(|| damaged(&key, "it does not hold what it should"))?;
        if sealed_bytes as usize > CHUNK_BYTES_MAX + crate::keys::SEAL_BYTES {
            return Err(damaged(&key, "its index names a piece of an impossible length"));
        }
        let there = self.range(&key, offset, sealed_bytes).await?;
        let plain = there.and_then(|sealed| keys.open(kind, piece.id, &sealed, piece.plain_bytes as usize));
        plain.ok_or_else(|| damaged(&key, "a piece of it does not open"))
    }

    /// Bytes of a pack; `None` when they can't be had although the pack is there: perhaps it is shorter now.
    pub(crate) async fn range(&self, key: &Key, offset: u32, length: u32) -> Result<Option<Bytes>, Error> {
        let range = u64::from(offset)..u64::from(offset) + u64::from(length);
        self.span(key, range).await
    }

    pub(crate) async fn span(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, Error> {
        let length = range.end - range.start;
        match self.parts.blobs.get_range(key, range.clone()).await {
            Ok(bytes) if bytes.len() as u64 == length => Ok(Some(bytes)),
            Ok(_) => Ok(None),
            Err(error @ blob::Error::Storage(_)) => match self.parts.blobs.head(key).await? {
                // A range beyond the end is an error of the storage's own making, unlike a storage that can't be reached.
                Some(object) if object.bytes < range.end => Ok(None),
                _ => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// What lies where in a pack now.
    pub(crate) async fn index(&self, keys: &Keys, pack: PackId) -> Result<Places, Error> {
        let key = pack_key(keys.tenant(), pack)?;
        let missing = || Error::Missing { object: key.to_string() };
        let bytes = self.parts.blobs.head(&key).await?.ok_or_else(missing)?.bytes;
        let refused = || damaged(&key, "it has no index that opens");
        let tail_at = bytes.checked_sub(TAIL_BYTES).ok_or_else(refused)?;
        let tail = self.span(&key, tail_at..bytes).await?.ok_or_else(refused)?;
        let index_bytes = pack::index_bytes(&tail).ok_or_else(refused)?;
        let index_at = tail_at.checked_sub(index_bytes).filter(|at| *at < tail_at).ok_or_else(refused)?;
        let sealed = self.span(&key, index_at..tail_at).await?.ok_or_else(refused)?;
        pack::open_index(keys, pack, &sealed).ok_or_else(refused)
    }
}

/// The chunks and segments of one manifest, by id.
pub(crate) type Pieces = HashMap<Id, Piece>;

/// A manifest of a tenant.
type Remembered = (Arc<str>, Key, Arc<Pieces>);

/// Manifests whose chunks are remembered: those that were stored or asked for last.
#[derive(Debug)]
pub(crate) struct Known {
    manifests: Mutex<VecDeque<Remembered>>,
    chunks_max: usize,
}

impl Known {
    pub(crate) fn new(chunks_max: usize) -> Self {
        Self { manifests: Mutex::default(), chunks_max }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Pieces>> {
        let manifests = self.manifests.lock();
        manifests.iter().find(|(_, there, _)| there == key).map(|(.., pieces)| pieces.clone())
    }

    /// The manifests of a tenant that were stored last, at most so many.
    pub(crate) fn recent(&self, tenant: &str, count_max: usize) -> Vec<Key> {
        let manifests = self.manifests.lock();
        let of_tenant = manifests.iter().filter(|(of, ..)| **of == *tenant);
        of_tenant.take(count_max).map(|(_, key, _)| key.clone()).collect()
    }

    /// Remembers a manifest, and forgets the oldest beyond the limit; one that is too large alone is not remembered.
    pub(crate) fn put(&self, tenant: &str, key: Key, pieces: Arc<Pieces>) {
        let mut manifests = self.manifests.lock();
        manifests.retain(|(_, there, _)| *there != key);
        manifests.push_front((tenant.into(), key, pieces));
        let mut room = self.chunks_max;
        manifests.retain(|(.., pieces)| {
            let fits = room >= pieces.len();
            room = if fits { room - pieces.len() } else { 0 };
            fits
        });
    }

    pub(crate) fn forget(&self, key: &Key) {
        self.manifests.lock().retain(|(_, there, _)| there != key);
    }
}
