//! A manifest as the files it makes: what stands where in one order, in portions that are read and laid beside each other,
//! and one canonical form whose digest is the same wherever and however often it is laid.

use super::{Entry, MANIFEST_BYTES_MAX, MANIFEST_DEPTH_MAX, MANIFEST_ENTRIES_MAX, Manifest};
use crate::{Change, Error, RelPath};
use bytes::Bytes;
use domain::Digest;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Entries and bytes of one portion; a larger file is a portion of its own.
const BATCH_ENTRIES_MAX: usize = 256;
const BATCH_BYTES_MAX: u64 = 4 << 20;
const DIRECTORY_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;

/// What a manifest makes.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Every directory above an entry stands here, too.
    items: BTreeMap<RelPath, Item>,
    /// The lines of the canonical form that are no files.
    rest: Vec<String>,
    totals: Progress,
}

#[derive(Clone, Debug)]
struct Item {
    kind: Kind,
    ephemeral: bool,
    group: Option<String>,
}

#[derive(Clone, Debug)]
enum Kind {
    Directory { mode: u32 },
    Text { bytes: Bytes, mode: u32 },
    Host { path: PathBuf, bytes: u64, mode: u32 },
}

impl Kind {
    const fn bytes(&self) -> u64 {
        match self {
            Self::Directory { .. } => 0,
            Self::Text { bytes, .. } => bytes.len() as u64,
            Self::Host { bytes, .. } => *bytes,
        }
    }
}

/// How far the laying of a plan has come, or its whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Files and directories.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
}

/// A portion of a plan. Those of one plan may be laid beside each other, but for the first, which makes the directories, and
/// the last, which gives them their modes.
#[derive(Clone, Debug)]
pub struct Batch {
    /// What stands where, and the group that it is given to at the end.
    steps: Vec<(RelPath, Kind, Option<String>)>,
    /// Whether what stands there gets its group, and a directory its mode, instead of being made.
    closing: bool,
}

/// What a portion gives when it is read.
#[derive(Debug)]
pub struct Portion {
    /// To be applied all or none.
    pub changes: Vec<Change>,
    /// Of each file in it, for [`Plan::seal`].
    pub digests: Vec<(RelPath, Digest)>,
    /// What it brings.
    pub progress: Progress,
}

/// Which entries are laid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All: the workspace is fresh.
    All,
    /// Those alone that no checkpoint has: the workspace comes back.
    Ephemeral,
}

impl Plan {
    /// What a manifest makes; looks at host files below `project`, without reading them. Links are refused as an entry's
    /// source and left out of a copied directory.
    ///
    /// # Errors
    /// As [`Manifest::check`]; [`Error::File`] for a source that is missing or no plain file or directory; [`Error::Limit`]
    /// above [`MANIFEST_BYTES_MAX`], [`MANIFEST_ENTRIES_MAX`] or [`MANIFEST_DEPTH_MAX`].
    pub fn of(manifest: &Manifest, project: &Path) -> Result<Self, Error> {
        let mut making = Making { items: BTreeMap::new(), totals: Progress::default(), project };
        let mut rest = Vec::new();
        let found = manifest.check()?;
        let above_ephemeral = |path: &RelPath| {
            let mut above = Some(path.clone());
            while let Some(path) = above {
                if found.get(&path).is_some_and(|entry| entry.is_ephemeral()) {
                    return true;
                }
                above = path.parent();
            }
            false
        };
        for (path, entry) in &found {
            if let Some(mount) = entry.declared_mount() {
                let super::super::mount::Declared { endpoint, bucket, prefix, region, .. } = &mount;
                rest.push(line(&("mount", path, endpoint, bucket, prefix, region)));
            } else {
                making.entry(path, entry, above_ephemeral(path))?;
            }
        }
        rest.extend(manifest.environment.iter().map(|(name, value)| line(&("environment", name, value))));
        rest.extend(manifest.users.iter().map(|user| line(&("user", &user.name))));
        rest.extend(manifest.groups.iter().map(|group| line(&("group", &group.name, &group.users))));
        Ok(Self { items: making.items, rest, totals: making.totals })
    }

