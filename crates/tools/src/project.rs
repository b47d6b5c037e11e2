//! What a declaration may name and use: files of the project, and configuration values with the secrets in them.

use crate::Bench;
use crate::output::brief;
use domain::template::{self, Source};
use std::path::{Component, Path, PathBuf};

/// A secret shorter than this is not looked for in outputs: it would be found everywhere.
const SECRET_BYTES_MIN: usize = 4;

/// Why a file of the project can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// It is not in the project.
    Outside(String),
    /// The system says no.
    System(String),
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Outside(file) => write!(f, "`{file}` does not lie in the project"),
            Self::System(text) => f.write_str(text),
        }
    }
}

/// The absolute path of a file that a declaration names relative to the project; links are followed first, and what
/// they lead to must lie in the project too.
pub(crate) fn locate(project: &Path, file: &str) -> Result<PathBuf, Unusable> {
    let outside = || Unusable::Outside(brief(file, 200));
    let relative = Path::new(file);
    if !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(outside());
    }
    let system = |error: std::io::Error| Unusable::System(format!("`{}` can't be opened: {error}", brief(file, 200)));
    let root = project.canonicalize().map_err(system)?;
    let path = root.join(relative).canonicalize().map_err(system)?;
    if path.starts_with(&root) { Ok(path) } else { Err(outside()) }
}

/// Expands configuration values and remembers the secrets in them, to take them out of what comes back.
pub(crate) struct Values<'a> {
    bench: &'a dyn Bench,
    secrets: Vec<(String, String)>,
}

impl<'a> Values<'a> {
    pub(crate) fn new(bench: &'a dyn Bench) -> Self {
        Self { bench, secrets: vec![] }
    }

    pub(crate) fn expand(&mut self, text: &str) -> Result<String, template::Error> {
        if !text.contains("${") {
            return Ok(text.to_owned());
        }
        for reference in template::references(text)? {
            if reference.source == Source::Secret && !self.secrets.iter().any(|(name, _)| name == reference.name) {
                let value = self.bench.expand(&format!("${{secret.{}}}", reference.name))?;
                self.secrets.push((reference.name.to_owned(), value));
            }
        }
        self.bench.expand(text)
    }

    /// Whether a value holds one of the secrets.
    pub(crate) fn is_secret(&self, text: &str) -> bool {
        self.secrets.iter().any(|(_, value)| !value.is_empty() && text.contains(value.as_str()))
    }

    /// Takes the secrets out of what the other side sent: it may echo them.
    pub(crate) fn scrub(&self, bytes: Vec<u8>) -> Vec<u8> {
        self.secrets
            .iter()
            .filter(|(_, value)| value.len() >= SECRET_BYTES_MIN)
            .fold(bytes, |bytes, (name, value)| replace(bytes, value.as_bytes(), format!("[secret {name}]").as_bytes()))
    }

    /// The same for text.
    pub(crate) fn scrub_text(&self, text: String) -> String {
        String::from_utf8_lossy(&self.scrub(text.into_bytes())).into_owned()
    }
}

fn replace(bytes: Vec<u8>, wanted: &[u8], instead: &[u8]) -> Vec<u8> {
    let next =
        |from: usize| bytes[from..].windows(wanted.len()).position(|window| window == wanted).map(|at| from + at);
    let Some(first) = next(0) else { return bytes };
    let mut out = Vec::with_capacity(bytes.len());
    let (mut from, mut found) = (0, Some(first));
    while let Some(at) = found {
        out.extend_from_slice(&bytes[from..at]);
        out.extend_from_slice(instead);
        from = at + wanted.len();
        found = next(from);
    }
    out.extend_from_slice(&bytes[from..]);
    out
}
