//! Reads a patch. As lenient as models need: padding around markers, a heredoc or a fence around the whole.

use super::{Hunk, Line, Operation, Refusal};
use crate::output::brief;
use crate::reason::Reason;
use sandbox::RelPath;
use serde_json::Value;

/// Files one patch may touch.
const OPERATIONS_MAX: usize = 1_000;
/// Bytes of a line that a message repeats at most.
const ECHO_BYTES_MAX: usize = 120;

const BEGIN: &str = "*** Begin Patch";
const END: &str = "*** End Patch";
const ADD: &str = "*** Add File:";
const DELETE: &str = "*** Delete File:";
const UPDATE: &str = "*** Update File:";
const MOVE: &str = "*** Move to:";
const END_OF_FILE: &str = "*** End of File";

/// Lines with their numbers.
struct Lines<'a> {
    lines: Vec<(usize, &'a str)>,
    next: usize,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line)).collect();
        Self { lines, next: 0 }
    }

    fn peek(&self) -> Option<(usize, &'a str)> {
        self.lines.get(self.next).copied()
    }

    /// The number of the line that comes next, or of the one after the last.
    fn at(&self) -> usize {
        self.peek().map_or_else(|| self.lines.last().map_or(1, |(at, _)| at + 1), |(at, _)| at)
    }

    fn is_blank(&self) -> bool {
        self.peek().is_some_and(|(_, line)| line.trim().is_empty())
    }
}

/// The operations of a patch text.
pub(crate) fn parse(text: &str) -> Result<Vec<Operation>, Refusal> {
    let mut lines = unwrapped(text)?;
    let mut operations = Vec::new();
    while let Some((at, line)) = lines.peek() {
        let header = line.trim();
        lines.next += 1;
        if header.is_empty() {
            continue;
        }
        let operation = if let Some(path) = header.strip_prefix(ADD) {
            Operation::Add { path: path_of(at, path)?, text: added(&mut lines) }
        } else if let Some(path) = header.strip_prefix(DELETE) {
            Operation::Delete { path: path_of(at, path)? }
        } else if let Some(path) = header.strip_prefix(UPDATE) {
            update(path_of(at, path)?, &mut lines)?
        } else {
            let found = brief(header, ECHO_BYTES_MAX);
            let expected = format!("expected `{ADD} PATH`, `{DELETE} PATH` or `{UPDATE} PATH`, found `{found}`");
            return Err(Refusal::malformed(at, expected));
        };
        operations.push(operation);
        if operations.len() > OPERATIONS_MAX {
            return Err(Refusal::malformed(at, format!("a patch touches at most {OPERATIONS_MAX} files")));
        }
    }
    if operations.is_empty() {
        return Err(Refusal::malformed(lines.at(), "the patch is empty; expected at least one file section"));
    }
    Ok(operations)
}

/// What stands between the markers, without what models put around them.
fn unwrapped(text: &str) -> Result<Lines<'_>, Refusal> {
    let mut lines = Lines::new(text);
    let all = &mut lines.lines;
    all.retain({
        // Blank lines before the patch and after it mean nothing; those inside do.
        let first = all.iter().position(|(_, line)| !line.trim().is_empty()).unwrap_or(0);
        let last = all.iter().rposition(|(_, line)| !line.trim().is_empty()).unwrap_or(0);
        let (first, last) = (first + 1, last + 1);
        move |(at, _)| (first..=last).contains(at)
    });
    if let (Some((_, opening)), Some((_, closing))) = (all.first(), all.last())
        && all.len() > 2
        && is_wrapped(opening.trim(), closing.trim())
    {
        all.pop();
        all.remove(0);
    }
    let marker = |found: Option<&(usize, &str)>, expected: &str, place: &str| match found {
        Some((_, line)) if line.trim() == expected => Ok(()),
        Some((at, line)) => {
            let found = brief(line.trim(), ECHO_BYTES_MAX);
            Err(Refusal::malformed(*at, format!("the {place} line of the patch must be `{expected}`, found `{found}`")))
        }
        None => Err(Refusal::malformed(1, format!("the patch is empty; expected `{BEGIN}` … `{END}`"))),
    };
    marker(all.first(), BEGIN, "first")?;
    marker(all.last(), END, "last")?;
    all.pop();
    lines.next = 1;
    Ok(lines)
}

