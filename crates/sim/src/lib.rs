//! The simulation: the real machine, engine and journal over a disk, a clock, objects and tools of our own, driven by one seed on
//! one thread, and judged from outside. What deliberately does not live here: anything that ships.

mod check;
mod client;
pub mod disk;
mod ledger;
mod objects;
mod power;
mod project;
mod time;
mod told;
mod trace;
mod witness;
mod world;

pub use power::Power;
pub use time::Time;
pub use trace::Trace;
pub use witness::{Deed, Witness};
pub use world::{Figures, Report, run};
