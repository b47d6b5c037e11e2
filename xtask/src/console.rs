//! The `console` blocks of a document: commands with the output they promise. Parsing and comparing; `docs` runs them.

use crate::report::Finding;

/// One command of a document and what it promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// Line of the document, from 1.
    pub(crate) line: usize,
    pub(crate) text: String,
    /// Lines of output that follow in the document; none means that only success is promised.
    pub(crate) expected: Vec<String>,
}

/// What a document holds.
#[derive(Debug, Default)]
pub(crate) struct Document {
    pub(crate) commands: Vec<Command>,
    pub(crate) findings: Vec<Finding>,
}

/// Reads the `console` blocks of a Markdown document. A block that is not to be run is marked `console,ignore` and the
/// line above it says why, in a comment `<!-- not run: … -->`.
pub(crate) fn parse(name: &str, text: &str) -> Document {
    let mut document = Document::default();
    let mut above = "";
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let trimmed = line.trim_start();
        let Some(fence) = fence(trimmed) else {
            if !trimmed.is_empty() {
                above = trimmed;
            }
            continue;
        };
        let info = trimmed.trim_start_matches(['`', '~']).trim();
        let indent = line.len() - trimmed.len();
        let mut body = Vec::new();
        let mut closed = false;
        for (index, line) in lines.by_ref() {
            let inner = line.trim_start();
            if inner.starts_with(fence) && inner.trim_start_matches(['`', '~']).trim().is_empty() {
                closed = true;
                break;
            }
            let cut = indent.min(line.len() - inner.len());
            body.push((index + 1, &line[cut..]));
        }
        let place = format!("{name}:{}", index + 1);
        if !closed {
            document.findings.push(Finding::new(&place, "the block is never closed"));
        }
        match info {
            "console" => read_block(&place, &body, &mut document),
            "console,ignore" if !is_reason(above) => document.findings.push(Finding::new(
                &place,
                "a `console,ignore` block needs `<!-- not run: why -->` on the line above it",
            )),
            "console,ignore" => {}
            _ if info.starts_with("console") => document
                .findings
                .push(Finding::new(&place, format!("`{info}` is neither `console` nor `console,ignore`"))),
            _ => {}
        }
        above = "";
    }
    document
}

fn fence(line: &str) -> Option<&str> {
    let mark = line.chars().next().filter(|mark| matches!(mark, '`' | '~'))?;
    let length = line.chars().take_while(|character| *character == mark).count();
    (length >= 3).then(|| &line[..length])
}

fn is_reason(line: &str) -> bool {
    line.strip_prefix("<!-- not run:")
        .and_then(|rest| rest.strip_suffix("-->"))
        .is_some_and(|reason| !reason.trim().is_empty())
}

fn read_block(place: &str, body: &[(usize, &str)], document: &mut Document) {
    let first = document.commands.len();
    let mut continues = false;
    for (number, line) in body {
        if continues {
            if let Some(command) = document.commands.last_mut() {
                command.text.push('\n');
                command.text.push_str(line);
            }
            continues = line.ends_with('\\');
        } else if let Some(text) = line.strip_prefix("$ ") {
            document.commands.push(Command { line: *number, text: text.to_owned(), expected: Vec::new() });
            continues = text.ends_with('\\');
        } else if let (Some(text), Some(command)) = (line.strip_prefix("> "), document.commands[first..].last_mut())
            && command.expected.is_empty()
        {
            command.text.push('\n');
            command.text.push_str(text);
        } else if let Some(command) = document.commands[first..].last_mut() {
            command.expected.push(line.trim_end().to_owned());
        } else if !line.trim().is_empty() {
            document.findings.push(Finding::new(place, "the block begins with output; its commands begin with `$ `"));
            return;
        }
    }
    for command in &mut document.commands[first..] {
        while command.expected.last().is_some_and(String::is_empty) {
            command.expected.pop();
        }
    }
    if document.commands.len() == first {
        document.findings.push(Finding::new(place, "the block has no command; its commands begin with `$ `"));
    }
}

/// Compares what a command said with what the document promises: a line `...` stands for any number of lines, `...`
/// inside a line for any text. Returns the first promised line that did not come.
pub(crate) fn missing(expected: &[String], output: &str) -> Option<String> {
    if expected.is_empty() {
        return None;
    }
    let lines: Vec<&str> = output.trim_end().lines().map(str::trim_end).collect();
    match_lines(expected, &lines).err()
}

