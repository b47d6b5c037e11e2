//! Stores an archive: cut, hashed, what is new compressed and sealed into packs, then the manifest.

use crate::cut::Cutter;
use crate::form::{self, Manifest, PACKS_MAX, PackId, Piece};
use crate::keys::{Id, Keys, Kind, Press};
use crate::pack::Filling;
use crate::store::{Pieces, pack_key};
use crate::{CHUNKS_MAX, Chunks, Error, Inner, MANIFEST_BYTES_MAX, PUT_MS_MAX};
use blob::Key;
use bytes::Bytes;
use domain::Digest;
use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Bytes of an archive that are cut at once.
const BATCH_BYTES: usize = 1 << 20;
/// Batches that are compressed and sealed at once.
const BATCHES_AT_ONCE: usize = 3;
/// Packs that are stored at once.
const PACKS_AT_ONCE: usize = 2;
/// Earlier manifests of the tenant that are shared with beside those that the caller names.
const RECENT_MAX: usize = 2;
/// Above so many packs, what an earlier manifest has of a pack is shared only when it is worth a read of its own: then it is
/// stored anew together, so that an archive of many checkpoints' pieces does not come from ever more packs.
const PACKS_WANTED: usize = 256;
const SHARE_BYTES_MIN: u64 = 64 << 10;

/// What became of an archive that was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of it.
    pub digest: Digest,
    /// Its chunks.
    pub chunks: u64,
    /// Chunks among them that were not there before.
    pub added_chunks: u64,
    /// Bytes of all objects that were stored for it.
    pub added_bytes: u64,
    /// How many objects these are, the manifest among them.
    pub added_objects: u64,
}

impl Chunks {
    /// Stores an archive that comes in pieces under a manifest's key; durable when this returns. The key is one that nobody has
    /// used before, also no attempt that failed: sweeps remember what a manifest needs by its key. Chunks that the manifests
    /// `bases` have, or those that were stored last for the tenant, are shared with them; a base that is gone or damaged is
    /// left aside. When this fails, no manifest is left, or one that nobody was told of.
    ///
    /// # Errors
    /// [`Error::Source`] for a piece that fails, [`Error::TooLarge`], [`Error::TooManyChunks`], [`Error::BaseGone`] and
    /// [`Error::TooSlow`], after which asking again is right; [`Error::Key`], [`Error::Objects`].
    pub async fn put(
        &self,
        tenant: &str,
        manifest: &Key,
        bases: &[Key],
        pieces: impl Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
        bytes_max: u64,
    ) -> Result<Stored, Error> {
        let inner = &self.0;
        let began = inner.parts.clock.boottime();
        let keys = inner.keys(tenant)?;
        let bases = inner.bases(&keys, bases).await?;
        let mut intake = Intake::new(inner, &keys, bases);
        let (bytes, digest) = intake.take_all(pieces, bytes_max).await?;
        let mut packer = intake.packer;
        let (listed, pieces) = packer.list(bytes, digest).await?;
        inner.in_time(began)?;
        let sealed = Inner::seal_manifest(&keys, &listed)?;
        if sealed.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(Error::TooManyChunks { chunks_max: CHUNKS_MAX });
        }
        packer.added_bytes += sealed.len() as u64;
        inner.parts.blobs.put(manifest, sealed.into()).await?;
        if let Err(error) = inner.confirm(began, &packer.bases).await {
            // Nobody was told of it; were it to stay, it would only keep its packs alive.
            inner.parts.blobs.delete(manifest).await?;
            return Err(error);
        }
        inner.known.put(tenant, manifest.clone(), Arc::new(pieces));
        Ok(Stored {
            bytes,
            digest,
            chunks: listed.chunks,
            added_chunks: packer.added_chunks,
            added_bytes: packer.added_bytes,
            added_objects: packer.added_packs + 1,
        })
    }

    /// Puts a manifest under another key as well: another session's archive, of the same chunks. Checked before it is copied.
    ///
    /// # Errors
    /// [`Error::Mismatch`], [`Error::Damaged`], [`Error::Missing`], also when the first one was deleted meanwhile.
    pub async fn copy(&self, tenant: &str, from: &Key, to: &Key, digest: Digest) -> Result<(), Error> {
        let inner = &self.0;
        let keys = inner.keys(tenant)?;
        let (manifest, stored) = inner.manifest(&keys, from).await?;
        if manifest.digest != digest {
            return Err(Error::Mismatch { object: from.to_string() });
        }
        inner.parts.blobs.put(to, stored).await?;
        if inner.parts.blobs.head(from).await?.is_none() {
            // A sweep may have looked between the two, and seen neither.
            inner.parts.blobs.delete(to).await?;
            return Err(Error::Missing { object: from.to_string() });
        }
        Ok(())
    }
}

