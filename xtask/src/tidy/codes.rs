//! Every public error code has its page under `docs/errors/`, and every page its code.

use std::collections::BTreeMap;

use super::{File, Found};
use crate::source::{Source, line_at};

const PAGES: &str = "docs/errors/";
/// The page that lists the others.
const INDEX: &str = "docs/errors/README.md";

/// A code is a string literal in the body of a function named `code`: each room's error has one.
pub(super) fn check(sources: &[(&File, Source)], files: &[File]) -> Vec<Found> {
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
        if !files.iter().any(|file| file.name == page) {
            found.push(Found::new("code-page", file, *line, format!("error code `{code}` has no page {page}")));
        }
    }
    for page in files.iter().filter(|file| file.name.starts_with(PAGES) && file.extension() == "md") {
        let code = page.name.trim_start_matches(PAGES).trim_end_matches(".md");
        if page.name == INDEX {
            for code in codes.keys().filter(|code| !page.text.contains(&format!("]({code}.md)"))) {
                found.push(Found::new("code-page", INDEX, 0, format!("does not list `{code}`")));
            }
        } else if !codes.contains_key(code) {
            found.push(Found::new("code-page", &page.name, 0, format!("no error has the code `{code}`")));
        } else if page.text.lines().next() != Some(&format!("# {code}")) {
            found.push(Found::new("code-page", &page.name, 1, format!("does not open with `# {code}`")));
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

    fn check_pages(name: &str, text: &str, pages: &[(&str, &str)], expected: &[&str]) {
        let file = |name: &str, text: &str| File { name: name.to_owned(), text: text.to_owned() };
        let source = file(name, text);
        let files: Vec<File> = pages.iter().map(|(page, text)| file(&format!("docs/errors/{page}.md"), text)).collect();
        let found = check(&[(&source, Source::of(text))], &files);
        let told: Vec<String> = found.iter().map(|found| format!("{}:{}", found.line, found.message)).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn each_code_has_a_page_and_each_page_a_code() {
        let file = "crates/a/src/error.rs";
        let (moved, gone) = (("moved", "# moved\n"), ("gone", "# gone\n"));
        check_pages(file, ERRORS, &[moved, gone, ("README", "[a](moved.md) [b](gone.md)\n")], &[]);
        check_pages(file, ERRORS, &[moved, gone, ("README", "[a](moved.md)\n")], &["0:does not list `gone`"]);
        check_pages(file, ERRORS, &[moved, ("gone", "# lost\n")], &["1:does not open with `# gone`"]);
        check_pages(
            file,
            ERRORS,
            &[moved, ("lost", "# lost\n")],
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
