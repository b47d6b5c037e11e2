//! Keys of objects: relative, plain, under one of seven prefixes.

use crate::Error;
use object_store::path::Path;
use std::fmt;
use std::str::FromStr;

const KEY_BYTES_MAX: usize = 512;

/// What lies under what: files given to runs, files left by runs, knowledge bases, large contents, declared closures,
/// workspaces, the packs that these share.
const PREFIXES: [&str; 7] = ["inputs", "outputs", "knowledge", "contents", "closures", "checkpoints", "packs"];

/// An object's key, such as `outputs/default/run_…/art_…`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn path(&self, root: &str) -> Result<Path, Error> {
        let whole = if root.is_empty() { self.0.clone() } else { format!("{root}/{}", self.0) };
        Path::parse(whole).map_err(|_| Error::KeyMalformed { reason: "the storage does not take it" })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Key {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        plain(text)?;
        let (prefix, rest) = text.split_once('/').unwrap_or((text, ""));
        if !PREFIXES.contains(&prefix) || rest.is_empty() {
            return Err(Error::KeyMalformed {
                reason: "it must lie under inputs/, outputs/, knowledge/, contents/, closures/, checkpoints/ or packs/",
            });
        }
        Ok(Self(text.to_owned()))
    }
}

/// Refuses what is no plain relative path of letters, digits and `-_.=+~@`.
pub(crate) fn plain(text: &str) -> Result<(), Error> {
    let refused = |reason| Err(Error::KeyMalformed { reason });
    if text.len() > KEY_BYTES_MAX {
        return refused("longer than 512 bytes");
    }
    for segment in text.split('/') {
        if segment.is_empty() || segment == "." || segment == ".." {
            return refused("an empty part, `.` or `..`");
        }
        // `#` stays out with the rest: the local store stages uploads under names with one.
        if !segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.=+~@".contains(&byte)) {
            return refused("other characters than letters, digits and -_.=+~@");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_relative_keys_pass() {
        for good in [
            "outputs/a",
            "contents/default/ses_1/con_2",
            "inputs/a.b-c_d=e+f~g@h",
            "closures/x",
            "checkpoints/a",
            "packs/a",
        ] {
            assert_eq!(good.parse::<Key>().unwrap().as_str(), good);
        }
        let long = format!("outputs/{}", "x".repeat(600));
        for bad in [
            "",
            "/",
            "outputs",
            "outputs/",
            "/outputs/a",
            "outputs//a",
            "outputs/../a",
            "outputs/./a",
            "other/a",
            "outputs/a b",
            "outputs/a\\b",
            "outputs/a\0",
            "outputs/ä",
            "outputs/a%2e",
            "outputs/a#1",
            "../outputs/a",
            &long,
        ] {
            assert_eq!(bad.parse::<Key>().unwrap_err().code(), "blob_key_malformed", "{bad:?}");
        }
    }
}
