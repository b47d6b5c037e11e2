//! How long a source file may be. Functions are measured by clippy (`too_many_lines`).

use super::{File, Found};

const FILE_LINES_MAX: usize = 1_000;
const PERCENTILE_95_LINES_MAX: usize = 600;

pub(super) fn check(files: &[File]) -> Vec<Found> {
    let mut found = Vec::new();
    let lengths = lengths(files);
    for (lines, name) in lengths.iter().filter(|(lines, _)| *lines > FILE_LINES_MAX) {
        found.push(Found::new("length", name, 0, format!("has {lines} lines, at most {FILE_LINES_MAX}")));
    }
    let percentile = percentile_95(&lengths);
    if percentile > PERCENTILE_95_LINES_MAX {
        let longest: Vec<String> =
            lengths.iter().rev().take(5).map(|(lines, name)| format!("{name} ({lines})")).collect();
        let message = format!(
            "the 95th percentile of source files is {percentile} lines, at most {PERCENTILE_95_LINES_MAX}; longest: {}",
            longest.join(", ")
        );
        found.push(Found::new("percentile", "crates", 0, message));
    }
    found
}

pub(super) fn summary(files: &[File]) -> String {
    let lengths = lengths(files);
    let (lines, name) = lengths.last().copied().unwrap_or_default();
    format!("95th percentile {} lines, longest {lines} ({name})", percentile_95(&lengths))
}

/// Ascending.
fn lengths(files: &[File]) -> Vec<(usize, &str)> {
    let sources = files.iter().filter(|file| file.is_source());
    let mut lengths: Vec<(usize, &str)> = sources.map(|file| (file.text.lines().count(), file.name.as_str())).collect();
    lengths.sort_unstable();
    lengths
}

/// The smallest length that at least 95 of 100 files do not exceed.
fn percentile_95(lengths: &[(usize, &str)]) -> usize {
    let rank = (lengths.len() * 95).div_ceil(100);
    lengths.get(rank.saturating_sub(1)).map_or(0, |(lines, _)| *lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_lengths(lengths: &[usize], expected: &[&str]) {
        let files: Vec<File> = lengths
            .iter()
            .enumerate()
            .map(|(index, lines)| File { name: format!("crates/a/src/b{index}.rs"), text: "x\n".repeat(*lines) })
            .collect();
        let rules: Vec<&str> = check(&files).iter().map(|found| found.rule).collect();
        assert_eq!(rules, expected, "{lengths:?}");
    }

    #[test]
    fn long_files_are_told() {
        check_lengths(&[], &[]);
        check_lengths(&[600], &[]);
        check_lengths(&[601], &["percentile"]);
        check_lengths(&[1_001], &["length", "percentile"]);
        let mut many = vec![10; 19];
        many.push(1_000);
        check_lengths(&many, &[]);
        many.push(1_001);
        check_lengths(&many, &["length", "percentile"]);
    }

    #[test]
    fn data_of_examples_is_not_source() {
        let file = File { name: "examples/coder/src/lib.rs".to_owned(), text: "x\n".repeat(2_000) };
        assert!(check(&[file]).is_empty());
    }
}