/// A heredoc or a code fence.
fn is_wrapped(opening: &str, closing: &str) -> bool {
    if opening.starts_with("```") {
        return closing == "```";
    }
    opening.split_once("<<").is_some_and(|(_, word)| {
        let word = word.trim_start_matches('-').trim().trim_matches(['\'', '"']);
        !word.is_empty() && word == closing
    })
}

fn path_of(at: usize, text: &str) -> Result<RelPath, Refusal> {
    let path = RelPath::from_model(text.trim()).map_err(|error| Refusal::malformed(at, error))?;
    if path.is_root() {
        return Err(Refusal::malformed(at, "expected the path of a file"));
    }
    Ok(path)
}

/// The `+` lines of a new file.
fn added(lines: &mut Lines<'_>) -> String {
    let mut text = String::new();
    while let Some(line) = lines.peek().and_then(|(_, line)| line.strip_prefix('+')) {
        text.push_str(line);
        text.push('\n');
        lines.next += 1;
    }
    text
}

fn update(path: RelPath, lines: &mut Lines<'_>) -> Result<Operation, Refusal> {
    let start = lines.at();
    let mut to = None;
    if let Some((at, target)) = lines.peek().and_then(|(at, line)| Some((at, line.trim().strip_prefix(MOVE)?))) {
        to = Some(path_of(at, target)?);
        lines.next += 1;
    }
    let hunks = hunks(lines)?;
    if hunks.is_empty() && to.is_none() {
        return Err(Refusal::malformed(start, format!("the section for `{path}` changes nothing; expected a hunk")));
    }
    Ok(Operation::Update { path, to, hunks })
}

/// The hunks up to the next section.
fn hunks(lines: &mut Lines<'_>) -> Result<Vec<Hunk>, Refusal> {
    let mut hunks = Vec::new();
    loop {
        // Between hunks a blank line separates; inside one it is an empty line of context.
        while lines.is_blank() {
            lines.next += 1;
        }
        let Some((_, line)) = lines.peek() else { return Ok(hunks) };
        if line.starts_with("***") && line.trim() != END_OF_FILE {
            return Ok(hunks);
        }
        hunks.push(hunk(lines)?);
    }
}

fn hunk(lines: &mut Lines<'_>) -> Result<Hunk, Refusal> {
    let mut hunk = Hunk { at: lines.at(), ..Hunk::default() };
    while let Some(anchor) = lines.peek().and_then(|(_, line)| line.trim_end().strip_prefix("@@")) {
        if let Some(anchor) = anchor_of(anchor) {
            hunk.anchors.push(anchor);
        }
        lines.next += 1;
    }
    while let Some((at, line)) = lines.peek() {
        let rest = || line[1..].to_owned();
        match line.as_bytes().first() {
            None => hunk.lines.push(Line::Context(String::new())),
            Some(b' ') => hunk.lines.push(Line::Context(rest())),
            Some(b'-') => hunk.lines.push(Line::Remove(rest())),
            Some(b'+') => hunk.lines.push(Line::Add(rest())),
            Some(b'*') if line.trim() == END_OF_FILE => {
                lines.next += 1;
                hunk.at_end = true;
                break;
            }
            Some(_) if line.starts_with("@@") || line.starts_with("***") => break,
            Some(_) => {
                let found = brief(line, ECHO_BYTES_MAX);
                let expected = "every line of a hunk starts with ` ` (context), `+` (added) or `-` (removed)";
                return Err(Refusal::malformed(at, format!("{expected}, found `{found}`")));
            }
        }
        lines.next += 1;
    }
    // A blank line after lines that are only added separates; taken for context, it would match any empty line.
    if hunk.lines.iter().all(|line| matches!(line, Line::Add(_)) || is_blank(line)) {
        while hunk.lines.len() > 1 && hunk.lines.last().is_some_and(is_blank) {
            hunk.lines.pop();
        }
    }
    if hunk.lines.is_empty() {
        return Err(Refusal::malformed(hunk.at, "the hunk is empty; expected lines with ` `, `+` or `-` in front"));
    }
    Ok(hunk)
}

