//! What failed tests said, found in the output of `cargo test`: of libtest's programs in their own section, of test programs
//! with a main of their own in what came since the test before. Nothing here decides what a failure is worth.

use crate::process;

/// Lines shown of one test, and tests shown, at most: the whole is in the log.
const LINES_MAX: usize = 40;
const TESTS_MAX: usize = 20;
/// Lines of a panic's message that a finding tells, at most.
const MESSAGE_LINES_MAX: usize = 4;

/// A test that failed, or a whole program that ended before it said how its tests went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) name: String,
    /// The last of what it said, without the frames of backtraces.
    pub(crate) words: Vec<String>,
}

impl Failed {
    /// Why it failed, as far as it said so: the message of its last panic, or the last thing it said.
    pub(crate) fn why(&self) -> String {
        let panicked = self.words.iter().rposition(|line| line.contains("panicked at "));
        let message = panicked.map(|at| self.words[at + 1..].iter().take_while(|line| !is_note(line)));
        let message: Vec<&str> = message.into_iter().flatten().take(MESSAGE_LINES_MAX).map(String::as_str).collect();
        let last = self.words.last().map_or("it said nothing", String::as_str);
        if message.is_empty() { last.to_owned() } else { message.join("\n") }
    }
}

fn is_note(line: &str) -> bool {
    line.is_empty() || line.starts_with("note: ") || line.starts_with("thread '") || line.starts_with("stack backtrace")
}

/// A frame of a backtrace: its number and name, or its place.
fn is_frame(line: &str) -> bool {
    let line = line.trim_start();
    let number = line.split_once(": ").is_some_and(|(number, _)| number.parse::<u32>().is_ok());
    number || line.starts_with("at /") || line.starts_with("at ./") || line == "stack backtrace:"
}

/// Whether a line says how a test went, and then its name and the word for it.
fn verdict(line: &str) -> Option<(&str, &str)> {
    let (name, word) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    ["ok", "FAILED", "ignored"].contains(&word).then_some((name, word))
}

/// All that failed, in the order in which it did.
pub(crate) fn find(text: &str) -> Vec<Failed> {
    let mut found: Vec<Failed> = Vec::new();
    // What came since the last test; or, in a section of libtest, whose words come.
    let (mut since, mut section): (Vec<&str>, Option<usize>) = (Vec::new(), None);
    for line in text.lines() {
        let heading = line.strip_prefix("---- ").and_then(|line| line.strip_suffix(" stdout ----"));
        if let Some((name, word)) = verdict(line) {
            if word == "FAILED" {
                found.push(Failed { name: name.to_owned(), words: last(&since) });
            }
            since.clear();
        } else if line.trim_start().starts_with("Running ") || line.starts_with("running ") {
            (section, since) = (None, Vec::new());
        } else if line.contains("process didn't exit successfully") && line.contains("(signal: ") {
            found.push(Failed { name: line.trim().to_owned(), words: last(&since) });
        } else if let Some(name) = heading {
            section = found.iter().rposition(|failed| failed.name == name);
            if let Some(of) = section {
                found[of].words.clear();
            }
        } else if ["failures:", "successes:"].contains(&line) || line.starts_with("test result: ") {
            section = None;
        } else if let Some(of) = section {
            found[of].words.push(line.to_owned());
        } else {
            since.push(line);
        }
    }
    for failed in &mut found {
        failed.words = last(&failed.words.iter().map(String::as_str).collect::<Vec<_>>());
    }
    found
}

/// The last lines, without frames.
fn last(lines: &[&str]) -> Vec<String> {
    let lines: Vec<&str> = lines.iter().filter(|line| !is_frame(line)).copied().collect();
    let end = lines.iter().rposition(|line| !line.trim().is_empty()).map_or(0, |at| at + 1);
    let from = end.saturating_sub(LINES_MAX);
    lines[from..end].iter().map(|line| (*line).to_owned()).collect()
}

