//! `machine`: the attacks on the jail in a guest machine of their own, where hurting the kernel hurts nobody and walls may be
//! taken down. Debian's cloud kernel in QEMU without any device but memory and two serial lines: groups of version 2 and an
//! older Landlock, which the machine underneath may not have. What the attacks are, `crates/jail/tests` knows.

mod image;
mod kernel;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::context::{AS_TESTED, Context};
use crate::report::{Finding, Outcome};
use crate::{failures, process};

/// How much of it is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// What continuous integration waits for: what this kernel and its groups could make different, and every wall once.
    Once,
    /// Everything.
    Whole,
}

/// A run of a test program in the guest: its name, which is the program's, and its arguments for each extent.
const RUNS: &[(&str, &str, &str)] =
    &[("hostile", ON_ANOTHER_KERNEL, ""), ("ordinary", AS_ORDINARY, AS_ORDINARY), ("walls", "--once", "")];

/// The cases that another kernel, another version of Landlock or of groups could make different.
const ON_ANOTHER_KERNEL: &str = "who_and_where no_variable nothing_is_writable processes_are_limited memory_is_limited \
    a_command_goes a_kill_by_memory processor_hog disk_hog written_out_for_it slowed_sandbox files_are_counted \
    the_first_process nothing_can_be_mounted no_namespace nobody_becomes only_harmless kernels_files large_doors \
    every_syscall no_socket two_sandboxes nobody_writes_out every_case_has_its_row";

/// The cases that say something else for an ordinary user on this kernel than for root; the others take minutes, too.
const AS_ORDINARY: &str = "refused_by_name done_without_where_told the_probe_says processes_are_limited memory_is_limited \
    the_first_process nothing_can_be_mounted no_namespace kernels_files large_doors every_syscall no_socket orphan";

/// How long the guest may take from its start to its end. Nothing in it runs at the speed of the machine underneath.
const GUEST_SECONDS_MAX: u32 = 1_200;
const GUEST_MEMORY_MIB: u32 = 3_072;
/// All that the guest said, for people.
const CONSOLE: &str = "console.log";
/// What the kernel must have been told before a wall comes down.
const KERNEL_WORDS: &str = "console=ttyS0 quiet panic=-1 oops=panic topside.walls_down";

/// What `cargo xtask machine` is told.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Only these runs: hostile, ordinary, walls
    #[arg(long, value_name = "RUN")]
    only: Vec<String>,
    /// Only what `check` runs
    #[arg(long)]
    once: bool,
    /// Handed to the test programs: names of cases, instead of those that they are given otherwise
    #[arg(long, value_name = "NAME")]
    case: Option<String>,
}

/// Runs what was asked for and says whether it was green.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let context = Context::here(false, crate::context::Scope::Whole, None)?;
    let extent = if arguments.once { Extent::Once } else { Extent::Whole };
    let outcome = attempt(&context, extent, &arguments.only, arguments.case.as_deref())?;
    for line in outcome.notes.iter().cloned().chain(outcome.findings.iter().map(ToString::to_string)) {
        println!("{line}");
    }
    println!("{}", crate::report::Tally { passed: outcome.passed, failed: outcome.failed.max(outcome.findings.len()) });
    Ok(outcome.is_green())
}

/// The step of the check.
pub(crate) fn check(context: &Context) -> Result<Outcome> {
    attempt(context, Extent::Once, &[], None)
}

/// The part of the proof.
pub(crate) fn prove(context: &Context) -> Result<Outcome> {
    attempt(context, Extent::Whole, &[], None)
}

fn attempt(context: &Context, extent: Extent, only: &[String], case: Option<&str>) -> Result<Outcome> {
    if cfg!(not(target_arch = "x86_64")) {
        return Ok(Outcome::default().note("SKIPPED machine: there is a guest machine for x86_64 only"));
    }
    let runs: Vec<_> = RUNS.iter().filter(|(name, ..)| only.is_empty() || only.iter().any(|one| one == name)).collect();
    ensure!(!runs.is_empty(), "no such run; there are hostile, ordinary, walls");
    let directory = context.scratch("machine")?;
    let kernel = kernel::fetch(&context.target.join("machine-kernel"))?;
    let programs = programs(context)?;
    let word = word();
    let list: String = runs
        .iter()
        .map(|(name, once, whole)| {
            let given = if extent == Extent::Once { once } else { whole };
            format!("{name} {name} {}\n", case.unwrap_or(given))
        })
        .collect();
    let initial = directory.join("initial.cpio");
    image::write(&initial, &directory.join("image"), &programs, &kernel, &word, &list)?;
    let answers = boot(&kernel.program, &initial, &directory)?;
    let outcome = judge(&answers, &word, &runs.iter().map(|(name, ..)| *name).collect::<Vec<_>>());
    if !outcome.is_green() {
        let console = std::fs::read_to_string(directory.join(CONSOLE))?;
        println!("{}", failures::shown(&console.replace('\r', "")));
    }
    Ok(outcome)
}