    /// What all of it comes to.
    pub const fn totals(&self) -> Progress {
        self.totals
    }

    /// The portions, in their order.
    pub fn batches(&self, which: Which) -> Vec<Batch> {
        let wanted = |item: &Item| which == Which::All || item.ephemeral;
        let chosen = || self.items.iter().filter(|(_, item)| wanted(item));
        let is_directory = |item: &Item| matches!(item.kind, Kind::Directory { .. });
        let mut batches = Batch::cut(chosen().filter(|(_, item)| is_directory(item)), false);
        batches.extend(Batch::cut(chosen().filter(|(_, item)| !is_directory(item)), false));
        let closing = chosen().filter(|(_, item)| {
            item.group.is_some() || matches!(item.kind, Kind::Directory { mode } if mode != DIRECTORY_MODE)
        });
        // What stands in a directory before the directory itself, which may shut it.
        batches.extend(Batch::cut(closing.rev(), true));
        batches
    }

    /// The digest of what was laid, local files by their content; `digests` are those of all portions.
    ///
    /// # Errors
    /// [`Error::File`] when one is missing.
    pub fn seal(&self, digests: impl IntoIterator<Item = (RelPath, Digest)>) -> Result<Digest, Error> {
        Ok(Digest::of(self.canonical(digests)?.as_bytes()))
    }

    fn canonical(&self, digests: impl IntoIterator<Item = (RelPath, Digest)>) -> Result<String, Error> {
        let digests: BTreeMap<RelPath, Digest> = digests.into_iter().collect();
        let mut text = "topside manifest 1\n".to_owned();
        for (path, item) in &self.items {
            let Item { kind, ephemeral, group } = item;
            let told = match kind {
                Kind::Directory { mode } => line(&("dir", path, format!("{mode:04o}"), ephemeral, group)),
                Kind::Text { mode, .. } | Kind::Host { mode, .. } => {
                    let digest = digests.get(path).ok_or_else(|| missing(path))?.to_string();
                    line(&("file", path, format!("{mode:04o}"), ephemeral, group, kind.bytes(), digest))
                }
            };
            text.push_str(&told);
        }
        for told in &self.rest {
            let _ = write!(text, "{told}");
        }
        Ok(text)
    }
}

fn line(values: &impl serde::Serialize) -> String {
    let mut text = serde_json::to_string(values).unwrap_or_default();
    text.push('\n');
    text
}

fn missing(path: &RelPath) -> Error {
    Error::File {
        operation: "manifest",
        path: path.to_string(),
        missing: true,
        detail: "its content was not read".to_owned(),
    }
}