/// What is shown of them at the end of the step.
pub(crate) fn shown(text: &str) -> String {
    let mut shown: Vec<String> = Vec::new();
    let found = find(text);
    for failed in found.iter().take(TESTS_MAX) {
        shown.push(format!("   ┌ {}", failed.name));
        shown.extend(failed.words.iter().map(|line| format!("   │ {line}")));
    }
    if found.len() > TESTS_MAX {
        shown.push(format!("   … and {} more", found.len() - TESTS_MAX));
    }
    if text.contains("error: could not compile") {
        let errors: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("error")).collect();
        shown.push(process::tail(&errors.join("\n"), LINES_MAX * 2));
    }
    shown.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN_MAIN: &str = "     Running tests/outlive.rs (target/debug/deps/outlive-1)\n\
        test first ... ok\n\
        a word of the second\n\
        thread 'main' (7) panicked at crates/jail/tests/outlive/cases.rs:248:5:\nassertion failed: it waits\n  left: 1\n right: 2\n\
        stack backtrace:\n   0: __rustc::rust_begin_unwind\n             at /rustc/library/std/src/panicking.rs:697:5\n\
        note: Some details are omitted\n\
        test second (own user) ... FAILED\n\
        test third ... ok\n\
        failure: second: it hangs\n\
        test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n";
    const LIBTEST: &str = "running 2 tests\ntest a ... ok\ntest b::c ... FAILED\n\nsuccesses:\n\n---- a stdout ----\nnoise\n\n\nsuccesses:\n    a\n\n\
        failures:\n\n---- b::c stdout ----\nsaid before\nthread 'b::c' panicked at src/b.rs:3:5:\nwrong\nnote: run with\n\n\n\
        failures:\n    b::c\n\ntest result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0s\n";

    fn check(text: &str, expected: &[(&str, &str, usize)]) {
        let told: Vec<(String, String, usize)> =
            find(text).into_iter().map(|failed| (failed.name.clone(), failed.why(), failed.words.len())).collect();
        let told: Vec<(&str, &str, usize)> =
            told.iter().map(|(name, why, lines)| (name.as_str(), why.as_str(), *lines)).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn a_program_with_a_main_of_its_own_says_why() {
        check(OWN_MAIN, &[("second (own user)", "assertion failed: it waits\n  left: 1\n right: 2", 6)]);
        assert!(shown(OWN_MAIN).contains("a word of the second"), "{}", shown(OWN_MAIN));
    }

    #[test]
    fn libtest_says_it_in_a_section() {
        check(LIBTEST, &[("b::c", "wrong", 4)]);
        check(
            &format!("{OWN_MAIN}{LIBTEST}{OWN_MAIN}"),
            &[
                ("second (own user)", "assertion failed: it waits\n  left: 1\n right: 2", 6),
                ("b::c", "wrong", 4),
                ("second (own user)", "assertion failed: it waits\n  left: 1\n right: 2", 6),
            ],
        );
    }

    #[test]
    fn a_program_that_was_killed_is_named_with_its_last_words() {
        let text = "     Running tests/x.rs (target/debug/deps/x-1)\ntest a ... ok\nlast words\nerror: test failed\n\nCaused by:\n  \
                    process didn't exit successfully: `x-1` (signal: 9, SIGKILL: kill)\n";
        let found = find(text);
        assert_eq!(found.len(), 1);
        assert!(found[0].name.contains("SIGKILL") && found[0].words[0] == "last words", "{found:?}");
    }

    #[test]
    fn what_passes_is_not_shown_and_much_is_cut() {
        check("test a ... ok\nnoise\ntest b ... ok\n", &[]);
        check(&format!("{}test a ... FAILED\n", "word\n".repeat(500)), &[("a", "word", LINES_MAX)]);
        check("test a ... FAILED\n", &[("a", "it said nothing", 0)]);
        let compiled = shown("test a ... ok\nerror[E0308]: mismatched\n --> a.rs:1:1\nerror: could not compile `x`\n");
        assert!(compiled.starts_with("error[E0308]"), "{compiled}");
    }
}
