//! `docs`: the commands of README and guide are run as they are written. How they are read, `console` knows.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;

use crate::console::{self, Command};
use crate::context::{Context, Scope};
use crate::process;
use crate::report::{Finding, Outcome};
use crate::scratch::Scratch;

/// Documents that are run at once, where each has a network of its own: their services wait more than they work.
const BESIDE: usize = 2;
/// Stands before and after what each command says. The first byte is the record separator, which no command prints.
const MARK: &str = "\u{1e}command";

/// Whether a document's commands are run.
pub(crate) fn is_run(name: &str) -> bool {
    name == "README.md" || (name.starts_with("docs/guide/") && name.ends_with(".md"))
}

pub(crate) fn run(context: &Context) -> Result<Outcome> {
    let names: Vec<&String> = match &context.scope {
        Scope::Whole => context.files()?.iter().filter(|name| is_run(name)).collect(),
        Scope::Changed(changed) => changed.files.iter().filter(|name| is_run(name)).collect(),
        Scope::One(name) => vec![name],
    };
    let mut outcome = Outcome::default();
    let mut documents = Vec::new();
    for name in names.into_iter().filter(|name| context.root.join(name).is_file()) {
        let document = console::parse(name, &context.read(name)?);
        outcome.findings.extend(document.findings);
        documents.push((name, document.commands));
    }
    documents.retain(|(_, commands)| !commands.is_empty());
    if documents.is_empty() {
        if !matches!(context.scope, Scope::Changed(_)) {
            outcome.findings.push(Finding::new("docs", "no document has a command to run"));
        }
        return Ok(outcome.note("no command to run"));
    }
    // Each document begins with a copy of its own, as its reader does.
    let scratches = documents.iter().map(|_| Scratch::of(context)).collect::<Result<Vec<_>>>()?;
    let beside = if scratches.iter().all(Scratch::has_own_network) { BESIDE } else { 1 };
    let all = run_beside(beside, documents.len(), |index| {
        let (scratch, (name, commands)) = (&scratches[index], &documents[index]);
        println!("   {name}");
        scratch.run(&scratch.tree(), &["bash", "--norc", "-c", &script(commands)])
    });
    for ((name, commands), said) in documents.iter().zip(all) {
        judge(name, commands, &said?.text, &mut outcome);
    }
    Ok(outcome)
}

/// Does `count` pieces of work, `beside` of them at once, and gives what came of each, in order.
fn run_beside<T: Send>(beside: usize, count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let taken = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        taken.take_while(|index| *index < count).map(|index| (index, work(index))).collect::<Vec<_>>()
    };
    let mut done: Vec<(usize, T)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..beside).map(|_| scope.spawn(worker)).collect();
        let joined = workers.into_iter().map(|worker| worker.join());
        joined.flat_map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// One shell for the whole document, so that a folder or a variable of one command is there for the next.
fn script(commands: &[Command]) -> String {
    let mut script = String::from("trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n");
    for (index, command) in commands.iter().enumerate() {
        let quoted = command.text.replace('\'', r"'\''");
        script.push_str(&format!(
            "printf '\\036command begin {index}\\n'\neval '{quoted}'\nstatus=$?\n\
             printf '\\n\\036command end {index} %d\\n' $status\n[ $status = 0 ] || exit 1\n"
        ));
    }
    script
}

/// What each command said, against what the document promises.
fn judge(name: &str, commands: &[Command], said: &str, outcome: &mut Outcome) {
    for (index, command) in commands.iter().enumerate() {
        let place = format!("{name}:{}", command.line);
        let text = said
            .split_once(&format!("{MARK} begin {index}\n"))
            .map(|(_, rest)| rest.split_once(&format!("\n{MARK} end {index} ")));
        let finding = match text {
            Some(Some((output, rest))) => match rest.lines().next() {
                Some("0") => console::missing(&command.expected, output).map(|line| {
                    format!("`{}` did not say {line}; it said:\n{}", command.text, process::tail(output.trim_end(), 40))
                }),
                status => Some(format!(
                    "`{}` ended with status {}:\n{}",
                    command.text,
                    status.unwrap_or("unknown"),
                    process::tail(output.trim_end(), 40)
                )),
            },
            Some(None) => {
                Some(format!("`{}` did not come to its end:\n{}", command.text, process::tail(said.trim_end(), 40)))
            }
            None => Some(format!("`{}` was never reached", command.text)),
        };
        match finding {
            None => outcome.passed += 1,
            Some(message) => {
                outcome.failed += 1;
                outcome.findings.push(Finding::new(place, message));
                if index + 1 < commands.len() {
                    outcome
                        .notes
                        .push(format!("{name}: {} commands after it may depend on it", commands.len() - index - 1));
                }
                if said.split_once(&format!("{MARK} begin {}\n", index + 1)).is_none() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_beside_each_other_comes_in_order() {
        for beside in 1..4 {
            assert_eq!(run_beside(beside, 5, |index| index * 2), [0, 2, 4, 6, 8]);
        }
        assert_eq!(run_beside(2, 0, |index| index), Vec::<usize>::new());
    }

    /// Runs a document without the product and tells what came of it.
    fn check(text: &str, passed: usize, expected: &[&str]) {
        let document = console::parse("a.md", text);
        assert_eq!(document.findings, []);
        let script = script(&document.commands);
        let captured =
            process::capture(std::process::Command::new("bash").args(["--norc", "-c", &script])).expect("bash runs");
        let mut outcome = Outcome::default();
        judge("a.md", &document.commands, &captured.text, &mut outcome);
        let told: Vec<String> = outcome.findings.iter().map(ToString::to_string).collect();
        assert_eq!((outcome.passed, outcome.failed), (passed, expected.len()), "{told:?}");
        for (finding, part) in told.iter().zip(expected) {
            assert!(finding.contains(part), "{finding}");
        }
    }

    #[test]
    fn commands_share_a_shell_and_keep_their_word() {
        check(
            "```console\n$ cd /; A=one\n$ echo \"$A\" 'two'; pwd\none two\n/\n```\n```console\n$ printf x\nx\n```\n",
            3,
            &[],
        );
    }

    #[test]
    fn a_command_that_fails_is_named_and_ends_the_document() {
        check(
            "```console\n$ true\n$ echo gone; false\n$ echo never\n```\n",
            1,
            &["a.md:3: `echo gone; false` ended with status 1:\ngone"],
        );
    }

    #[test]
    fn other_output_than_promised_is_told_and_the_rest_is_still_run() {
        check("```console\n$ echo one\ntwo\n$ echo three\nthree\n```\n", 1, &["did not say `two`; it said:\none"]);
    }

    #[test]
    fn a_shell_that_ends_early_or_a_broken_command_is_told() {
        check("```console\n$ exit 0\n$ true\n```\n", 0, &["did not come to its end"]);
        check("```console\n$ echo 'open\n```\n", 0, &["ended with status"]);
    }
}