impl Batch {
    fn cut<'a>(items: impl Iterator<Item = (&'a RelPath, &'a Item)>, closing: bool) -> Vec<Self> {
        let (mut batches, mut bytes): (Vec<Self>, u64) = (Vec::new(), 0);
        for (path, item) in items.filter(|(path, _)| closing || !path.is_root()) {
            let more = if closing { 0 } else { item.kind.bytes() };
            let last = batches.last_mut();
            let step = (path.clone(), item.kind.clone(), item.group.clone());
            match last.filter(|last| last.steps.len() < BATCH_ENTRIES_MAX && bytes + more <= BATCH_BYTES_MAX) {
                Some(last) => {
                    last.steps.push(step);
                    bytes += more;
                }
                None => {
                    batches.push(Self { steps: vec![step], closing });
                    bytes = more;
                }
            }
        }
        batches
    }

    /// Whether it must be laid by itself: those before it first, those behind it afterwards.
    pub fn is_alone(&self) -> bool {
        self.closing || self.steps.iter().any(|(_, kind, _)| matches!(kind, Kind::Directory { .. }))
    }

    /// Reads it. Waits for the disk.
    ///
    /// # Errors
    /// [`Error::File`] for a host file that is not as it was when the plan was made.
    pub fn read(self) -> Result<Portion, Error> {
        let mut portion = Portion {
            changes: Vec::with_capacity(self.steps.len()),
            digests: Vec::new(),
            progress: Progress::default(),
        };
        for (path, kind, group) in self.steps {
            if self.closing {
                let mode = match kind {
                    Kind::Directory { mode } => Some(mode).filter(|mode| *mode != DIRECTORY_MODE),
                    Kind::Text { .. } | Kind::Host { .. } => None,
                };
                portion.changes.extend(group.map(|group| Change::Group { path: path.clone(), group }));
                portion.changes.extend(mode.map(|mode| Change::Mode { path, mode }));
                continue;
            }
            portion.progress.entries += 1;
            portion.progress.bytes += kind.bytes();
            let (bytes, mode) = match kind {
                Kind::Directory { .. } => {
                    portion.changes.push(Change::MakeDir { path });
                    continue;
                }
                Kind::Text { bytes, mode } => (bytes, mode),
                Kind::Host { path, bytes, mode } => (read(&path, bytes)?, mode),
            };
            portion.digests.push((path.clone(), Digest::of(&bytes)));
            portion.changes.push(Change::Write { path, bytes, mode: Some(mode) });
        }
        Ok(portion)
    }
}

/// Reads a file that is still the one that was looked at.
fn read(host: &Path, bytes: u64) -> Result<Bytes, Error> {
    let seen = fs::symlink_metadata(host).map_err(|error| unreadable(host, &error))?;
    if !seen.is_file() || seen.len() != bytes {
        return Err(refused(host, "changed while the manifest was laid"));
    }
    let file = fs::File::open(host).map_err(|error| unreadable(host, &error))?;
    let opened = file.metadata().map_err(|error| unreadable(host, &error))?;
    if (opened.dev(), opened.ino()) != (seen.dev(), seen.ino()) {
        return Err(refused(host, "changed while the manifest was laid"));
    }
    let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
    file.take(bytes + 1).read_to_end(&mut content).map_err(|error| unreadable(host, &error))?;
    if content.len() as u64 != bytes {
        return Err(refused(host, "changed while the manifest was laid"));
    }
    Ok(Bytes::from(content))
}

struct Making<'a> {
    items: BTreeMap<RelPath, Item>,
    totals: Progress,
    project: &'a Path,
}

