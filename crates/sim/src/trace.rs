//! The world's log: what happened, line by line, the same for the same seed.

use crate::time::Time;
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;

/// Lines kept at most; a world that says more is broken.
const LINES_MAX: usize = 200_000;

/// The log. Cloning is cheap; clones are the same log.
#[derive(Clone, Debug)]
pub struct Trace {
    time: Time,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Trace {
    pub(crate) fn new(time: Time) -> Self {
        Self { time, lines: Arc::default() }
    }

    /// Writes a line.
    pub(crate) fn say(&self, line: fmt::Arguments<'_>) {
        let line = format!("{:>9} {line}", self.time.now_ms());
        let mut lines = self.lines.lock();
        if lines.len() < LINES_MAX {
            lines.push(line);
        }
    }

    /// All lines.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().clone()
    }
}
