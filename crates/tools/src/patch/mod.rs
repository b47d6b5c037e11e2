//! The V4A patch format: reading it and applying it to text. Knows no file system; `kinds::apply_patch` brings the files.

mod apply;
mod parse;

pub(crate) use apply::apply;
pub(crate) use parse::{from_operations, parse};

use crate::reason::Reason;
use sandbox::RelPath;

/// The grammar for wires that let a model write free text under one.
pub(crate) const GRAMMAR: &str = include_str!("grammar.lark");

/// What a patch does to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Makes a file, or writes it anew.
    Add { path: RelPath, text: String },
    /// Removes a file.
    Delete { path: RelPath },
    /// Changes a file, and moves it when `to` says so.
    Update { path: RelPath, to: Option<RelPath>, hunks: Vec<Hunk> },
}

/// One stretch of changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hunk {
    /// The patch's line it starts on, from 1.
    pub(crate) at: usize,
    /// Lines that stand somewhere above it, outermost first.
    pub(crate) anchors: Vec<String>,
    /// Its lines.
    pub(crate) lines: Vec<Line>,
    /// Whether it ends where the file ends.
    pub(crate) at_end: bool,
}

/// One line of a hunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Context(String),
    Remove(String),
    Add(String),
}

/// Why a patch can't be read or applied; for the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: &'static str,
    pub(crate) text: String,
}

impl Refusal {
    fn malformed(line: usize, expected: impl std::fmt::Display) -> Self {
        Self { code: Reason::PatchMalformed.code(), text: format!("patch line {line}: {expected}") }
    }
}