/// Builds the test programs with the switch for walls.
fn programs(context: &Context) -> Result<Vec<(String, PathBuf)>> {
    let names = ["hostile", "ordinary", "walls"];
    let mut command = context.cargo(&AS_TESTED);
    command.args(["--features", "topside-jail/walls_down"]);
    command.args(names.iter().flat_map(|name| ["--test", name])).args(["--message-format", "json"]);
    let captured = process::capture(&mut command)?;
    ensure!(captured.status.success(), "the test programs do not build:\n{}", captured.tail(30));
    let mut found = Vec::new();
    for message in captured.text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()) {
        let name = message["target"]["name"].as_str().unwrap_or_default();
        if let (true, Some(program)) = (names.contains(&name), message["executable"].as_str()) {
            found.push((name.to_owned(), PathBuf::from(program)));
        }
    }
    ensure!(found.len() == names.len(), "cargo built {found:?}, not {names:?}");
    Ok(found)
}

/// A word that nobody can guess, for the guest's answers.
fn word() -> String {
    let bytes: [u8; 16] = stdx::Random::system().bytes();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lets the guest live and gives what it wrote on its second serial line.
fn boot(kernel: &Path, initial: &Path, directory: &Path) -> Result<String> {
    let answers = directory.join("answers");
    let _ = std::fs::remove_file(&answers);
    let memory = GUEST_MEMORY_MIB.to_string();
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", &GUEST_SECONDS_MAX.to_string(), "qemu-system-x86_64"]);
    command.args([
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        &memory,
        "-nodefaults",
        "-nic",
        "none",
    ]);
    command.args(["-display", "none", "-monitor", "none", "-no-reboot"]);
    command.args(["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initial).args(["-append", KERNEL_WORDS]);
    command.args(["-serial", "stdio", "-serial", &format!("file:{}", answers.display())]);
    let captured = process::stream(&mut command, |line| {
        let shown = line.trim_end();
        if shown.starts_with("== ")
            || shown.contains("FAILED")
            || shown.contains("test result")
            || shown.contains("failure:")
        {
            println!("   {shown}");
        }
    })?;
    std::fs::write(directory.join(CONSOLE), &captured.text)?;
    if !answers.is_file() {
        bail!("the guest was not started: {}", captured.tail(20));
    }
    std::fs::read_to_string(&answers).context("what the guest said is no text")
}

/// Each run must have said with the right word that it ended well, once, and the machine that it came to its end.
fn judge(answers: &str, word: &str, names: &[&str]) -> Outcome {
    let mut outcome = Outcome::default();
    let told: Vec<(&str, &str)> = answers
        .lines()
        .filter_map(|line| line.trim_end().strip_prefix(word)?.strip_prefix(' ')?.split_once(' '))
        .collect();
    for name in names.iter().chain(["end"].iter()) {
        let codes: Vec<&str> = told.iter().filter(|(told, _)| told == name).map(|(_, code)| *code).collect();
        match codes[..] {
            ["0"] => outcome.passed += 1,
            [] => outcome
                .findings
                .push(Finding::new(*name, "the guest never said how it ended; hint: target/xtask/machine/console.log")),
            _ => outcome.findings.push(Finding::new(*name, format!("ended with {}", codes.join(", ")))),
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(answers: &str, passed: usize, expected: &[&str]) {
        let outcome = judge(answers, "word", &["hostile", "walls"]);
        let told: Vec<String> = outcome.findings.iter().map(ToString::to_string).collect();
        assert_eq!((outcome.passed, told.len()), (passed, expected.len()), "{told:?}");
        assert!(told.iter().zip(expected).all(|(told, part)| told.contains(part)), "{told:?}");
    }

    #[test]
    fn only_who_knows_the_word_is_believed() {
        check("word hostile 0\nword walls 0\nword end 0\n", 3, &[]);
        check("word hostile 0\r\nword walls 1\r\nword end 0\r\n", 2, &["walls: ended with 1"]);
        check("hostile 0\nwrong walls 0\nword end 0\n", 1, &["hostile: the guest never", "walls: the guest never"]);
        check(
            "word hostile 0\nword hostile 1\nword walls 0\n",
            1,
            &["hostile: ended with 0, 1", "end: the guest never"],
        );
        check("", 0, &["hostile", "walls", "end"]);
    }
}