impl Making<'_> {
    fn entry(&mut self, path: &RelPath, entry: &Entry, ephemeral: bool) -> Result<(), Error> {
        let item = |kind, group: &Option<String>| Item { kind, ephemeral, group: group.clone() };
        match entry {
            Entry::File { content, mode, group, .. } => {
                let kind = Kind::Text { bytes: Bytes::from(content.clone()), mode: mode.unwrap_or(FILE_MODE) };
                self.put(path, item(kind, group))
            }
            Entry::Dir { mode, group, .. } => {
                self.put(path, item(Kind::Directory { mode: mode.unwrap_or(DIRECTORY_MODE) }, group))
            }
            Entry::LocalFile { source, mode, group, .. } => {
                let host = self.host(source)?;
                let kind = file(host, *mode)?;
                self.put(path, item(kind, group))
            }
            Entry::LocalDir { source, group, .. } => {
                let host = self.host(source)?;
                self.directory(path, &host, &item(Kind::Directory { mode: DIRECTORY_MODE }, group), 0)
            }
            // A mount is no file.
            Entry::S3Mount(_) | Entry::R2Mount(_) => Ok(()),
        }
    }

    /// The host path of a source, none of whose components is a link.
    fn host(&self, source: &RelPath) -> Result<PathBuf, Error> {
        let mut host = self.project.to_owned();
        for component in source.components() {
            host.push(component);
            let link = fs::symlink_metadata(&host).map_err(|error| unreadable(&host, &error))?.is_symlink();
            if link {
                return Err(refused(&host, "links are not followed"));
            }
        }
        Ok(host)
    }

    fn directory(&mut self, path: &RelPath, host: &Path, like: &Item, depth: usize) -> Result<(), Error> {
        if depth > MANIFEST_DEPTH_MAX {
            return Err(Error::Limit { limit: format!("manifest_depth_max = {MANIFEST_DEPTH_MAX}") });
        }
        let entries = fs::read_dir(host).map_err(|error| unreadable(host, &error))?;
        self.put(path, like.clone())?;
        for entry in entries {
            let entry = entry.map_err(|error| unreadable(host, &error))?;
            let name = entry.file_name();
            let below = path.join(name.to_str().ok_or_else(|| refused(&entry.path(), "its name is not UTF-8"))?)?;
            let kind = entry.file_type().map_err(|error| unreadable(host, &error))?;
            if kind.is_dir() {
                self.directory(&below, &entry.path(), like, depth + 1)?;
            } else if kind.is_file() {
                let kind = file(entry.path(), None)?;
                self.put(&below, Item { kind, ..like.clone() })?;
            }
        }
        Ok(())
    }

    fn put(&mut self, path: &RelPath, item: Item) -> Result<(), Error> {
        let implied = Item { kind: Kind::Directory { mode: DIRECTORY_MODE }, ephemeral: false, group: None };
        let mut above = path.parent().filter(|above| !above.is_root());
        while let Some(parent) = above {
            above = parent.parent().filter(|above| !above.is_root());
            if !self.items.contains_key(&parent) {
                self.count(&implied.kind)?;
                self.items.insert(parent, implied.clone());
            }
        }
        // What an entry says of a directory goes before what a copied directory or a path through it implies.
        if !self.items.contains_key(path) {
            self.count(&item.kind)?;
        }
        self.items.insert(path.clone(), item);
        Ok(())
    }

    fn count(&mut self, kind: &Kind) -> Result<(), Error> {
        self.totals.entries += 1;
        self.totals.bytes = self.totals.bytes.saturating_add(kind.bytes());
        if self.totals.entries > MANIFEST_ENTRIES_MAX as u64 {
            return Err(Error::Limit { limit: format!("manifest_entries_max = {MANIFEST_ENTRIES_MAX}") });
        }
        if self.totals.bytes > MANIFEST_BYTES_MAX {
            return Err(Error::Limit { limit: format!("manifest_bytes_max = {MANIFEST_BYTES_MAX}") });
        }
        Ok(())
    }
}

fn file(host: PathBuf, mode: Option<u32>) -> Result<Kind, Error> {
    let metadata = fs::symlink_metadata(&host).map_err(|error| unreadable(&host, &error))?;
    if !metadata.is_file() {
        return Err(refused(&host, "not a regular file"));
    }
    let own = if metadata.permissions().mode() & 0o100 == 0 { FILE_MODE } else { 0o755 };
    Ok(Kind::Host { path: host, bytes: metadata.len(), mode: mode.unwrap_or(own) })
}

fn unreadable(host: &Path, error: &std::io::Error) -> Error {
    Error::File {
        operation: "manifest",
        path: host.display().to_string(),
        missing: error.kind() == std::io::ErrorKind::NotFound,
        detail: error.to_string(),
    }
}

