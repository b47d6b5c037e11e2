//! The seam to the object store, and one in memory.

use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Where large contents are kept. Keys are made by the journal: `contents/TENANT/SESSION/ITEM`.
#[async_trait]
pub trait Objects: Send + Sync + fmt::Debug {
    /// Keeps an object; durable when it returns.
    async fn put(&self, key: &str, bytes: Vec<u8>) -> Result<(), String>;

    /// Fetches an object; `None` when there is none.
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String>;

    /// Deletes an object; one that is not there is no error.
    async fn delete(&self, key: &str) -> Result<(), String>;
}

/// Objects in memory, for tests and for journals in memory.
#[derive(Clone, Default)]
pub struct MemoryObjects(Arc<Mutex<HashMap<String, Vec<u8>>>>);

impl MemoryObjects {
    /// Every key, in order.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<_> = self.0.lock().keys().cloned().collect();
        keys.sort();
        keys
    }
}

impl fmt::Debug for MemoryObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryObjects({} objects)", self.0.lock().len())
    }
}

#[async_trait]
impl Objects for MemoryObjects {
    async fn put(&self, key: &str, bytes: Vec<u8>) -> Result<(), String> {
        self.0.lock().insert(key.to_owned(), bytes);
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(self.0.lock().get(key).cloned())
    }

    async fn delete(&self, key: &str) -> Result<(), String> {
        self.0.lock().remove(key);
        Ok(())
    }
}
