//! The breaks that `check --self-test` makes, each with the step that must notice. Edits are found by what a file holds,
//! not by line, so that they outlive changes of the file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// One break.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// As `check --only` takes it.
    pub(super) step: &'static str,
    /// Whether the step runs `topside`.
    pub(super) runs_product: bool,
    /// Breaks the tree; returns what the step must say then, and must not say before.
    pub(super) apply: fn(&Path) -> Result<Vec<String>>,
}

const fn case(name: &'static str, step: &'static str, apply: fn(&Path) -> Result<Vec<String>>) -> Case {
    Case { name, step, runs_product: false, apply }
}

const fn with_product(case: Case) -> Case {
    Case { runs_product: true, ..case }
}

pub(super) const CASES: &[Case] = &[
    case("a wrong arrow", "arrows", |tree| {
        insert_after(tree, "crates/machine/Cargo.toml", "[dependencies]\n", "journal.workspace = true\n")?;
        says(&["crates/machine/Cargo.toml: `machine` (level 2) depends on `journal` (level 2)"])
    }),
    case("a library in the wrong room", "arrows", |tree| {
        insert_after(tree, "crates/tools/Cargo.toml", "[dependencies]\n", "reqwest.workspace = true\n")?;
        says(&["`tools` depends on `reqwest`, which only net may"])
    }),
    case("a room without a row", "arrows", |tree| {
        let row = line_with(tree, "ARCHITECTURE.md", "| `vault`")?;
        replace(tree, "ARCHITECTURE.md", &format!("{row}\n"), "")?;
        says(&["room `vault` has no row"])
    }),
    case("a build that takes walls down", "arrows", |tree| {
        let switched = "jail = { workspace = true, features = [\"walls_down\"] }";
        replace(tree, "crates/topside/Cargo.toml", "jail.workspace = true", switched)?;
        says(&["crates/topside/Cargo.toml: turns on `walls_down`"])
    }),
    case("an overlong file", "tidy", |tree| {
        append(tree, "crates/domain/src/lib.rs", &"// A line.\n".repeat(1_001))?;
        says(&["crates/domain/src/lib.rs: has ", "at most 1000 (length)"])
    }),
    case("unfinished work", "tidy", |tree| {
        append(tree, "crates/stdx/src/lib.rs", concat!("// TO", "DO: later\n"))?;
        says(&["(unfinished)"])
    }),
    case("unsafe where it may not be", "tidy", |tree| {
        append(tree, "crates/net/src/lib.rs", "fn broken() { unsafe {} }\n")?;
        says(&["`unsafe` outside `jail` and `guest`"])
    }),
    case("an error code without a page", "tidy", |tree| {
        append(tree, "crates/net/src/lib.rs", "fn code() -> &'static str { \"self_test_code\" }\n")?;
        says(&["error code `self_test_code` has no page docs/errors/self_test_code.md"])
    }),
    case("a link that leads nowhere", "tidy", |tree| {
        append(tree, "CONTRIBUTING.md", "\n[nowhere](docs/self-test-nowhere.md)\n")?;
        says(&["there is no docs/self-test-nowhere.md"])
    }),
    case("an exemption list that grows", "tidy", |tree| {
        append(tree, "xtask/tidy-exemptions.txt", "length crates/net/src/lib.rs\n")?;
        says(&["the list may only shrink"])
    }),
    case("an unformatted file", "format", |tree| {
        append(tree, "crates/stdx/src/lib.rs", "fn  broken( ){}\n")?;
        says(&["crates/stdx/src/lib.rs: is not formatted"])
    }),
    case("a warning", "clippy:stdx", |tree| {
        append(
            tree,
            "crates/stdx/src/lib.rs",
            "\n/// Breaks.\npub fn self_test(a: Option<u8>) -> u8 {\n    a.unwrap()\n}\n",
        )?;
        says(&["crates/stdx/src/lib.rs:", "used `unwrap()` on an `Option` value"])
    }),
    case("a long function", "clippy:stdx", |tree| {
        let body = "    let a = a + 1;\n".repeat(71);
        append(
            tree,
            "crates/stdx/src/lib.rs",
            &format!("\n/// Breaks.\npub fn self_test(a: u64) -> u64 {{\n{body}    a\n}}\n"),
        )?;
        says(&["this function has too many lines"])
    }),
    case("a failing test", "tests:stdx", |tree| {
        append(tree, "crates/stdx/src/lib.rs", "\n#[test]\nfn self_test_fails() {\n    panic!(\"on purpose\");\n}\n")?;
        says(&["self_test_fails: the test failed"])
    }),
    case("a test that skips itself", "tests:stdx", |tree| {
        let test = "\n#[test]\nfn self_test_skips() {\n    eprintln!(\"SKIPPED self test: on purpose\");\n}\n";
        append(tree, "crates/stdx/src/lib.rs", test)?;
        says(&["SKIPPED self test: on purpose; nothing may be skipped here"])
    }),
    case("a changed golden history", "tests:machine", |tree| change_golden(tree, "jsonl", ": record ")),
    case("a golden history that folds otherwise", "tests:machine", |tree| {
        change_golden(tree, "expect", " folds otherwise")
    }),
    case("a banned library", "deny", |tree| {
        replace(tree, "deny.toml", "deny = [", "deny = [\n    { crate = \"serde_json\", reason = \"self-test\" },")?;
        says(&["serde_json"])
    }),
    with_product(case("a documented command that fails", "docs:README.md", |tree| {
        append(tree, "README.md", "\n```console\n$ topside self-test-no-such-command\n```\n")?;
        says(&["`topside self-test-no-such-command` ended with status"])
    })),
    with_product(case("documented output that does not come", "docs:README.md", |tree| {
        append(tree, "README.md", "\n```console\n$ echo one\nself-test-two\n```\n")?;
        says(&["`echo one` did not say `self-test-two`"])
    })),
    with_product(case("a broken example", "examples", |tree| {
        let project = first_file_named(&tree.join("examples"), "topside.yaml")?;
        fs::write(&project, "self_test_unknown_key: true\n")?;
        let folder = project.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        Ok(vec![format!("examples/{folder}: check.sh failed"), "self_test_unknown_key".to_owned()])
    })),
];

