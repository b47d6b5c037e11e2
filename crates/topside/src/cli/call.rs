//! How one call is told to people: what it is about to do, and what its result says beyond its text.

use super::clean::clean;
use super::console::Paint;
use domain::record::Changed;
use serde_json::Value;
use std::collections::BTreeMap;

/// Lines of a command or a patch that are shown.
const LINES_MAX: usize = 120;
/// Characters of one argument that are shown.
const ARGUMENT_CHARACTERS_MAX: usize = 120;

/// What a call is about to do.
pub(crate) fn told(tool: &str, arguments: &str, paint: Paint) -> String {
    let json: Option<Value> = serde_json::from_str(arguments).ok();
    let field = |name: &str| json.as_ref().and_then(|json| json.get(name)).and_then(Value::as_str);
    match tool {
        "exec_command" => match field("cmd") {
            Some(command) => block("$ ", command, |line| paint.bold(line)),
            None => other(tool, arguments, json.as_ref(), paint),
        },
        "write_stdin" => {
            let session =
                json.as_ref().and_then(|json| json.get("session_id")).map(Value::to_string).unwrap_or_default();
            match field("chars").unwrap_or_default() {
                "" => format!("{}\n", paint.bold(&format!("waits for session {}", clean(&session)))),
                chars => block("> ", chars, |line| paint.bold(line)),
            }
        }
        "apply_patch" => {
            let patch = field("input").or_else(|| field("patch")).unwrap_or(arguments);
            let title = format!("{}\n", paint.bold("apply_patch"));
            title + &block("  ", patch, |line| diff_line(line, paint))
        }
        _ => other(tool, arguments, json.as_ref(), paint),
    }
}

fn diff_line(line: &str, paint: Paint) -> String {
    match line.as_bytes().first() {
        Some(b'+') => paint.green(line),
        Some(b'-') => paint.red(line),
        Some(b'*' | b'@') => paint.bold(line),
        _ => line.to_owned(),
    }
}

fn block(first: &str, text: &str, style: impl Fn(&str) -> String) -> String {
    let mut out = String::new();
    let text = text.trim_end();
    for (at, line) in text.lines().take(LINES_MAX).enumerate() {
        out += if at == 0 { first } else { "  " };
        out += &style(&clean(line));
        out.push('\n');
    }
    let more = text.lines().count().saturating_sub(LINES_MAX);
    if more > 0 {
        out += &format!("  … {more} more lines\n");
    }
    out
}

fn other(tool: &str, arguments: &str, json: Option<&Value>, paint: Paint) -> String {
    let name = paint.bold(&clean(tool));
    let said = match json {
        Some(Value::Object(map)) => map
            .iter()
            .map(|(name, value)| format!(" {}={}", clean(name), brief(&value.to_string())))
            .collect::<String>(),
        _ => format!(" {}", brief(arguments)),
    };
    format!("{name}{said}\n")
}

fn brief(text: &str) -> String {
    let text = text.replace('\n', " ");
    let mut out: String = clean(&text).chars().take(ARGUMENT_CHARACTERS_MAX).collect();
    if text.chars().count() > ARGUMENT_CHARACTERS_MAX {
        out.push('…');
    }
    out
}

/// A result taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended<'a> {
    /// The output without what the harness wrote above it.
    pub(crate) body: &'a str,
    /// The exit code of a command that ended.
    pub(crate) exit: Option<&'a str>,
    /// What a patch did, by path.
    pub(crate) files: BTreeMap<String, char>,
}

/// Takes a result apart.
pub(crate) fn ended<'a>(tool: &str, output: &'a str) -> Ended<'a> {
    let mut ended = Ended { body: output, exit: None, files: BTreeMap::new() };
    match tool {
        "exec_command" | "write_stdin" => {
            let (head, body) = output.split_once("Output:\n").unwrap_or(("", output));
            ended.exit = head.lines().find_map(|line| line.strip_prefix("Process exited with code "));
            ended.body = body;
        }
        "apply_patch" => {
            if let Some((_, list)) = output.split_once("Updated the following files:\n") {
                ended.body = "";
                let file = |line: &str| {
                    let (sign, path) = line.split_once(' ')?;
                    Some((clean(path).into_owned(), sign.chars().next()?))
                };
                ended.files = list.lines().filter_map(file).filter(|(_, sign)| "AMD".contains(*sign)).collect();
            }
        }
        _ => {}
    }
    ended
}

/// One letter for what became of a file.
pub(crate) const fn sign(change: Changed) -> char {
    match change {
        Changed::Added => 'A',
        Changed::Modified => 'M',
        Changed::Removed => 'D',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_as_people_read_them() {
        for (tool, arguments, expected) in [
            ("exec_command", r#"{"cmd":"ls -l"}"#, "$ ls -l\n"),
            ("exec_command", r#"{"cmd":"for i in 1 2\ndo echo $i\ndone\n"}"#, "$ for i in 1 2\n  do echo $i\n  done\n"),
            ("exec_command", r#"{"cmd":"\u001b]0;x\u0007"}"#, "$ \u{241b}]0;x\u{2407}\n"),
            ("exec_command", "nonsense", "exec_command nonsense\n"),
            ("write_stdin", r#"{"session_id":4,"chars":"y\n"}"#, "> y\n"),
            ("write_stdin", r#"{"session_id":4}"#, "waits for session 4\n"),
            ("apply_patch", "*** Begin Patch\n+a\n", "apply_patch\n  *** Begin Patch\n  +a\n"),
            ("apply_patch", r#"{"input":"+a"}"#, "apply_patch\n  +a\n"),
            ("lookup", r#"{"id":7,"name":"x y"}"#, "lookup id=7 name=\"x y\"\n"),
        ] {
            assert_eq!(told(tool, arguments, Paint::Plain), expected, "{tool} {arguments}");
        }
    }

    #[test]
    fn results_are_taken_apart() {
        let text = "Chunk ID: 0a1b2c\nWall time: 0.1 seconds\nProcess exited with code 2\nOutput:\nno such file\n";
        let ended_ = ended("exec_command", text);
        assert_eq!((ended_.body, ended_.exit), ("no such file\n", Some("2")));
        let patched = ended("apply_patch", "Success. Updated the following files:\nA a.txt\nM b.txt\n");
        assert_eq!(
            patched.files.into_iter().collect::<Vec<_>>(),
            [("a.txt".to_owned(), 'A'), ("b.txt".to_owned(), 'M')]
        );
        assert_eq!(ended("lookup", "Output:\nx").body, "Output:\nx");
    }
}
