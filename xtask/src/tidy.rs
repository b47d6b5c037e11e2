//! `tidy`: sizes, habits and references that no compiler holds. One scanner per concern; this file lists and runs them.

mod codes;
mod exemptions;
mod habits;
mod links;
mod sizes;
mod words;

use std::collections::BTreeSet;

use anyhow::Result;

use crate::context::Context;
use crate::report::{Finding, Outcome};
use crate::source::Source;

use exemptions::Exemptions;

/// A finding with the rule it belongs to, which an exemption can name.
#[derive(Clone, Debug)]
pub(super) struct Found {
    rule: &'static str,
    file: String,
    /// From 1; 0 when the file as a whole is meant.
    line: usize,
    message: String,
}

impl Found {
    pub(super) fn new(rule: &'static str, file: &str, line: usize, message: impl Into<String>) -> Self {
        Self { rule, file: file.to_owned(), line, message: message.into() }
    }
}

impl From<Found> for Finding {
    fn from(found: Found) -> Self {
        let place = if found.line == 0 { found.file } else { format!("{}:{}", found.file, found.line) };
        Self::new(place, format!("{} ({})", found.message, found.rule))
    }
}

/// A text file of the project.
#[derive(Debug)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) text: String,
}

impl File {
    fn extension(&self) -> &str {
        self.name.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map_or("", |(_, extension)| extension)
    }

    /// Source of the house itself; what an example's agent works on is data.
    fn is_source(&self) -> bool {
        self.extension() == "rs" && !self.name.starts_with("examples/")
    }
}

pub(crate) fn run(context: &Context) -> Result<Outcome> {
    let names: BTreeSet<&str> = context.files()?.iter().map(String::as_str).collect();
    let mut files = Vec::new();
    for name in &names {
        // What is not text (an image, a database) has no lines to look at.
        if let Ok(text) = std::fs::read_to_string(context.root.join(name)) {
            files.push(File { name: (*name).to_owned(), text });
        }
    }
    let sources: Vec<(&File, Source)> =
        files.iter().filter(|file| file.is_source()).map(|file| (file, Source::of(&file.text))).collect();
    let mut found = sizes::check(&files);
    for file in &files {
        found.extend(habits::text(file));
    }
    for (file, source) in &sources {
        found.extend(habits::source(file, source));
    }
    found.extend(codes::check(&sources, &files));
    found.extend(words::check(&sources));
    found.extend(links::check(&files, &names));
    let exemptions = Exemptions::read(context)?;
    let mut findings: Vec<Finding> = exemptions.apply(found).into_iter().map(Finding::from).collect();
    findings.extend(exemptions.has_grown(context)?);
    findings.sort();
    let note = format!("{} files, {} of them source; {}", files.len(), sources.len(), sizes::summary(&files));
    Ok(Outcome::of(findings).note(note))
}
