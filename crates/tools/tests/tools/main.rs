//! The tools against real parts: SQLite files, a loopback HTTP server, processes. The sandbox here is a directory of the
//! host, which is enough for what the tools promise; the walls are proven where the jail is.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod contract;
mod exec;
mod function;
mod http;
mod patch;
mod program;
mod sql;
mod support;
mod toolbox;
