//! What the handle does for whole sessions: delete, retain, quarantine.

use super::{Journal, objects};
use crate::backup::Manifest;
use crate::query::{PAGE_ROWS_MAX, Page};
use crate::upkeep::{Quarantine, Tombstone, TombstoneCursor};
use crate::{Error, SessionKey};
use domain::{Id, id};
use std::path::Path;
use std::sync::Arc;

/// Objects that are deleted before they are reported as such.
const SWEEP_ROWS: usize = 64;

impl Journal {
    /// Deletes a session wholly: records, contents, data key, index, timers, and the objects of its contents, artifacts and
    /// checkpoints (those of a checkpoint that a fork goes on from stay until that is deleted). What is left is one
    /// tombstone, and an epoch that fences every driver before. `None`: there is no such session. Refused with
    /// [`Error::Unended`] while a run has not ended, unless the session is quarantined. When this fails after the
    /// session is gone, its objects are deleted by the next [`Journal::sweep`].
    pub async fn purge(&self, key: &SessionKey, principal: Id<id::Principal>) -> Result<Option<Tombstone>, Error> {
        let purged = self.inner.store.purge(key, self.inner.parts.clock.wall_ms(), principal).await?;
        if purged.is_some() {
            self.sweep().await?;
        }
        Ok(purged)
    }

    /// Deletes the objects that deleted sessions left, also those of a process that died meanwhile; gives their number.
    pub async fn sweep(&self) -> Result<u64, Error> {
        let mut swept = 0;
        loop {
            let garbage = self.inner.store.garbage(SWEEP_ROWS).await?;
            if garbage.is_empty() {
                return Ok(swept);
            }
            for object in &garbage {
                self.inner.parts.objects.delete(object).await.map_err(objects)?;
                swept += 1;
            }
            self.inner.store.swept(garbage).await?;
        }
    }

    /// What was deleted of a tenant, by session.
    pub async fn tombstones(
        &self,
        tenant: &Arc<str>,
        after: Option<TombstoneCursor>,
        rows_max: usize,
    ) -> Result<Page<Tombstone, TombstoneCursor>, Error> {
        self.inner.store.tombstones(tenant, after, rows_max.clamp(1, PAGE_ROWS_MAX)).await
    }

    /// Sessions of every tenant whose last run ended before a time, by key: what a sweep of old sessions may delete. Those
    /// with a run that has not ended and those in quarantine are left out. A page may be short, with a `next`.
    pub async fn expired(
        &self,
        ended_before_ms: u64,
        after: Option<&SessionKey>,
        rows_max: usize,
    ) -> Result<Page<SessionKey, SessionKey>, Error> {
        self.inner.store.expired(ended_before_ms, after, rows_max.clamp(1, PAGE_ROWS_MAX)).await
    }

    /// Puts a session aside: from now on every append to it is refused with [`Error::Quarantined`], whoever drives it. It
    /// can be read, verified, exported and deleted. Of a session that is in quarantine the first reason stays.
    pub async fn quarantine(&self, key: &SessionKey, reason: &str, principal: Id<id::Principal>) -> Result<(), Error> {
        let at_ms = self.inner.parts.clock.wall_ms();
        self.inner.store.quarantine(Quarantine::new(key, at_ms, principal, reason)).await
    }

    /// Takes a session out of quarantine; whether it was in it.
    pub async fn release_quarantine(&self, key: &SessionKey) -> Result<bool, Error> {
        self.inner.store.release_quarantine(key).await
    }

    /// The session's quarantine, if it is in one.
    pub async fn quarantined(&self, key: &SessionKey) -> Result<Option<Quarantine>, Error> {
        self.inner.store.quarantined(key).await
    }

    /// Sessions of every tenant that are in quarantine, by key.
    pub async fn quarantines(
        &self,
        after: Option<&SessionKey>,
        rows_max: usize,
    ) -> Result<Page<Quarantine, SessionKey>, Error> {
        self.inner.store.quarantines(after, rows_max.clamp(1, PAGE_ROWS_MAX)).await
    }

    /// Makes a backup in a directory that is not there yet, or empty: a copy of the database as it is at one moment, its
    /// chains verified, and a manifest, which is written last. Appends go on meanwhile; the write-ahead log grows with
    /// them until it is done. Objects and tenants' keys are not in it.
    pub async fn backup(&self, to: &Path) -> Result<Manifest, Error> {
        self.inner.store.backup(to, self.inner.parts.clock.wall_ms()).await
    }
}
