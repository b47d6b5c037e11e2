//! Habits of a file: how it opens, what it must not hold. What a function does is clippy's to judge.

use super::{File, Found};
use crate::source::{Source, lines_with_word};

/// Words of unfinished work.
const MARKERS: [&str; 4] = ["TODO", "FIXME", "XXX", "HACK"];
/// Macros that stand where work should.
const STUBS: [&str; 2] = ["todo!", "unimplemented!"];
/// Folders that exist on somebody's machine only. Split, so that this list does not find itself.
const MACHINE_PATHS: [&str; 3] = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/")];
/// Rooms whose business is what a machine's paths look like from inside a sandbox; the last path stays forbidden.
const ROOMS_OF_PATHS: [&str; 3] = ["crates/jail/", "crates/guest/", "crates/sandbox/"];
/// The only places with `unsafe`: two rooms, and the disk that the simulation shows to SQLite.
const PLACES_OF_UNSAFE: [&str; 3] = ["crates/jail/", "crates/guest/", "crates/sim/src/disk/vfs.rs"];
/// Rooms that others build on: each public item says what it means, and the compiler holds them to it.
const DOCUMENTED: [&str; 4] =
    ["crates/api/src/lib.rs", "crates/domain/src/lib.rs", "crates/sandbox/src/lib.rs", "crates/topside/src/lib.rs"];
/// What people write by hand, line by line.
const WRITTEN: [&str; 8] = ["rs", "md", "toml", "yaml", "yml", "sh", "cedar", "txt"];

/// Rules for any text file.
pub(super) fn text(file: &File) -> Vec<Found> {
    let mut found = Vec::new();
    let written = WRITTEN.contains(&file.extension());
    let mut add = |rule, line: usize, message: String| found.push(Found::new(rule, &file.name, line, message));
    for (index, line) in file.text.lines().enumerate() {
        if written && line.contains('\t') {
            add("tab", index + 1, "has a tab; hint: four spaces".to_owned());
        }
        if written && line.ends_with([' ', '\r']) {
            add("trailing-space", index + 1, "ends in white space".to_owned());
        }
        for path in MACHINE_PATHS.iter().filter(|path| names_path(line, path)) {
            let at_home = ROOMS_OF_PATHS.iter().any(|room| file.name.starts_with(room));
            if !at_home || *path == MACHINE_PATHS[2] {
                add("machine-path", index + 1, format!("names a folder of one machine, `{path}`"));
            }
        }
    }
    if written && !file.text.is_empty() && !file.text.ends_with('\n') {
        add("last-line", file.text.lines().count(), "the last line has no end".to_owned());
    }
    if written && file.extension() != "rs" {
        for marker in MARKERS {
            for line in lines_with_word(&file.text, marker) {
                add("unfinished", line, format!("says `{marker}`; hint: do it, or write an issue"));
            }
        }
    }
    found
}

/// Whether an absolute path that begins like this stands in the line, not the middle of another path or address.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before
            .is_some_and(|before| before.is_alphanumeric() || matches!(before, '.' | '_' | '-' | '}' | '*' | '~' | '/'))
    })
}

