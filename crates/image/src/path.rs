//! Which names of an archive pass, and how a hostile one is shown.

use sandbox::Rule;
use std::ffi::CString;

/// Bytes of a path, or of what a link says, at most (`PATH_MAX` without its end).
const PATH_BYTES_MAX: usize = 4_095;
const COMPONENT_BYTES_MAX: usize = 255;
/// Components of a path at most.
const DEPTH_MAX: usize = 512;
/// Characters of a name that are told on.
const SHOWN_CHARACTERS_MAX: usize = 300;

/// The components of a path that passes; none for the top itself. `.` and doubled slashes mean nothing.
pub(crate) fn components(path: &[u8]) -> Result<Vec<CString>, Rule> {
    match path {
        b"" => return Err(Rule::NameMalformed),
        [b'/', ..] => return Err(Rule::Absolute),
        path if path.len() > PATH_BYTES_MAX => return Err(Rule::NameTooLong),
        _ => {}
    }
    let mut components = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err(Rule::Climbs),
            component if component.len() > COMPONENT_BYTES_MAX => return Err(Rule::NameTooLong),
            component => components.push(CString::new(component).map_err(|_| Rule::NameMalformed)?),
        }
    }
    if components.len() > DEPTH_MAX { Err(Rule::NameTooLong) } else { Ok(components) }
}

/// What a symbolic link says, when it may be made.
pub(crate) fn link_target(to: &[u8]) -> Result<CString, Rule> {
    match to.len() {
        0 => Err(Rule::NameMalformed),
        length if length > PATH_BYTES_MAX => Err(Rule::NameTooLong),
        _ => CString::new(to).map_err(|_| Rule::NameMalformed),
    }
}

/// A hostile name cut to what a message can hold, its control characters escaped.
pub(crate) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(SHOWN_CHARACTERS_MAX).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_pass_are_below_the_top() {
        let check = |path: &[u8], expected: Result<usize, Rule>| {
            assert_eq!(components(path).map(|components| components.len()), expected, "{path:?}");
        };
        check(b".", Ok(0));
        check(b"./", Ok(0));
        check(b"./a/b\xff//..c/", Ok(3));
        check(b"", Err(Rule::NameMalformed));
        check(b"a\0b", Err(Rule::NameMalformed));
        check(b"/a", Err(Rule::Absolute));
        check(b"../a", Err(Rule::Climbs));
        check(b"a/./../../b", Err(Rule::Climbs));
        check(b"a/..", Err(Rule::Climbs));
        check(&[b'x'; 256], Err(Rule::NameTooLong));
        check(&b"x/".repeat(3_000), Err(Rule::NameTooLong));
        check(&b"x/".repeat(600), Err(Rule::NameTooLong));
    }
}
