//! Many processes on one real PostgreSQL, with the binary itself: who takes requests and who drives, what idling costs, handing
//! over, fairness, limits. What a death leaves is for `cargo xtask crash`, two versions side by side for `cargo xtask upgrade`.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../cli/kit.rs"]
#[allow(dead_code, reason = "the command line's tests use all of it")]
mod kit;
#[path = "../durable/outside.rs"]
#[allow(dead_code, reason = "the tests of durable runs use all of it")]
mod outside;
#[path = "../durable/service.rs"]
#[allow(dead_code, reason = "the tests of durable runs use all of it")]
mod service;

mod fleet;
mod gate;

mod doubted;
mod drained;
mod driven;
mod limited;
mod moved;
mod objects;
mod refused;
