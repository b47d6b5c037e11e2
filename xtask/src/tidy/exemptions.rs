//! `xtask/tidy-exemptions.txt`: what may break a rule for now, one `rule path` per line. The list may only shrink, through
//! the whole history; a line that exempts nothing any more is itself a finding.

use std::cell::RefCell;
use std::collections::BTreeSet;

use anyhow::Result;

use super::Found;
use crate::context::Context;
use crate::report::Finding;

const LIST: &str = "xtask/tidy-exemptions.txt";

/// The exemptions of this tree.
#[derive(Debug)]
pub(super) struct Exemptions {
    lines: BTreeSet<String>,
    used: RefCell<BTreeSet<String>>,
}

impl Exemptions {
    pub(super) fn read(context: &Context) -> Result<Self> {
        Ok(Self::parse(&context.read(LIST)?))
    }

    fn parse(text: &str) -> Self {
        Self { lines: entries(text), used: RefCell::default() }
    }

    /// What is left of the findings, and the exemptions that nothing needed.
    pub(super) fn apply(&self, found: Vec<Found>) -> Vec<Found> {
        let mut left = Vec::new();
        for one in found {
            let entry = format!("{} {}", one.rule, one.file);
            if self.lines.contains(&entry) {
                self.used.borrow_mut().insert(entry);
            } else {
                left.push(one);
            }
        }
        for unneeded in self.lines.difference(&self.used.borrow()) {
            left.push(Found::new("exemption", LIST, 0, format!("`{unneeded}` exempts nothing; hint: take it out")));
        }
        left
    }

    /// Compares the list with each of its former versions, oldest first.
    pub(super) fn has_grown(&self, context: &Context) -> Result<Vec<Finding>> {
        let mut versions = Vec::new();
        for commit in context.git(&["log", "--reverse", "--format=%H", "--", LIST])?.lines() {
            // A commit that took the list away leaves nothing to compare with: the empty list.
            let text = context.git(&["show", &format!("{commit}:{LIST}")]).unwrap_or_default();
            versions.push((commit.chars().take(9).collect::<String>(), entries(&text)));
        }
        versions.push(("this tree".to_owned(), self.lines.clone()));
        Ok(growth(&versions))
    }
}

fn growth(versions: &[(String, BTreeSet<String>)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for pair in versions.windows(2) {
        let [(_, before), (name, after)] = pair else { continue };
        for entry in after.difference(before) {
            findings.push(Finding::new(LIST, format!("`{entry}` was added in {name}; the list may only shrink")));
        }
    }
    findings
}

fn entries(text: &str) -> BTreeSet<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exemption_covers_its_rule_and_file_and_must_be_needed() {
        let exemptions = Exemptions::parse("# why\nlength   crates/a/src/lib.rs\ntab b.md\n");
        let left = exemptions.apply(vec![
            Found::new("length", "crates/a/src/lib.rs", 0, "long"),
            Found::new("opening", "crates/a/src/lib.rs", 1, "none"),
        ]);
        let told: Vec<String> = left.iter().map(|found| format!("{} {}", found.rule, found.message)).collect();
        assert_eq!(told, ["opening none", "exemption `tab b.md` exempts nothing; hint: take it out"]);
    }

    #[test]
    fn the_list_may_only_shrink() {
        let version = |name: &str, text: &str| (name.to_owned(), entries(text));
        assert_eq!(growth(&[version("one", "a b\nc d\n"), version("two", "a b\n"), version("this tree", "")]), []);
        let findings = growth(&[version("one", "a b\n"), version("two", "a b\nc d\n"), version("this tree", "")]);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].message.contains("`c d` was added in two"));
        assert_eq!(growth(&[version("one", ""), version("this tree", "a b\n")]).len(), 1);
    }
}