/// Rules for Rust source.
pub(super) fn source(file: &File, source: &Source) -> Vec<Found> {
    let mut found = Vec::new();
    let mut add = |rule, line: usize, message: String| found.push(Found::new(rule, &file.name, line, message));
    if !file.text.starts_with("//!") {
        add("opening", 1, "does not open with a `//!` line that says what lives here".to_owned());
    }
    if DOCUMENTED.contains(&file.name.as_str()) && !source.code.contains("(missing_docs)") {
        add("documented", 1, "does not have `#![warn(missing_docs)]`; others build on this room".to_owned());
    }
    for marker in MARKERS {
        for line in lines_with_word(&source.comments, marker) {
            add("unfinished", line, format!("says `{marker}`; hint: do it, or write an issue"));
        }
    }
    for (index, line) in source.code.lines().enumerate() {
        for stub in STUBS.iter().filter(|stub| line.contains(**stub)) {
            add("unfinished", index + 1, format!("has `{stub}`"));
        }
        if line.replace(' ', "").contains("#[ignore") {
            add("ignored-test", index + 1, "a test that is never run proves nothing".to_owned());
        }
    }
    if !PLACES_OF_UNSAFE.iter().any(|place| file.name.starts_with(place)) {
        for line in source.lines_with_word("unsafe") {
            add("unsafe", line, "`unsafe` outside `jail` and `guest`".to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, content: &str, expected: &[&str]) {
        let file = File { name: name.to_owned(), text: content.to_owned() };
        let mut found = text(&file);
        if file.is_source() {
            found.extend(source(&file, &Source::of(content)));
        }
        let rules: Vec<&str> = found.iter().map(|found| found.rule).collect();
        assert_eq!(rules, expected, "{name}: {content:?}");
    }

    #[test]
    fn a_source_opens_with_what_it_is() {
        check("crates/a/src/lib.rs", "//! What lives here.\nfn a() {}\n", &[]);
        check("crates/a/src/lib.rs", "fn a() {}\n", &["opening"]);
        check("examples/a/lib.rs", "fn a() {}\n", &[]);
    }

    #[test]
    fn a_room_that_others_build_on_documents_itself() {
        check("crates/api/src/lib.rs", "//! x\n#![warn(missing_docs)]\n", &[]);
        check("crates/api/src/lib.rs", "//! missing_docs (missing_docs)\n", &["documented"]);
        check("crates/api/src/other.rs", "//! x\n", &[]);
    }

    #[test]
    fn unfinished_work_is_told() {
        check("crates/a/src/lib.rs", "//! x\n// TODO: later\n", &["unfinished"]);
        check("crates/a/src/lib.rs", "//! x\n// FIXME\n/* XXX */\n", &["unfinished", "unfinished"]);
        check(
            "crates/a/src/lib.rs",
            "//! x\nfn a() { todo!() }\nfn b() { unimplemented!(\"c\") }\n",
            &["unfinished"; 2],
        );
        check("crates/a/src/lib.rs", "//! x\nconst A: &str = \"TODO todo!\";\n", &[]);
        check("crates/a/src/lib.rs", "//! x\n// todos, TODOS\n", &[]);
        check("docs/a.md", "FIXME: write\n", &["unfinished"]);
    }

    #[test]
    fn ignored_tests_are_told() {
        check(
            "crates/a/src/lib.rs",
            "//! x\n#[ignore]\nfn a() {}\n#[ignore = \"slow\"]\nfn b() {}\n",
            &["ignored-test"; 2],
        );
        check("crates/a/src/lib.rs", "//! x\n// #[ignore]\n", &[]);
    }

    #[test]
    fn unsafe_stays_where_it_may() {
        check("crates/a/src/lib.rs", "//! x\nfn a() { unsafe {} }\n", &["unsafe"]);
        check("crates/jail/src/lib.rs", "//! x\nfn a() { unsafe {} }\n", &[]);
        check("crates/a/src/lib.rs", "//! unsafe\n#![deny(unsafe_code)]\n", &[]);
    }

    #[test]
    fn white_space_is_told() {
        check("a.toml", "a = 1 \n", &["trailing-space"]);
        check("a.toml", "a = 1\r\nb = 2\n", &[]);
        check("a.yaml", "\ta: 1\n", &["tab"]);
        check("a.md", "end", &["last-line"]);
        check("data.csv", "a\tb \n1\t2", &[]);
    }

    #[test]
    fn folders_of_one_machine_are_told() {
        let [home, root, work] = MACHINE_PATHS;
        check("a.md", &format!("see {home}me/a\n"), &["machine-path"]);
        check("a.json", &format!("{{\"a\": \"{root}b\"}}"), &["machine-path"]);
        check("a.sh", &format!("cd {work}a\n"), &["machine-path"]);
        check("crates/jail/tests/a.rs", &format!("//! {home}x {root}y\n"), &[]);
        check("crates/jail/tests/a.rs", &format!("//! {work}x\n"), &["machine-path"]);
        check("a.md", &format!("docs{home}a https://a.example{work}b /workspace/a\n"), &[]);
    }
}
