//! What is known of a sandbox that lives, without holding it.

use crate::{KeptCommand, Walls};
use domain::{Id, id};

/// A sandbox that lives.
#[derive(Clone, Debug)]
pub struct Living {
    /// Its id.
    pub id: Id<id::Sandbox>,
    /// Whose workspace it has; `None` when nobody's.
    pub workspace: Option<(String, Id<id::Session>)>,
    /// The highest epoch that has had it.
    pub epoch: u64,
    /// The walls it got.
    pub walls: Walls,
    /// Milliseconds since it was made.
    pub age_ms: u64,
    /// Its named commands; `None` while nobody has taken it over from the harness that left it.
    pub commands: Option<Vec<KeptCommand>>,
}
