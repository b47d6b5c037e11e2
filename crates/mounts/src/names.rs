//! Which keys of a bucket are shown, and under which names. A key is shown exactly as it is or not at all: a name that was
//! changed to fit could stand for another object. Left out are keys with an empty component (`a//b`, `/a`), with `.` or `..`
//! as a component, with control characters (NUL, escape sequences, line ends, those of Unicode, too), or with a component
//! above 255 bytes. Where one key is a file and the beginning of others (`a` and `a/b`), the directory is shown.

use crate::wire::NAME_BYTES_MAX;

/// Bytes of a key at most; S3's own bound.
pub(crate) const KEY_BYTES_MAX: usize = 1_024;

/// Whether a component of a key can be a file's name.
pub(crate) fn is_shown(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= NAME_BYTES_MAX
        && !name.contains('/')
        && !name.chars().any(char::is_control)
}

/// The key of what stands under a name in the directory with this prefix; `None` when no key is shown so.
pub(crate) fn key(prefix: &str, name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok().filter(|name| is_shown(name))?;
    (prefix.len() + name.len() < KEY_BYTES_MAX).then(|| format!("{prefix}{name}"))
}

/// The prefix that a declaration names, as keys have it: empty, or with one `/` at its end; `None` when its components could
/// not be shown.
pub(crate) fn prefix(text: &str) -> Option<String> {
    let text = text.trim_matches('/');
    if text.is_empty() {
        return Some(String::new());
    }
    (text.len() < KEY_BYTES_MAX && text.split('/').all(is_shown)).then(|| format!("{text}/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_as_it_is_or_not_at_all() {
        let long = "x".repeat(256);
        let rows: [(&[u8], Option<&str>); 14] = [
            (b"a b.txt", Some("p/a b.txt")),
            ("ünï-日本".as_bytes(), Some("p/ünï-日本")),
            (b"...", Some("p/...")),
            (b"-rf *\\", Some("p/-rf *\\")),
            (b"", None),
            (b".", None),
            (b"..", None),
            (b"a/b", None),
            (b"a\0", None),
            (b"new\nline", None),
            (b"\x1b[2J", None),
            ("c1\u{9b}".as_bytes(), None),
            (b"\xff", None),
            (long.as_bytes(), None),
        ];
        for (name, expected) in rows {
            assert_eq!(key("p/", name).as_deref(), expected, "{name:?}");
        }
        assert_eq!(key(&"x/".repeat(500), &[b'x'; 30]), None);
        for (text, expected) in [
            ("", Some("")),
            ("/", Some("")),
            ("a/b/", Some("a/b/")),
            ("/a", Some("a/")),
            ("a//b", None),
            ("a/../b", None),
        ] {
            assert_eq!(prefix(text).as_deref(), expected, "{text}");
        }
    }
}
