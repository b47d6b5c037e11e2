//! `apply_patch`: one check, many patches.

use crate::support::{World, text};
use domain::CallStatus;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::Ordering;

type Files<'a> = &'a [(&'a str, &'a str)];

/// All files below the workspace.
fn files(world: &World) -> Vec<(String, String)> {
    let root = &world.workspace.path;
    let (mut found, mut left) = (Vec::new(), vec![root.clone()]);
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                found.push((name, String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()));
            }
        }
    }
    found.sort();
    found
}

async fn apply(before: Files<'_>, patch: &str) -> (World, tools::Outcome) {
    let world = World::new(&[]);
    for (path, text) in before {
        world.put(path, text);
    }
    let call = domain::Call { custom: true, ..world.call_of("apply_patch", patch) };
    let outcome = world.perform(&call).await;
    (world, outcome)
}

fn owned(files: Files<'_>) -> Vec<(String, String)> {
    let mut files: Vec<_> = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    files.sort();
    files
}

/// `body` stands between the markers.
async fn good(before: Files<'_>, body: &str, listed: &str, after: Files<'_>) {
    let patch = format!("*** Begin Patch\n{body}\n*** End Patch\n");
    let (world, outcome) = apply(before, &patch).await;
    assert_eq!(outcome.status, CallStatus::Ok, "{patch}\n{}", text(&outcome));
    assert_eq!(text(&outcome), format!("Success. Updated the following files:\n{listed}\n"), "{patch}");
    assert_eq!(files(&world), owned(after), "{patch}");
}

/// The whole patch, which must fail and change nothing.
async fn bad(before: Files<'_>, patch: &str, code: &str, expected: &str) {
    let (world, outcome) = apply(before, patch).await;
    let status = if code == "patch_malformed" { CallStatus::Invalid } else { CallStatus::Error };
    assert_eq!((outcome.status, outcome.code), (status, Some(code)), "{patch}\n{}", text(&outcome));
    let got = text(&outcome).strip_prefix("apply_patch failed, and no file was changed.\n").unwrap_or(text(&outcome));
    assert!(got.contains(expected), "{patch}\n got {got}\nwant {expected}");
    assert_eq!(files(&world), owned(before), "{patch}");
    assert_eq!(world.workspace.applied.load(Ordering::Relaxed), 0, "{patch}");
}

async fn bad_body(before: Files<'_>, body: &str, expected: &str) {
    bad(before, &format!("*** Begin Patch\n{body}\n*** End Patch"), "patch_conflict", expected).await;
}

#[tokio::test]
async fn files_are_added_deleted_and_moved() {
    good(&[], "*** Add File: a.txt\n+one\n+two", "A a.txt", &[("a.txt", "one\ntwo\n")]).await;
    good(&[], "*** Add File: deep/er/a.txt\n+", "A deep/er/a.txt", &[("deep/er/a.txt", "\n")]).await;
    good(&[], "*** Add File: empty.txt", "A empty.txt", &[("empty.txt", "")]).await;
    good(&[("a.txt", "old\n")], "*** Add File: a.txt\n+new", "A a.txt", &[("a.txt", "new\n")]).await;
    good(&[], "*** Add File: /workspace/a.txt\n+one", "A a.txt", &[("a.txt", "one\n")]).await;
    good(&[("a.txt", "x")], "*** Delete File: a.txt", "D a.txt", &[]).await;
    good(&[("a.txt", "x\n")], "*** Update File: a.txt\n*** Move to: b/c.txt", "M b/c.txt", &[("b/c.txt", "x\n")]).await;
    good(&[("a.txt", "x\n")], "*** Update File: a.txt\n*** Move to: b.txt\n@@\n-x\n+y", "M b.txt", &[("b.txt", "y\n")])
        .await;
    good(
        &[("a.txt", "x\n"), ("b.txt", "z\n")],
        "*** Update File: a.txt\n*** Move to: b.txt\n@@\n-x\n+y",
        "M b.txt",
        &[("b.txt", "y\n")],
    )
    .await;
    good(&[("a.txt", "x\n")], "*** Update File: a.txt\n*** Move to: a.txt\n@@\n-x\n+y", "M a.txt", &[("a.txt", "y\n")])
        .await;
    good(
        &[("m.txt", "x\n"), ("d.txt", "d\n")],
        "*** Delete File: d.txt\n*** Update File: m.txt\n@@\n-x\n+y\n*** Add File: a.txt\n+a",
        "A a.txt\nM m.txt\nD d.txt",
        &[("a.txt", "a\n"), ("m.txt", "y\n")],
    )
    .await;
}

