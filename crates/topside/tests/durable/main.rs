//! What is promised of durable runs, shown with the binary itself: real processes that are killed, real clocks that jump, a real
//! disk that is full, and an outside witness that counts what reached it. Models are transcripts.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../cli/kit.rs"]
#[allow(dead_code, reason = "the command line's tests use all of it")]
mod kit;

mod approved;
mod doubted;
mod files;
mod forked;
mod full;
mod idle;
mod lazy;
mod outlived;
mod outside;
mod replayed;
mod service;
mod steered;
mod streamed;
mod unkept;
mod witness;
