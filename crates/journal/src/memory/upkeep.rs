//! Whole sessions in memory: deleted, put aside.

use super::Memory;
use crate::contents::Stored;
use crate::query::{self, Head, Page};
use crate::upkeep::{Quarantine, Tombstone, TombstoneCursor, Upkeep, content_objects};
use crate::{Error, SessionKey};
use async_trait::async_trait;
use domain::{Id, id};
use std::collections::BTreeSet;
use std::sync::Arc;

impl super::State {
    fn purge(
        &mut self,
        key: &SessionKey,
        at_ms: u64,
        principal: Id<id::Principal>,
    ) -> Result<Option<Tombstone>, Error> {
        let of_session = |row: &crate::RunRow| row.tenant == key.tenant && row.session == key.session;
        let open = self.runs.values().any(|row| of_session(row) && row.finished_ms.is_none());
        if open && !self.quarantine.contains_key(key) {
            return Err(Error::Unended);
        }
        let Some(head) = self.heads.get(key).copied().filter(|head| head.position > 0) else {
            return Ok(None);
        };
        let objects = self.objects_of(key);
        self.garbage.extend(objects);
        self.records.remove(key);
        self.contents.remove(key);
        self.data_keys.remove(key);
        self.sessions.remove(key);
        self.quarantine.remove(key);
        self.runs.retain(|_, row| !of_session(row));
        self.artifacts.retain(|(tenant, _), row| *tenant != key.tenant || row.session != key.session);
        self.checkpoints.retain(|(of, _), _| of != key);
        self.due.retain(|(of, ..), _| of != key);
        self.forget(key);
        self.idempotency.retain(|(tenant, _), (_, taken)| *tenant != key.tenant || taken.session != key.session);
        let epoch = head.epoch + 1;
        self.heads.insert(key.clone(), Head { epoch, ..Head::EMPTY });
        let (records, head_hash) = (head.position, head.hash);
        let tombstone = Tombstone { key: key.clone(), epoch, purged_ms: at_ms, principal, records, head_hash };
        self.tombstones.insert((key.tenant.clone(), tombstone.cursor()), tombstone.clone());
        Ok(Some(tombstone))
    }

    /// The objects that nothing points to once the session is gone.
    fn objects_of(&self, key: &SessionKey) -> Vec<String> {
        let has_object = |(item, stored): (&Id<id::Content>, &Stored)| stored.form.has_object().then_some(*item);
        let large = self.contents.get(key).into_iter().flatten().filter_map(has_object);
        let mut objects = content_objects(key, large);
        let of_session = |row: &&crate::ArtifactRow| row.session == key.session;
        let artifacts = self.artifacts.iter().filter(|((tenant, _), _)| *tenant == key.tenant).map(|(_, row)| row);
        objects.extend(artifacts.filter(of_session).map(|row| row.object.clone()));
        let (own, others): (Vec<_>, Vec<_>) =
            self.checkpoints.iter().filter(|((of, _), _)| of.tenant == key.tenant).partition(|((of, _), _)| of == key);
        let shared: BTreeSet<_> = others.into_iter().map(|(_, object)| object).collect();
        objects.extend(own.into_iter().map(|(_, object)| object).filter(|object| !shared.contains(object)).cloned());
        objects
    }
}

#[async_trait]
impl Upkeep for Memory {
    async fn purge(
        &self,
        key: &SessionKey,
        at_ms: u64,
        principal: Id<id::Principal>,
    ) -> Result<Option<Tombstone>, Error> {
        let purged = self.write(|state| state.purge(key, at_ms, principal))??;
        if purged.is_some() {
            self.data_keys.destroy(key);
        }
        Ok(purged)
    }

    async fn tombstones(
        &self,
        tenant: &Arc<str>,
        after: Option<TombstoneCursor>,
        rows_max: usize,
    ) -> Result<Page<Tombstone, TombstoneCursor>, Error> {
        self.read(|state| {
            let of_tenant = state
                .tombstones
                .iter()
                .filter(|((of, cursor), _)| of == tenant && after.is_none_or(|after| *cursor > after));
            query::page(of_tenant.map(|(_, row)| row.clone()).collect(), rows_max, Tombstone::cursor)
        })
    }

    async fn expired(
        &self,
        ended_before_ms: u64,
        after: Option<&SessionKey>,
        rows_max: usize,
    ) -> Result<Page<SessionKey, SessionKey>, Error> {
        self.read(|state| {
            let over = |key: &SessionKey| {
                let mut runs = state.runs.values().filter(|row| row.tenant == key.tenant && row.session == key.session);
                runs.all(|row| row.finished_ms.is_some_and(|ended| ended < ended_before_ms))
            };
            let rows = state.sessions.iter().filter(|(key, row)| {
                // One that was forked may have had no run.
                let is_old = row.updated_ms < ended_before_ms;
                after.is_none_or(|after| *key > after) && !state.quarantine.contains_key(key) && is_old && over(key)
            });
            query::page(rows.map(|(key, _)| key.clone()).collect(), rows_max, SessionKey::clone)
        })
    }

    async fn garbage(&self, rows_max: usize) -> Result<Vec<String>, Error> {
        self.read(|state| state.garbage.iter().take(rows_max).cloned().collect())
    }

    async fn swept(&self, objects: Vec<String>) -> Result<(), Error> {
        self.write(|state| state.garbage.retain(|object| !objects.contains(object)))
    }

    async fn quarantine(&self, quarantine: Quarantine) -> Result<(), Error> {
        self.write(|state| {
            state.quarantine.entry(quarantine.key.clone()).or_insert(quarantine);
        })
    }

    async fn release_quarantine(&self, key: &SessionKey) -> Result<bool, Error> {
        self.write(|state| state.quarantine.remove(key).is_some())
    }

    async fn quarantined(&self, key: &SessionKey) -> Result<Option<Quarantine>, Error> {
        self.read(|state| state.quarantine.get(key).cloned())
    }

    async fn quarantines(
        &self,
        after: Option<&SessionKey>,
        rows_max: usize,
    ) -> Result<Page<Quarantine, SessionKey>, Error> {
        self.read(|state| {
            let rows = state.quarantine.values().filter(|row| after.is_none_or(|after| row.key > *after));
            query::page(rows.cloned().collect(), rows_max, |row| row.key.clone())
        })
    }

    fn damaged(&self, _key: &SessionKey, _error: &Error) {
        // Nothing here outlives the process, and nothing else can change it.
    }
}
