//! Writes golden histories that are not there yet into `tests/histories`. One that is there is never touched.

#[path = "../tests/common/mod.rs"]
mod common;

use domain::record;
use std::fs;
use std::path::PathBuf;

const HISTORIES: [(&str, &str); 21] = [
    (
        "restored",
        "submitted replied:1 judged.1 began-inside.1 opened returned.1 restored checkpointed replied:0 closed finished restored",
    ),
    (
        "operated",
        "submitted replied:1 judged.1 began-inside.1 opened returned.1 by:201 operated by:200 replied:0 closed finished",
    ),
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
    (
        "approved",
        "submitted replied:2 judged.1 held-by-two.2 began.1 returned.1 parked:approval +500 by:201 approved.2 by:202 \
         approved.2 by:200 resumed judged.2 began.2 returned.2 replied:0 finished",
    ),
    ("rejected", "submitted replied:1 held-batch.1 parked:approval by:201 rejected.1 by:200 resumed answered.1"),
    (
        "resolved",
        "submitted replied:1 judged.1 began-outside.1 resumed in_doubt.1 by:201 happened.1 by:200 resumed returned.1",
    ),
    (
        "undone",
        "submitted replied:1 judged.1 began-outside.1 resumed in_doubt.1 by:201 undo.1 by:200 resumed undoes.21 \
         judged.2 began.2 returned.2",
    ),
    (
        "steered",
        "submitted replied:2 judged.1 began.1 by:201 interrupted by:200 answered.1 answered.2 replied:0/1 finished",
    ),
    (
        "parked",
        "submitted:asks deferred parked:retry +10000 resumed by:201 pause by:200 parked:resume by:201 raised resume \
         by:200 resumed cancel:later",
    ),
    ("checkpoints", "submitted replied:1 judged.1 began-back.1 made returned-changed.1 checkpointed replied:1 lost"),
    ("forked", "forked submitted:on replied:1 judged.1 checks.21 judged.2 began.2 failed.2"),
    (
        "nested",
        "submitted replied:1 judged.1 nested.1 in:1 reserved:90 replied:1 judged.1 began.1 returned.1 reserved:50 \
         replied:0 in:root returned.1",
    ),
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
