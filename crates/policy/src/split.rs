//! Cuts a Cedar file into its policies, so that each is known by file and line.

/// One policy of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Statement<'a> {
    /// The line it starts on, from 1.
    pub(crate) line: usize,
    /// Its text, up to and with the `;`.
    pub(crate) text: &'a str,
}

/// The policies of `text` in order. What follows the last `;` is a statement too, unless it is blank.
pub(crate) fn statements(text: &str) -> Vec<Statement<'_>> {
    let bytes = text.as_bytes();
    let (mut found, mut start, mut at) = (Vec::new(), None, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => at = end_of_line(bytes, at),
            byte if byte.is_ascii_whitespace() => {}
            byte => {
                let begun = *start.get_or_insert(at);
                match byte {
                    b'"' => at = end_of_string(bytes, at),
                    b';' => {
                        found.push(Statement { line: line_of(text, begun), text: &text[begun..=at] });
                        start = None;
                    }
                    _ => {}
                }
            }
        }
        at += 1;
    }
    if let Some(begun) = start {
        found.push(Statement { line: line_of(text, begun), text: &text[begun..] });
    }
    found
}

fn end_of_line(bytes: &[u8], from: usize) -> usize {
    bytes[from..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| from + length)
}

/// The index of the closing quote, or of the last byte when there is none.
fn end_of_string(bytes: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'"' => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len() - 1
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(usize, &str)]) {
        let got: Vec<_> = statements(text).iter().map(|one| (one.line, one.text)).collect();
        assert_eq!(got, expected, "{text:?}");
    }

    #[test]
    fn statements_are_cut_at_their_ends_and_nowhere_else() {
        check("", &[]);
        check("// only; a comment\n", &[]);
        check("a;\n\n b\n;", &[(1, "a;"), (3, "b\n;")]);
        check("a \"x;\\\";\" ;b;", &[(1, "a \"x;\\\";\" ;"), (1, "b;")]);
        check("a // ;\n;", &[(1, "a // ;\n;")]);
        check("a;\nrest", &[(1, "a;"), (2, "rest")]);
        check("\"open", &[(1, "\"open")]);
    }
}
