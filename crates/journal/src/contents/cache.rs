//! Data keys of active sessions, unwrapped. Within one process a session has one data key at a time: whoever asks for it
//! while somebody else holds it gets the same one, also before it is stored.

use crate::SessionKey;
use parking_lot::Mutex;
use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A session's data key. The bytes themselves are gone once the cipher is made.
pub(crate) struct DataKey {
    session: SessionKey,
    pub(crate) cipher: LessSafeKey,
    /// As it is stored.
    pub(crate) wrapped: Vec<u8>,
    stored: AtomicBool,
    destroyed: AtomicBool,
    /// Whether it was asked for since the cache was last told to let go.
    used: AtomicBool,
}

impl DataKey {
    /// `None` can't happen for a key of 32 bytes; `ring` says it may.
    pub(crate) fn new(session: SessionKey, key: &[u8; 32], wrapped: Vec<u8>, stored: bool) -> Option<Self> {
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?);
        Some(Self { session, cipher, wrapped, stored: stored.into(), destroyed: false.into(), used: true.into() })
    }

    pub(crate) const fn session(&self) -> &SessionKey {
        &self.session
    }

    /// Whether the database has it; the entry that finds it has not carries it.
    pub(crate) fn is_stored(&self) -> bool {
        self.stored.load(Ordering::Acquire)
    }

    pub(crate) fn set_stored(&self) {
        self.stored.store(true, Ordering::Release);
    }

    /// Whether the session was erased since; nothing may be stored under it any more.
    pub(crate) fn is_destroyed(&self) -> bool {
        self.destroyed.load(Ordering::Acquire)
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKey").field("session", &self.session).finish_non_exhaustive()
    }
}

/// The cache. Bounded: above its limit it forgets keys that nobody holds; a key that is held and not stored is never
/// forgotten, or what was sealed under it would be lost.
#[derive(Debug)]
pub(crate) struct DataKeys {
    inner: Mutex<Inner>,
    keys_max: usize,
}

#[derive(Debug, Default)]
struct Inner {
    keys: HashMap<SessionKey, Arc<DataKey>>,
    /// Counts destroyed keys: a key that was read from the database before one was destroyed is read again.
    generation: u64,
}

impl DataKeys {
    pub(crate) fn new(keys_max: usize) -> Self {
        Self { inner: Mutex::default(), keys_max: keys_max.max(1) }
    }

    /// The session's key, or the generation to settle one under.
    pub(crate) fn get(&self, session: &SessionKey) -> Result<Arc<DataKey>, u64> {
        let inner = self.inner.lock();
        let key = inner.keys.get(session).ok_or(inner.generation)?;
        key.used.store(true, Ordering::Relaxed);
        Ok(key.clone())
    }

    /// Forgets the keys that nobody holds and nobody asked for since it was last told so.
    pub(crate) fn let_go(&self) {
        let mut inner = self.inner.lock();
        inner.keys.retain(|_, key| key.used.swap(false, Ordering::Relaxed) || Arc::strong_count(key) > 1);
        let keys = inner.keys.len();
        inner.keys.shrink_to(keys * 2);
    }

    /// How many keys are in memory.
    pub(crate) fn count(&self) -> usize {
        self.inner.lock().keys.len()
    }

    /// Puts a key in unless one is there, and gives the one that is there in the end. `None`: a key was destroyed since
    /// `generation`, perhaps this one.
    pub(crate) fn settle(&self, key: DataKey, generation: u64) -> Option<Arc<DataKey>> {
        let mut inner = self.inner.lock();
        if let Some(there) = inner.keys.get(key.session()) {
            return Some(there.clone());
        }
        if inner.generation != generation {
            return None;
        }
        if inner.keys.len() >= self.keys_max {
            // Half at once, so that a full cache does not pay for every new session.
            let mut spare = self.keys_max / 2 + 1;
            inner.keys.retain(|_, key| {
                let keep = Arc::strong_count(key) > 1 || spare == 0;
                spare -= usize::from(!keep);
                keep
            });
        }
        let key = Arc::new(key);
        inner.keys.insert(key.session().clone(), key.clone());
        Some(key)
    }

    /// Forgets a session's key and marks it so that nothing is stored under it any more. Called by the store, after the
    /// key's row is gone and before the next entry is looked at.
    pub(crate) fn destroy(&self, session: &SessionKey) {
        let mut inner = self.inner.lock();
        inner.generation += 1;
        if let Some(key) = inner.keys.remove(session) {
            key.destroyed.store(true, Ordering::Release);
        }
    }

    /// Forgets a key that turned out not to be the one that is stored.
    pub(crate) fn forget(&self, key: &Arc<DataKey>) {
        let mut inner = self.inner.lock();
        if inner.keys.get(key.session()).is_some_and(|there| Arc::ptr_eq(there, key)) {
            inner.keys.remove(key.session());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Id;

    #[test]
    fn a_key_that_rests_is_let_go_and_one_that_is_held_or_used_is_not() {
        let keys = DataKeys::new(100);
        let session = |n: u8| SessionKey::new("default", Id::from_bytes([n; 16]));
        let settle = |n: u8| {
            let key = DataKey::new(session(n), &[n; 32], vec![n], true).unwrap();
            keys.settle(key, 0).unwrap()
        };
        let held = settle(1);
        drop((settle(2), settle(3)));
        keys.let_go();
        assert_eq!(keys.count(), 3, "each was asked for just now");
        drop(keys.get(&session(2)).unwrap());
        keys.let_go();
        assert!(keys.get(&session(3)).is_err());
        assert_eq!(keys.count(), 2);
        keys.let_go();
        assert!(Arc::ptr_eq(&keys.get(&session(1)).unwrap(), &held));
        assert_eq!(keys.count(), 1);
    }
}