#[tokio::test]
async fn sections_build_on_one_another() {
    good(
        &[],
        "*** Add File: a.txt\n+one\n*** Update File: a.txt\n@@\n-one\n+two",
        "A a.txt\nM a.txt",
        &[("a.txt", "two\n")],
    )
    .await;
    good(
        &[("a.txt", "x\n")],
        "*** Update File: a.txt\n@@\n-x\n+y\n*** Update File: a.txt\n@@\n-y\n+z",
        "M a.txt",
        &[("a.txt", "z\n")],
    )
    .await;
    good(
        &[("a.txt", "x\n")],
        "*** Delete File: a.txt\n*** Add File: a.txt\n+y",
        "A a.txt\nD a.txt",
        &[("a.txt", "y\n")],
    )
    .await;
    good(&[], "*** Add File: t.txt\n+x\n*** Delete File: t.txt", "A t.txt\nD t.txt", &[]).await;
}

const ABC: &str = "a\nb\nc\nd\ne\n";

#[tokio::test]
async fn hunks_find_their_place() {
    let abc: Files<'_> = &[("f", ABC)];
    good(abc, "*** Update File: f\n@@\n b\n-c\n+C\n d", "M f", &[("f", "a\nb\nC\nd\ne\n")]).await;
    // The first hunk needs no marker.
    good(abc, "*** Update File: f\n b\n-c\n+C", "M f", &[("f", "a\nb\nC\nd\ne\n")]).await;
    good(abc, "*** Update File: f\n@@\n-a\n+A\n@@\n-e\n+E", "M f", &[("f", "A\nb\nc\nd\nE\n")]).await;
    good(abc, "*** Update File: f\n@@\n-a\n+A\n\n@@\n-e\n+E\n", "M f", &[("f", "A\nb\nc\nd\nE\n")]).await;
    good(abc, "*** Update File: f\n@@\n-b\n-c", "M f", &[("f", "a\nd\ne\n")]).await;
    good(abc, "*** Update File: f\n@@ b\n+new", "M f", &[("f", "a\nb\nnew\nc\nd\ne\n")]).await;
    good(abc, "*** Update File: f\n@@\n+end", "M f", &[("f", "a\nb\nc\nd\ne\nend\n")]).await;
    good(abc, "*** Update File: f\n@@\n a\n+A2\n b\n-c\n d\n+D2", "M f", &[("f", "a\nA2\nb\nd\nD2\ne\n")]).await;
    good(abc, "*** Update File: f\n@@ b\n b\n-c\n+C", "M f", &[("f", "a\nb\nC\nd\ne\n")]).await;
    good(abc, "*** Update File: f\n@@ -1,3 +1,3 @@\n-a\n+A", "M f", &[("f", "A\nb\nc\nd\ne\n")]).await;
    good(abc, "*** Update File: f\n@@\n-a\n-b\n-c\n-d\n-e", "M f", &[("f", "")]).await;
}

#[tokio::test]
async fn anchors_and_ends_choose_among_like_lines() {
    let twice = "def a\n  x\n  y\ndef b\n  x\n  y\n";
    let f: Files<'_> = &[("f", twice)];
    good(f, "*** Update File: f\n@@ def b\n   x\n-  y\n+  z", "M f", &[("f", "def a\n  x\n  y\ndef b\n  x\n  z\n")])
        .await;
    good(f, "*** Update File: f\n@@\n   x\n-  y\n+  z", "M f", &[("f", "def a\n  x\n  z\ndef b\n  x\n  y\n")]).await;
    good(
        f,
        "*** Update File: f\n@@\n   x\n-  y\n+  z\n*** End of File",
        "M f",
        &[("f", "def a\n  x\n  y\ndef b\n  x\n  z\n")],
    )
    .await;
    good(
        f,
        "*** Update File: f\n@@ def a\n@@   y\n def b\n+  w",
        "M f",
        &[("f", "def a\n  x\n  y\ndef b\n  w\n  x\n  y\n")],
    )
    .await;
    good(
        f,
        "*** Update File: f\n@@\n+end\n*** End of File",
        "M f",
        &[("f", "def a\n  x\n  y\ndef b\n  x\n  y\nend\n")],
    )
    .await;
    good(
        f,
        "*** Update File: f\n@@\n-def a\n+def c\n*** End of File",
        "M f",
        &[("f", "def c\n  x\n  y\ndef b\n  x\n  y\n")],
    )
    .await;
}

