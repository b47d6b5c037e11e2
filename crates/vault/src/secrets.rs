//! Named secret values, leased one at a time. Whatever was leased is redacted from then on.

use crate::redact::Redactor;
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

/// A secret value. Wiped from memory with its last clone; never printed.
#[derive(Clone)]
pub struct Secret {
    name: Arc<str>,
    value: Arc<Zeroizing<String>>,
}

impl Secret {
    /// A secret that does not come from [`Secrets`].
    pub fn new(name: &str, value: String) -> Self {
        Self { name: name.into(), value: Arc::new(Zeroizing::new(value)) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its value. The word stands out on purpose: what is exposed is never logged, recorded or sent into a sandbox.
    pub fn expose(&self) -> &str {
        &self.value
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[secret {}]", self.name)
    }
}

/// The secrets that are known, and those that were leased. Cloning is cheap; clones share their leases.
#[derive(Clone, Debug)]
pub struct Secrets {
    state: Arc<RwLock<State>>,
}

#[derive(Debug)]
struct State {
    known: BTreeMap<Arc<str>, Secret>,
    leased: BTreeSet<Arc<str>>,
    /// Values that were leased before they were replaced: they may still turn up.
    former: Vec<Secret>,
    redactor: Arc<Redactor>,
}

/// Replaced values that are remembered for redaction.
const FORMER_MAX: usize = 256;

impl Secrets {
    /// The secrets of this map of names to values.
    pub fn new(values: BTreeMap<String, String>) -> Self {
        let known = values.into_iter().map(|(name, value)| {
            let secret = Secret::new(&name, value);
            (secret.name.clone(), secret)
        });
        let state = State {
            known: known.collect(),
            leased: BTreeSet::new(),
            former: Vec::new(),
            redactor: Arc::new(Redactor::default()),
        };
        Self { state: Arc::new(RwLock::new(state)) }
    }

    /// Leases a secret: `None` when there is none of that name. From now on it is redacted.
    pub fn lease(&self, name: &str) -> Option<Secret> {
        {
            let state = self.state.read();
            if state.leased.contains(name) {
                return state.known.get(name).cloned();
            }
        }
        let mut state = self.state.write();
        let secret = state.known.get(name)?.clone();
        state.leased.insert(secret.name.clone());
        state.rebuild();
        Some(secret)
    }

    /// Puts a secret in, or in the place of an older value, which stays redacted if it was leased.
    pub fn put(&self, name: &str, value: String) {
        let secret = Secret::new(name, value);
        let mut state = self.state.write();
        let before = state.known.insert(secret.name.clone(), secret);
        if let Some(before) = before
            && state.leased.contains(name)
        {
            if state.former.len() == FORMER_MAX {
                state.former.remove(0);
            }
            state.former.push(before);
            state.rebuild();
        }
    }

    /// The names that are known, in order.
    pub fn names(&self) -> Vec<String> {
        self.state.read().known.keys().map(ToString::to_string).collect()
    }

    /// What takes every secret leased so far out. Ask again for each piece of work: later leases make another one.
    pub fn redactor(&self) -> Arc<Redactor> {
        self.state.read().redactor.clone()
    }
}

impl State {
    fn rebuild(&mut self) {
        let leased = self.leased.iter().filter_map(|name| self.known.get(name));
        self.redactor = Arc::new(Redactor::new(leased.chain(&self.former)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_leased_is_redacted_and_stays_so_when_it_is_replaced() {
        let secrets = Secrets::new(BTreeMap::from([("api".to_owned(), "hunter2-hunter2".to_owned())]));
        let text = "hunter2-hunter2 and swordfish-9";
        assert_eq!(secrets.redactor().text(text), text, "nothing is leased yet");
        assert!(secrets.lease("nobody").is_none());
        let secret = secrets.lease("api").unwrap();
        assert_eq!((secret.expose(), format!("{secret:?}").as_str()), ("hunter2-hunter2", "[secret api]"));
        assert_eq!(secrets.redactor().text(text), "[secret api] and swordfish-9");
        secrets.clone().put("api", "swordfish-9".to_owned());
        assert_eq!(secrets.redactor().text(text), "[secret api] and [secret api]");
        assert!(!format!("{secrets:?}").contains("swordfish"));
    }
}
