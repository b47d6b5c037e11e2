//! The terminal that a person sits at, while a program elsewhere has it: raw, and put back however the command ends.

use api::ExecSize;
use rustix::termios::{OptionalActions, Termios};

/// The size of a terminal that does not say.
const SIZE: ExecSize = ExecSize { rows: 24, columns: 80 };

/// The terminal in raw mode; dropped, it is as it was.
#[derive(Debug)]
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    /// Makes the terminal of standard input raw.
    ///
    /// # Errors
    /// When standard input is none.
    pub(crate) fn begin() -> rustix::io::Result<Self> {
        let before = rustix::termios::tcgetattr(rustix::stdio::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no mode.
        let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before);
    }
}

/// The terminal's size now.
pub(crate) fn size() -> ExecSize {
    match rustix::termios::tcgetwinsize(rustix::stdio::stdin()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => ExecSize { rows: size.ws_row, columns: size.ws_col },
        Ok(_) | Err(_) => SIZE,
    }
}