/// A greedy match with one point of return, as for any pattern whose only wildcard is "anything".
fn match_lines(expected: &[String], lines: &[&str]) -> Result<(), String> {
    let (mut pattern, mut line) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    let mut furthest = 0;
    loop {
        furthest = furthest.max(pattern);
        if pattern < expected.len() && expected[pattern].trim() == "..." {
            back = Some((pattern, line));
            pattern += 1;
        } else if pattern == expected.len() && line == lines.len() {
            return Ok(());
        } else if pattern < expected.len() && line < lines.len() && line_matches(&expected[pattern], lines[line]) {
            pattern += 1;
            line += 1;
        } else if let Some((from, reached)) = back.filter(|(_, reached)| *reached < lines.len()) {
            back = Some((from, reached + 1));
            pattern = from + 1;
            line = reached + 1;
        } else {
            return Err(expected.get(furthest).map_or_else(
                || format!("nothing more, but there is `{}`", lines.get(line).copied().unwrap_or_default()),
                |promised| format!("`{promised}`"),
            ));
        }
    }
}

fn line_matches(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split("...");
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(document: &Document) -> Vec<&str> {
        document.commands.iter().map(|command| command.text.as_str()).collect()
    }

    #[test]
    fn commands_output_and_continuations_are_read() {
        let document = parse(
            "a.md",
            "text\n\n```console\n$ one \\\n    --two\nsaid\n\n$ three\n```\n\n- item\n  ```console\n  $ four\n  out\n  ```\n",
        );
        assert_eq!(document.findings, []);
        assert_eq!(texts(&document), ["one \\\n    --two", "three", "four"]);
        assert_eq!(document.commands[0].expected, ["said"]);
        assert_eq!(document.commands[0].line, 4);
        assert_eq!(document.commands[2].expected, ["out"]);
    }

    #[test]
    fn a_here_document_is_one_command() {
        let document =
            parse("a.md", "```console\n$ cat > a <<END\n> one\n> END\n> quoted\n$ cat a\none\n> said\n```\n");
        assert_eq!(texts(&document), ["cat > a <<END\none\nEND\nquoted", "cat a"]);
        assert_eq!(document.commands[1].expected, ["one", "> said"]);
    }

    #[test]
    fn other_blocks_are_left_alone() {
        let document = parse("a.md", "```sh\n$ one\n```\n````markdown\n```console\n$ two\n```\n````\n");
        assert_eq!(document.findings, []);
        assert_eq!(texts(&document), [""; 0]);
    }

    #[test]
    fn what_cannot_be_run_is_a_finding() {
        let rows = [
            ("```console,ignore\n$ one\n```\n", "not run: why"),
            ("<!-- not run: -->\n```console,ignore\n$ one\n```\n", "not run: why"),
            ("```console,no_run\n$ one\n```\n", "neither"),
            ("```console\none\n```\n", "begins with output"),
            ("```console\n```\n", "no command"),
            ("```console\n$ one\n", "never closed"),
        ];
        for (text, expected) in rows {
            let document = parse("a.md", text);
            assert_eq!(document.findings.len(), 1, "{text}");
            assert!(document.findings[0].message.contains(expected), "{text}: {:?}", document.findings);
        }
        let document = parse("a.md", "<!-- not run: it needs a cloud account -->\n```console,ignore\n$ one\n```\n");
        assert!(document.findings.is_empty() && document.commands.is_empty());
    }

    #[test]
    fn promised_output_is_compared() {
        let check = |expected: &str, output: &str| {
            let expected: Vec<String> = expected.lines().map(str::to_owned).collect();
            missing(&expected, output).is_none()
        };
        assert!(check("", "anything"));
        assert!(check("one\ntwo", "one\ntwo\n"));
        assert!(!check("one\ntwo", "one\n"));
        assert!(!check("one", "one\ntwo\n"));
        assert!(check("one\n...", "one\ntwo\nthree\n"));
        assert!(check("...\nthree", "one\ntwo\nthree\n"));
        assert!(check("one\n...\nthree\n...", "one\nthree\nthree\nfour\n"));
        assert!(check("...\ntwo\n...\ntwo", "two\ntwo\n"));
        assert!(!check("...\nfive\n...", "one\ntwo\n"));
        assert!(check("run_... is done in ... ms", "run_12 is done in 3 ms"));
        assert!(!check("run_... is done", "run_12 is lost"));
        assert!(!check("a...a", "a"));
    }

    #[test]
    fn the_promised_line_that_did_not_come_is_named() {
        let expected = ["one".to_owned(), "...".to_owned(), "nine".to_owned()];
        assert_eq!(missing(&expected, "one\ntwo\n"), Some("`nine`".to_owned()));
    }
}
