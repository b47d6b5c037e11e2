//! The simulation: the real machine, engine and journal over a disk, a clock, a model and a sandbox of our own, driven by one
//! seed on one thread, and judged from outside. What deliberately does not live here: anything that ships.

pub mod disk;
mod power;

pub use power::Power;