#[tokio::test]
async fn blanks_and_signs_may_differ_and_context_stays() {
    good(&[("f", "a  \nb\t\nc\n")], "*** Update File: f\n@@\n a\n-b\n+B", "M f", &[("f", "a  \nB\nc\n")]).await;
    good(&[("f", "    a\n    b\n")], "*** Update File: f\n@@\n a\n-b\n+    B", "M f", &[("f", "    a\n    B\n")]).await;
    good(&[("f", "x\n a\na\n")], "*** Update File: f\n@@\n-a\n+A", "M f", &[("f", "x\n a\nA\n")]).await;
    good(&[("f", "say “hi” – now\n")], "*** Update File: f\n@@\n-say \"hi\" - now\n+ok", "M f", &[("f", "ok\n")]).await;
    good(&[("f", "a\r\nb\r\nc\r\n")], "*** Update File: f\n@@\n a\n-b\n+B", "M f", &[("f", "a\r\nB\r\nc\r\n")]).await;
    good(&[("f", "\u{feff}a\nb\n")], "*** Update File: f\n@@\n-a\n+A", "M f", &[("f", "\u{feff}A\nb\n")]).await;
    good(&[("f", "a\nb")], "*** Update File: f\n@@\n-b\n+B", "M f", &[("f", "a\nB\n")]).await;
    good(&[("f", "a\n\nb\n")], "*** Update File: f\n@@\n a\n\n-b\n+B", "M f", &[("f", "a\n\nB\n")]).await;
    good(&[("f", "ä\nö\n")], "*** Update File: f\n@@\n-ö\n+ü", "M f", &[("f", "ä\nü\n")]).await;
    good(&[("f", "")], "*** Update File: f\n@@\n+x", "M f", &[("f", "x\n")]).await;
}

#[tokio::test]
async fn wrappings_are_taken_off() {
    for patch in [
        "\n\n*** Begin Patch\n*** Add File: a\n+x\n*** End Patch\n\n",
        "  *** Begin Patch  \n  *** Add File: a  \n+x\n  *** End Patch  ",
        "<<'EOF'\n*** Begin Patch\n*** Add File: a\n+x\n*** End Patch\nEOF\n",
        "apply_patch <<EOF\n*** Begin Patch\n*** Add File: a\n+x\n*** End Patch\nEOF",
        "```diff\n*** Begin Patch\n*** Add File: a\n+x\n*** End Patch\n```",
        "*** Begin Patch\r\n*** Add File: a\r\n+x\r\n*** End Patch\r\n",
    ] {
        let (world, outcome) = apply(&[], patch).await;
        assert_eq!(outcome.status, CallStatus::Ok, "{patch}: {}", text(&outcome));
        assert_eq!(files(&world), owned(&[("a", "x\n")]), "{patch}");
    }
}

#[tokio::test]
async fn malformed_patches_name_line_and_expectation() {
    let begin = |body: &str| format!("*** Begin Patch\n{body}\n*** End Patch");
    for (patch, expected) in [
        (String::new(), "patch line 1: the patch is empty"),
        ("hello".into(), "patch line 1: the first line of the patch must be `*** Begin Patch`, found `hello`"),
        (
            "*** Begin Patch\n*** Add File: a\n+x".into(),
            "patch line 3: the last line of the patch must be `*** End Patch`, found `+x`",
        ),
        ("*** Begin Patch\n*** End Patch".into(), "the patch is empty; expected at least one file section"),
        (
            begin("*** Rename File: a"),
            "patch line 2: expected `*** Add File: PATH`, `*** Delete File: PATH` or `*** Update File: PATH`, found `*** Rename File: a`",
        ),
        (begin("*** Add File: a\nx"), "patch line 3: expected `*** Add File: PATH`"),
        (begin("*** Update File: a"), "patch line 3: the section for `a` changes nothing"),
        (begin("*** Update File: a\n@@"), "patch line 3: the hunk is empty"),
        (
            begin("*** Update File: a\n@@\nplain"),
            "patch line 4: every line of a hunk starts with ` ` (context), `+` (added) or `-` (removed), found `plain`",
        ),
        (begin("*** Add File: ../a\n+x"), "patch line 2: bad path `../a`: escape_root"),
        (begin("*** Add File: /etc/a\n+x"), "patch line 2: bad path `/etc/a`: absolute"),
        (begin("*** Update File: a\n*** Move to: ../b"), "patch line 3: bad path `../b`: escape_root"),
        (begin("*** Add File:\n+x"), "patch line 2: bad path ``: empty"),
        (begin("*** Delete File: ."), "patch line 2: expected the path of a file"),
    ] {
        bad(&[("a", "x\n")], &patch, "patch_malformed", expected).await;
    }
}

