//! What a fresh workspace holds: declarative, portable, every path relative. What is declared stands here, and by which rules
//! it is refused; how it becomes files is in `plan`.

mod plan;

pub use plan::{Batch, Plan, Portion, Progress, Which};

use crate::mount::{R2Mount, S3Mount};
use crate::{Error, RelPath};
use domain::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Bytes of all files of a manifest at most.
pub const MANIFEST_BYTES_MAX: u64 = 256 << 20;
/// Entries of a manifest, those of its directories included, at most.
pub const MANIFEST_ENTRIES_MAX: usize = 20_000;
/// How deep directories of a manifest may nest.
pub const MANIFEST_DEPTH_MAX: usize = 64;
/// Mounts of a manifest at most: each is a process.
pub const MOUNTS_MAX: usize = 8;
/// Bytes of a manifest that comes over the API at most.
pub const MANIFEST_TEXT_BYTES_MAX: usize = 4 << 20;
/// Bytes of the paths that stay out of checkpoints at most.
pub const LEFT_OUT_BYTES_MAX: usize = 64 << 10;
const NAME_CHARACTERS_MAX: usize = 32;

/// A manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What stands where.
    #[serde(default)]
    pub entries: BTreeMap<RelPath, Entry>,
    /// Environment of every command. `${secret.…}` is refused: no secret enters a sandbox.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Users inside, besides the one that every sandbox has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<User>,
    /// Groups inside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
}

/// A user inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Its name.
    pub name: String,
}

/// A group inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its members, by name.
    #[serde(default)]
    pub users: Vec<String>,
}

/// One entry. One that is `ephemeral` stays out of checkpoints and is laid again whenever the workspace comes back; any other
/// is laid once, into a fresh workspace, and never over what was edited since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Entry {
    /// A file with this text.
    File {
        /// The text.
        content: String,
        /// Permission bits, such as 0o644.
        #[serde(default)]
        mode: Option<u32>,
        /// Whether it is.
        #[serde(default, skip_serializing_if = "is_false")]
        ephemeral: bool,
        /// The group it belongs to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
    },
    /// A directory with these entries.
    Dir {
        /// What stands in it.
        #[serde(default)]
        children: BTreeMap<RelPath, Entry>,
        /// Permission bits, such as 0o755.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
        /// Whether it is, with everything in it.
        #[serde(default, skip_serializing_if = "is_false")]
        ephemeral: bool,
        /// The group it belongs to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
    },
    /// A copy of a file of the project. Only operators may name host files.
    LocalFile {
        /// Relative to the project.
        source: RelPath,
        /// Permission bits; without them 0755 for a program and 0644 for anything else.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
        /// Whether it is.
        #[serde(default, skip_serializing_if = "is_false")]
        ephemeral: bool,
        /// The group it belongs to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
    },
    /// A copy of a directory of the project; links in it are never followed.
    LocalDir {
        /// Relative to the project.
        source: RelPath,
        /// Whether it is, with everything in it.
        #[serde(default, skip_serializing_if = "is_false")]
        ephemeral: bool,
        /// The group it belongs to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
    },
    /// A bucket of S3-compatible storage, read-only.
    S3Mount(S3Mount),
    /// A bucket of R2, read-only.
    R2Mount(R2Mount),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
const fn is_false(value: &bool) -> bool {
    !*value
}

impl Entry {
    /// Whether it stays out of checkpoints. A mount always does.
    pub const fn is_ephemeral(&self) -> bool {
        match self {
            Self::File { ephemeral, .. }
            | Self::Dir { ephemeral, .. }
            | Self::LocalFile { ephemeral, .. }
            | Self::LocalDir { ephemeral, .. } => *ephemeral,
            Self::S3Mount(_) | Self::R2Mount(_) => true,
        }
    }

    const fn group(&self) -> Option<&String> {
        match self {
            Self::File { group, .. }
            | Self::Dir { group, .. }
            | Self::LocalFile { group, .. }
            | Self::LocalDir { group, .. } => group.as_ref(),
            Self::S3Mount(_) | Self::R2Mount(_) => None,
        }
    }

    const fn mode(&self) -> Option<u32> {
        match self {
            Self::File { mode, .. } | Self::Dir { mode, .. } | Self::LocalFile { mode, .. } => *mode,
            Self::LocalDir { .. } | Self::S3Mount(_) | Self::R2Mount(_) => None,
        }
    }

