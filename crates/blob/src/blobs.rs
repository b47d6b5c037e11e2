//! The objects: kept whole or not at all, durable when the call returns.

use crate::connector::Connector;
use crate::{Addressing, Error, Key, Link, Links, OBJECT_BYTES_MAX, S3, STREAM_BYTES_MAX, key};
use bytes::{Bytes, BytesMut};
use domain::Digest;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::local::LocalFileSystem;
use object_store::signer::{SignedUrlOptions, Signer};
use object_store::{MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, Permissions, set_permissions};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

/// Bytes held at a time while a stream is stored; S3 wants at least 5 MiB for a part.
const PART_BYTES: usize = 8 << 20;
/// Objects that one list gives at most.
const LIST_MAX: usize = 10_000;
/// Objects that are deleted between two looks at what is left, and how many of them at once.
const DELETE_PAGE: usize = 1_000;
const DELETES_AT_ONCE: usize = 8;
/// How long the storage is asked again before it counts as unreachable.
const RETRY_MS_MAX: u64 = 20_000;
const RETRIES_MAX: usize = 3;

/// Bytes in pieces.
pub type Stream = futures::stream::BoxStream<'static, Result<Bytes, Error>>;

/// What is known of an object without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its key.
    pub key: Key,
    /// Its length.
    pub bytes: u64,
}

/// What became of a stream that was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of it.
    pub digest: Digest,
}

/// The objects. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Blobs {
    backend: Backend,
    /// Within the storage, everything lies under this.
    root: Arc<str>,
    links: Arc<Links>,
}

#[derive(Clone, Debug)]
enum Backend {
    Local { store: Arc<LocalFileSystem>, directory: Arc<FilePath> },
    S3(Arc<AmazonS3>),
    Given(Arc<dyn ObjectStore>),
}

impl Blobs {
    /// Objects in a local directory; makes it (0700) when it is not there. Every write is synced to the disk.
    pub fn local(directory: &FilePath, links: Links) -> Result<Self, Error> {
        let named = |error| Error::Directory { path: directory.to_owned(), error };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(named)?;
        set_permissions(directory, Permissions::from_mode(0o700)).map_err(named)?;
        let store = LocalFileSystem::new_with_prefix(directory)?.with_fsync(true).with_automatic_cleanup(false);
        Ok(Self {
            backend: Backend::Local { store: Arc::new(store), directory: directory.into() },
            root: "".into(),
            links: Arc::new(links),
        })
    }

    /// Objects in S3-compatible storage. Does not connect.
    pub fn s3(settings: &S3, client: net::Client, links: Links) -> Result<Self, Error> {
        let root = settings.root.trim_matches('/');
        if !root.is_empty() {
            key::plain(root).map_err(|error| Error::Settings { reason: format!("root: {error}") })?;
        }
        let store = open(settings, client)?;
        Ok(Self { backend: Backend::S3(Arc::new(store)), root: root.into(), links: Arc::new(links) })
    }

    /// Objects in a storage that somebody else made, such as one that fails when it is told to.
    pub fn over(store: Arc<dyn ObjectStore>, links: Links) -> Self {
        Self { backend: Backend::Given(store), root: "".into(), links: Arc::new(links) }
    }

    fn store(&self) -> &dyn ObjectStore {
        match &self.backend {
            Backend::Local { store, .. } => &**store,
            Backend::S3(store) => &**store,
            Backend::Given(store) => &**store,
        }
    }

    /// Keeps an object, in the place of an older one. Nobody ever sees a part of it.
    pub async fn put(&self, key: &Key, bytes: Bytes) -> Result<(), Error> {
        if bytes.len() as u64 > OBJECT_BYTES_MAX {
            return Err(Error::TooLarge { bytes_max: OBJECT_BYTES_MAX });
        }
        self.store().put(&key.path(&self.root)?, PutPayload::from_bytes(bytes)).await?;
        Ok(())
    }

    /// Keeps an object that comes in pieces, of any length up to `bytes_max`, holding one part of it in memory. When a piece
    /// fails or the object is too large, nothing is kept. A caller that gives up half way leaves nothing in a local directory;
    /// S3-compatible storage drops the parts by its own rules for uploads that never end.
    ///
    /// # Errors
    /// [`Error::Source`] for a piece that fails, [`Error::TooLarge`], [`Error::Storage`].
    pub async fn put_stream(
        &self,
        key: &Key,
        mut pieces: impl futures::Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
        bytes_max: u64,
    ) -> Result<Stored, Error> {
        let path = key.path(&self.root)?;
        let mut writing = Writing { store: self.store(), path: &path, part: BytesMut::new(), upload: None };
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        let (bytes_max, mut bytes) = (bytes_max.min(STREAM_BYTES_MAX), 0);
        let fed = loop {
            match pieces.next().await {
                None => break Ok(()),
                Some(Err(error)) => break Err(Error::Source(error)),
                Some(Ok(piece)) => {
                    bytes += piece.len() as u64;
                    if bytes > bytes_max {
                        break Err(Error::TooLarge { bytes_max });
                    }
                    hash.update(&piece);
                    if let Err(error) = writing.take(&piece).await {
                        break Err(error);
                    }
                }
            }
        };
        writing.end(fed).await?;
        let mut digest = [0; 32];
        digest.copy_from_slice(hash.finish().as_ref());
        Ok(Stored { bytes, digest: Digest(digest) })
    }