/// An earlier manifest.
#[derive(Debug)]
struct Base {
    key: Key,
    pieces: Arc<Pieces>,
    is_used: bool,
}

impl Inner {
    /// The manifests to share with that are there now.
    async fn bases(self: &Arc<Self>, keys: &Arc<Keys>, named: &[Key]) -> Result<Vec<Base>, Error> {
        let mut bases: Vec<Base> = Vec::new();
        let recent = self.known.recent(keys.tenant(), RECENT_MAX);
        for key in named.iter().chain(&recent) {
            if bases.iter().any(|base| base.key == *key) {
                continue;
            }
            let pieces = match self.known.get(key) {
                Some(pieces) if self.parts.blobs.head(key).await?.is_some() => Some(pieces),
                Some(_) => {
                    self.known.forget(key);
                    None
                }
                None => self.load(keys, key).await?,
            };
            bases.extend(pieces.map(|pieces| Base { key: key.clone(), pieces, is_used: false }));
        }
        Ok(bases)
    }

    /// The pieces of a manifest that nobody here remembers; `None`: they can't be shared with.
    async fn load(self: &Arc<Self>, keys: &Arc<Keys>, key: &Key) -> Result<Option<Arc<Pieces>>, Error> {
        let loaded = async {
            let (manifest, _) = self.manifest(keys, key).await?;
            let chunks = self.chunks(keys, key, &manifest).await?;
            Ok(shared(&manifest, &chunks))
        };
        match loaded.await {
            Ok(pieces) => {
                let pieces = Arc::new(pieces);
                self.known.put(keys.tenant(), key.clone(), pieces.clone());
                Ok(Some(pieces))
            }
            Err(error @ (Error::Damaged { .. } | Error::Missing { .. } | Error::Newer { .. })) => {
                tracing::warn!(code = error.code(), %error, "an earlier checkpoint can't be shared with; all is stored");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn in_time(&self, began: Duration) -> Result<(), Error> {
        let took = self.parts.clock.boottime().saturating_sub(began);
        if took > Duration::from_millis(PUT_MS_MAX) {
            return Err(Error::TooSlow { duration_ms_max: PUT_MS_MAX });
        }
        Ok(())
    }

    /// Looks, with the new manifest in its place, whether those that it shares with are still there: then at every moment one
    /// or the other has kept the shared packs from being swept.
    async fn confirm(&self, began: Duration, bases: &[Base]) -> Result<(), Error> {
        for base in bases.iter().filter(|base| base.is_used) {
            if self.parts.blobs.head(&base.key).await?.is_none() {
                self.known.forget(&base.key);
                return Err(Error::BaseGone { base: base.key.to_string() });
            }
        }
        self.in_time(began)
    }
}

/// The pieces of a manifest that are worth sharing.
fn shared(manifest: &Manifest, chunks: &[Piece]) -> Pieces {
    let crowded = manifest.packs.len() > PACKS_WANTED;
    let worth =
        |piece: &&Piece| !crowded || manifest.packs.get(&piece.pack).is_some_and(|bytes| *bytes >= SHARE_BYTES_MIN);
    chunks.iter().chain(&manifest.segments).filter(worth).map(|piece| (piece.id, *piece)).collect()
}

/// A chunk on its way.
struct Cut {
    id: Id,
    plain_bytes: u32,
    /// `None`: it is there, or another of the same bytes is on its way.
    sealed: Option<Vec<u8>>,
}

/// A batch on its way.
type Job = BoxFuture<'static, Result<Result<Vec<Cut>, Error>, Error>>;

/// Takes an archive in.
struct Intake {
    inner: Arc<Inner>,
    keys: Arc<Keys>,
    known: Arc<[Arc<Pieces>]>,
    /// Chunks that were met in this archive.
    met: Arc<Mutex<HashSet<Id>>>,
    jobs: VecDeque<Job>,
    packer: Packer,
}

/// Cuts and hashes what comes, in order.
struct Head {
    cutter: Cutter,
    hash: ring::digest::Context,
}

impl Intake {
    fn new(inner: &Arc<Inner>, keys: &Arc<Keys>, bases: Vec<Base>) -> Self {
        let known = bases.iter().map(|base| base.pieces.clone()).collect();
        let packer = Packer::new(inner, keys, bases);
        Self { inner: inner.clone(), keys: keys.clone(), known, met: Arc::default(), jobs: VecDeque::new(), packer }
    }

    /// Takes all pieces; gives their length and digest.
    async fn take_all(
        &mut self,
        mut pieces: impl Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
        bytes_max: u64,
    ) -> Result<(u64, Digest), Error> {
        let hash = ring::digest::Context::new(&ring::digest::SHA256);
        let mut head = Head { cutter: Cutter::new(&self.keys), hash };
        let (mut bytes, mut batch, mut batch_bytes) = (0_u64, Vec::new(), 0);
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(Error::Source)?;
            bytes += piece.len() as u64;
            if bytes > bytes_max {
                return Err(Error::TooLarge { bytes_max });
            }
            batch_bytes += piece.len();
            batch.push(piece);
            if batch_bytes >= BATCH_BYTES {
                head = self.advance(head, std::mem::take(&mut batch)).await?;
                batch_bytes = 0;
                self.settle(BATCHES_AT_ONCE - 1).await?;
            }
        }
        let head = self.advance(head, batch).await?;
        let Head { cutter, hash } = head;
        let mut rest = Vec::new();
        cutter.finish(&mut rest);
        self.begin(rest);
        self.settle(0).await?;
        let mut digest = [0; 32];
        digest.copy_from_slice(hash.finish().as_ref());
        Ok((bytes, Digest(digest)))
    }

    /// Cuts a batch, and begins to seal its chunks.
    async fn advance(&mut self, mut head: Head, batch: Vec<Bytes>) -> Result<Head, Error> {
        let (head, chunks) = self
            .inner
            .compute(move || {
                let mut chunks = Vec::new();
                for piece in batch {
                    head.hash.update(&piece);
                    head.cutter.take(&piece, &mut chunks);
                }
                (head, chunks)
            })
            .await?;
        self.begin(chunks);
        Ok(head)
    }

    fn begin(&mut self, chunks: Vec<Bytes>) {
        let (keys, known, met) = (self.keys.clone(), self.known.clone(), self.met.clone());
        self.jobs.push_back(self.inner.compute(move || seal(&keys, &known, &met, &chunks)));
    }

    /// Packs what is sealed until so many batches are left.
    async fn settle(&mut self, batches: usize) -> Result<(), Error> {
        while self.jobs.len() > batches {
            let Some(job) = self.jobs.pop_front() else { break };
            for cut in job.await?? {
                self.packer.take(cut).await?;
            }
        }
        Ok(())
    }
}

/// Seals the chunks that are new.
fn seal(keys: &Keys, known: &[Arc<Pieces>], met: &Mutex<HashSet<Id>>, chunks: &[Bytes]) -> Result<Vec<Cut>, Error> {
    let mut press = Press::new();
    let one = |chunk: &Bytes| {
        let id = keys.id(Kind::Chunk, chunk);
        let is_new = !known.iter().any(|pieces| pieces.contains_key(&id)) && met.lock().insert(id);
        let sealed = is_new.then(|| keys.seal(&mut press, Kind::Chunk, id, chunk)).transpose()?;
        let plain_bytes = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
        Ok(Cut { id, plain_bytes, sealed })
    };
    chunks.iter().map(one).collect()
}

/// Fills packs and stores them, and keeps the list.
struct Packer {
    inner: Arc<Inner>,
    keys: Arc<Keys>,
    bases: Vec<Base>,
    filling: Option<Filling>,
    puts: JoinSet<Result<(), Error>>,
    /// What this archive added.
    placed: HashMap<Id, Piece>,
    list: Vec<(Id, u32)>,
    added_chunks: u64,
    added_bytes: u64,
    added_packs: u64,
}

impl Packer {
    fn new(inner: &Arc<Inner>, keys: &Arc<Keys>, bases: Vec<Base>) -> Self {
        Self {
            inner: inner.clone(),
            keys: keys.clone(),
            bases,
            filling: None,
            puts: JoinSet::new(),
            placed: HashMap::new(),
            list: Vec::new(),
            added_chunks: 0,
            added_bytes: 0,
            added_packs: 0,
        }
    }

    async fn take(&mut self, cut: Cut) -> Result<(), Error> {
        if self.list.len() as u64 == CHUNKS_MAX {
            return Err(Error::TooManyChunks { chunks_max: CHUNKS_MAX });
        }
        self.list.push((cut.id, cut.plain_bytes));
        if let Some(sealed) = cut.sealed {
            self.added_chunks += 1;
            self.add(cut.id, &sealed, cut.plain_bytes).await?;
        }
        Ok(())
    }

    async fn add(&mut self, id: Id, sealed: &[u8], plain_bytes: u32) -> Result<Piece, Error> {
        let filling = self.filling.get_or_insert_with(|| Filling::new(PackId(self.inner.parts.random.bytes())));
        let piece = filling.add(id, sealed, plain_bytes);
        self.placed.insert(id, piece);
        if filling.is_full(self.inner.config.pack_bytes) {
            self.flush(PACKS_AT_ONCE - 1).await?;
        }
        Ok(piece)
    }

    /// Begins to store the pack that is being filled, and waits until so many are on their way.
    async fn flush(&mut self, on_their_way_max: usize) -> Result<(), Error> {
        if let Some(filling) = self.filling.take() {
            let key = pack_key(self.keys.tenant(), filling.id)?;
            let pack = filling.end(&self.keys)?;
            self.added_packs += 1;
            self.added_bytes += pack.len() as u64;
            let blobs = self.inner.parts.blobs.clone();
            self.puts.spawn(async move { Ok(blobs.put(&key, pack.into()).await?) });
        }
        while self.puts.len() > on_their_way_max {
            let Some(done) = self.puts.join_next().await else { break };
            done.map_err(|error| Error::BrokenOff(error.to_string()))??;
        }
        Ok(())
    }

    /// Where a piece lies that was met before; the base that has it is shared with from now on.
    fn find(&mut self, id: Id) -> Option<Piece> {
        if let Some(piece) = self.placed.get(&id) {
            return Some(*piece);
        }
        let base = self.bases.iter_mut().find(|base| base.pieces.contains_key(&id))?;
        base.is_used = true;
        base.pieces.get(&id).copied()
    }

    /// Stores the list; everything but the manifest is durable then.
    async fn list(&mut self, bytes: u64, digest: Digest) -> Result<(Manifest, Pieces), Error> {
        let list = std::mem::take(&mut self.list);
        let unplaced = || Error::BrokenOff("a chunk has no place".to_owned());
        let chunks: Vec<Piece> =
            list.iter().map(|(id, _)| self.find(*id).ok_or_else(unplaced)).collect::<Result<_, _>>()?;
        let (mut segments, mut press) = (Vec::new(), Press::new());
        for segment in form::segments(&chunks) {
            let plain = form::write_segment(segment);
            let id = self.keys.id(Kind::Segment, &plain);
            segments.push(match self.find(id) {
                Some(piece) => piece,
                None => {
                    let sealed = self.keys.seal(&mut press, Kind::Segment, id, &plain)?;
                    self.add(id, &sealed, u32::try_from(plain.len()).unwrap_or(u32::MAX)).await?
                }
            });
        }
        self.flush(0).await?;
        let mut packs = BTreeMap::new();
        let mut pieces = Pieces::new();
        for piece in chunks.iter().chain(&segments) {
            if pieces.insert(piece.id, *piece).is_none() {
                *packs.entry(piece.pack).or_insert(0) += u64::from(piece.sealed_bytes);
            }
        }
        if packs.len() > PACKS_MAX {
            return Err(Error::TooManyChunks { chunks_max: CHUNKS_MAX });
        }
        let manifest = Manifest { digest, bytes, chunks: chunks.len() as u64, segments, packs };
        let pieces = shared(&manifest, &chunks);
        Ok((manifest, pieces))
    }
}
