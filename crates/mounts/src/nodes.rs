//! The inodes that the kernel remembers, with how often it was told of each: it forgets them by number. Bounded in bytes.

use crate::wire::ROOT;
use std::collections::HashMap;
use std::sync::Arc;

/// Bytes that a node takes beside its key, about.
const NODE_BYTES: usize = 256;

/// What is known of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) bytes: u64,
    pub(crate) modified_s: u64,
    /// What the storage calls this version.
    pub(crate) version: Option<Arc<str>>,
}

/// A file, or a directory.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// A file's key; a directory's prefix, which is empty or ends with `/`.
    pub(crate) key: Arc<str>,
    /// `None` for a directory.
    pub(crate) file: Option<File>,
}

#[derive(Debug)]
struct Held {
    node: Node,
    lookups: u64,
}

/// Those that the kernel remembers.
#[derive(Debug)]
pub(crate) struct Nodes {
    held: HashMap<u64, Held>,
    numbers: HashMap<Arc<str>, u64>,
    next: u64,
    bytes: usize,
    bytes_max: usize,
}

impl Nodes {
    pub(crate) fn new(root: &str, bytes_max: usize) -> Self {
        let key: Arc<str> = root.into();
        let node = Node { key: Arc::clone(&key), file: None };
        let held = HashMap::from([(ROOT, Held { node, lookups: 1 })]);
        Self { held, numbers: HashMap::from([(key, ROOT)]), next: ROOT + 1, bytes: 0, bytes_max }
    }

    pub(crate) fn get(&self, number: u64) -> Option<Node> {
        self.held.get(&number).map(|held| held.node.clone())
    }

    /// Counts one more lookup of a node; `None` when there is no room for another node.
    pub(crate) fn hold(&mut self, node: Node) -> Option<u64> {
        if let Some(number) = self.numbers.get(&node.key).copied() {
            let held = self.held.get_mut(&number)?;
            held.lookups += 1;
            held.node = node;
            return Some(number);
        }
        let bytes = self.bytes + cost(&node);
        if bytes > self.bytes_max {
            return None;
        }
        self.bytes = bytes;
        let number = self.next;
        self.next += 1;
        self.numbers.insert(Arc::clone(&node.key), number);
        self.held.insert(number, Held { node, lookups: 1 });
        Some(number)
    }

    /// What is known of a file is something else now.
    pub(crate) fn update(&mut self, number: u64, file: &File) {
        if let Some(held) = self.held.get_mut(&number) {
            held.node.file = Some(file.clone());
        }
    }

    /// The kernel forgets that it was told of a node so many times.
    pub(crate) fn forget(&mut self, number: u64, lookups: u64) {
        let Some(held) = self.held.get_mut(&number).filter(|_| number != ROOT) else { return };
        held.lookups = held.lookups.saturating_sub(lookups);
        if held.lookups == 0
            && let Some(held) = self.held.remove(&number)
        {
            self.bytes -= cost(&held.node);
            self.numbers.remove(&held.node.key);
        }
    }
}

fn cost(node: &Node) -> usize {
    node.key.len() + NODE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_held_as_long_as_the_kernel_knows_them() {
        let node = |key: &str| Node { key: key.into(), file: Some(File::default()) };
        let mut nodes = Nodes::new("", 2 * (NODE_BYTES + 1));
        let a = nodes.hold(node("a")).unwrap();
        assert_eq!(nodes.hold(node("a")), Some(a));
        let b = nodes.hold(node("b")).unwrap();
        assert_eq!(nodes.hold(node("c")), None, "full");
        nodes.forget(a, 1);
        assert!(nodes.get(a).is_some());
        nodes.forget(a, 9);
        assert!(nodes.get(a).is_none());
        assert!(nodes.hold(node("c")).is_some_and(|c| c != a && c != b), "numbers are not given again");
        nodes.forget(ROOT, 5);
        nodes.forget(77, 1);
        assert!(nodes.get(ROOT).is_some());
    }
}