#[tokio::test]
async fn conflicts_name_file_hunk_and_nearest_place() {
    let abc: Files<'_> = &[("f", ABC)];
    bad_body(abc, "*** Update File: f\n@@\n b\n-X\n+Y", "f, hunk 1 (patch line 3): these lines were not found:\n  b\n  X\nThe nearest place differs at line 3: the file has `c`, the patch `X`.").await;
    bad_body(
        abc,
        "*** Update File: f\n@@\n-nothing\n+Y",
        "f, hunk 1 (patch line 3): these lines were not found:\n  nothing",
    )
    .await;
    bad_body(
        abc,
        "*** Update File: f\n@@ nowhere\n-a\n+Y",
        "f, hunk 1 (patch line 3): the line `nowhere` of its @@ was not found.",
    )
    .await;
    bad_body(abc, "*** Update File: f\n@@\n-d\n+D\n@@\n-a\n+A", "f, hunk 2 (patch line 6): these lines were not found after line 4:\n  a\nThey stand at line 1: hunks come in the order of the file.").await;
    bad_body(
        abc,
        "*** Update File: f\n@@\n d\n e\n f\n-g",
        "The nearest place differs at line 6: the file has `the end of the file`, the patch `f`.",
    )
    .await;
    bad_body(abc, "*** Update File: none\n@@\n-a\n+b", "none: there is no such file.").await;
    bad_body(abc, "*** Delete File: none", "none: there is no such file.").await;
    bad_body(abc, "*** Delete File: f\n*** Update File: f\n@@\n-a\n+b", "f: there is no such file.").await;
    let sub: Files<'_> = &[("sub/x", "x\n")];
    bad_body(sub, "*** Delete File: sub", "sub: it is a directory, expected a file.").await;
    bad_body(sub, "*** Update File: sub\n@@\n-a\n+b", "sub: it is a directory, expected a file.").await;
    bad_body(sub, "*** Add File: sub\n+x", "sub: it is a directory, expected a file.").await;
}

#[tokio::test]
async fn a_patch_that_fits_nowhere_is_given_up() {
    let many = "a line\n".repeat(100_000);
    let hunk: String = (0..200).map(|number| format!("@@ a line\n-no such {number}\n+x\n a line\n")).collect();
    bad_body(
        &[("f", &many)],
        &format!("*** Update File: f\n{hunk}"),
        "f, hunk 1 (patch line 3): these lines were not found",
    )
    .await;
    let anchors = "@@ a lime\n".repeat(50) + "-a line";
    let almost = format!("{many}a lime\n");
    bad_body(&[("f", &almost)], &format!("*** Update File: f\n{anchors}"), "the line `a lime` of its @@ was not found")
        .await;
    let spread: String = (0..300).map(|number| format!("  {number}\n")).collect::<String>() + &many;
    let late: String = (0..300).map(|number| format!("@@\n-{number}\n+x\n")).collect();
    bad_body(&[("f", &spread)], &format!("*** Update File: f\n{late}"), "finding its place takes too long").await;
}

#[tokio::test]
async fn all_files_change_or_none() {
    let before: Files<'_> = &[("a", "a\n"), ("b", "b\n")];
    bad_body(before, "*** Update File: a\n@@\n-a\n+A\n*** Update File: b\n@@\n-X\n+B", "b, hunk 1").await;
    bad_body(before, "*** Delete File: a\n*** Add File: c\n+c\n*** Delete File: none", "none: there is no such file.")
        .await;
    bad_body(before, "*** Add File: c\n+c\n*** Update File: a\n*** Move to: d\n@@\n-X\n+Y", "a, hunk 1").await;
    // The sandbox itself refuses: a file can't be a directory.
    let patch =
        "*** Begin Patch\n*** Update File: a\n@@\n-a\n+A\n*** Add File: c\n+c\n*** Add File: c/d\n+d\n*** End Patch";
    bad(before, patch, "sandbox_file", "write `c/d`: a directory and a file meet").await;
}

