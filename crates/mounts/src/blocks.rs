//! Parts of objects that are kept: blocks of one size, each fetched once at a time, the least used going first.

use bytes::Bytes;
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;

/// Bytes of a block.
pub(crate) const BLOCK_BYTES: u64 = 1 << 20;

/// A block of one version of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    pub(crate) key: Arc<str>,
    /// The storage's name of the version; where there is none, a block is only good for the handle that it was read through.
    pub(crate) version: Result<Arc<str>, u64>,
    pub(crate) number: u64,
}

#[derive(Debug, Default)]
struct Kept {
    blocks: HashMap<Name, (Arc<OnceCell<Bytes>>, u64)>,
    used: u64,
}

/// The blocks that are kept.
#[derive(Debug)]
pub(crate) struct Blocks {
    kept: Mutex<Kept>,
    blocks_max: usize,
}

impl Blocks {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let blocks_max = bytes_max / usize::try_from(BLOCK_BYTES).unwrap_or(usize::MAX);
        Self { kept: Mutex::default(), blocks_max: blocks_max.max(1) }
    }

    /// Whether a block is there, or on its way.
    pub(crate) fn has(&self, name: &Name) -> bool {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).blocks.contains_key(name)
    }

    /// A block, fetched when it is not there; who asks while another fetches it waits for that one.
    pub(crate) async fn get<E>(
        &self,
        name: &Name,
        fetch: impl Future<Output = Result<Bytes, E>> + Send,
    ) -> Result<Bytes, E> {
        let cell = self.cell(name);
        let got = cell.get_or_try_init(|| fetch).await.cloned();
        if got.is_err() {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let same =
                kept.blocks.get(name).is_some_and(|(there, _)| Arc::ptr_eq(there, &cell) && !there.initialized());
            if same {
                kept.blocks.remove(name);
            }
        }
        got
    }

    fn cell(&self, name: &Name) -> Arc<OnceCell<Bytes>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.used += 1;
        let now = kept.used;
        if let Some((cell, used)) = kept.blocks.get_mut(name) {
            *used = now;
            return Arc::clone(cell);
        }
        while kept.blocks.len() >= self.blocks_max {
            let oldest = kept.blocks.iter().min_by_key(|(_, (_, used))| *used).map(|(name, _)| name.clone());
            match oldest {
                Some(oldest) => drop(kept.blocks.remove(&oldest)),
                None => break,
            }
        }
        let cell = Arc::new(OnceCell::new());
        kept.blocks.insert(name.clone(), (Arc::clone(&cell), now));
        cell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn blocks_are_fetched_once_and_the_least_used_go() {
        let blocks = Blocks::new(2 << 20);
        let name = |number| Name { key: "k".into(), version: Err(0), number };
        let get = async |number, expected: bool| {
            let mut fetched = false;
            let fetch = async {
                fetched = true;
                Ok::<_, ()>(Bytes::from_static(b"x"))
            };
            blocks.get(&name(number), fetch).await.unwrap();
            assert_eq!(fetched, expected, "{number}");
        };
        get(1, true).await;
        get(2, true).await;
        get(1, false).await;
        get(3, true).await;
        get(1, false).await;
        get(2, true).await;
        assert!(blocks.get(&name(9), async { Err::<Bytes, ()>(()) }).await.is_err());
        assert!(!blocks.has(&name(9)), "a failure is not kept");
        get(9, true).await;
    }
}
