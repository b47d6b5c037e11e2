//! Mounts over a real kernel: a bucket on a real S3 server in this process (`s3s-fs`), and on a server that lies, stalls and
//! gives what no server should. The mounts are attached nowhere: they are reached through their descriptors, so nothing is
//! left when a test ends, however it does.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test; what it skips is said")]

mod hostile;
mod real;
mod support;
mod traffic;
