//! Cuts an agent's file into front matter and instructions. What the front matter means is not known here.

use crate::problem::{Problem, Rule};

/// A file's two parts. The front matter begins with the file, so that its places are the file's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    pub(crate) front: &'a str,
    pub(crate) body: &'a str,
}

/// Cuts `text`. The front matter stands between a first line of `---` and the next one, or, in braces, between two
/// `---` on any lines.
pub(crate) fn cut<'a>(file: &str, text: &'a str) -> Result<Parts<'a>, Problem> {
    let wrong = |line, message: &str, hint: &str| Problem {
        rule: Rule::Syntax,
        file: file.to_owned(),
        line,
        column: 1,
        message: message.to_owned(),
        hint: Some(hint.to_owned()),
    };
    let (first, _) = text.split_once('\n').unwrap_or((text, ""));
    let Some(rest) = first.trim_end().strip_prefix("---") else {
        let hint = "begin with a line of `---`, the keys, and another line of `---`";
        return Err(wrong(1, "no front matter; expected the file to begin with `---`", hint));
    };
    if rest.trim_start().starts_with('{') {
        let hint = "write `--- {model: fast} ---` and the instructions after it";
        return braces(text).ok_or_else(|| wrong(1, "the front matter in braces does not end with `} ---`", hint));
    }
    let mut at = first.len() + 1;
    for line in text.get(at..).unwrap_or_default().split_inclusive('\n') {
        if line.trim_end() == "---" {
            return Ok(Parts { front: &text[..at], body: &text[at + line.len()..] });
        }
        at += line.len();
    }
    Err(wrong(1, "the front matter does not end", "write a line of `---` before the instructions"))
}

/// The form `--- {…} --- body`.
fn braces(text: &str) -> Option<Parts<'_>> {
    let bytes = text.as_bytes();
    let mut at = text.find('{')?;
    let mut depth = 0_usize;
    loop {
        match bytes.get(at)? {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    break;
                }
            }
            b'"' => at = end_of_quote(bytes, at, true)?,
            // In a plain scalar an apostrophe is a letter.
            b'\'' if opens_quote(bytes, at) => at = end_of_quote(bytes, at, false)?,
            b'#' if bytes[at - 1].is_ascii_whitespace() => {
                at += bytes[at..].iter().position(|byte| *byte == b'\n')?;
            }
            _ => {}
        }
        at += 1;
    }
    let front = &text[..=at];
    let body = text[at + 1..].trim_start().strip_prefix("---")?;
    Some(Parts { front, body })
}

fn opens_quote(bytes: &[u8], at: usize) -> bool {
    let before = bytes[..at].iter().rev().find(|byte| !byte.is_ascii_whitespace());
    matches!(before, Some(b'{' | b'[' | b',' | b':'))
}

/// The index of the closing quote.
fn end_of_quote(bytes: &[u8], from: usize, escapes: bool) -> Option<usize> {
    let quote = bytes[from];
    let mut at = from + 1;
    loop {
        let byte = *bytes.get(at)?;
        if escapes && byte == b'\\' {
            at += 1;
        } else if byte == quote {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let got = match cut("a.md", text) {
            Ok(Parts { front, body }) => format!("{front}|{body}"),
            Err(problem) => problem.to_string(),
        };
        assert_eq!(got, expected, "{text:?}");
    }

    #[test]
    fn front_matter_stands_on_lines_or_in_braces() {
        check("---\na: 1\n---\nBody\n---\nmore", "---\na: 1\n|Body\n---\nmore");
        check("---\r\na: 1\r\n---\r\nBody", "---\r\na: 1\r\n|Body");
        check("---\n---", "---\n|");
        check("--- {a: 1} --- You are", "--- {a: 1}| You are");
        check("--- {a: '}', b: \"\\\"}\", c: it's} ---\nYou", "--- {a: '}', b: \"\\\"}\", c: it's}|\nYou");
        check("--- {a: [1,\n  {b: 2}], # }\n}\n---\nYou", "--- {a: [1,\n  {b: 2}], # }\n}|\nYou");
    }

    #[test]
    fn a_front_matter_that_does_not_end_is_refused() {
        let lines = "write a line of `---` before the instructions";
        let open = "write `--- {model: fast} ---` and the instructions after it";
        check("---\na: 1\nYou are", &format!("a.md:1:1: the front matter does not end; hint: {lines}"));
        check("---", &format!("a.md:1:1: the front matter does not end; hint: {lines}"));
        for text in ["--- {a: 1} You are", "--- {a: 1", "--- {a: '", "--- {}]"] {
            check(text, &format!("a.md:1:1: the front matter in braces does not end with `}} ---`; hint: {open}"));
        }
        check(
            "You are Maya",
            "a.md:1:1: no front matter; expected the file to begin with `---`; hint: begin with a line of `---`, the keys, and another line of `---`",
        );
    }
}
