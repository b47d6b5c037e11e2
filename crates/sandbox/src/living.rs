//! What is known of a sandbox that lives, without holding it.

use crate::{KeptCommand, Limits, Walls};
use domain::{Id, id};
use serde::{Deserialize, Serialize};

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
    /// Whether a harness has it; `false`: an earlier one left it, and nobody has taken it over.
    pub is_held: bool,
    /// Whether its programs stand still because its session has nothing to do.
    pub is_paused: bool,
    /// What it uses.
    pub usage: Usage,
    /// What it may use at most, when that is known.
    pub limits: Option<Limits>,
    /// What it was made of; `None` while nobody has taken it over from the harness that left it.
    pub about: Option<About>,
    /// Its named commands; `None` while nobody has taken it over, or when it does not say.
    pub commands: Option<Vec<KeptCommand>>,
}

/// What a sandbox uses at a moment, as the kernel counts it; `None` where no group counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Memory of its processes and in-memory files, and of files of its own that the kernel caches.
    pub memory_bytes: Option<u64>,
    /// Processes and threads, its first process among them.
    pub processes: Option<u64>,
    /// How often the memory limit killed something in it.
    pub memory_kills: u64,
}

/// What a sandbox was made of. No value of a variable and no path of the host stands here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// What stands at `/`, in a few words.
    pub root: String,
    /// How the workspace is kept, in a few words.
    pub store: String,
    /// The names of its environment's variables.
    pub environment: Vec<String>,
    /// What is shown read-only.
    pub shown: Vec<Shown>,
}

/// Something that is shown in a sandbox, read-only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Where, inside.
    pub inside: String,
    /// What: a view of the host, or a bucket by its name.
    pub what: String,
}
