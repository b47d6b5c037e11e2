//! Applies hunks to a text. Lines are looked for as they are, then without trailing blanks, then without leading ones,
//! then with typographic signs made plain; the first level that finds them decides. Lines of context stay as the file has them.

use super::{Hunk, Line, Refusal};
use crate::output::brief;
use crate::reason::Reason;
use sandbox::RelPath;
use std::cell::Cell;
use std::fmt::Write as _;

/// Lines that a message repeats at most, and bytes of each.
const ECHO_LINES_MAX: usize = 12;
const ECHO_BYTES_MAX: usize = 160;
/// Comparisons of lines spent on one file: a patch of many hunks that fit nowhere must not hold the harness up.
const COMPARISONS_MAX: usize = 10_000_000;
/// Comparisons spent on finding the nearest place for a message.
const NEAREST_COMPARISONS_MAX: usize = 4_000_000;
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The text of `path` after `hunks`. It keeps its line ends, and ends with one.
pub(crate) fn apply(path: &RelPath, text: &str, hunks: &[Hunk]) -> Result<String, Refusal> {
    let (mark, body) = text.strip_prefix(BYTE_ORDER_MARK).map_or((false, text), |body| (true, body));
    let crlf = body.matches("\r\n").count() * 2 > body.matches('\n').count();
    let old: Vec<&str> = lines(body, crlf);
    let mut new: Vec<&str> = Vec::with_capacity(old.len());
    // Lines before this one are done.
    let mut done = 0;
    let budget = Cell::new(COMPARISONS_MAX);
    for (index, hunk) in hunks.iter().enumerate() {
        let place = Search { path, lines: &old, hunk, number: index + 1, from: done, budget: &budget }.place()?;
        new.extend_from_slice(&old[done..place.start]);
        let mut at = place.start;
        for line in &hunk.lines[..place.used] {
            match line {
                Line::Context(_) => {
                    new.push(old[at]);
                    at += 1;
                }
                Line::Remove(_) => at += 1,
                Line::Add(text) => new.push(text),
            }
        }
        done = at;
    }
    new.extend_from_slice(&old[done..]);
    let end = if crlf { "\r\n" } else { "\n" };
    let mut out = String::with_capacity(text.len());
    if mark {
        out.push(BYTE_ORDER_MARK);
    }
    for line in new {
        out.push_str(line);
        out.push_str(end);
    }
    Ok(out)
}

/// The lines without their ends.
fn lines(body: &str, crlf: bool) -> Vec<&str> {
    let mut lines: Vec<&str> = body.split('\n').collect();
    if lines.last() == Some(&"") {
        lines.pop();
    }
    if crlf {
        for line in &mut lines {
            *line = line.strip_suffix('\r').unwrap_or(line);
        }
    }
    lines
}

/// Where a hunk fits.
struct Place {
    start: usize,
    /// How many of its lines count: trailing blank context may be an artefact.
    used: usize,
}

struct Search<'a> {
    path: &'a RelPath,
    lines: &'a [&'a str],
    hunk: &'a Hunk,
    number: usize,
    from: usize,
    /// Comparisons left.
    budget: &'a Cell<usize>,
}

