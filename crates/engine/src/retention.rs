//! Whole sessions: deleted with everything that belongs to them, put aside, removed when their time is over.

use crate::driver::engine_principal;
use crate::engine::{Engine, Inner};
use crate::{Error, ready};
use domain::{Digest, Id, id};
use journal::{Quarantine, RunFilter, SessionKey, Tombstone};
use sandbox::{Start, Workspace};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Runs of a session that are looked at at once.
const RUNS_PAGE: usize = 1_000;
/// Objects that are deleted at once.
const OBJECTS_PAGE: usize = 10_000;
/// Sessions that one sweep removes at most; the next one goes on.
pub const SWEEP_SESSIONS_MAX: u64 = 1_000;
/// How often old sessions are looked for.
const SWEEP_MS: u64 = 600_000;
const DAY_SECONDS: u64 = 86_400;
/// Sessions that are looked for at once.
const SWEEP_PAGE: usize = 100;

/// What is left of a session that was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purged {
    /// The session.
    pub session: Id<id::Session>,
    /// How many records its log had.
    pub records: u64,
    /// Hash of the last, so that deletion can be told from loss.
    pub head_hash: Digest,
    /// When it was deleted, in milliseconds since the Unix epoch.
    pub purged_ms: u64,
}

impl Purged {
    fn of(tombstone: &Tombstone) -> Self {
        let Tombstone { key, records, head_hash, purged_ms, .. } = tombstone;
        Self { session: key.session, records: *records, head_hash: *head_hash, purged_ms: *purged_ms }
    }
}

impl Engine {
    /// Deletes a session wholly: its log, contents, keys, artifacts, checkpoints and files. Refused while one of its runs has
    /// not ended, unless it is in quarantine. When this fails half way, asking again takes away what is left.
    pub async fn purge(
        &self,
        tenant: &str,
        session: Id<id::Session>,
        principal: Id<id::Principal>,
    ) -> Result<Purged, Error> {
        self.0.purge(&SessionKey::new(tenant, session), principal).await
    }

    /// Puts a session aside: nothing is appended to it any more, whoever drives it. Of one that is put aside already, the first
    /// reason stays.
    pub async fn quarantine(
        &self,
        tenant: &str,
        session: Id<id::Session>,
        principal: Id<id::Principal>,
        reason: &str,
    ) -> Result<Quarantine, Error> {
        let (key, journal) = (SessionKey::new(tenant, session), &self.0.parts.journal);
        if journal.head(&key).await?.position == 0 {
            return Err(Error::NoSuchSession { session });
        }
        journal.quarantine(&key, reason, principal).await?;
        // Its driver finds out with its next append.
        self.0.dispatch.tell(&key);
        journal.quarantined(&key).await?.ok_or(Error::NoSuchSession { session })
    }

    /// Takes a session out of quarantine and has it driven on; whether it was in it.
    pub async fn release(&self, tenant: &str, session: Id<id::Session>) -> Result<bool, Error> {
        let (key, inner) = (SessionKey::new(tenant, session), self.0.clone());
        if inner.parts.journal.head(&key).await?.position == 0 {
            return Err(Error::NoSuchSession { session });
        }
        crate::submit::finish(async move {
            let released = inner.parts.journal.release_quarantine(&key).await?;
            if released {
                inner.clone().start(inner.dispatch.grown(&key, true, None));
            }
            Ok(released)
        })
        .await
    }

    /// The session's quarantine, if it is in one.
    pub async fn quarantined(&self, tenant: &str, session: Id<id::Session>) -> Result<Option<Quarantine>, Error> {
        Ok(self.0.parts.journal.quarantined(&SessionKey::new(tenant, session)).await?)
    }

