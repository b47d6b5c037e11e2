//! API keys: made here, kept as hashes in `keys.yaml` of the data directory, checked by `server`.

use crate::{Data, Error, yaml};
use api::Scope;
use domain::{Digest, TENANT_DEFAULT};
use serde::Deserialize;
use std::path::PathBuf;
use stdx::Random;

/// One entry of `keys.yaml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    principal: String,
    key_sha256: String,
    scopes: Vec<String>,
    #[serde(default)]
    tenant: Option<String>,
}

/// A key that was just made.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// The key itself; shown once, kept nowhere.
    pub key: String,
    /// The lines for `keys.yaml`.
    pub lines: String,
}

/// Makes a key for a principal. Its 32 random bytes need no slow hash.
pub fn new_key(principal: &str, scopes: &[Scope], random: &Random) -> NewKey {
    let key = format!("tsk_{}", hex::encode(random.bytes::<32>()));
    let hash = Digest::of(key.as_bytes());
    let scopes: Vec<&str> = scopes.iter().map(|scope| scope.name()).collect();
    let principal = serde_json::Value::from(principal);
    let lines = format!("- principal: {principal}\n  key_sha256: \"{hash}\"\n  scopes: [{}]\n", scopes.join(", "));
    NewKey { key, lines }
}

/// The keys that `keys.yaml` declares; none when there is no such file.
pub(crate) fn read(data: &Data) -> Result<Vec<server::Key>, Error> {
    let path = data.api_keys();
    let entries: Vec<Entry> = yaml::read::<Option<_>>(&path)?.flatten().unwrap_or_default();
    entries.into_iter().enumerate().map(|(at, entry)| key(&path, at + 1, entry)).collect()
}

fn key(path: &std::path::Path, number: usize, entry: Entry) -> Result<server::Key, Error> {
    let wrong = |reason: String| Error::File { path: PathBuf::from(path), reason: format!("entry {number}: {reason}") };
    let digest = entry.key_sha256.parse::<Digest>().map_err(|error| wrong(format!("key_sha256: {error}")))?;
    let scopes = entry.scopes.iter().map(|scope| scope.parse::<Scope>()).collect::<Result<_, _>>();
    Ok(server::Key {
        principal: entry.principal,
        tenant: entry.tenant.unwrap_or_else(|| TENANT_DEFAULT.to_owned()),
        scopes: scopes.map_err(|error| wrong(format!("scopes: {error}")))?,
        hash: server::KeyHash::Sha256(digest),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_read_back_as_its_hash() {
        let directory = tempfile::tempdir().unwrap();
        let data = Data::at(directory.path());
        assert!(read(&data).unwrap().is_empty(), "no file, no keys");
        let made = new_key("alice", &[Scope::RunsRead, Scope::RunsWrite], &Random::seeded(1));
        std::fs::write(data.api_keys(), &made.lines).unwrap();
        let keys = read(&data).unwrap();
        assert_eq!((keys[0].principal.as_str(), keys[0].tenant.as_str()), ("alice", "default"));
        assert_eq!(keys[0].scopes, [Scope::RunsRead, Scope::RunsWrite]);
        assert!(keys[0].hash == server::KeyHash::Sha256(Digest::of(made.key.as_bytes())));
        assert!(!made.lines.contains(&made.key), "the key itself would be kept");
    }

    #[test]
    fn a_wrong_entry_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let data = Data::at(directory.path());
        let hash = "0".repeat(64);
        for (text, expected) in [
            (format!("- {{principal: a, key_sha256: '{hash}', scopes: [all]}}"), "entry 1: scopes: `all` is no scope"),
            ("- {principal: a, key_sha256: '12', scopes: []}".to_owned(), "entry 1: key_sha256: not a SHA-256 digest"),
            (format!("- {{principal: a, key_sha256: '{hash}', scopes: [], extra: 1}}"), "unknown field `extra`"),
            ("- [".to_owned(), "line 2, column 1"),
        ] {
            std::fs::write(data.api_keys(), &text).unwrap();
            let error = read(&data).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