fn refused(host: &Path, detail: &str) -> Error {
    Error::File { operation: "manifest", path: host.display().to_string(), missing: false, detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is laid, in order, and the digest of it.
    fn laid(plan: &Plan, which: Which) -> (Vec<String>, Digest) {
        let (mut shown, mut digests) = (Vec::new(), Vec::new());
        for batch in plan.batches(which) {
            let portion = batch.read().unwrap();
            digests.extend(portion.digests);
            shown.extend(portion.changes.iter().map(|change| match change {
                Change::Write { path, bytes, mode } => {
                    format!("{path} {} {:o}", String::from_utf8_lossy(bytes), mode.unwrap())
                }
                Change::MakeDir { path } => format!("{path}/"),
                Change::Mode { path, mode } => format!("{path} {mode:o}"),
                Change::Group { path, group } => format!("{path} :{group}"),
                Change::Remove { .. } => "?".to_owned(),
            }));
        }
        let digest = if which == Which::All { plan.seal(digests).unwrap() } else { Digest::ZERO };
        (shown, digest)
    }

    fn plan(text: &str, project: &Path) -> Result<Plan, Error> {
        Plan::of(&serde_json::from_str(text).unwrap(), project)
    }

    struct Project(PathBuf);

    impl Project {
        fn new(name: &str) -> Self {
            let project = std::env::temp_dir().join(format!("topside-manifest-{name}-{}", std::process::id()));
            fs::create_dir_all(project.join("data/deep")).unwrap();
            fs::write(project.join("data/deep/a.csv"), "1").unwrap();
            fs::write(project.join("note"), "n").unwrap();
            let _ = std::os::unix::fs::symlink("/etc/hostname", project.join("data/link"));
            fs::set_permissions(project.join("note"), fs::Permissions::from_mode(0o700)).unwrap();
            Self(project)
        }
    }

    impl Drop for Project {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn entries_become_changes_and_links_stay_out() {
        let project = Project::new("changes");
        let text = r#"{"entries": {"out": {"type": "dir", "mode": 365, "children": {"r.md": {"type": "file", "content": "x"}}},
            "in": {"type": "local_dir", "source": "data"}, "n": {"type": "local_file", "source": "note"},
            "s": {"type": "local_file", "source": "note", "mode": 256, "ephemeral": true},
            "e": {"type": "dir", "ephemeral": true, "children": {"f/g": {"type": "file", "content": "y"}}}}}"#;
        let plan = plan(text, &project.0).unwrap();
        let expected = [
            "e/",
            "e/f/",
            "in/",
            "in/deep/",
            "out/",
            "e/f/g y 644",
            "in/deep/a.csv 1 644",
            "n n 755",
            "out/r.md x 644",
            "s n 400",
            "out 555",
        ];
        assert_eq!(laid(&plan, Which::All).0, expected);
        assert_eq!(plan.totals(), Progress { entries: 10, bytes: 5 });
        assert_eq!(laid(&plan, Which::Ephemeral).0, ["e/", "e/f/g y 644", "s n 400"]);
    }

    #[test]
    fn sources_are_plain_and_stay_what_they_were() {
        let project = Project::new("sources");
        for source in ["data/link", "data", "absent", "data/link/x"] {
            let text = format!(r#"{{"entries": {{"x": {{"type": "local_file", "source": "{source}"}}}}}}"#);
            assert_eq!(plan(&text, &project.0).unwrap_err().code(), "sandbox_file", "{source}");
        }
        let text = r#"{"entries": {"x": {"type": "local_file", "source": "note"}}}"#;
        let deeds: [fn(&Path); 3] = [
            |note| fs::write(note, "longer").unwrap(),
            |note| fs::remove_file(note).unwrap(),
            |note| std::os::unix::fs::symlink("/etc/hostname", note).unwrap(),
        ];
        let made = plan(text, &project.0).unwrap();
        for deed in deeds {
            deed(&project.0.join("note"));
            let batch = made.batches(Which::All).remove(0);
            assert_eq!(batch.read().unwrap_err().code(), "sandbox_file");
        }
    }

    #[test]
    fn one_manifest_has_one_digest() {
        let project = Project::new("digest");
        let digest = |text: &str| laid(&plan(text, &project.0).unwrap(), Which::All).1.to_string();
        let nested = r#"{"entries": {"d": {"type": "dir", "children": {"a": {"type": "file", "content": "n"}}}}}"#;
        let same = [
            nested,
            r#"{"entries": {"d/a": {"type": "file", "content": "n", "mode": 420}}}"#,
            r#"{"entries": {"./d//a": {"type": "local_file", "source": "note", "mode": 420}}, "environment": {}}"#,
        ];
        for text in same {
            assert_eq!(digest(text), digest(nested), "{text}");
        }
        let others = [
            r#"{"entries": {"d/a": {"type": "file", "content": "m"}}}"#,
            r#"{"entries": {"d/a": {"type": "file", "content": "n", "mode": 384}}}"#,
            r#"{"entries": {"d/a": {"type": "file", "content": "n", "ephemeral": true}}}"#,
            r#"{"entries": {"d/b": {"type": "file", "content": "n"}}}"#,
            r#"{"entries": {"d/a": {"type": "file", "content": "n"}}, "environment": {"A": "b"}}"#,
            r#"{"entries": {"d/a": {"type": "file", "content": "n"}}, "users": [{"name": "u"}]}"#,
        ];
        for text in others {
            assert_ne!(digest(text), digest(nested), "{text}");
        }
        fs::write(project.0.join("note"), "m").unwrap();
        assert_ne!(digest(same[2]), digest(nested), "a local file counts by its content");
    }

    /// The form itself, so that no later version gives another digest.
    #[test]
    fn the_canonical_form_is_for_ever() {
        let text = r#"{"entries": {"a b\"c": {"type": "file", "content": "hello"},
            "d": {"type": "dir", "mode": 448, "ephemeral": true, "group": "g", "children": {"e": {"type": "file", "content": ""}}},
            "m": {"type": "r2_mount", "bucket": "b", "account_id": "acc", "prefix": "p/", "access_key_id": "${secret.A}",
                "secret_access_key": "${secret.B}"}}, "environment": {"X": "${env.Y}"}, "users": [{"name": "u"}],
            "groups": [{"name": "g", "users": ["u"]}]}"#;
        let plan = plan(text, Path::new("/nowhere")).unwrap();
        let digests: Vec<_> =
            plan.batches(Which::All).into_iter().flat_map(|batch| batch.read().unwrap().digests).collect();
        let expected = "topside manifest 1\n\
            [\"file\",\"a b\\\"c\",\"0644\",false,null,5,\"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824\"]\n\
            [\"dir\",\"d\",\"0700\",true,\"g\"]\n\
            [\"file\",\"d/e\",\"0644\",true,null,0,\"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"]\n\
            [\"mount\",\"m\",\"https://acc.r2.cloudflarestorage.com\",\"b\",\"p/\",\"auto\"]\n\
            [\"environment\",\"X\",\"${env.Y}\"]\n[\"user\",\"u\"]\n[\"group\",\"g\",[\"u\"]]\n";
        assert_eq!(plan.canonical(digests.clone()).unwrap(), expected);
        assert_eq!(plan.seal(digests).unwrap(), Digest::of(expected.as_bytes()));
        assert!(plan.seal([]).is_err());
    }

    #[test]
    fn portions_are_bounded() {
        let entries: BTreeMap<String, serde_json::Value> = (0..2_000)
            .map(|number| {
                let length = if number == 7 { 6 << 20 } else { 10 };
                (
                    format!("d{}/f{number}", number % 30),
                    serde_json::json!({"type": "file", "content": "x".repeat(length)}),
                )
            })
            .collect();
        let text = serde_json::json!({ "entries": entries }).to_string();
        let plan = plan(&text, Path::new("/nowhere")).unwrap();
        let batches = plan.batches(Which::All);
        assert!(batches[0].is_alone() && !batches[1].is_alone());
        let mut laid = Progress::default();
        for batch in batches {
            let portion = batch.read().unwrap();
            let bytes = portion.progress.bytes;
            assert!(
                portion.changes.len() <= BATCH_ENTRIES_MAX && (bytes <= BATCH_BYTES_MAX || portion.changes.len() == 1)
            );
            laid.entries += portion.progress.entries;
            laid.bytes += bytes;
        }
        assert_eq!(laid, plan.totals());
    }
}
