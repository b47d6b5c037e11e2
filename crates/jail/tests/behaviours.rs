//! Holds the table of hostile behaviours in the documentation to the tests that there are: every behaviour that needs no network has
//! its row, and every case that a row names exists.

use std::collections::BTreeSet;
use std::path::Path;

/// The behaviours that need no network, by their numbers.
const LOCAL: [std::ops::RangeInclusive<u32>; 3] = [1..=25, 34..=38, 40..=40];
const PAGE: &str = include_str!("../../../docs/reference/sandbox.md");
const HEADING: &str = "### Hostile behaviours";

/// The rows: what is tried, and the cases.
fn rows(page: &str) -> Vec<(&str, Vec<&str>)> {
    let table = page.split_once(HEADING).map_or("", |(_, table)| table);
    let rows = table.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "));
    rows.filter(|(behaviour, _)| *behaviour != "behaviour")
        .map(|(behaviour, cases)| (behaviour, cases.split('`').skip(1).step_by(2).collect()))
        .collect()
}

/// The names of all functions of the crate's tests.
fn functions(below: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(below).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let names = text.lines().filter_map(|line| line.split_once("fn ")?.1.split_once('('));
            found.extend(names.map(|(name, _)| name.to_owned()));
        }
    }
}

/// What is wrong with a page.
fn wrong(page: &str) -> Vec<String> {
    let mut there = BTreeSet::new();
    functions(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"), &mut there);
    let rows = rows(page);
    let numbers: Vec<u32> = rows.iter().filter_map(|(row, _)| row.split_once(' ')?.0.parse().ok()).collect();
    let expected: Vec<u32> = LOCAL.into_iter().flatten().collect();
    let mut wrong = Vec::new();
    if numbers != expected {
        wrong.push(format!("the rows are {numbers:?}, not {expected:?}"));
    }
    for (behaviour, cases) in &rows {
        if cases.is_empty() {
            wrong.push(format!("{behaviour}: no case"));
        }
        wrong.extend(
            cases.iter().filter(|case| !there.contains(**case)).map(|case| format!("{behaviour}: no `{case}`")),
        );
    }
    wrong
}

#[test]
fn every_local_behaviour_has_cases_that_exist() {
    assert_eq!(wrong(PAGE), Vec::<String>::new());
}

#[test]
fn a_case_that_does_not_exist_is_seen() {
    assert_eq!(
        wrong(&PAGE.replace("`kill_everything`", "`kill_nothing`")),
        ["11 killing everything: no `kill_nothing`"]
    );
    assert_eq!(wrong(&PAGE.replace("| 11 killing everything |", "| x |")).len(), 1);
    assert!(wrong("").len() == 1);
}
