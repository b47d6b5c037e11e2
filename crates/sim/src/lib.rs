//! The simulation: the real machine, engine and journal over a disk, a clock, objects and tools of our own, driven by one seed on
//! one thread, and judged from outside. What deliberately does not live here: anything that ships.

mod check;
mod claims;
mod client;
pub mod disk;
mod hooks;
mod ledger;
mod network;
mod objects;
mod power;
mod project;
mod reached;
mod report;
mod restart;
mod scribes;
mod time;
mod told;
mod trace;
mod vendor;
mod wishes;
mod witness;
mod workspace;
mod world;

pub use power::Power;
pub use reached::{Counts, KINDS, Kind};
pub use report::{Figures, Report};
pub use time::Time;
pub use trace::Trace;
pub use witness::{Deed, Witness};

/// The only tenant.
pub(crate) const TENANT: &str = "default";

/// Lives the world of a seed: of four, one is of scribes who write to the journal alone, where the disk fails most.
pub fn run(seed: u64) -> Report {
    match seed % 4 {
        3 => scribes::run(seed),
        _ => world::run(seed),
    }
}
