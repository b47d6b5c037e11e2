//! The binary as its users meet it: real process, real project, real sandbox, real data directory. Models are transcripts.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod crash;
mod first;
mod hostile;
mod kit;
mod record;
mod refused;
mod sandboxes;
mod serve;
mod signals;
mod waits;
mod walls;
