//! The objects: kept whole or not at all, durable when the call returns.

use crate::connector::Connector;
use crate::{Addressing, Error, Key, Link, Links, OBJECT_BYTES_MAX, S3, key};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::local::LocalFileSystem;
use object_store::signer::{SignedUrlOptions, Signer};
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig};
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
        let wrong = |reason: String| Error::Settings { reason };
        let root = settings.root.trim_matches('/');
        if !root.is_empty() {
            key::plain(root).map_err(|error| wrong(format!("root: {error}")))?;
        }
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
        let store = builder.build().map_err(|error| wrong(error.to_string()))?;
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

    /// Keeps an object that comes in pieces, at most `bytes_max`; gives its length. When a piece fails or the object is
    /// too large, nothing is kept.
    pub async fn put_stream(
        &self,
        key: &Key,
        mut pieces: impl futures::Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
        bytes_max: u64,
    ) -> Result<u64, Error> {
        let path = key.path(&self.root)?;
        let mut part = BytesMut::new();
        let mut length = 0;
        let mut upload: Option<Box<dyn MultipartUpload>> = None;
        let fed = loop {
            match pieces.next().await {
                None => break Ok(()),
                Some(Err(error)) => break Err(Error::Source(error)),
                Some(Ok(piece)) => {
                    length += piece.len() as u64;
                    if length > bytes_max.min(OBJECT_BYTES_MAX) {
                        break Err(Error::TooLarge { bytes_max: bytes_max.min(OBJECT_BYTES_MAX) });
                    }
                    part.extend_from_slice(&piece);
                }
            }
            if part.len() >= PART_BYTES {
                let into = match &mut upload {
                    Some(upload) => upload,
                    none => none.insert(self.store().put_multipart(&path).await?),
                };
                if let Err(error) = into.put_part(part.split().freeze().into()).await {
                    break Err(error.into());
                }
            }
        };
        let Some(mut upload) = upload else {
            fed?;
            self.store().put(&path, PutPayload::from_bytes(part.freeze())).await?;
            return Ok(length);
        };
        let mut done = fed;
        if done.is_ok() && !part.is_empty() {
            done = upload.put_part(part.freeze().into()).await.map_err(Error::from);
        }
        if done.is_ok() {
            done = upload.complete().await.map(|_| ()).map_err(Error::from);
        }
        if let Err(error) = done {
            // The first error is the one to tell; what the storage keeps of the parts it drops by its own rules.
            let _ = upload.abort().await;
            return Err(error);
        }
        Ok(length)
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

    /// Objects whose keys begin with the parts of `prefix` (`outputs/default/run_…`), at most `objects_max`, by key among
    /// those given.
    pub async fn list(&self, prefix: &str, objects_max: usize) -> Result<Vec<Object>, Error> {
        let prefix = prefix.trim_end_matches('/');
        key::plain(prefix)?;
        let within = if self.root.is_empty() { prefix.to_owned() } else { format!("{}/{prefix}", self.root) };
        let within = object_store::path::Path::parse(within)
            .map_err(|_| Error::KeyMalformed { reason: "the storage does not take it" })?;
        let mut found = self.store().list(Some(&within)).take(objects_max.min(LIST_MAX));
        let mut objects = Vec::new();
        while let Some(meta) = found.try_next().await? {
            let path = meta.location.as_ref();
            let path = path.strip_prefix(&*self.root).map_or(path, |path| path.trim_start_matches('/'));
            // What others put beside our objects is not ours to name.
            if let Ok(key) = path.parse() {
                objects.push(Object { key, bytes: meta.size });
            }
        }
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
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

/// `Content-Disposition` (RFC 6266) that offers a file name.
pub(crate) fn disposition(name: &str) -> String {
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_. ".contains(c) { c } else { '_' }).collect();
    let encoded = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}")
}
