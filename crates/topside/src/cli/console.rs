//! The only place that prints. Data goes to stdout, talk to stderr; whatever is handed in was made harmless by its maker.

use std::io::{self, IsTerminal, Write};

/// The two streams of the process.
#[derive(Debug)]
pub(crate) struct Console {
    /// Whether people watch stderr.
    pub(crate) talk_is_terminal: bool,
    /// Whether people watch stdout.
    pub(crate) data_is_terminal: bool,
    /// Colours for talk.
    pub(crate) paint: Paint,
}

impl Console {
    /// The console of this process. Colours only on a terminal, and never when `NO_COLOR` is set.
    pub(crate) fn new(no_color: bool) -> Self {
        let talk_is_terminal = io::stderr().is_terminal();
        let paint = if talk_is_terminal && !no_color { Paint::Colours } else { Paint::Plain };
        Self { talk_is_terminal, data_is_terminal: io::stdout().is_terminal(), paint }
    }

    /// Writes data. Whoever stopped reading has had enough: that is no error.
    pub(crate) fn data(&self, text: &str) {
        let mut out = io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// Writes bytes of data as they are.
    pub(crate) fn data_bytes(&self, bytes: &[u8]) {
        let mut out = io::stdout().lock();
        let _ = out.write_all(bytes).and_then(|()| out.flush());
    }

    /// Writes bytes of talk as they are.
    pub(crate) fn talk_bytes(&self, bytes: &[u8]) {
        let mut out = io::stderr().lock();
        let _ = out.write_all(bytes).and_then(|()| out.flush());
    }

    /// Writes a line of data.
    pub(crate) fn data_line(&self, text: &str) {
        self.data(&format!("{text}\n"));
    }

    /// Writes talk as it stands.
    pub(crate) fn talk(&self, text: &str) {
        let mut out = io::stderr().lock();
        // There is nobody left to tell.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// Writes a line of talk.
    pub(crate) fn talk_line(&self, text: &str) {
        self.talk(&format!("{text}\n"));
    }
}

/// How talk looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    /// With ANSI colours.
    Colours,
    /// As it is.
    Plain,
}

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        match self {
            Self::Colours => format!("\x1b[{code}m{text}\x1b[0m"),
            Self::Plain => text.to_owned(),
        }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.with("31", text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.with("32", text)
    }

    pub(crate) fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }
}
