//! What can be said about a statement before any database sees it: its parameters, whether it is one statement, and
//! whether it plainly writes. The database still has the last word.

/// What a statement shows of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Statement {
    /// `:name` parameters, each once, without the colon.
    pub(crate) parameters: Vec<String>,
    /// The first parameter that is written in another way.
    pub(crate) foreign: Option<String>,
    /// Whether something follows the first `;`.
    pub(crate) several: bool,
    /// The first word, lower case.
    pub(crate) verb: String,
}

impl Statement {
    /// Whether it begins like a statement that changes something.
    pub(crate) fn writes(&self) -> bool {
        const WRITING: [&str; 10] =
            ["insert", "update", "delete", "replace", "create", "drop", "alter", "vacuum", "reindex", "attach"];
        WRITING.contains(&self.verb.as_str())
    }
}

/// Reads a statement.
pub(crate) fn read(text: &str) -> Statement {
    let bytes = text.as_bytes();
    let mut statement = Statement::default();
    let (mut at, mut ended) = (0, false);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let byte = rest[0];
        if rest.starts_with(b"--") {
            at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            continue;
        }
        if rest.starts_with(b"/*") {
            at += rest.windows(2).skip(2).position(|two| two == b"*/").map_or(rest.len(), |length| length + 4);
            continue;
        }
        if byte.is_ascii_whitespace() {
            at += 1;
            continue;
        }
        statement.several |= ended;
        let length = match byte {
            b'\'' | b'"' | b'`' => quoted(rest, byte),
            b'[' => quoted(rest, b']'),
            b';' => {
                ended = true;
                1
            }
            b':' | b'@' | b'$' | b'?' => statement.parameter(text, at),
            byte if is_word(byte) => {
                let length = rest.iter().take_while(|byte| is_word(**byte) || **byte == b'$').count();
                if statement.verb.is_empty() {
                    statement.verb = text[at..at + length].to_lowercase();
                }
                length
            }
            _ => 1,
        };
        at += length;
    }
    statement
}

impl Statement {
    fn parameter(&mut self, text: &str, at: usize) -> usize {
        let length = 1 + text.as_bytes()[at + 1..].iter().take_while(|byte| is_word(**byte)).count();
        let written = &text[at..at + length];
        match written.strip_prefix(':') {
            Some("") => {}
            Some(name) => {
                if !self.parameters.iter().any(|known| known == name) {
                    self.parameters.push(name.to_owned());
                }
            }
            None => {
                self.foreign.get_or_insert_with(|| written.to_owned());
            }
        }
        length
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// The length of a quoted text; a doubled quote is two texts side by side, which is the same here.
fn quoted(rest: &[u8], end: u8) -> usize {
    rest[1..].iter().position(|byte| *byte == end).map_or(rest.len(), |length| length + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let Statement { parameters, foreign, several, verb } = read(text);
        let foreign = foreign.unwrap_or_default();
        let several = if several { "several" } else { "one" };
        assert_eq!(format!("{verb} {} {several} {foreign}", parameters.join(",")), expected, "{text}");
    }

    #[test]
    fn parameters_are_found_where_sqlite_finds_them() {
        check("select * from a where id = :id", "select id one ");
        check("Select :a, :b, :a", "select a,b one ");
        check("select ':no', \":no\", `:no`, [:no] -- :no\n/* :no */ , :yes", "select yes one ");
        check("select 'it''s :no', :yes", "select yes one ");
        check("select ?", "select  one ?");
        check("select ?1, @a, $b", "select  one ?1");
        check("select json_extract(a, '$.b')", "select  one ");
        check("select :größe", "select größe one ");
        check("", "  one ");
        check("'open", "  one ");
        check("/* open", "  one ");
    }

    #[test]
    fn a_second_statement_is_seen() {
        check("select 1;", "select  one ");
        check("select 1; -- end\n", "select  one ");
        check("select ';'", "select  one ");
        check("select 1; drop table a", "select  several ");
        check("select 1;;", "select  several ");
    }

    #[test]
    fn writing_is_seen() {
        assert!(read("-- x\nINSERT into a values (1)").writes());
        assert!(!read("select 1").writes());
        assert!(!read("with a as (select 1) select * from a").writes());
    }
}