    /// Whether other entries may stand below it.
    const fn is_open(&self) -> bool {
        matches!(self, Self::Dir { .. } | Self::LocalDir { .. })
    }
}

/// Why a manifest is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No manifest at all: not JSON, an unknown key, a wrong type, a path that is absolute or climbs.
    Malformed,
    /// It names a file of the host, and does not come from the operator.
    HostPath,
    /// It names a bucket, whose credential is the operator's, and does not come from the operator.
    HostCredential,
    /// A variable that holds `${secret.…}`.
    SecretInEnvironment,
    /// A variable whose name is none, or whose value holds a zero byte.
    BadVariable,
    /// A credential that is written out instead of named as `${secret.…}` or `${env.…}`.
    PlainCredential,
    /// A bucket, prefix, region, account or endpoint that is none.
    BadBucket,
    /// A name of a user or group that is none, or stands twice.
    BadName,
    /// A user or group that is not declared.
    UnknownName,
    /// Permission bits beyond 0777.
    BadMode,
    /// Two entries at one path.
    Duplicate,
    /// An entry below one that is no directory.
    BelowFile,
    /// The workspace itself as something else than a directory.
    Root,
}

impl Refusal {
    /// Its stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::HostPath => "host_path",
            Self::HostCredential => "host_credential",
            Self::SecretInEnvironment => "secret_in_environment",
            Self::BadVariable => "bad_variable",
            Self::PlainCredential => "plain_credential",
            Self::BadBucket => "bad_bucket",
            Self::BadName => "bad_name",
            Self::UnknownName => "unknown_name",
            Self::BadMode => "bad_mode",
            Self::Duplicate => "duplicate",
            Self::BelowFile => "below_file",
            Self::Root => "root",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn refuse(at: impl Into<String>, rule: Refusal) -> Error {
    Error::Manifest { at: at.into().chars().take(300).flat_map(char::escape_debug).collect(), rule }
}

impl Manifest {
    /// Digest of the declaration; what host files held is not in it. [`Plan::seal`] gives the digest of what was laid.
    pub fn digest(&self) -> Digest {
        // Maps are ordered, so equal manifests have equal JSON.
        Digest::of(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads a manifest that somebody sent: JSON that names no file and no credential of the operator's.
    ///
    /// # Errors
    /// [`Error::Manifest`] names the rule that it breaks, and where; [`Error::Limit`] above [`MANIFEST_TEXT_BYTES_MAX`],
    /// [`MANIFEST_ENTRIES_MAX`] or [`MANIFEST_DEPTH_MAX`].
    pub fn from_api(text: &[u8]) -> Result<Self, Error> {
        if text.len() > MANIFEST_TEXT_BYTES_MAX {
            return Err(Error::Limit { limit: format!("manifest_text_bytes_max = {MANIFEST_TEXT_BYTES_MAX}") });
        }
        let manifest: Self =
            serde_json::from_slice(text).map_err(|error| refuse(error.to_string(), Refusal::Malformed))?;
        for (path, entry) in manifest.check()? {
            match entry {
                Entry::LocalFile { .. } | Entry::LocalDir { .. } => {
                    return Err(refuse(path.as_str(), Refusal::HostPath));
                }
                Entry::S3Mount(_) | Entry::R2Mount(_) => return Err(refuse(path.as_str(), Refusal::HostCredential)),
                Entry::File { .. } | Entry::Dir { .. } => {}
            }
        }
        Ok(manifest)
    }

    /// Holds it to every rule; gives its entries with those of its directories, by path.
    ///
    /// # Errors
    /// [`Error::Manifest`], [`Error::Limit`].
    pub fn check(&self) -> Result<BTreeMap<RelPath, &Entry>, Error> {
        self.check_environment()?;
        let groups = self.check_names()?;
        let mut found = BTreeMap::new();
        gather(&RelPath::root(), &self.entries, 0, &mut found)?;
        let mut mounts = 0;
        for (path, entry) in &found {
            if path.is_root() && !entry.is_open() {
                return Err(refuse(".", Refusal::Root));
            }
            if entry.mode().is_some_and(|mode| mode > 0o777) {
                return Err(refuse(path.as_str(), Refusal::BadMode));
            }
            if entry.group().is_some_and(|group| !groups.contains(group.as_str())) {
                return Err(refuse(path.as_str(), Refusal::UnknownName));
            }
            entry.check_mount().map_err(|rule| refuse(path.as_str(), rule))?;
            mounts += usize::from(matches!(entry, Entry::S3Mount(_) | Entry::R2Mount(_)));
            let mut above = path.parent();
            while let Some(parent) = above {
                if found.get(&parent).is_some_and(|entry| !entry.is_open()) {
                    return Err(refuse(path.as_str(), Refusal::BelowFile));
                }
                above = parent.parent();
            }
        }
        if mounts > MOUNTS_MAX {
            return Err(Error::Limit { limit: format!("mounts_max = {MOUNTS_MAX}") });
        }
        Ok(found)
    }

    fn check_environment(&self) -> Result<(), Error> {
        for (name, value) in &self.environment {
            let at = || format!("environment.{name}");
            let mut bytes = name.bytes();
            let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
            if !first || !bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') || value.contains('\0') {
                return Err(refuse(at(), Refusal::BadVariable));
            }
            if value.contains("${secret.") {
                return Err(refuse(at(), Refusal::SecretInEnvironment));
            }
        }
        Ok(())
    }

    /// The names of all groups.
    fn check_names(&self) -> Result<BTreeSet<&str>, Error> {
        let (mut users, mut groups) = (BTreeSet::new(), BTreeSet::new());
        for user in &self.users {
            if !is_name(&user.name) || !users.insert(user.name.as_str()) {
                return Err(refuse(format!("users.{}", user.name), Refusal::BadName));
            }
        }
        for group in &self.groups {
            if !is_name(&group.name) || !groups.insert(group.name.as_str()) {
                return Err(refuse(format!("groups.{}", group.name), Refusal::BadName));
            }
            if group.users.iter().any(|user| !users.contains(user.as_str())) {
                return Err(refuse(format!("groups.{}", group.name), Refusal::UnknownName));
            }
        }
        Ok(groups)
    }

    /// The paths that stay out of checkpoints: its mounts and ephemeral entries, without those below another of them.
    ///
    /// # Errors
    /// [`Error::Limit`] above [`LEFT_OUT_BYTES_MAX`]; as [`Manifest::check`].
    pub fn left_out(&self) -> Result<Vec<RelPath>, Error> {
        let mut paths: Vec<RelPath> = Vec::new();
        let mut bytes = 0;
        for (path, entry) in self.check()? {
            let covered =
                |above: &RelPath| path.as_str().strip_prefix(above.as_str()).is_some_and(|rest| rest.starts_with('/'));
            if entry.is_ephemeral() && !paths.iter().any(covered) {
                bytes += path.as_str().len();
                paths.push(path);
            }
        }
        if bytes > LEFT_OUT_BYTES_MAX {
            return Err(Error::Limit { limit: format!("left_out_bytes_max = {LEFT_OUT_BYTES_MAX}") });
        }
        Ok(paths)
    }
}

/// A name as user databases take it.
fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-'))
        && name.len() <= NAME_CHARACTERS_MAX
}

fn gather<'a>(
    above: &RelPath,
    entries: &'a BTreeMap<RelPath, Entry>,
    depth: usize,
    found: &mut BTreeMap<RelPath, &'a Entry>,
) -> Result<(), Error> {
    if depth > MANIFEST_DEPTH_MAX {
        return Err(Error::Limit { limit: format!("manifest_depth_max = {MANIFEST_DEPTH_MAX}") });
    }
    for (path, entry) in entries {
        let path = above.join(path.as_str())?;
        if found.len() >= MANIFEST_ENTRIES_MAX {
            return Err(Error::Limit { limit: format!("manifest_entries_max = {MANIFEST_ENTRIES_MAX}") });
        }
        if let Entry::Dir { children, .. } = entry {
            gather(&path, children, depth + 1, found)?;
        }
        if found.insert(path.clone(), entry).is_some() {
            return Err(refuse(path.as_str(), Refusal::Duplicate));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> &'static str {
        match Manifest::from_api(text.as_bytes()) {
            Ok(_) => "taken",
            Err(Error::Manifest { rule, .. }) => rule.name(),
            Err(error) => error.code(),
        }
    }

    #[test]
    fn a_manifest_from_outside_is_held_to_every_rule() {
        let entry = |path: &str, entry: &str| format!(r#"{{"entries": {{"{path}": {entry}}}}}"#);
        let file = r#"{"type": "file", "content": "x"}"#;
        let rows = [
            (entry("a", file), "taken"),
            (entry(".", r#"{"type": "dir", "children": {"x/y": {"type": "file", "content": ""}}}"#), "taken"),
            (entry("../x", file), "malformed"),
            (entry("/etc/x", file), "malformed"),
            (entry("a/../../x", file), "malformed"),
            (entry("C:\\\\x", file), "malformed"),
            (entry("", file), "malformed"),
            (entry(".", file), "root"),
            (r#"{"entries": {}, "secret": 1}"#.to_owned(), "malformed"),
            (entry("a", r#"{"type": "file", "content": "x", "modes": 1}"#), "malformed"),
            (entry("a", r#"{"type": "file", "content": "x", "mode": 2541}"#), "bad_mode"),
            (entry("a", r#"{"type": "file", "content": "x", "group": "g"}"#), "unknown_name"),
            (entry("a", r#"{"type": "local_file", "source": "x"}"#), "host_path"),
            (entry("d", r#"{"type": "dir", "children": {"a": {"type": "local_dir", "source": "x"}}}"#), "host_path"),
            (
                entry(
                    "b",
                    r#"{"type": "s3_mount", "bucket": "bucket", "access_key_id": "${secret.A}", "secret_access_key": "${secret.B}"}"#,
                ),
                "host_credential",
            ),
            (
                entry(
                    "b",
                    r#"{"type": "s3_mount", "bucket": "bucket", "access_key_id": "AKIA", "secret_access_key": "${secret.B}"}"#,
                ),
                "plain_credential",
            ),
            (
                entry(
                    "b",
                    r#"{"type": "r2_mount", "bucket": "../x", "account_id": "a", "access_key_id": "${env.A}", "secret_access_key": "${env.B}"}"#,
                ),
                "bad_bucket",
            ),
            (format!(r#"{{"entries": {{"a": {file}, "a/b": {file}}}}}"#), "below_file"),
            (
                format!(r#"{{"entries": {{"a": {{"type": "dir", "children": {{"b": {file}}}}}, "a/b": {file}}}}}"#),
                "duplicate",
            ),
            (r#"{"environment": {"A": "${secret.B}"}}"#.to_owned(), "secret_in_environment"),
            (r#"{"environment": {"1A": "x"}}"#.to_owned(), "bad_variable"),
            (r#"{"environment": {"A=B": "x"}}"#.to_owned(), "bad_variable"),
            (r#"{"environment": {"A": "x\u0000"}}"#.to_owned(), "bad_variable"),
            (r#"{"users": [{"name": "ann"}], "groups": [{"name": "g", "users": ["ann"]}]}"#.to_owned(), "taken"),
            (r#"{"users": [{"name": "Ann"}]}"#.to_owned(), "bad_name"),
            (r#"{"users": [{"name": "a:b"}]}"#.to_owned(), "bad_name"),
            (r#"{"users": [{"name": "ann"}, {"name": "ann"}]}"#.to_owned(), "bad_name"),
            (r#"{"groups": [{"name": "g", "users": ["ann"]}]}"#.to_owned(), "unknown_name"),
            ("[".to_owned(), "malformed"),
            (" ".repeat(MANIFEST_TEXT_BYTES_MAX + 1), "sandbox_limit"),
        ];
        for (text, expected) in rows {
            assert_eq!(rule(&text), expected, "{}", &text[..text.len().min(200)]);
        }
    }

    #[test]
    fn mounts_and_ephemeral_entries_stay_out() {
        let text = r#"{"entries": {
            "kept": {"type": "file", "content": "x"}, "gone": {"type": "file", "content": "x", "ephemeral": true},
            "d": {"type": "dir", "children": {"tmp": {"type": "dir", "ephemeral": true, "children": {"x": {"type": "file",
                "content": "", "ephemeral": true}}}}},
            "bucket": {"type": "s3_mount", "bucket": "b-1", "access_key_id": "${secret.A}", "secret_access_key": "${env.B}"}}}"#;
        let manifest: Manifest = serde_json::from_str(text).unwrap();
        let paths: Vec<String> = manifest.left_out().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(paths, ["bucket", "d/tmp", "gone"]);
    }

    #[test]
    fn a_manifest_of_an_earlier_form_has_the_digest_it_had() {
        let text = r#"{"entries":{"a":{"type":"file","content":"x","mode":null},"d":{"type":"dir","children":{}},
            "f":{"type":"local_file","source":"s"},"l":{"type":"local_dir","source":"s"}},"environment":{"A":"b"}}"#;
        let manifest: Manifest = serde_json::from_str(text).unwrap();
        let plain: String = text.split_whitespace().collect();
        assert_eq!(serde_json::to_string(&manifest).unwrap(), plain);
    }
}
