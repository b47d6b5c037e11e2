//! Archives to store, and objects that fail, stop or change when they are told to.

#![allow(dead_code, reason = "each test uses a part of it")]

use async_trait::async_trait;
use blob::{Blobs, Key, Links};
use bytes::Bytes;
use chunks::{Chunks, Config, Error, Parts, Stored, TenantKeys};
use domain::Digest;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use stdx::{Clock, Random};

pub(crate) const TENANT: &str = "default";
pub(crate) const BYTES_MAX: u64 = 4 << 30;
pub(crate) const BLOCK: usize = 512;

/// A key for each tenant.
#[derive(Debug)]
pub(crate) struct TestKeys;

impl TenantKeys for TestKeys {
    fn key(&self, tenant: &str) -> std::result::Result<[u8; 32], String> {
        match tenant {
            "default" => Ok([1; 32]),
            "other" => Ok([2; 32]),
            _ => Err("there is none".to_owned()),
        }
    }
}

/// What happens at the `n`th time that something is put.
pub(crate) enum Fate {
    /// It fails, and nothing was put.
    Refused,
    /// It fails, and yet it was put.
    Unanswered,
}

type Hook = Box<dyn Fn(String) -> futures::future::BoxFuture<'static, ()> + Send + Sync>;

/// Objects in memory that fail when they are told to.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) kept: InMemory,
    pub(crate) puts: AtomicU64,
    pub(crate) fate: Mutex<Option<(u64, Fate)>>,
    /// Runs after every put, with its key.
    pub(crate) after_put: Mutex<Option<Arc<Hook>>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store that fails when it is told to")
    }
}

fn broken() -> object_store::Error {
    object_store::Error::Generic { store: "test", source: "broken on purpose".into() }
}

#[async_trait]
impl ObjectStore for Store {
    async fn put_opts(&self, place: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let count = self.puts.fetch_add(1, Ordering::SeqCst) + 1;
        let fate = self.fate.lock().unwrap().take_if(|(at, _)| *at == count);
        if let Some((_, Fate::Refused)) = fate {
            return Err(broken());
        }
        let put = self.kept.put_opts(place, payload, options).await;
        let hook = self.after_put.lock().unwrap().clone();
        if let Some(hook) = hook {
            hook(place.to_string()).await;
        }
        if fate.is_some() { Err(broken()) } else { put }
    }

    async fn put_multipart_opts(&self, place: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.kept.put_multipart_opts(place, options).await
    }

    async fn get_opts(&self, place: &Path, options: GetOptions) -> Result<GetResult> {
        self.kept.get_opts(place, options).await
    }

    fn delete_stream(&self, places: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.kept.delete_stream(places)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.kept.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.kept.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.kept.copy_opts(from, to, options).await
    }
}

impl Store {
    /// Every object's key under a prefix.
    pub(crate) async fn keys(&self, prefix: &str) -> Vec<String> {
        let listed: Vec<_> = self.kept.list(Some(&Path::from(prefix))).try_collect().await.unwrap();
        let mut keys: Vec<_> = listed.into_iter().map(|meta| meta.location.to_string()).collect();
        keys.sort();
        keys
    }

    pub(crate) async fn bytes(&self, key: &str) -> Vec<u8> {
        self.kept.get(&Path::from(key)).await.unwrap().bytes().await.unwrap().to_vec()
    }

    pub(crate) async fn set(&self, key: &str, bytes: Vec<u8>) {
        self.kept.put(&Path::from(key), bytes.into()).await.unwrap();
    }

    pub(crate) async fn remove(&self, key: &str) {
        self.kept.delete(&Path::from(key)).await.unwrap();
    }

    pub(crate) fn fail(&self, at: u64, fate: Fate) {
        self.puts.store(0, Ordering::SeqCst);
        *self.fate.lock().unwrap() = Some((at, fate));
    }
}

/// A store of chunks over objects in memory.
pub(crate) struct Bench {
    pub(crate) store: Arc<Store>,
    pub(crate) clock: Clock,
    pub(crate) chunks: Chunks,
}

