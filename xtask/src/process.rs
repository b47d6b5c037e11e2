//! Running other programs: what they say is kept, told as it comes, and bounded. Which programs, the steps know.

use std::io::{BufRead, BufReader, PipeReader, Read};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result};

/// The most that is kept of one program's output; the rest is dropped from the middle of nothing: the head stays.
const OUTPUT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The longest single line that is kept whole.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// What a finished program said, both streams in the order they came.
#[derive(Debug)]
pub(crate) struct Captured {
    pub(crate) status: ExitStatus,
    pub(crate) text: String,
}

impl Captured {
    /// The last `lines` lines, for a message that must name what failed.
    pub(crate) fn tail(&self, lines: usize) -> String {
        tail(&self.text, lines)
    }
}

/// The last `lines` lines of a text.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Runs a program to its end and keeps what it said.
pub(crate) fn capture(command: &mut Command) -> Result<Captured> {
    stream(command, |_| {})
}

/// Runs a program to its end, gives each line to `on_line` as it comes and keeps what it said.
pub(crate) fn stream(command: &mut Command, mut on_line: impl FnMut(&str)) -> Result<Captured> {
    let shown = format!("{command:?}");
    let (reader, writer) = std::io::pipe().context("cannot open a pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot start {shown}"))?;
    // The command still holds the pipe's writing end; as long as it does, the reader would wait for ever.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let text = read_lines(reader, &mut on_line).with_context(|| format!("cannot read from {shown}"))?;
    let status = child.wait().with_context(|| format!("cannot wait for {shown}"))?;
    Ok(Captured { status, text })
}

fn read_lines(reader: PipeReader, on_line: &mut impl FnMut(&str)) -> Result<String> {
    let mut reader = BufReader::new(reader);
    let mut text = String::new();
    let mut bytes = Vec::new();
    while reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes)? > 0 {
        let line = String::from_utf8_lossy(&bytes);
        on_line(line.trim_end_matches('\n'));
        if text.len() + line.len() <= OUTPUT_BYTES_MAX {
            text.push_str(&line);
        }
        bytes.clear();
    }
    Ok(text)
}

/// Whether a program of this name is on the path.
pub(crate) fn is_present(program: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else { return false };
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// A program of the newest PostgreSQL server that is installed. Debian keeps those off the path.
pub(crate) fn postgres_program(program: &str) -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let found = versions.filter_map(|version| {
        let number: u32 = version.file_name().to_str()?.parse().ok()?;
        Some((number, version.path().join("bin").join(program))).filter(|(_, path)| path.is_file())
    });
    found.max().map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_streams_arrive_in_order_with_the_status() {
        let mut lines = Vec::new();
        let captured = stream(Command::new("sh").args(["-c", "echo one; echo two >&2; exit 3"]), |line| {
            lines.push(line.to_owned());
        })
        .expect("sh runs");
        assert_eq!(lines, ["one", "two"]);
        assert_eq!(captured.text, "one\ntwo\n");
        assert_eq!(captured.status.code(), Some(3));
        assert_eq!(captured.tail(1), "two");
    }

    #[test]
    fn a_missing_program_is_an_error_that_names_it() {
        let error = capture(&mut Command::new("no-such-program-here")).expect_err("is not there");
        assert!(error.to_string().contains("no-such-program-here"));
        assert!(!is_present("no-such-program-here"));
        assert!(is_present("sh"));
        assert_eq!(postgres_program("no-such-program-here"), None);
    }
}
