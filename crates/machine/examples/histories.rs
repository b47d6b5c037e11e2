//! Writes golden histories that are not there yet into `tests/histories`. One that is there is never touched.

#[path = "../tests/common/mod.rs"]
mod common;

use domain::record;
use std::fs;
use std::path::PathBuf;

const HISTORIES: [(&str, &str); 10] = [
    (
        "workspace",
        "submitted replied:1 judged.1 began-inside.1 opened +30 returned.1 replied:0 changed closed finished",
    ),
    ("answered", "submitted +20 replied:0 finished"),
    (
        "two-turns",
        "submitted +20 replied:2 judged.1 judged.2 began.1 began.2 +5 returned.2 returned.1 +20 replied:0 finished",
    ),
    ("denied", "submitted replied:1 denied.1 returned.1 replied:0 finished"),
    ("unknown-tool", "submitted replied:? returned.1"),
    ("resumed-mid-call", "submitted replied:1 judged.1 began.1 +50000 resumed judged.1 began-again.1 +7 returned.1"),
    ("interrupted", "submitted replied:1 judged.1 opened began-inside.1 +90000 resumed returned.1"),
    ("in-doubt", "submitted replied:1 judged.1 began-outside.1 +5 resumed in_doubt.1 +100000"),
    ("cancelled", "submitted replied:1 judged.1 began.1 cancel returned.1"),
    ("queued-behind", "submitted @2 submitted @1 +10 opened replied:0 closed finished @2 +10 replied:3"),
];

fn main() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/histories");
    fs::create_dir_all(&folder).expect("the folder");
    for (name, words) in HISTORIES {
        let path = folder.join(format!("{name}.jsonl"));
        if path.exists() {
            continue;
        }
        let lines = common::bytes(words);
        let records: Vec<_> = lines.iter().map(|line| record::decode(line).expect("a record")).collect();
        let state = common::fold(&records);
        let head = record::hash(lines.last().expect("a record"));
        let at_ms = records.last().map_or(0, |record| record.head.at_ms);
        let text: String = lines.iter().map(|line| format!("{}\n", String::from_utf8_lossy(line))).collect();
        fs::write(&path, text).expect("written");
        let expected = format!("head={head}\n{}", common::told(&state, at_ms));
        fs::write(folder.join(format!("{name}.expect")), expected).expect("written");
    }
}