    /// Deletes sessions of every tenant whose last run ended longer than `older_than` ago, at most [`SWEEP_SESSIONS_MAX`]; gives
    /// how many. One that can't be deleted is left for the next sweep.
    pub async fn sweep(&self, older_than: Duration) -> Result<u64, Error> {
        let inner = &self.0;
        let age_ms = u64::try_from(older_than.as_millis()).unwrap_or(u64::MAX);
        let ended_before_ms = inner.parts.clock.wall_ms().saturating_sub(age_ms);
        let (mut swept, mut after) = (0, None);
        loop {
            let page = inner.parts.journal.expired(ended_before_ms, after.as_ref(), SWEEP_PAGE).await?;
            for key in &page.rows {
                if swept == SWEEP_SESSIONS_MAX || inner.dispatch.is_draining() {
                    return Ok(swept);
                }
                match inner.purge(key, engine_principal(&key.tenant)).await {
                    Ok(_) => swept += 1,
                    // Somebody took it up again, or deleted it, since it was looked for.
                    Err(Error::NoSuchSession { .. } | Error::Journal(journal::Error::Unended)) => {}
                    Err(error) => {
                        tracing::warn!(session_id = %key.session, code = error.code(), %error, "an old session can't be deleted");
                    }
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(swept);
            }
        }
    }
}

/// Deletes old sessions now and then, as long as the project says how old they may be, the objects that earlier deletions left,
/// and what of stored workspaces no checkpoint needs any more.
pub(crate) async fn keep(engine: Engine, mut stopped: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            biased;
            _ = stopped.changed() => return,
            () = tokio::time::sleep(Duration::from_millis(SWEEP_MS)) => {}
        }
        if let Err(error) = engine.0.parts.journal.sweep().await {
            tracing::warn!(code = error.code(), %error, "what deleted sessions left can't be deleted");
        }
        sweep_checkpoints(&engine).await;
        let Some(days) = engine.catalog().settings.retention.sessions_days else { continue };
        match engine.sweep(Duration::from_secs(u64::from(days) * DAY_SECONDS)).await {
            Ok(0) => {}
            Ok(sessions) => tracing::info!(sessions, days, "old sessions were deleted"),
            Err(error) => tracing::warn!(code = error.code(), %error, "old sessions can't be looked for"),
        }
    }
}

async fn sweep_checkpoints(engine: &Engine) {
    match engine.0.parts.chunks.sweep().await {
        Ok(swept) if swept.deleted_packs + swept.rewritten_packs > 0 => {
            let chunks::Swept { deleted_packs, rewritten_packs, freed_bytes, .. } = swept;
            tracing::info!(deleted_packs, rewritten_packs, freed_bytes, "what no checkpoint needs was deleted");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(code = error.code(), %error, "stored workspaces can't be swept"),
    }
}

impl Inner {
    async fn purge(&self, key: &SessionKey, principal: Id<id::Principal>) -> Result<Purged, Error> {
        let runs = self.runs_of(key).await?;
        let journal = &self.parts.journal;
        let purged = match journal.purge(key, principal).await? {
            Some(tombstone) => tombstone,
            // Perhaps it was deleted before, and something was left.
            None => self.tombstone(key).await?.ok_or(Error::NoSuchSession { session: key.session })?,
        };
        // The journal has deleted what its rows point to; these are objects that a process died over.
        let of_runs = runs.iter().map(|run| format!("outputs/{}/{run}", key.tenant));
        let of_session = ["checkpoints", "contents"].map(|kind| format!("{kind}/{}/{}", key.tenant, key.session));
        for prefix in of_runs.chain(of_session) {
            while self.parts.blobs.delete_under(&prefix, OBJECTS_PAGE).await.map_err(ready::objects)? == OBJECTS_PAGE {}
        }
        self.idle.end(key).await;
        // Its own, and what a process left that died while it looked into them.
        for session in [key.session].into_iter().chain(crate::workspace::beside(key)) {
            let workspace = Workspace::Session { tenant: key.tenant.to_string(), session, start: Start::Fresh };
            for provider in &self.parts.providers {
                if provider.is_ready() && provider.workspace_exists(&workspace).await? {
                    provider.workspace_remove(&workspace).await?;
                }
            }
        }
        Ok(Purged::of(&purged))
    }

    /// The runs of a session.
    async fn runs_of(&self, key: &SessionKey) -> Result<Vec<Id<id::Run>>, Error> {
        let (mut runs, mut before) = (Vec::new(), None);
        loop {
            let filter = RunFilter { session: Some(key.session), ..RunFilter::default() };
            let page = self.parts.journal.runs(&key.tenant, filter, before, RUNS_PAGE).await?;
            runs.extend(page.rows.into_iter().map(|row| row.run));
            before = page.next;
            if before.is_none() {
                return Ok(runs);
            }
        }
    }

    /// What is left of a session that was deleted.
    async fn tombstone(&self, key: &SessionKey) -> Result<Option<Tombstone>, Error> {
        let after = journal::upkeep::TombstoneCursor { session: key.session, epoch: 0 };
        let tenant: Arc<str> = key.tenant.clone();
        let page = self.parts.journal.tombstones(&tenant, Some(after), RUNS_PAGE).await?;
        Ok(page.rows.into_iter().rfind(|row| row.key == *key))
    }
}
