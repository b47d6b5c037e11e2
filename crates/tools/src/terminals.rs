//! The live processes of one session's sandbox: started by one call, read and written by later ones.

/// Live processes of a session at most; a further one takes the place of the one that was idle longest.
pub const TERMINALS_MAX: usize = 64;

/// The live processes of one session's sandbox. They survive turns and runs; closing the sandbox ends them.
#[derive(Debug, Default)]
pub struct Terminals {}

impl Terminals {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }
}