impl Search<'_> {
    fn place(&self) -> Result<Place, Refusal> {
        let place = self.seek();
        if self.budget.get() == 0 {
            let text =
                format!("{}: finding its place takes too long; split the patch, and quote lines exactly.", self.head());
            return Err(Refusal { code: Reason::PatchConflict.code(), text });
        }
        place
    }

    fn seek(&self) -> Result<Place, Refusal> {
        let mut from = self.from;
        for anchor in &self.hunk.anchors {
            from = find(self.lines, &[anchor], from, self.budget).ok_or_else(|| self.no_anchor(anchor, from))? + 1;
        }
        let mut used = self.hunk.lines.len();
        let old = |used: usize| -> Vec<&str> {
            self.hunk.lines[..used]
                .iter()
                .filter_map(|line| match line {
                    Line::Context(text) | Line::Remove(text) => Some(text.as_str()),
                    Line::Add(_) => None,
                })
                .collect()
        };
        let wanted = old(used);
        if wanted.is_empty() {
            // Only added lines: below their anchor, else at the end of the file.
            let start = if self.hunk.anchors.is_empty() || self.hunk.at_end { self.lines.len() } else { from };
            return Ok(Place { start, used });
        }
        loop {
            let wanted = old(used);
            if let Some(start) = self.find(&wanted, from) {
                return Ok(Place { start, used });
            }
            if wanted.len() < 2
                || !matches!(self.hunk.lines.get(used - 1), Some(Line::Context(text)) if text.is_empty())
            {
                break;
            }
            used -= 1;
        }
        Err(self.not_found(&wanted, from))
    }

    fn find(&self, wanted: &[&str], from: usize) -> Option<usize> {
        if self.hunk.at_end
            && let Some(last) = self.lines.len().checked_sub(wanted.len()).filter(|last| *last >= from)
            && let Some(start) = find(self.lines, wanted, last, self.budget)
        {
            return Some(start);
        }
        // A hunk may begin with the very line its anchor names.
        let repeated = !self.hunk.anchors.is_empty() && from > self.from;
        find(self.lines, wanted, from, self.budget).or_else(|| {
            repeated
                .then(|| {
                    find(&self.lines[..(from - 1 + wanted.len()).min(self.lines.len())], wanted, from - 1, self.budget)
                })
                .flatten()
        })
    }

    fn head(&self) -> String {
        format!("{}, hunk {} (patch line {})", self.path, self.number, self.hunk.at)
    }

    fn no_anchor(&self, anchor: &str, from: usize) -> Refusal {
        let after = if from == 0 { String::new() } else { format!(" after line {from}") };
        let anchor = brief(anchor, ECHO_BYTES_MAX);
        let mut text = format!("{}: the line `{anchor}` of its @@ was not found{after}.", self.head());
        self.hint_before(&mut text, &[&anchor], from);
        Refusal { code: Reason::PatchConflict.code(), text }
    }

    fn not_found(&self, wanted: &[&str], from: usize) -> Refusal {
        let after = if from == 0 { String::new() } else { format!(" after line {from}") };
        let mut text = format!("{}: these lines were not found{after}:", self.head());
        for line in wanted.iter().take(ECHO_LINES_MAX) {
            let _ = write!(text, "\n  {}", brief(line, ECHO_BYTES_MAX));
        }
        if wanted.len() > ECHO_LINES_MAX {
            let _ = write!(text, "\n  … and {} more", wanted.len() - ECHO_LINES_MAX);
        }
        if !self.hint_before(&mut text, wanted, from)
            && let Some((line, file, patch)) = nearest(self.lines, wanted)
        {
            let (file, patch) = (brief(file, ECHO_BYTES_MAX), brief(patch, ECHO_BYTES_MAX));
            let _ =
                write!(text, "\nThe nearest place differs at line {line}: the file has `{file}`, the patch `{patch}`.");
        }
        Refusal { code: Reason::PatchConflict.code(), text }
    }

    /// Says so when the lines stand above where they were looked for.
    fn hint_before(&self, text: &mut String, wanted: &[&str], from: usize) -> bool {
        let above = find(self.lines, wanted, 0, self.budget).filter(|at| *at < from);
        if let Some(at) = above {
            let _ = write!(text, "\nThey stand at line {}: hunks come in the order of the file.", at + 1);
        }
        above.is_some()
    }
}

/// The first place at or after `from` where `wanted` stands, by the first level of likeness that finds one.
fn find(lines: &[&str], wanted: &[&str], from: usize, budget: &Cell<usize>) -> Option<usize> {
    let last = lines.len().checked_sub(wanted.len())?;
    let levels: [fn(&str, &str) -> bool; 4] = [
        |a, b| a == b,
        |a, b| a.trim_end() == b.trim_end(),
        |a, b| a.trim() == b.trim(),
        |a, b| a.trim().chars().map(plain).eq(b.trim().chars().map(plain)),
    ];
    let like = |level: &fn(&str, &str) -> bool, a: &str, b: &str| {
        let left = budget.get();
        budget.set(left.saturating_sub(1));
        left > 0 && level(a, b)
    };
    levels.iter().find_map(|level| {
        (from..=last)
            .take_while(|_| budget.get() > 0)
            .find(|start| lines[*start..].iter().zip(wanted).all(|(line, wanted)| like(level, line, wanted)))
    })
}

/// A typographic sign as the keyboard has it.
const fn plain(sign: char) -> char {
    match sign {
        '\u{2010}'..='\u{2015}' | '\u{2212}' => '-',
        '\u{2018}'..='\u{201b}' => '\'',
        '\u{201c}'..='\u{201f}' => '"',
        '\u{a0}' | '\u{2002}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => ' ',
        other => other,
    }
}

/// Where most of `wanted` stands: the first line that differs there, as the file and as the patch have it.
fn nearest<'a>(lines: &[&'a str], wanted: &[&'a str]) -> Option<(usize, &'a str, &'a str)> {
    if lines.len().saturating_mul(wanted.len()) > NEAREST_COMPARISONS_MAX {
        return None;
    }
    let like = |a: &str, b: &str| a.trim() == b.trim();
    let score = |start: usize| {
        lines[start..]
            .iter()
            .zip(wanted)
            .filter(|(line, wanted)| !wanted.trim().is_empty() && like(line, wanted))
            .count()
    };
    let best = (0..lines.len()).map(|start| (score(start), start)).rev().max_by_key(|(score, _)| *score)?;
    if best.0 == 0 {
        return None;
    }
    let (offset, patch) = wanted
        .iter()
        .enumerate()
        .find(|(offset, wanted)| lines.get(best.1 + offset).is_none_or(|line| !like(line, wanted)))?;
    let file = lines.get(best.1 + offset).copied().unwrap_or("the end of the file");
    Some((best.1 + offset + 1, file, patch))
}
