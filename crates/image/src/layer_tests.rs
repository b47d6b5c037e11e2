//! Layers that are right, and every kind of hostile one.

use super::*;
use crate::fixture::{self, Header, directory, file, hard, link};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

fn lay(entries: &[Vec<u8>]) -> (tempfile::TempDir, Result<Totals, Error>) {
    let outer = tempfile::tempdir().unwrap();
    let into = outer.path().join("tree");
    std::fs::create_dir(&into).unwrap();
    std::fs::write(outer.path().join("outside"), "untouched").unwrap();
    let open = File::open(&into).unwrap();
    let archive = fixture::tar(entries);
    let done = unpack(&mut &archive[..], open.as_fd(), 100, Owners::One);
    assert_eq!(std::fs::read_to_string(outer.path().join("outside")).unwrap(), "untouched");
    assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 2, "nothing beside the tree");
    (outer, done)
}

/// The rule by which a layer is refused, and where.
fn refusal(entries: &[Vec<u8>]) -> (Rule, String) {
    match lay(entries).1 {
        Err(Error::Refused { rule, entry }) => (rule, entry),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_layer_becomes_files() {
    let (outer, done) = lay(&[
        directory("./"),
        directory("./etc/"),
        file("./etc/passwd", b"root:x:0:0::/:/bin/sh\n"),
        // Its directories never came.
        file("usr/share/doc/x", b"x"),
        link("lib", "usr/lib"),
        link("escape", "../../../etc/passwd"),
        hard("again", "etc/passwd"),
        Header { mode: 0o6755, ..Header::file("tool", 0) }.block().to_vec(),
        Header { flag: b'5', mode: 0o1777, ..Header::file("tmp/", 0) }.block().to_vec(),
        Header { flag: b'5', mode: 0, ..Header::file("closed/", 0) }.block().to_vec(),
        file("closed/in", b""),
        directory("etc/"),
    ]);
    assert_eq!(done.unwrap(), Totals { entries: 12, opaque: false });
    let tree = outer.path().join("tree");
    let at = |path: &str| std::fs::symlink_metadata(tree.join(path)).unwrap();
    assert_eq!(at("etc/passwd").ino(), at("again").ino());
    assert_eq!(at("tool").mode() & 0o7777, 0o755, "no bit that gives rights");
    assert_eq!(at("tmp").mode() & 0o7777, 0o1777);
    assert_eq!(at("closed").mode() & 0o7777, 0o700, "its owner may enter");
    assert_eq!(at("etc").mtime(), 0o14_524_770_000);
    assert_eq!(at("etc/passwd").mtime(), 0o14_524_770_000);
    assert!(at("escape").is_symlink());
}

#[test]
fn what_no_layer_may_hold_is_refused_by_name() {
    let wh = |name: &str| file(name, b"");
    let long = "x".repeat(300);
    let deep = "d/".repeat(2_100);
    let rows: Vec<(&str, Vec<Vec<u8>>, Rule)> = vec![
        ("climbs", vec![file("../x", b"x")], Rule::Climbs),
        ("climbs late", vec![directory("a/"), file("a/../../x", b"x")], Rule::Climbs),
        ("absolute", vec![file("/tmp/x", b"x")], Rule::Absolute),
        ("pax path", vec![fixture::pax(&[("path", "../x")]), file("x", b"x")], Rule::Climbs),
        ("gnu path", vec![fixture::gnu_long(b'L', "/x"), file("x", b"x")], Rule::Absolute),
        ("prefix", vec![Header { prefix: "..", ..Header::file("x", 0) }.block().to_vec()], Rule::Climbs),
        ("link, then through it", vec![link("a", "/"), file("a/x", b"x")], Rule::ThroughLink),
        ("a link inside, then through it", vec![directory("b/"), link("a", "b"), file("a/x", b"x")], Rule::ThroughLink),
        ("a directory over a link", vec![link("a", "/tmp"), directory("a/")], Rule::Duplicate),
        ("a file over a link", vec![link("a", "../outside"), file("a", b"x")], Rule::Duplicate),
        ("a file twice", vec![file("a", b"x"), file("a", b"y")], Rule::Duplicate),
        ("a file where a directory is", vec![directory("a/"), file("a", b"y")], Rule::Duplicate),
        ("below a file", vec![file("a", b"x"), file("a/b", b"x")], Rule::NoParent),
        ("hard link out", vec![hard("a", "../outside")], Rule::LinkEscapes),
        ("hard link to the host", vec![hard("a", "/etc/passwd")], Rule::LinkEscapes),
        ("hard link through a link", vec![link("l", ".."), hard("a", "l/outside")], Rule::LinkEscapes),
        ("pax link", vec![fixture::pax(&[("linkpath", "../outside")]), hard("a", "b")], Rule::LinkEscapes),
        ("hard link to nothing", vec![hard("a", "b")], Rule::LinkMissing),
        ("hard link to a directory", vec![directory("b/"), hard("a", "b")], Rule::LinkMissing),
        ("hard link to the top", vec![hard("a", ".")], Rule::LinkMissing),
        ("hard link to a whiteout", vec![wh(".wh.b"), hard("a", "b")], Rule::LinkMissing),
        ("link to nowhere", vec![link("a", "")], Rule::NameMalformed),
        ("character device", vec![Header { flag: b'3', ..Header::file("a", 0) }.block().to_vec()], Rule::Device),
        ("block device", vec![Header { flag: b'4', ..Header::file("a", 0) }.block().to_vec()], Rule::Device),
        ("FIFO", vec![Header { flag: b'6', ..Header::file("a", 0) }.block().to_vec()], Rule::Device),
        ("GNU sparse", vec![Header { flag: b'S', ..Header::file("a", 0) }.block().to_vec()], Rule::UnknownKind),
        ("pax sparse", vec![fixture::pax(&[("GNU.sparse.realsize", "99")]), file("a", b"")], Rule::UnknownKind),
        ("multi-volume", vec![Header { flag: b'M', ..Header::file("a", 0) }.block().to_vec()], Rule::UnknownKind),
        ("long name", vec![fixture::pax(&[("path", &long)]), file("a", b"")], Rule::NameTooLong),
        ("deep name", vec![fixture::pax(&[("path", &deep)]), directory("a")], Rule::NameTooLong),
        ("zero in a name", vec![fixture::pax(&[("path", "a\0b")]), file("a", b"")], Rule::NameMalformed),
        ("no name", vec![file("", b"")], Rule::NameMalformed),
        ("a file as the top", vec![file(".", b"")], Rule::NameMalformed),
        ("cut", vec![Header::file("a", 1 << 20).block().to_vec()], Rule::Truncated),
        ("larger than any", vec![fixture::pax(&[("size", "9223372036854775807")]), file("a", b"")], Rule::TooLarge),
        ("whiteout of the top", vec![wh(".wh..")], Rule::NameMalformed),
        ("whiteout of what is above", vec![wh(".wh...")], Rule::NameMalformed),
        ("whiteout of nothing", vec![wh("a/.wh.")], Rule::NameMalformed),
        ("whiteout that is a directory", vec![directory(".wh.a/")], Rule::UnknownKind),
        ("whiteout through a link", vec![link("a", ".."), wh("a/.wh.outside")], Rule::ThroughLink),
        ("many", (0..101).map(|index| file(&format!("f{index}"), b"")).collect(), Rule::TooManyEntries),
    ];
    for (name, entries, rule) in rows {
        let (found, entry) = refusal(&entries);
        assert_eq!(found, rule, "{name}: at {entry}");
        assert!(entry.len() < 2_000, "{name}: {entry}");
    }
}

#[test]
fn names_of_any_bytes_pass_and_are_shown_escaped() {
    let mut odd = Header::file("name", 0).block();
    odd[..4].copy_from_slice(b"\xff\n\x1b[");
    odd[148..156].copy_from_slice(b"        ");
    let sum: u32 = odd.iter().map(|byte| u32::from(*byte)).sum();
    odd[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let (_, done) = lay(&[odd.to_vec()]);
    done.unwrap();
    let (rule, entry) = refusal(&[odd.to_vec(), odd.to_vec()]);
    assert_eq!(rule, Rule::Duplicate);
    assert_eq!(entry, "\u{fffd}\\n\\u{1b}[");
    let (_, done) = lay(&[file("Readme", b"a"), file("README", b"b")]);
    done.unwrap();
}

fn is_opaque(path: &Path) -> bool {
    let open = File::open(path).unwrap();
    let mut value = [0; 8];
    rustix::fs::fgetxattr(&open, OPAQUE_ATTRIBUTE, &mut value).is_ok_and(|length| &value[..length] == b"y")
}

#[test]
fn what_a_layer_takes_away_is_told_to_the_kernel() {
    let (outer, done) = lay(&[
        directory("a/"),
        file("a/.wh.gone", b""),
        file("a/.wh..wh..opq", b""),
        // What comes with the layer stays, whichever comes first.
        file("b/.wh.kept", b""),
        file("b/kept", b"here"),
        file("c/kept", b"here"),
        file("c/.wh.kept", b""),
        file("d/.wh.again", b""),
        directory("d/again/"),
        directory("e/again/"),
        file("e/.wh.again", b""),
        // What old union file systems kept for themselves.
        file(".wh..wh.plnk", b"x"),
        file(".wh..wh.orph/x", b"x"),
    ]);
    assert!(!done.unwrap().opaque);
    let tree = outer.path().join("tree");
    let gone = std::fs::symlink_metadata(tree.join("a/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let opaque = ["a", "b", "c", "d", "d/again", "e", "e/again"].map(|path| is_opaque(&tree.join(path)));
    assert_eq!(opaque, [true, false, false, false, true, false, true]);
    assert_eq!(std::fs::read_to_string(tree.join("b/kept")).unwrap(), "here");
    assert_eq!(std::fs::read_to_string(tree.join("c/kept")).unwrap(), "here");
    let mut names: Vec<_> =
        std::fs::read_dir(&tree).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    assert!(lay(&[file(".wh..wh..opq", b"")]).1.unwrap().opaque);
}
