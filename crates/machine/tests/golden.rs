//! Golden histories: logs that were written once and fold for ever. A history that no longer folds as it did is a broken
//! promise to every log that exists; it is never rewritten, only added to (`cargo run -p topside-machine --example histories`).

mod common;

use domain::{Digest, record};
use std::fs;
use std::path::PathBuf;

#[test]
fn golden_histories_fold_as_ever() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/histories");
    let mut names: Vec<_> = fs::read_dir(&folder)
        .expect("the histories")
        .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".jsonl").map(str::to_owned))
        .collect();
    names.sort();
    assert!(names.len() >= 8, "histories are missing: {names:?}");
    for name in names {
        let text = fs::read_to_string(folder.join(format!("{name}.jsonl"))).expect("a history");
        let (mut previous, mut records) = (Digest::ZERO, Vec::new());
        for (position, line) in text.lines().enumerate() {
            let record =
                record::decode(line.as_bytes()).unwrap_or_else(|error| panic!("{name}: record {position}: {error}"));
            assert_eq!(
                record.head.previous, previous,
                "golden history {name}: record {position} does not follow by its hash"
            );
            assert_eq!(record.head.position, position as u64, "golden history {name}");
            let bytes = record::encode(&record.head, &record.event.encode());
            assert_eq!(bytes, line.as_bytes(), "golden history {name}: record {position} is written otherwise today");
            previous = record::hash(line.as_bytes());
            records.push(record);
        }
        let state = common::fold(&records);
        let at_ms = records.last().map_or(0, |record| record.head.at_ms);
        let expected = fs::read_to_string(folder.join(format!("{name}.expect"))).expect("what it folds to");
        let got = format!("head={previous}\n{}", common::told(&state, at_ms));
        assert_eq!(got, expected, "golden history {name} folds otherwise");
    }
}

#[test]
fn every_kind_stands_in_a_golden_history_or_is_known_not_to() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/histories");
    let all: String = fs::read_dir(folder)
        .expect("the histories")
        .map(|entry| fs::read_to_string(entry.expect("an entry").path()).expect("text"))
        .collect();
    for kind in domain::Event::KINDS {
        // Kept files do not change the fold; their form is fixed by the record's own tests.
        let stands = all.contains(&format!("\"kind\":\"{kind}\"")) || *kind == "artifact_saved";
        assert!(stands, "no golden history holds `{kind}`");
    }
}
