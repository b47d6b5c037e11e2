//! Who asks: from the key in a request to a principal with its scopes.

use crate::config::{Config, Key, KeyHash};
use crate::problem::No;
use api::{Refusal, Scope};
use domain::{Digest, Id, id};
use http::{HeaderMap, header};
use std::sync::Arc;

/// The principal of a loopback listener without keys, and of the process itself.
const LOCAL: &str = "local";
/// The principal whose votes are cast there. Whoever needs no key is everybody on the machine, and one name for asking and for
/// approving would let nobody approve.
const OPERATOR: &str = "operator";
/// Bytes of a key at most.
const KEY_BYTES_MAX: usize = 512;

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) tenant: Arc<str>,
    pub(crate) principal: Id<id::Principal>,
    voter: Id<id::Principal>,
    scopes: Arc<[Scope]>,
}

impl Caller {
    fn new(tenant: &str, name: &str, voter: &str, scopes: &[Scope]) -> Self {
        let [principal, voter] = [name, voter].map(|name| Id::from_name(tenant, name));
        Self { tenant: tenant.into(), principal, voter, scopes: scopes.into() }
    }

    /// Who votes when this one does.
    pub(crate) const fn voter(&self) -> Id<id::Principal> {
        self.voter
    }

    /// Refuses a caller without the scope.
    pub(crate) fn must_have(&self, needed: Scope) -> Result<(), No> {
        if self.scopes.iter().any(|scope| scope.covers(needed)) {
            return Ok(());
        }
        let message = format!("this needs the scope {needed}; hint: ask for a key with it");
        Err(No::refused(Refusal::ScopeMissing, &message))
    }
}

/// Every key, with whom it lets in.
#[derive(Debug)]
pub(crate) struct Keys {
    known: Vec<(KeyHash, Caller)>,
    local: Caller,
}

impl Keys {
    pub(crate) fn new(config: &Config) -> Self {
        let known =
            |key: &Key| (key.hash.clone(), Caller::new(&key.tenant, &key.principal, &key.principal, &key.scopes));
        let local = Caller::new(&config.tenant, LOCAL, OPERATOR, &[Scope::Admin]);
        Self { known: config.keys.iter().map(known).collect(), local }
    }

    /// Whether callers must bring a key.
    pub(crate) const fn are_needed(&self) -> bool {
        !self.known.is_empty()
    }

    /// The principal of this process and, without keys, of this machine.
    pub(crate) fn local(&self) -> &Caller {
        &self.local
    }

    /// Whom the request's key lets in.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> Result<&Caller, No> {
        let refused = |message: &str| Err(No::refused(Refusal::NotAuthenticated, message));
        let Some(presented) = presented(headers) else {
            return refused("no key; hint: send `Authorization: Bearer KEY` or `X-API-Key: KEY`");
        };
        if presented.len() > KEY_BYTES_MAX {
            return refused("the key is not known");
        }
        let plain = Digest::of(presented);
        let mut found = None;
        // Every entry is compared, whole: the time says nothing of which one nearly fits.
        for (hash, caller) in &self.known {
            let fits = match hash {
                KeyHash::Sha256(digest) => same(&plain, digest),
                KeyHash::Salted { salt, digest } => same(&Digest::of_parts(&[salt, presented]), digest),
            };
            if fits {
                found = Some(caller);
            }
        }
        found.map_or_else(|| refused("the key is not known"), Ok)
    }
}

fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, key) = value.as_bytes().split_at_checked(7)?;
        return scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii());
    }
    headers.get("x-api-key").map(|value| value.as_bytes().trim_ascii())
}

/// Compares in constant time.
fn same(a: &Digest, b: &Digest) -> bool {
    let difference = a.0.iter().zip(&b.0).fold(0, |difference, (a, b)| difference | (a ^ b));
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn keys() -> Keys {
        let key = |principal: &str, hash| Key {
            principal: principal.into(),
            tenant: "default".into(),
            scopes: vec![Scope::RunsRead],
            hash,
        };
        let salted = KeyHash::Salted { salt: b"salt".to_vec(), digest: Digest::of(b"saltsecond") };
        let keys = vec![key("one", KeyHash::Sha256(Digest::of(b"first"))), key("two", salted)];
        Keys::new(&Config { keys, ..Config::default() })
    }

    fn check(name: &'static str, value: &'static str, expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        if !name.is_empty() {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let keys = keys();
        let got = keys.caller(&headers).ok().map(|caller| caller.principal);
        assert_eq!(got, expected.map(|name| Id::from_name("default", name)), "{name}: {value}");
    }

    #[test]
    fn a_key_lets_in_its_principal_and_no_other() {
        check("authorization", "Bearer first", Some("one"));
        check("authorization", "bearer second", Some("two"));
        check("x-api-key", "second", Some("two"));
        for (name, value) in [
            ("", ""),
            ("authorization", "Bearer third"),
            ("authorization", "Bearer "),
            ("authorization", "Basic first"),
            ("authorization", "first"),
            ("x-api-key", ""),
            ("x-api-key", "saltsecond"),
        ] {
            check(name, value, None);
        }
    }

    #[test]
    fn a_scope_opens_what_it_says() {
        let keys = keys();
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static("Bearer first"))]);
        let caller = keys.caller(&headers).unwrap();
        assert!(caller.must_have(Scope::RunsRead).is_ok());
        assert!(caller.must_have(Scope::RunsWrite).is_err());
        assert!(Scope::ALL.iter().all(|scope| keys.local().must_have(*scope).is_ok()));
    }
}
