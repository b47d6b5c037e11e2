//! Every public error code has its page under `docs/errors/`, and every page its code.

use std::collections::{BTreeMap, BTreeSet};

use super::{File, Found};
use crate::source::{Source, line_at};

const PAGES: &str = "docs/errors/";
/// The page that lists the others.
const INDEX: &str = "docs/errors/README.md";

/// A code is a string literal in the body of a function named `code`: each room's error has one.
pub(super) fn check(sources: &[(&File, Source)], names: &BTreeSet<&str>) -> Vec<Found> {
    let mut codes: BTreeMap<String, (String, usize)> = BTreeMap::new();
    let mut found = Vec::new();
    for (file, source) in sources.iter().filter(|(file, _)| is_product(&file.name)) {
        for (line, code) in codes_of(&file.text, source) {
            if is_code(&code) {
                codes.entry(code).or_insert_with(|| (file.name.clone(), line));
            } else {
                found.push(Found::new("code-form", &file.name, line, format!("error code `{code}` is not snake_case")));
            }
        }
    }
    for (code, (file, line)) in &codes {
        let page = format!("{PAGES}{code}.md");
        if !names.contains(page.as_str()) {
            found.push(Found::new("code-page", file, *line, format!("error code `{code}` has no page {page}")));
        }
    }
    for page in names.iter().filter(|name| name.starts_with(PAGES) && name.ends_with(".md") && **name != INDEX) {
        let code = page.trim_start_matches(PAGES).trim_end_matches(".md");
        if !codes.contains_key(code) {
            found.push(Found::new("code-page", page, 0, format!("no error has the code `{code}`")));
        }
    }
    found
}

/// Code of the product, not of its tests.
fn is_product(name: &str) -> bool {
    name.starts_with("crates/") && name.contains("/src/")
}

fn is_code(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_lowercase())
        && text
            .chars()
            .all(|character| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '_')
}

/// The codes that `fn code(` bodies of a file hold, with their lines.
fn codes_of(text: &str, source: &Source) -> Vec<(usize, String)> {
    let mut codes = Vec::new();
    for (at, _) in source.code.match_indices("fn code(") {
        let Some(body) = body(&source.code, at) else { continue };
        for (offset, string) in source.strings.iter().filter(|(offset, _)| body.contains(offset)) {
            codes.push((line_at(text, *offset), string.clone()));
        }
    }
    codes
}

/// The bytes between the braces of the function that begins at `at`; none when it is only declared.
fn body(code: &str, at: usize) -> Option<std::ops::Range<usize>> {
    let mut depth = 0_usize;
    let mut start = None;
    for (offset, byte) in code.bytes().enumerate().skip(at) {
        match byte {
            b';' if depth == 0 => return None,
            b'{' => {
                depth += 1;
                start = start.or(Some(offset));
            }
            b'}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return start.map(|start| start..offset);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const ERRORS: &str = "//! x\nimpl Error {\n    /// Stable.\n    pub fn code(&self) -> &'static str {\n        match self {\n\
                          Self::Moved { .. } => \"moved\", // \"comment\"\n            Self::Gone => { \"gone\" }\n        }\n    }\n\
                          \n    fn other() -> &'static str { \"other\" }\n}\ntrait A { fn code(&self) -> u8; fn b() { \"c\" } }\n";

    fn check_pages(name: &str, text: &str, pages: &[&str], expected: &[&str]) {
        let file = File { name: name.to_owned(), text: text.to_owned() };
        let found = check(&[(&file, Source::of(text))], &pages.iter().copied().collect());
        let told: Vec<String> = found.iter().map(|found| format!("{}:{}", found.line, found.message)).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn each_code_has_a_page_and_each_page_a_code() {
        let file = "crates/a/src/error.rs";
        check_pages(file, ERRORS, &["docs/errors/moved.md", "docs/errors/gone.md", "docs/errors/README.md"], &[]);
        check_pages(
            file,
            ERRORS,
            &["docs/errors/moved.md", "docs/errors/lost.md"],
            &["7:error code `gone` has no page docs/errors/gone.md", "0:no error has the code `lost`"],
        );
        check_pages("crates/a/tests/a.rs", ERRORS, &[], &[]);
    }

    #[test]
    fn a_code_is_snake_case() {
        check_pages(
            "crates/a/src/lib.rs",
            "fn code() -> &'static str { \"Not-Found\" }\n",
            &[],
            &["1:error code `Not-Found` is not snake_case"],
        );
    }
}