#[tokio::test]
async fn files_that_are_no_text_or_no_files_are_refused() {
    let world = World::new(&[]);
    world.put("binary", [b'a', 0xff, b'\n']);
    std::os::unix::fs::symlink("binary", world.workspace.path.join("link")).unwrap();
    std::fs::File::create(world.workspace.path.join("large")).unwrap().set_len(11 << 20).unwrap();
    for (path, expected) in [
        ("binary", "binary: it is no UTF-8 text, from byte 1 on."),
        ("link", "link: it is a symbolic link, expected a file."),
        ("large", "large: it has 11534336 bytes; a patch changes files of at most 10485760."),
    ] {
        let patch = format!("*** Begin Patch\n*** Update File: {path}\n@@\n-a\n+b\n*** End Patch");
        let outcome = world.perform(&domain::Call { custom: true, ..world.call_of("apply_patch", &patch) }).await;
        assert!(text(&outcome).ends_with(expected), "{}", text(&outcome));
    }
}

#[tokio::test]
async fn permissions_stay_with_the_file() {
    let world = World::new(&[]);
    world.put("run.sh", "echo a\n");
    let mode = |path: &str| std::fs::metadata(world.workspace.path.join(path)).unwrap().permissions().mode() & 0o777;
    std::fs::set_permissions(world.workspace.path.join("run.sh"), std::fs::Permissions::from_mode(0o750)).unwrap();
    let patch = "*** Begin Patch\n*** Update File: run.sh\n*** Move to: go.sh\n@@\n-echo a\n+echo b\n*** End Patch";
    world.perform(&domain::Call { custom: true, ..world.call_of("apply_patch", patch) }).await;
    assert_eq!(mode("go.sh"), 0o750);
}

#[tokio::test]
async fn every_form_of_arguments_is_understood() {
    let patch = r"*** Begin Patch\n*** Add File: a\n+x\n*** End Patch";
    for arguments in [
        format!(r#"{{"input":"{patch}"}}"#),
        format!(r#"{{"patch":"{patch}"}}"#),
        patch.replace("\\n", "\n"),
        r#"{"operations":[{"type":"create_file","path":"a","diff":"+x\n"}]}"#.into(),
        r#"{"type":"create_file","path":"a","diff":"+x"}"#.into(),
        r#"{"operations":[{"type":"create_file","path":"b","diff":"+y"},{"type":"update_file","path":"b","diff":"@@\n-y\n+x","move_to":"a"}]}"#.into(),
        r#"{"operations":[{"type":"create_file","path":"b","diff":"+x"},{"type":"update_file","path":"b","move_to":"a"}]}"#.into(),
        r#"{"operations":[{"type":"create_file","path":"b","diff":""},{"type":"delete_file","path":"b"},{"type":"create_file","path":"a","diff":"+x"}]}"#.into(),
    ] {
        for custom in [false, true] {
            let world = World::new(&[]);
            let call = domain::Call { custom, ..world.call_of("apply_patch", &arguments) };
            assert_eq!(world.toolbox.check(&call), Ok(()), "{arguments}");
            let outcome = world.perform(&call).await;
            assert_eq!(outcome.status, CallStatus::Ok, "{arguments}: {outcome:?}");
            assert_eq!(files(&world), owned(&[("a", "x\n")]), "{arguments}");
        }
    }
    let world = World::new(&[]);
    for (arguments, expected) in [
        (
            "{}",
            "Invalid tool arguments for input. Check the tool schema and try again.\n- input: required, but missing",
        ),
        ("7", "- arguments: expected a JSON object, got a number"),
        (r#"{"operations":[]}"#, "operations.0: expected a list of 1 to 1000 operations"),
        (
            r#"{"operations":[{"type":"move","path":"a"}]}"#,
            "operations.0: type: expected create_file, update_file or delete_file, found `move`",
        ),
        (r#"{"operations":[{"type":"create_file","diff":"+x"}]}"#, "operations.0: path: required, but missing"),
        (r#"{"operations":[{"type":"create_file","path":"a"}]}"#, "operations.0: diff: required, but missing"),
        (
            r#"{"operations":[{"type":"create_file","path":"a","diff":"x"}]}"#,
            "operations.0: diff line 1: every line of a new file starts with `+`",
        ),
        (r#"{"operations":[{"type":"delete_file","path":"../a"}]}"#, "bad path `../a`: escape_root"),
        (
            r#"{"operations":[{"type":"update_file","path":"a","diff":""}]}"#,
            "operations.0: the diff for `a` changes nothing",
        ),
    ] {
        let rejection = world.toolbox.check(&world.call_of("apply_patch", arguments)).unwrap_err();
        assert!(rejection.text.contains(expected), "{arguments}\n got {}\nwant {expected}", rejection.text);
    }
}
