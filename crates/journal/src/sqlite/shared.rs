//! What others see of the writer while it works.

use crate::{Error, SessionKey};
use parking_lot::{Mutex, RwLock};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The writer's state, as others see it.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Why the last commit failed.
    error: Mutex<Option<Error>>,
    /// The first damage that was found. Nothing is written any more in this life of the process.
    damage: Mutex<Option<Error>>,
    /// Sessions that nothing is appended to.
    quarantined: RwLock<HashSet<SessionKey>>,
    /// Whether the writer was asked to look whether it can write again.
    probing: AtomicBool,
    commit_id: AtomicU64,
}

impl Shared {
    pub(crate) fn new(commit_id: u64, quarantined: HashSet<SessionKey>) -> Self {
        Self {
            error: Mutex::default(),
            damage: Mutex::default(),
            quarantined: RwLock::new(quarantined),
            probing: false.into(),
            commit_id: commit_id.into(),
        }
    }

    /// What keeps the journal from writing.
    pub(crate) fn error(&self) -> Option<Error> {
        self.damage().or_else(|| self.error.lock().clone())
    }

    pub(crate) fn damage(&self) -> Option<Error> {
        self.damage.lock().clone()
    }

    /// The last commit went well, or did not.
    pub(crate) fn set_error(&self, error: Option<Error>) {
        *self.error.lock() = error;
    }

    /// Notes damage, when it is that. Damage of a session in quarantine was met before: it is why it is there.
    pub(crate) fn note(&self, key: Option<&SessionKey>, error: &Error) {
        let known = key.is_some_and(|key| self.is_quarantined(key));
        if matches!(error, Error::Corrupt { .. }) && !known {
            let mut damage = self.damage.lock();
            if damage.is_none() {
                tracing::error!(code = error.code(), %error, "damage found; nothing is written any more");
                *damage = Some(error.clone());
            }
        }
    }

    pub(crate) fn is_quarantined(&self, key: &SessionKey) -> bool {
        let quarantined = self.quarantined.read();
        !quarantined.is_empty() && quarantined.contains(key)
    }

    pub(crate) fn set_quarantined(&self, key: &SessionKey) {
        self.quarantined.write().insert(key.clone());
    }

    pub(crate) fn set_released(&self, key: &SessionKey) {
        self.quarantined.write().remove(key);
    }

    /// Whether this caller is to have the writer look; nobody else is until it has looked.
    pub(crate) fn begin_probe(&self) -> bool {
        self.error.lock().is_some() && self.damage.lock().is_none() && !self.probing.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn end_probe(&self) {
        self.probing.store(false, Ordering::Release);
    }

    pub(crate) fn commit_id(&self) -> u64 {
        self.commit_id.load(Ordering::Relaxed)
    }

    pub(crate) fn set_commit_id(&self, commit_id: u64) {
        self.commit_id.store(commit_id, Ordering::Relaxed);
    }
}
