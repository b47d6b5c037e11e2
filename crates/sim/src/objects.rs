//! Objects that outlive every crash, as those of a storage service do: large contents of the journal, and everything of `blob`.
//! Each call is a point at which the process can die, before what was asked happened or after.

use crate::power::Power;
use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::sync::Arc;

/// A point at which the process can die. When it does, nobody waits for the answer any more.
pub(crate) async fn point(power: &Power, at: &'static str) {
    if power.point(at).is_err() {
        pending().await
    }
}

/// Large contents.
#[derive(Clone, Debug)]
pub(crate) struct Contents {
    power: Power,
    kept: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl Contents {
    pub(crate) fn new(power: Power) -> Self {
        Self { power, kept: Arc::default() }
    }
}

#[async_trait]
impl journal::Objects for Contents {
    async fn put(&self, key: &str, bytes: Vec<u8>) -> std::result::Result<(), String> {
        point(&self.power, "contents: put").await;
        self.kept.lock().insert(key.to_owned(), bytes);
        point(&self.power, "contents: was put").await;
        Ok(())
    }

    async fn get(&self, key: &str) -> std::result::Result<Option<Vec<u8>>, String> {
        Ok(self.kept.lock().get(key).cloned())
    }

    async fn delete(&self, key: &str) -> std::result::Result<(), String> {
        point(&self.power, "contents: delete").await;
        self.kept.lock().remove(key);
        Ok(())
    }
}

/// What `blob` keeps its objects in.
#[derive(Debug)]
pub(crate) struct Storage {
    power: Power,
    kept: InMemory,
}

impl Storage {
    pub(crate) fn new(power: Power) -> Self {
        Self { power, kept: InMemory::new() }
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the simulation's storage")
    }
}

#[async_trait]
impl ObjectStore for Storage {
    async fn put_opts(&self, place: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        point(&self.power, "storage: put").await;
        let put = self.kept.put_opts(place, payload, options).await;
        point(&self.power, "storage: was put").await;
        put
    }

    async fn put_multipart_opts(&self, place: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        point(&self.power, "storage: put in parts").await;
        self.kept.put_multipart_opts(place, options).await
    }

    async fn get_opts(&self, place: &Path, options: GetOptions) -> Result<GetResult> {
        point(&self.power, "storage: get").await;
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
