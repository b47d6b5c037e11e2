//! The binary's allocator: one that gives memory back to the system by itself once it lies unused, so that a service at rest is
//! as small as one that has just begun. A part of the binary, not of the library: a program that embeds the library chooses
//! its own.

use tikv_jemalloc_ctl::background_thread;
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Gives back what lies unused, some seconds after it was freed, also while nothing happens. Begins a thread: only for a
/// process whose launcher has been forked.
pub(crate) fn give_back() {
    if let Err(error) = background_thread::write(true) {
        tracing::debug!(%error, "memory is given back only while the program is at work");
    }
}