fn is_blank(line: &Line) -> bool {
    matches!(line, Line::Context(text) if text.is_empty())
}

/// The text of an anchor; the line numbers of a unified diff are none.
fn anchor_of(text: &str) -> Option<String> {
    let text = text.strip_prefix(' ').unwrap_or(text);
    let numbers = |word: Option<&str>, sign: char| {
        word.and_then(|word| word.strip_prefix(sign))
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b','))
    };
    let mut words = text.split_whitespace();
    if numbers(words.next(), '-') && numbers(words.next(), '+') {
        return None;
    }
    (!text.trim().is_empty()).then(|| text.to_owned())
}

/// The operations of the JSON form: `{"operations":[{"type":"update_file","path":…,"diff":…}]}`, or one such object.
pub(crate) fn from_operations(value: &Value) -> Result<Vec<Operation>, Refusal> {
    let malformed = |index: usize, text: String| Refusal {
        code: Reason::PatchMalformed.code(),
        text: format!("operations.{index}: {text}"),
    };
    let one = std::slice::from_ref(value);
    let list = value.get("operations").map_or(Some(one), |list| list.as_array().map(Vec::as_slice));
    let Some(list) = list.filter(|list| (1..=OPERATIONS_MAX).contains(&list.len())) else {
        return Err(malformed(0, format!("expected a list of 1 to {OPERATIONS_MAX} operations")));
    };
    let mut operations = Vec::new();
    for (index, operation) in list.iter().enumerate() {
        let text = |name: &str| operation.get(name).and_then(Value::as_str);
        let wrong = |refusal: Refusal| malformed(index, refusal.text);
        let path = text("path").ok_or_else(|| malformed(index, "path: required, but missing".into()))?;
        let path = path_of(1, path).map_err(wrong)?;
        let diff = || text("diff").ok_or_else(|| malformed(index, "diff: required, but missing".into()));
        operations.push(match text("type") {
            Some("create_file") => {
                let mut lines = Lines::new(diff()?);
                let text = added(&mut lines);
                if let Some((at, _)) = lines.peek() {
                    return Err(malformed(index, format!("diff line {at}: every line of a new file starts with `+`")));
                }
                Operation::Add { path, text }
            }
            Some("delete_file") => Operation::Delete { path },
            Some("update_file") => {
                let to = text("move_to").map(|to| path_of(1, to)).transpose().map_err(wrong)?;
                let hunks = if to.is_some() && text("diff").is_none() {
                    vec![]
                } else {
                    let mut lines = Lines::new(diff()?);
                    let hunks = hunks(&mut lines).map_err(wrong)?;
                    if let Some((at, _)) = lines.peek() {
                        return Err(malformed(index, format!("diff line {at}: expected a hunk")));
                    }
                    hunks
                };
                if hunks.is_empty() && to.is_none() {
                    return Err(malformed(index, format!("the diff for `{path}` changes nothing")));
                }
                Operation::Update { path, to, hunks }
            }
            other => {
                let found = other.map_or("nothing".to_owned(), |other| format!("`{}`", brief(other, 64)));
                return Err(malformed(
                    index,
                    format!("type: expected create_file, update_file or delete_file, found {found}"),
                ));
            }
        });
    }
    Ok(operations)
}
