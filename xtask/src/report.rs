//! What a step found and how it is told. No step decides how it looks; no printer decides what failed.

use std::fmt;
use std::io::IsTerminal;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// File, file and line, room or command: what a person opens first.
    pub(crate) place: String,
    /// What is wrong and what would be right.
    pub(crate) message: String,
}

impl Finding {
    pub(crate) fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.message)
    }
}

/// What came of one step. It passed when it found nothing.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) findings: Vec<Finding>,
    /// Lines that are told whether the step passed or not.
    pub(crate) notes: Vec<String>,
    /// Tests, documented commands or examples that passed inside the step.
    pub(crate) passed: usize,
    /// The same, failed.
    pub(crate) failed: usize,
}

impl Outcome {
    pub(crate) fn of(findings: Vec<Finding>) -> Self {
        Self { findings, ..Self::default() }
    }

    pub(crate) fn note(mut self, line: impl Into<String>) -> Self {
        self.notes.push(line.into());
        self
    }

    pub(crate) fn is_green(&self) -> bool {
        self.findings.is_empty() && self.failed == 0
    }
}

/// The totals that the last line tells.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
}

impl Tally {
    pub(crate) fn add(&mut self, outcome: &Outcome) {
        self.passed += outcome.passed + usize::from(outcome.is_green());
        self.failed += outcome.failed + usize::from(!outcome.is_green());
    }
}

/// The last line of every check. Continuous integration reads it, so it is plain and alone on its line.
impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// Colours a line when a person reads it, and leaves it plain when a file or a pipe does.
pub(crate) fn red(text: &str) -> String {
    paint("31;1", text)
}

/// See [`red`].
pub(crate) fn green(text: &str) -> String {
    paint("32;1", text)
}

fn paint(code: &str, text: &str) -> String {
    if std::io::stdout().is_terminal() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_finding_makes_a_step_red_and_counts_once() {
        let mut tally = Tally::default();
        tally.add(&Outcome { passed: 3, ..Outcome::default() });
        tally.add(&Outcome::of(vec![Finding::new("a.rs", "is wrong"), Finding::new("b.rs", "is wrong")]));
        assert_eq!(tally.to_string(), "4 passed, 1 failed");
    }

    #[test]
    fn a_failed_test_makes_its_step_red_even_without_a_finding() {
        let mut tally = Tally::default();
        tally.add(&Outcome { passed: 1, failed: 1, ..Outcome::default() });
        assert_eq!(tally.to_string(), "1 passed, 2 failed");
    }
}
