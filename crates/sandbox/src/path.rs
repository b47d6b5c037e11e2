//! Paths relative to the workspace, checked once: never absolute, never climbing.

use crate::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Bytes of a whole path at most (`PATH_MAX` without its end).
pub const PATH_BYTES_MAX: usize = 4_095;
/// Bytes of one component at most (`NAME_MAX`).
pub const COMPONENT_BYTES_MAX: usize = 255;

/// A path below the workspace, in its shortest form: no `.`, no empty component, no trailing slash. The workspace
/// itself is `.`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(String);

impl RelPath {
    /// The workspace itself.
    pub fn root() -> Self {
        Self(".".to_owned())
    }

    /// As text; `.` for the workspace itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the workspace itself.
    pub fn is_root(&self) -> bool {
        self.0 == "."
    }

    /// The components from the top.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|component| *component != ".")
    }

    /// The directory it stands in; `None` for the workspace itself.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        Some(self.0.rsplit_once('/').map_or_else(Self::root, |(parent, _)| Self(parent.to_owned())))
    }

    /// The last component; `None` for the workspace itself.
    pub fn file_name(&self) -> Option<&str> {
        if self.is_root() { None } else { self.0.rsplit('/').next() }
    }

    /// This path with another below it.
    pub fn join(&self, below: &str) -> Result<Self, Error> {
        let below: Self = below.parse()?;
        match (self.is_root(), below.is_root()) {
            (true, _) => Ok(below),
            (_, true) => Ok(self.clone()),
            _ => format!("{}/{}", self.0, below.0).parse(),
        }
    }

    /// Reads a path that a model wrote: relative, or absolute below `/workspace`, the name the model sees.
    pub fn from_model(text: &str) -> Result<Self, Error> {
        match text.strip_prefix("/workspace") {
            Some("") => Ok(Self::root()),
            Some(rest) if rest.starts_with('/') => rest.trim_start_matches('/').parse(),
            _ => text.parse(),
        }
    }
}

impl FromStr for RelPath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |reason| Error::Path { path: shown(text), reason };
        let mut windows = text.chars();
        let drive = windows.next().is_some_and(|first| first.is_ascii_alphabetic()) && windows.next() == Some(':');
        if text.starts_with(['/', '\\']) || drive {
            return Err(bad("absolute"));
        }
        if text.contains('\0') {
            return Err(bad("nul"));
        }
        if text.is_empty() {
            return Err(bad("empty"));
        }
        let mut kept = Vec::new();
        for component in text.split('/') {
            match component {
                "" | "." => {}
                ".." => return Err(bad("escape_root")),
                component if component.len() > COMPONENT_BYTES_MAX => return Err(bad("too_long")),
                component => kept.push(component),
            }
        }
        let path = kept.join("/");
        match path.len() {
            0 => Ok(Self::root()),
            length if length > PATH_BYTES_MAX => Err(bad("too_long")),
            _ => Ok(Self(path)),
        }
    }
}

/// A hostile path cut to what a message can hold, its control characters escaped.
fn shown(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_debug).collect()
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for RelPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RelPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let got = match text.parse::<RelPath>() {
            Ok(path) => path.to_string(),
            Err(Error::Path { reason, .. }) => format!("! {reason}"),
            Err(other) => other.to_string(),
        };
        assert_eq!(got, expected, "{text:?}");
    }

    #[test]
    fn paths_are_relative_and_never_climb() {
        check("a/b.txt", "a/b.txt");
        check("./a//b/", "a/b");
        check(".", ".");
        check("..a/b..", "..a/b..");
        check("", "! empty");
        check("/etc/passwd", "! absolute");
        check("\\\\host\\share", "! absolute");
        check("C:\\x", "! absolute");
        check("../x", "! escape_root");
        check("a/../../x", "! escape_root");
        check("a/..", "! escape_root");
        check("a\0b", "! nul");
        check(&"x".repeat(256), "! too_long");
        check(&"x/".repeat(3_000), "! too_long");
    }

    #[test]
    fn a_model_may_say_workspace() {
        assert_eq!(RelPath::from_model("/workspace/a").unwrap().as_str(), "a");
        assert!(RelPath::from_model("/workspace").unwrap().is_root());
        assert!(RelPath::from_model("/workspaces/a").is_err());
        assert!(RelPath::from_model("/workspace/../etc").is_err());
    }

    #[test]
    fn paths_join_and_part() {
        let path: RelPath = "a/b".parse().unwrap();
        assert_eq!(path.join("c").unwrap().as_str(), "a/b/c");
        assert_eq!(RelPath::root().join("c").unwrap().parent(), Some(RelPath::root()));
        assert_eq!((path.parent().unwrap().as_str(), path.file_name()), ("a", Some("b")));
        assert!(path.join("../c").is_err());
    }
}