    /// Reads an object through for its SHA-256, holding one piece of it in memory.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Storage`].
    pub async fn digest(&self, key: &Key) -> Result<Digest, Error> {
        let (_, mut pieces) = self.get_stream(key).await?;
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        while let Some(piece) = pieces.next().await {
            hash.update(&piece?);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(hash.finish().as_ref());
        Ok(Digest(digest))
    }

    /// An object's bytes, at most `bytes_max`.
    pub async fn get(&self, key: &Key, bytes_max: u64) -> Result<Bytes, Error> {
        let found = self.store().get(&key.path(&self.root)?).await?;
        if found.meta.size > bytes_max {
            return Err(Error::TooLarge { bytes_max });
        }
        Ok(found.bytes().await?)
    }

    /// A part of an object's bytes; what lies beyond its end is left out.
    pub async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, Error> {
        if range.is_empty() || range.end - range.start > OBJECT_BYTES_MAX {
            return Err(Error::TooLarge { bytes_max: OBJECT_BYTES_MAX });
        }
        Ok(self.store().get_range(&key.path(&self.root)?, range).await?)
    }

    /// An object's length and its bytes in pieces.
    pub async fn get_stream(&self, key: &Key) -> Result<(u64, Stream), Error> {
        let found = self.store().get(&key.path(&self.root)?).await?;
        Ok((found.meta.size, found.into_stream().map_err(Error::from).boxed()))
    }

    /// What is known of an object; `None` when there is none.
    pub async fn head(&self, key: &Key) -> Result<Option<Object>, Error> {
        match self.store().head(&key.path(&self.root)?).await.map_err(Error::from) {
            Ok(meta) => Ok(Some(Object { key: key.clone(), bytes: meta.size })),
            Err(Error::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes an object; one that is not there is no error.
    pub async fn delete(&self, key: &Key) -> Result<(), Error> {
        match self.store().delete(&key.path(&self.root)?).await.map_err(Error::from) {
            Ok(()) | Err(Error::Missing { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Objects whose keys begin with the parts of `prefix` (`outputs/default/run_…`), at most `objects_max` and 10,000, by key
    /// among those given.
    pub async fn list(&self, prefix: &str, objects_max: usize) -> Result<Vec<Object>, Error> {
        let within = self.within(prefix)?;
        let mut found = self.store().list(Some(&within)).take(objects_max.min(LIST_MAX));
        let mut objects = Vec::new();
        while let Some(meta) = found.try_next().await? {
            objects.extend(self.object(&meta));
        }
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    /// The next page of the objects under `prefix`, by key: those that come after `after`, at most `objects_max` and 10,000.
    /// An empty page is behind the last.
    pub async fn page(&self, prefix: &str, after: Option<&Key>, objects_max: usize) -> Result<Vec<Object>, Error> {
        let within = self.within(prefix)?;
        let room = objects_max.clamp(1, LIST_MAX);
        let mut found = match after {
            Some(after) => self.store().list_with_offset(Some(&within), &after.path(&self.root)?),
            None => self.store().list(Some(&within)),
        };
        // Only S3 promises an order; elsewhere all are looked at, and the lowest are kept.
        let ordered = self.is_remote();
        let mut page = BTreeMap::new();
        while let Some(meta) = found.try_next().await? {
            let Some(object) = self.object(&meta) else { continue };
            page.insert(object.key.clone(), object);
            if page.len() > room {
                page.pop_last();
            }
            if ordered && page.len() == room {
                break;
            }
        }
        Ok(page.into_values().collect())
    }

    /// Deletes the objects under `prefix`, at most `objects_max` of them; gives how many. Fewer than that: none is left.
    pub async fn delete_under(&self, prefix: &str, objects_max: usize) -> Result<usize, Error> {
        let mut deleted = 0;
        while deleted < objects_max {
            let page = self.page(prefix, None, DELETE_PAGE.min(objects_max - deleted)).await?;
            if page.is_empty() {
                break;
            }
            deleted += page.len();
            // Each owns what it deletes, so that the whole can move between threads.
            let deletes = page.into_iter().map(|object| async move { self.delete(&object.key).await });
            futures::stream::iter(deletes).buffer_unordered(DELETES_AT_ONCE).try_collect::<()>().await?;
        }
        Ok(deleted)
    }

    fn within(&self, prefix: &str) -> Result<object_store::path::Path, Error> {
        let prefix = prefix.trim_end_matches('/');
        key::plain(prefix)?;
        let within = if self.root.is_empty() { prefix.to_owned() } else { format!("{}/{prefix}", self.root) };
        object_store::path::Path::parse(within)
            .map_err(|_| Error::KeyMalformed { reason: "the storage does not take it" })
    }

    /// The object that is listed, unless others put it beside ours: that is not ours to name.
    fn object(&self, meta: &ObjectMeta) -> Option<Object> {
        let path = meta.location.as_ref();
        let path = path.strip_prefix(&*self.root).map_or(path, |path| path.trim_start_matches('/'));
        Some(Object { key: path.parse().ok()?, bytes: meta.size })
    }

    /// Where an object can be fetched for `lasts_ms`, with the file name to offer.
    pub async fn link(&self, key: &Key, name: &str, lasts_ms: u64) -> Result<Link, Error> {
        let token = self.links.sign(key, name, lasts_ms)?;
        let Backend::S3(store) = &self.backend else {
            return Ok(Link::Token(token));
        };
        let offered = [("response-content-disposition", disposition(name))];
        let options = SignedUrlOptions::new().with_query(offered);
        let path = key.path(&self.root)?;
        let lasts = Duration::from_millis(lasts_ms);
        let url = store.signed_url_opts(http::Method::GET, &path, lasts, &options).await?;
        Ok(Link::Url(url.into()))
    }

    /// What a token leads to.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Whether the objects are on S3-compatible storage.
    pub const fn is_remote(&self) -> bool {
        matches!(self.backend, Backend::S3(_))
    }

    /// Asks the storage itself: endpoint, bucket and keys fit, or the directory is there.
    pub async fn probe(&self) -> Result<(), Error> {
        if let Backend::Local { directory, .. } = &self.backend {
            let named = |error| Error::Directory { path: directory.to_path_buf(), error };
            directory.metadata().map_err(named)?;
        }
        self.list("inputs", 1).await.map(|_| ())
    }
}

/// The storage itself. Does not connect.
pub(crate) fn open(settings: &S3, client: net::Client) -> Result<AmazonS3, Error> {
    let wrong = |reason: String| Error::Settings { reason };
    let mut endpoint = net::Url::parse(&settings.endpoint).map_err(|error| wrong(format!("endpoint: {error}")))?;
    if !matches!(endpoint.scheme(), "http" | "https") {
        return Err(wrong("endpoint: expected http:// or https://".to_owned()));
    }
    if settings.addressing == Addressing::VirtualHost {
        let host = format!("{}.{}", settings.bucket, endpoint.host_str().unwrap_or_default());
        endpoint.set_host(Some(&host)).map_err(|error| wrong(format!("endpoint: {error}")))?;
    }
    let mut builder = AmazonS3Builder::new()
        .with_endpoint(endpoint.as_str().trim_end_matches('/'))
        .with_allow_http(endpoint.scheme() == "http")
        .with_virtual_hosted_style_request(settings.addressing == Addressing::VirtualHost)
        .with_bucket_name(&settings.bucket)
        .with_region(&settings.region)
        .with_access_key_id(&settings.access_key_id)
        .with_secret_access_key(&settings.secret_access_key)
        .with_retry(RetryConfig {
            max_retries: RETRIES_MAX,
            retry_timeout: Duration::from_millis(RETRY_MS_MAX),
            ..RetryConfig::default()
        })
        .with_http_connector(Connector(client));
    if let Some(token) = &settings.session_token {
        builder = builder.with_token(token);
    }
    builder.build().map_err(|error| wrong(error.to_string()))
}

/// An object that is being stored part by part.
struct Writing<'a> {
    store: &'a dyn ObjectStore,
    path: &'a object_store::path::Path,
    part: BytesMut,
    upload: Option<Box<dyn MultipartUpload>>,
}

impl Writing<'_> {
    /// Takes a piece. Every part but the last has the same length: some storages refuse others.
    async fn take(&mut self, piece: &Bytes) -> Result<(), Error> {
        for piece in piece.chunks(PART_BYTES) {
            self.part.extend_from_slice(piece);
            if self.part.len() < PART_BYTES {
                continue;
            }
            let part = self.part.split_to(PART_BYTES).freeze();
            let upload = match &mut self.upload {
                Some(upload) => upload,
                none => none.insert(self.store.put_multipart(self.path).await?),
            };
            upload.put_part(part.into()).await?;
        }
        Ok(())
    }

    /// Ends it, or takes everything back when it was not fed to its end.
    async fn end(self, fed: Result<(), Error>) -> Result<(), Error> {
        let Some(mut upload) = self.upload else {
            fed?;
            self.store.put(self.path, PutPayload::from_bytes(self.part.freeze())).await?;
            return Ok(());
        };
        let mut done = fed;
        if done.is_ok() && !self.part.is_empty() {
            done = upload.put_part(self.part.freeze().into()).await.map_err(Error::from);
        }
        if done.is_ok() {
            done = upload.complete().await.map(|_| ()).map_err(Error::from);
        }
        if done.is_err() {
            // The first error is the one to tell; what the storage keeps of the parts it drops by its own rules.
            let _ = upload.abort().await;
        }
        done
    }
}

/// `Content-Disposition` (RFC 6266) that offers a file name.
pub(crate) fn disposition(name: &str) -> String {
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_. ".contains(c) { c } else { '_' }).collect();
    let encoded = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}")
}
