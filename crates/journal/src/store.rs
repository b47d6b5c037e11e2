//! What a store does. One contract suite (`tests/contract.rs`) runs over all of them.

use crate::backup::Manifest;
use crate::claims::{Backend, Claims};
use crate::contents::Stored;
use crate::query::{Head, Page, RunFilter, SessionCursor, StoredRecord, Unfinished, UnfinishedCursor};
use crate::upkeep::Upkeep;
use crate::waiting::Waiting;
use crate::{Append, Appended, ArtifactRow, DueRow, Error, Health, RunRow, SessionKey, SessionRow};
use async_trait::async_trait;
use domain::{Id, id};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Keeps logs, contents and index. Entries reach it checked and with their objects already durable.
#[async_trait]
pub(crate) trait Store: Upkeep + Waiting + Send + Sync + fmt::Debug {
    /// How often the journal was opened, this time included.
    fn boot(&self) -> u64;
    fn backend(&self) -> Backend;
    /// The claims, when processes share the store.
    fn claims(&self) -> Option<&dyn Claims> {
        None
    }
    fn health(&self) -> Health;
    /// Lets go of what nobody has used since it was last told so.
    fn let_go(&self) {}
    /// Connections that stay open although nobody uses them now.
    fn idle_connections(&self) -> usize {
        0
    }
    /// Ends the writer after what is queued; then nothing is taken any more.
    async fn close(&self) -> Result<(), Error>;

    async fn append(&self, entry: Append) -> Result<Appended, Error>;
    /// Raises a session's epoch: when this returns, nothing more comes from drivers whose claims are older. For claims that
    /// are kept beside the store; a store with claims of its own raises it with them.
    async fn fence(&self, _key: &SessionKey, _epoch: u64) -> Result<(), Error> {
        Err(Error::Invalid { reason: "the claims of this store fence by themselves" })
    }
    async fn erase_item(&self, key: &SessionKey, item: Id<id::Content>) -> Result<Option<Stored>, Error>;
    /// The items that had an object.
    async fn erase_session(&self, key: &SessionKey) -> Result<Vec<Id<id::Content>>, Error>;

    /// Makes sessions, runs, artifacts and timers anew from the records; gives the number of records read.
    async fn rebuild_index(&self) -> Result<u64, Error>;

    /// Copies the store into a directory.
    async fn backup(&self, _to: &Path, _made_ms: u64) -> Result<Manifest, Error> {
        Err(Error::Invalid { reason: "this store is backed up with its own tools, or not at all" })
    }

    async fn head(&self, key: &SessionKey) -> Result<Head, Error>;
    /// The last record of each of some sessions, in their order; `None` for one that has none.
    async fn last_records(&self, keys: Vec<SessionKey>) -> Result<Vec<Option<StoredRecord>>, Error> {
        let mut last = Vec::with_capacity(keys.len());
        for key in &keys {
            let position = self.head(key).await?.position;
            last.push(self.records(key, position.saturating_sub(1), 1).await?.pop());
        }
        Ok(last)
    }
    async fn records(&self, key: &SessionKey, from: u64, rows_max: usize) -> Result<Vec<StoredRecord>, Error>;
    async fn content(&self, key: &SessionKey, item: Id<id::Content>) -> Result<Option<Stored>, Error>;
    async fn data_key(&self, key: &SessionKey) -> Result<Option<Vec<u8>>, Error>;

    async fn run(&self, tenant: &Arc<str>, run: Id<id::Run>) -> Result<Option<RunRow>, Error>;
    async fn runs(
        &self,
        tenant: &Arc<str>,
        filter: RunFilter,
        before: Option<Id<id::Run>>,
        rows_max: usize,
    ) -> Result<Page<RunRow, Id<id::Run>>, Error>;
    async fn session(&self, key: &SessionKey) -> Result<Option<SessionRow>, Error>;
    async fn sessions(
        &self,
        tenant: &Arc<str>,
        before: Option<SessionCursor>,
        rows_max: usize,
    ) -> Result<Page<SessionRow, SessionCursor>, Error>;
    async fn unfinished(
        &self,
        after: Option<&UnfinishedCursor>,
        rows_max: usize,
    ) -> Result<Page<Unfinished, UnfinishedCursor>, Error>;
    async fn artifacts(&self, tenant: &Arc<str>, run: Id<id::Run>, rows_max: usize) -> Result<Vec<ArtifactRow>, Error>;
    async fn artifact(&self, tenant: &Arc<str>, artifact: Id<id::Artifact>) -> Result<Option<ArtifactRow>, Error>;
    async fn due(&self, until_ms: u64, rows_max: usize) -> Result<Vec<DueRow>, Error>;
}