pub(crate) const CONFIG: Config = Config {
    grace_ms: 3_600_000,
    pack_bytes: 256 << 10,
    known_chunks_max: 1 << 16,
    threads: chunks::Threads::Blocking,
};

pub(crate) fn links() -> Links {
    Links::new(&[1; 32], Clock::manual(0))
}

pub(crate) fn over(blobs: Blobs, clock: &Clock, config: Config) -> Chunks {
    let parts = Parts { blobs, keys: Arc::new(TestKeys), clock: clock.clone(), random: Random::system() };
    Chunks::new(parts, config)
}

impl Bench {
    pub(crate) fn new(config: Config) -> Self {
        let (store, clock) = (Arc::new(Store::default()), Clock::manual(1_000_000));
        let chunks = over(Blobs::over(store.clone(), links()), &clock, config);
        Self { store, clock, chunks }
    }

    /// As another process over the same objects, which remembers nothing.
    pub(crate) fn restarted(&self, config: Config) -> Chunks {
        over(Blobs::over(self.store.clone(), links()), &self.clock, config)
    }

    pub(crate) async fn put(&self, name: &str, bases: &[&str], archive: &[u8]) -> std::result::Result<Stored, Error> {
        put(&self.chunks, name, bases, archive).await
    }
}

/// The key of a manifest.
pub(crate) fn key(name: &str) -> Key {
    format!("checkpoints/{TENANT}/{name}.chunks").parse().unwrap()
}

pub(crate) async fn put(
    chunks: &Chunks,
    name: &str,
    bases: &[&str],
    archive: &[u8],
) -> std::result::Result<Stored, Error> {
    let bases: Vec<_> = bases.iter().map(|base| key(base)).collect();
    let pieces: Vec<_> = archive.chunks(65_536).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let stored = chunks.put(TENANT, &key(name), &bases, stream::iter(pieces), BYTES_MAX).await?;
    assert_eq!((stored.bytes, stored.digest), (archive.len() as u64, Digest::of(archive)));
    Ok(stored)
}

/// The whole archive, or why there is none, with what came before.
pub(crate) async fn get(chunks: &Chunks, name: &str, digest: Digest) -> std::result::Result<Vec<u8>, (Error, Vec<u8>)> {
    let mut out = Vec::new();
    let mut archive = match chunks.get(TENANT, &key(name), digest, BYTES_MAX).await {
        Ok(archive) => archive,
        Err(error) => return Err((error, out)),
    };
    while let Some(piece) = archive.pieces.next().await {
        match piece {
            Ok(piece) => out.extend_from_slice(&piece),
            Err(error) => return Err((error, out)),
        }
    }
    assert_eq!(out.len() as u64, archive.bytes);
    Ok(out)
}

pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let random = Random::seeded(seed);
    let mut out: Vec<u8> = (0..bytes.div_ceil(64)).flat_map(|_| random.bytes::<64>()).collect();
    out.truncate(bytes);
    out
}

/// Files by path.
pub(crate) type Tree = BTreeMap<String, Vec<u8>>;

/// A tree as an export writes it, as far as that matters here.
pub(crate) fn tar(tree: &Tree) -> Vec<u8> {
    let mut out = Vec::new();
    for (path, data) in tree {
        let mut block = [0; BLOCK];
        let length = path.len().min(100);
        block[..length].copy_from_slice(&path.as_bytes()[..length]);
        block[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
        block[156] = b'0';
        block[257..265].copy_from_slice(b"ustar\x0000");
        out.extend(block);
        out.extend(data);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

/// A tree of `files` files whose bytes do not compress.
pub(crate) fn tree(seed: u64, files: u64) -> Tree {
    let random = Random::seeded(seed);
    let file = |n: u64| {
        let bytes = match random.below(40) {
            0 => random.below(400_000),
            1..=4 => 0,
            _ => random.below(9_000),
        };
        let path = format!("d{}/s{}/{n}", random.below(9), random.below(5));
        (path, noise(seed.wrapping_mul(1_000_003).wrapping_add(n), usize::try_from(bytes).unwrap()))
    };
    (0..files).map(file).collect()
}
