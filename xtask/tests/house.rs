//! `cargo xtask check` on a small house of its own: what its last line and exit code say when a document, an example or an
//! arrow is right, and when it is not. The scanners have their tests beside them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A house that keeps every rule, with a `topside` that says its arguments.
const HOUSE: &[(&str, &str)] = &[
    (
        "Cargo.toml",
        "[workspace]\nresolver = \"3\"\nmembers = [\"crates/*\"]\n[workspace.lints]\n[workspace.dependencies]\n\
         stdx = { package = \"topside-stdx\", path = \"crates/stdx\" }\n",
    ),
    (
        "crates/stdx/Cargo.toml",
        "[package]\nname = \"topside-stdx\"\n[lib]\nname = \"stdx\"\n[lints]\nworkspace = true\n",
    ),
    ("crates/stdx/src/lib.rs", "//! The base.\n"),
    (
        "crates/net/Cargo.toml",
        "[package]\nname = \"topside-net\"\n[lib]\nname = \"net\"\n[lints]\nworkspace = true\n\
         [dependencies]\nstdx.workspace = true\n",
    ),
    ("crates/net/src/lib.rs", "//! The door.\nuse stdx as _;\n"),
    ("ARCHITECTURE.md", "| level | crate | is |\n|---|---|---|\n| 0 | `stdx` | base |\n| 1 | `net` | door |\n"),
    (
        "README.md",
        "```console\n$ cargo run --release -- run maya \"a task\"\nrun maya a task\n$ topside > said && cat said\n...\n```\n",
    ),
    ("examples/support/topside.yaml", "default_agent: maya\n"),
    (
        "examples/support/check.sh",
        "#!/bin/sh\nset -e\ntest -f topside.yaml\ntest \"$(topside run maya)\" = \"run maya\"\n",
    ),
    ("topside", "#!/bin/sh\nset -e\necho \"$@\"\n"),
];

fn write(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(&path, text).expect("written");
    let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
}

/// One row: the steps, what is changed in the house (nothing as text takes the file away), the last line, and what the
/// output must name.
fn check(steps: &[&str], change: Option<(&str, &str)>, last_line: &str, named: &[&str]) {
    let house = TempDir::new().expect("a folder");
    let root = house.path();
    for (name, text) in HOUSE.iter().copied().chain(change.filter(|(_, text)| !text.is_empty())) {
        write(root, name, text);
    }
    if let Some((name, "")) = change {
        fs::remove_file(root.join(name)).expect("removed");
    }
    assert!(Command::new("git").args(["init", "--quiet"]).current_dir(root).status().expect("git runs").success());
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("check").args(steps.iter().flat_map(|step| ["--only", step])).arg("--binary").arg(root.join("topside"));
    let output = command.current_dir(root).env_remove("CARGO_TARGET_DIR").output().expect("xtask runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(text.lines().last(), Some(last_line), "{change:?}\n{text}{errors}");
    assert_eq!(output.status.success(), last_line.ends_with(" 0 failed"), "{change:?}\n{text}");
    for name in named {
        assert!(text.contains(name), "`{name}` is not named\n{text}");
    }
}

#[test]
fn a_house_in_order_is_green() {
    check(&["arrows", "docs", "examples"], None, "6 passed, 0 failed", &["2 rooms, 2 rows"]);
    check(&["docs:README.md", "examples:support"], None, "5 passed, 0 failed", &[]);
}

#[test]
fn a_wrong_arrow_is_red() {
    let manifest = "[package]\nname = \"topside-stdx\"\n[lib]\nname = \"stdx\"\n[lints]\nworkspace = true\n\
                    [dev-dependencies]\nnet = { package = \"topside-net\", path = \"../net\" }\n";
    let named = ["`stdx` (level 0) depends on `net` (level 1)", "versions are set once", "no source uses `net`"];
    check(&["arrows"], Some(("crates/stdx/Cargo.toml", manifest)), "0 passed, 1 failed", &named);
    let table = "| level | crate | is |\n|---|---|---|\n| 0 | `stdx` | base |\n| 1 | `gone` | x |\n";
    let named = ["room `net` has no row", "row `gone` has no room"];
    check(&["arrows"], Some(("ARCHITECTURE.md", table)), "0 passed, 1 failed", &named);
    check(&["arrows"], Some(("ARCHITECTURE.md", "")), "0 passed, 1 failed", &["arrows: cannot be run"]);
}

#[test]
fn a_house_that_cannot_be_read_still_ends_with_its_count() {
    check(&["arrows"], Some(("crates/net/Cargo.toml", "[package\n")), "0 passed, 1 failed", &[]);
    check(&["no-such-step"], None, "0 passed, 1 failed", &[]);
}

#[test]
fn a_document_that_does_not_keep_its_word_is_red() {
    let rows = [
        ("```console\n$ topside one\ntwo\n```\n", "0 passed, 2 failed", "README.md:2: `topside one` did not say `two`"),
        ("```console\n$ topside one\n$ false\n```\n", "1 passed, 2 failed", "README.md:3: `false` ended with status 1"),
        ("```console\n$ cargo build\n```\n", "0 passed, 2 failed", "stood in for"),
        ("```console,ignore\n$ topside\n```\n", "0 passed, 1 failed", "not run: why"),
        ("no command\n", "0 passed, 1 failed", "no document has a command"),
    ];
    for (text, last_line, named) in rows {
        check(&["docs"], Some(("README.md", text)), last_line, &[named]);
    }
    let guide = ("docs/guide/start.md", "```console\n$ topside-none\n```\n");
    check(
        &["docs"],
        Some(guide),
        "2 passed, 2 failed",
        &["docs/guide/start.md:2: `topside-none` ended with status 127"],
    );
}

#[test]
fn an_example_that_does_not_work_is_red() {
    let named = ["examples/support: has no check.sh"];
    check(&["examples"], Some(("examples/support/check.sh", "")), "0 passed, 2 failed", &named);
    let broken = "#!/bin/sh\necho the report is missing\nexit 1\n";
    let named = ["examples/support: check.sh failed", "the report is missing"];
    check(&["examples"], Some(("examples/support/check.sh", broken)), "0 passed, 2 failed", &named);
    check(&["examples"], Some(("examples/support/topside.yaml", "")), "0 passed, 1 failed", &["no project to run"]);
}

#[test]
fn a_product_that_is_not_there_is_red() {
    check(&["docs", "examples"], Some(("topside", "")), "0 passed, 2 failed", &["there is no binary"]);
}