fn says(parts: &[&str]) -> Result<Vec<String>> {
    Ok(parts.iter().map(ToString::to_string).collect())
}

fn edit(tree: &Path, name: &str, change: impl FnOnce(&str) -> Option<String>) -> Result<()> {
    let path = tree.join(name);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {name}"))?;
    let changed = change(&text).with_context(|| format!("{name} does not hold what the case edits"))?;
    fs::write(&path, changed).with_context(|| format!("cannot write {name}"))
}

fn append(tree: &Path, name: &str, addition: &str) -> Result<()> {
    edit(tree, name, |text| Some(format!("{text}{addition}")))
}

fn replace(tree: &Path, name: &str, from: &str, to: &str) -> Result<()> {
    edit(tree, name, |text| text.contains(from).then(|| text.replacen(from, to, 1)))
}

fn insert_after(tree: &Path, name: &str, anchor: &str, addition: &str) -> Result<()> {
    replace(tree, name, anchor, &format!("{anchor}{addition}"))
}

fn line_with(tree: &Path, name: &str, part: &str) -> Result<String> {
    let text = fs::read_to_string(tree.join(name)).with_context(|| format!("cannot read {name}"))?;
    let line = text.lines().find(|line| line.contains(part));
    line.map(str::to_owned).with_context(|| format!("{name} has no line with {part}"))
}

/// Changes the first golden history, its records or what they fold to; its test must name it.
fn change_golden(tree: &Path, extension: &str, complaint: &str) -> Result<Vec<String>> {
    let golden = first_file(&tree.join("crates/machine/tests/histories"), extension)?;
    corrupt(&golden)?;
    let name = golden.file_stem().unwrap_or_default().to_string_lossy();
    Ok(vec!["golden_histories_fold_as_ever: the test failed".to_owned(), format!("{name}{complaint}")])
}

/// The first file of a folder that ends like this, in the order of names.
fn first_file(folder: &Path, extension: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    files.retain(|path| path.is_file() && path.extension().is_some_and(|found| found == extension));
    files.sort();
    files.into_iter().next().with_context(|| format!("{} has no .{extension} file", folder.display()))
}

/// The first file of this name one folder down, in the order of names.
fn first_file_named(folder: &Path, name: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path().join(name))).collect();
    files.retain(|path| path.is_file());
    files.sort();
    files.into_iter().next().with_context(|| format!("{} has no folder with a {name}", folder.display()))
}

/// Changes one character in the middle of a file, and nothing of its form.
fn corrupt(path: &Path) -> Result<()> {
    let mut bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let middle = bytes.len() / 2;
    let Some(at) = (middle..bytes.len()).find(|index| bytes[*index].is_ascii_alphanumeric()) else {
        bail!("{} holds nothing to change", path.display());
    };
    bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_that_finds_nothing_to_edit_is_an_error() {
        let tree = tempfile::tempdir().expect("a folder");
        fs::write(tree.path().join("a.toml"), "[dependencies]\nb = 1\n").expect("written");
        insert_after(tree.path(), "a.toml", "[dependencies]\n", "c = 1\n").expect("edited");
        assert_eq!(fs::read_to_string(tree.path().join("a.toml")).expect("read"), "[dependencies]\nc = 1\nb = 1\n");
        assert!(replace(tree.path(), "a.toml", "none", "").is_err());
        assert!(append(tree.path(), "b.toml", "").is_err());
        assert!(first_file(tree.path(), "jsonl").is_err());
        assert!(first_file_named(tree.path(), "topside.yaml").is_err());
    }

    #[test]
    fn one_character_is_changed() {
        let tree = tempfile::tempdir().expect("a folder");
        let path = tree.path().join("golden");
        fs::write(&path, "submitted replied returned\n").expect("written");
        corrupt(&path).expect("changed");
        let changed = fs::read_to_string(&path).expect("read");
        assert_eq!(changed.len(), "submitted replied returned\n".len());
        assert_ne!(changed, "submitted replied returned\n");
    }
}
