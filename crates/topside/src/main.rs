//! The binary `topside`: forks the launcher, then does what the command line says. Everything else lives in `cli` and in
//! the library.

mod cli;
mod memory;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else: the launcher must be forked from a process that has no thread and no secret yet.
    let launcher = topside::launch();
    memory::give_back();
    cli::main(launcher).into()
}
