//! The project's folder: reads what lies in it, within limits, and never follows a link out of it. What the files mean
//! is not known here.

use crate::problem::{Problem, Rule, did_you_mean, shown};
use crate::yaml::Place;
use domain::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Declarations of one kind at most.
const FILES_MAX: usize = 2_000;
/// Entries of one of the project's folders that are looked at, at most.
const ENTRIES_MAX: usize = 20_000;
/// Bytes of a declaration at most.
pub(crate) const DECLARATION_BYTES_MAX: u64 = 1 << 20;
/// Bytes of a transcript at most.
pub(crate) const TRANSCRIPT_BYTES_MAX: u64 = 4 << 20;

/// A folder that is being read.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    digests: BTreeMap<String, Digest>,
    /// Everything that was looked at, relative to the root, whether it is there or not.
    touched: BTreeSet<String>,
}

/// What stands at a path of the project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    File { executable: bool },
    Folder,
}

impl Folder {
    /// Opens the folder; its path is made absolute and free of links once.
    pub(crate) fn open(root: &Path) -> Result<Self, Problem> {
        let refused = |message: String| problem("topside.yaml", message, None);
        let root = fs::canonicalize(root)
            .map_err(|error| refused(format!("the folder `{}` can't be opened: {}", root.display(), why(&error))))?;
        if !root.is_dir() {
            return Err(refused(format!("`{}` is no folder; expected a project", root.display())));
        }
        Ok(Self { root, digests: BTreeMap::new(), touched: BTreeSet::new() })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// SHA-256 over the names and bytes of all files read so far, in the order of their names.
    pub(crate) fn digest(&self) -> Digest {
        let mut all = Vec::new();
        for (name, digest) in &self.digests {
            all.extend_from_slice(&Digest::of(name.as_bytes()).0);
            all.extend_from_slice(&digest.0);
        }
        Digest::of(&all)
    }

    pub(crate) fn touched(self) -> BTreeSet<String> {
        self.touched
    }

    /// The text of a file, without a byte order mark.
    pub(crate) fn read(&mut self, name: &str, bytes_max: u64) -> Result<String, Problem> {
        let refused = |message: String| problem(name, message, None);
        let path = self.inside(name).map_err(|error| refused(why(&error)))?;
        let unreadable = |error: io::Error| refused(why(&error));
        let about = fs::metadata(&path).map_err(unreadable)?;
        if !about.is_file() {
            return Err(refused("no regular file".into()));
        }
        let too_large = || refused(format!("the file is too large; expected at most {bytes_max} bytes"));
        if about.len() > bytes_max {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        let file = fs::File::open(&path).map_err(unreadable)?;
        file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > bytes_max {
            return Err(too_large());
        }
        self.digests.insert(name.to_owned(), Digest::of(&bytes));
        let text = String::from_utf8(bytes).map_err(|error| not_text(name, &error))?;
        Ok(text.strip_prefix('\u{feff}').map_or_else(|| text.clone(), str::to_owned))
    }

    /// Whether there is anything of that name.
    pub(crate) fn exists(&mut self, name: &str) -> bool {
        self.touched.insert(name.to_owned());
        fs::symlink_metadata(self.root.join(name)).is_ok()
    }

    /// What stands at a path, following links inside the project only.
    pub(crate) fn find(&mut self, name: &str) -> io::Result<Found> {
        use std::os::unix::fs::PermissionsExt;
        let about = fs::metadata(self.inside(name)?)?;
        if about.is_dir() {
            Ok(Found::Folder)
        } else if about.is_file() {
            Ok(Found::File { executable: about.permissions().mode() & 0o111 != 0 })
        } else {
            Err(io::Error::other("neither a file nor a folder"))
        }
    }

    fn inside(&mut self, name: &str) -> io::Result<PathBuf> {
        self.touched.insert(name.to_owned());
        let path = fs::canonicalize(self.root.join(name))?;
        if path.starts_with(&self.root) {
            Ok(path)
        } else {
            Err(io::Error::other("a link that leads out of the project"))
        }
    }

    /// The files of a folder with that ending, by name, each with its name in the project; none when there is no such
    /// folder. Hidden files and other endings are left alone, except near misses of the ending.
    pub(crate) fn list(&mut self, folder: &str, ending: &str, problems: &mut Vec<Problem>) -> Vec<(String, String)> {
        if !self.exists(folder) {
            return Vec::new();
        }
        let entries = match self.inside(folder).and_then(fs::read_dir) {
            Ok(entries) => entries,
            Err(error) => {
                problems.push(problem(folder, format!("the folder can't be read: {}", why(&error)), None));
                return Vec::new();
            }
        };
        let mut found = BTreeSet::new();
        for entry in entries.take(ENTRIES_MAX) {
            let Ok(entry) = entry else { continue };
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !name.contains(char::is_control)) else {
                let message = format!("the file name `{}` is no text", shown(&name.to_string_lossy()));
                problems.push(problem(folder, message, None));
                continue;
            };
            if name.starts_with('.') {
                continue;
            }
            if let Some((stem, got)) = name.rsplit_once('.') {
                if got == ending {
                    found.insert((stem.to_owned(), format!("{folder}/{name}")));
                } else if near_miss(ending, got) {
                    let hint = Some(format!("rename it to `{stem}.{ending}`"));
                    let message = format!("the ending `.{got}` is not read; expected `.{ending}`");
                    problems.push(problem(&format!("{folder}/{name}"), message, hint));
                }
            }
        }
        if found.len() > FILES_MAX {
            problems.push(problem(folder, format!("{} files; expected at most {FILES_MAX}", found.len()), None));
            return Vec::new();
        }
        found.into_iter().collect()
    }

    /// The name in the root of the project that is nearest to a missing one.
    pub(crate) fn similar(&self, name: &str) -> Option<String> {
        let (folder, name) = name.rsplit_once('/').map_or((None, name), |(folder, name)| (Some(folder), name));
        let path = folder.map_or_else(|| self.root.clone(), |folder| self.root.join(folder));
        let names: Vec<String> = fs::read_dir(path)
            .ok()?
            .take(ENTRIES_MAX)
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .map(|name| folder.map_or_else(|| name.clone(), |folder| format!("{folder}/{name}")))
            .collect();
        let name = folder.map_or_else(|| name.to_owned(), |folder| format!("{folder}/{name}"));
        did_you_mean(&name, names.iter().map(String::as_str))
    }
}

fn near_miss(ending: &str, got: &str) -> bool {
    let misses: &[&str] = match ending {
        "yaml" => &["yml", "YAML", "YML", "json", "toml"],
        "md" => &["markdown", "MD", "yaml", "yml"],
        _ => &[],
    };
    misses.contains(&got)
}

/// Why something can't be read, in words that are the same everywhere.
pub(crate) fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it is not there".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// A problem of the file as a whole.
pub(crate) fn problem(name: &str, message: String, hint: Option<String>) -> Problem {
    let Place { line, column } = Place::START;
    Problem { rule: Rule::File, file: name.to_owned(), line, column, message, hint }
}

fn not_text(name: &str, error: &std::string::FromUtf8Error) -> Problem {
    let right = &error.as_bytes()[..error.utf8_error().valid_up_to()];
    let line = right.iter().filter(|byte| **byte == b'\n').count() + 1;
    let last = right.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    let column = String::from_utf8_lossy(last).chars().count() + 1;
    let hint = Some("save it as UTF-8".to_owned());
    Problem { line, column, ..problem(name, "not UTF-8".into(), hint) }
}
