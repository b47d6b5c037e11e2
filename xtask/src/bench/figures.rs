//! Figures of several measurements, and the page they are written to.

use std::fmt::Write as _;

/// The measurements of one figure.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figure(Vec<f64>);

impl Figure {
    pub(crate) fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The median; NaN when nothing was measured.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            count if count % 2 == 1 => sorted[count / 2],
            count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
        }
    }

    fn bounds(&self) -> (f64, f64) {
        let min = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        (min, self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }

    /// `median (min–max)`.
    pub(crate) fn shown(&self) -> String {
        let (min, max) = self.bounds();
        format!("{} ({}–{})", number(self.median()), number(min), number(max))
    }

    /// This figure over another, pair by pair.
    pub(crate) fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(mine, theirs)| mine / theirs).collect())
    }
}

/// Three significant digits are what such a measurement is worth.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// One part's section of the page.
#[derive(Debug)]
pub(crate) struct Page {
    head: String,
    rows: String,
    notes: Vec<String>,
}

impl Page {
    pub(crate) fn new(part: &str, pairs: usize, seconds: u64) -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let kernel = read("/proc/sys/kernel/osrelease");
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let head = format!(
            "## {part}\n\nMade by `cargo xtask bench --peers DIR --only {part}`; {pairs} measurements of each figure in turns with its peer, {seconds} s of load each, \
             on {cores} cores, Linux {}.\n\n| figure | Topside | peer | ratio |\n|---|---|---|---|\n",
            kernel.trim()
        );
        Self { head, rows: String::new(), notes: Vec::new() }
    }

    /// A figure beside a peer's.
    pub(crate) fn beside(&mut self, name: &str, mine: &Figure, peer: &str, theirs: &Figure) {
        let (mine_shown, theirs_shown) = (mine.shown(), theirs.shown());
        let ratio = mine.over(theirs).shown();
        let _ = writeln!(self.rows, "| {name} | {mine_shown} | {peer}: {theirs_shown} | {ratio} |");
    }

    /// A figure without a peer.
    pub(crate) fn alone(&mut self, name: &str, mine: &Figure) {
        let _ = writeln!(self.rows, "| {name} | {} | – | – |", mine.shown());
    }

    /// A plain fact.
    pub(crate) fn fact(&mut self, name: &str, value: &str) {
        let _ = writeln!(self.rows, "| {name} | {value} | – | – |");
    }

    /// What was not measured, and why.
    pub(crate) fn skipped(&mut self, name: &str, why: &str) {
        eprintln!("SKIPPED {name}: {why}");
        self.notes.push(format!("Not measured: {name}: {why}."));
    }

    /// What must be known to read the figures.
    pub(crate) fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }

    pub(crate) fn text(&self) -> String {
        let notes: String = self.notes.iter().map(|note| format!("- {note}\n")).collect();
        let gap = if notes.is_empty() { "" } else { "\n" };
        format!("{}{}{gap}{notes}", self.head, self.rows)
    }
}

/// What stands over all sections.
const HEAD: &str = "# Benchmarks\n\nMade by `cargo xtask bench --peers DIR`, each part by itself. Figures are `median (min–max)`. Everything runs on one \
     machine at once: the load, the model that answers, and what is measured.\n";

/// The page `old` with these sections, by their parts' names, in the place of those of the same name; the order is that of
/// `parts`.
pub(crate) fn renewed(old: &str, parts: &[&str], sections: &[(&str, String)]) -> String {
    let kept = |part: &str| {
        let own = format!("{part}\n");
        let found = old.split("\n## ").skip(1).find(|section| section.starts_with(&own))?;
        Some(format!("## {}\n", found.trim_end()))
    };
    let of = |part: &str| {
        let made = sections.iter().find(|(name, _)| *name == part).map(|(_, text)| text.clone());
        made.or_else(|| kept(part))
    };
    let all: String = parts.iter().filter_map(|part| Some(format!("\n{}", of(part)?))).collect();
    format!("{HEAD}{all}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_takes_its_own_place_alone() {
        let parts = ["boot", "load", "jail"];
        let first = renewed("", &parts, &[("load", "## load\n\nold\n".into()), ("boot", "## boot\n\nx\n".into())]);
        assert_eq!(first, format!("{HEAD}\n## boot\n\nx\n\n## load\n\nold\n"));
        let second = renewed(&first, &parts, &[("jail", "## jail\n\ny\n".into()), ("boot", "## boot\n\nz\n".into())]);
        assert_eq!(second, format!("{HEAD}\n## boot\n\nz\n\n## load\n\nold\n\n## jail\n\ny\n"));
        assert_eq!(renewed(&second, &parts, &[]), second);
    }

    #[test]
    fn a_figure_is_its_median_and_bounds() {
        let mut figure = Figure::default();
        for value in [3.0, 1.0, 200.0] {
            figure.add(value);
        }
        assert_eq!(figure.shown(), "3.00 (1.00–200)");
        let mut twice = Figure::default();
        for value in [6.0, 2.0, 400.0] {
            twice.add(value);
        }
        assert_eq!(twice.over(&figure).shown(), "2.00 (2.00–2.00)");
    }
}
