//! A bounded cache of heads for the writer: two generations, of which the older is dropped when the younger is full.

use crate::SessionKey;
use crate::query::Head;
use std::collections::HashMap;

/// The cache; holds at most twice `generation_max` heads.
#[derive(Debug)]
pub(crate) struct Heads<H = Head> {
    young: HashMap<SessionKey, H>,
    old: HashMap<SessionKey, H>,
    generation_max: usize,
}

impl<H: Copy> Heads<H> {
    pub(crate) fn new(heads_max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), generation_max: (heads_max / 2).max(1) }
    }

    pub(crate) fn get(&self, key: &SessionKey) -> Option<H> {
        self.young.get(key).or_else(|| self.old.get(key)).copied()
    }

    pub(crate) fn put(&mut self, key: &SessionKey, head: H) {
        if let Some(there) = self.young.get_mut(key) {
            *there = head;
            return;
        }
        if self.young.len() >= self.generation_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key.clone(), head);
    }

    /// Forgets one: somebody else has moved it.
    pub(crate) fn remove(&mut self, key: &SessionKey) {
        self.young.remove(key);
        self.old.remove(key);
    }

    /// Forgets everything, and the room for it: after a failed commit nothing here is known to be stored, and a writer at rest
    /// needs none of it.
    pub(crate) fn clear(&mut self) {
        self.young = HashMap::new();
        self.old = HashMap::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Id;

    #[test]
    fn it_is_bounded_and_keeps_what_was_used_last() {
        let mut heads = Heads::new(4);
        let key = |n: u8| SessionKey::new("default", Id::from_bytes([n; 16]));
        for n in 0..100 {
            heads.put(&key(n), Head { position: u64::from(n), ..Head::EMPTY });
        }
        assert!(heads.young.len() + heads.old.len() <= 4);
        assert_eq!(heads.get(&key(99)).unwrap().position, 99);
        assert_eq!(heads.get(&key(0)), None);
        heads.put(&key(99), Head { position: 7, ..Head::EMPTY });
        assert_eq!(heads.get(&key(99)).unwrap().position, 7);
        heads.remove(&key(99));
        assert_eq!(heads.get(&key(99)), None);
        heads.put(&key(98), Head::EMPTY);
        heads.clear();
        assert_eq!(heads.get(&key(98)), None);
    }
}
