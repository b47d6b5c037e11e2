//! `cargo xtask`: the project's own commands. Each command lives in its own module; nothing of the product lives here.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command for people: its output is its purpose, and no room of the product can depend on it"
)]

mod arrows;
mod bench;
mod check;
mod clock;
mod console;
mod context;
mod crash;
mod deny;
mod docs;
mod examples;
mod failures;
mod jail;
mod keys;
mod machine;
mod mutants;
mod postgres;
mod process;
mod proof;
mod quick;
mod report;
mod rust_steps;
mod scratch;
mod self_test;
mod server;
mod setup;
mod sim;
mod source;
mod tidy;
mod upgrade;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use report::Tally;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The project's own commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure Topside beside its peers on this machine and write docs/reference/benchmarks.md
    Bench(bench::Arguments),
    /// Kill the real binary at every listed point and at random, and let an outside witness say what came of it
    Crash(crash::Arguments),
    /// Everything that continuous integration runs, in order; the last line is `N passed, N failed`
    Check(check::Arguments),
    /// Attack the jail in a guest machine, where walls are taken down to see that the attacks work then
    Machine(machine::Arguments),
    /// What must be green before anybody may say that nothing is lost and nothing happens twice, in its full length
    Proof(proof::Arguments),
    /// Live worlds from seeds, each with its crashes and failures, and judge them from outside
    Sim(sim::Arguments),
    /// Put the binary of an earlier commit and the present one on one database and on one data directory, there and back
    Upgrade(upgrade::Arguments),
    /// Hold the manifests to the table of rooms in ARCHITECTURE.md
    Arrows,
    /// Hold the files to the house's sizes and habits
    Tidy,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            // What cannot be checked has failed, and whoever reads only the last line must see it.
            println!("{}", Tally { passed: 0, failed: 1 });
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<bool> {
    match command {
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Crash(arguments) => crash::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Sim(arguments) => sim::run(&arguments),
        Command::Machine(arguments) => machine::run(&arguments),
        Command::Proof(arguments) => proof::run(&arguments),
        Command::Upgrade(arguments) => upgrade::run(&arguments),
        Command::Arrows => check::only("arrows"),
        Command::Tidy => check::only("tidy"),
    }
}
