//! A light reading of Rust source: what is code, what is comment, what is a literal. It parses no grammar; whoever needs
//! that asks the compiler.

/// A source file taken apart. Offsets are bytes of the original; line structure is kept everywhere.
#[derive(Debug)]
pub(crate) struct Source {
    /// The text with comments and the contents of literals blanked out.
    pub(crate) code: String,
    /// The text with everything but comments blanked out.
    pub(crate) comments: String,
    /// The contents of string literals, as written, with the offset of their opening quote.
    pub(crate) strings: Vec<(usize, String)>,
}

impl Source {
    pub(crate) fn of(text: &str) -> Self {
        Scanner::new(text).scan()
    }

    /// Whether the code (not a comment, not a literal) has this as a whole word, and on which lines, from 1.
    pub(crate) fn lines_with_word(&self, word: &str) -> Vec<usize> {
        lines_with_word(&self.code, word)
    }
}

/// The lines, from 1, on which `word` stands as a whole word.
pub(crate) fn lines_with_word(text: &str, word: &str) -> Vec<usize> {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    let found = |line: &str| {
        line.match_indices(word).any(|(at, _)| {
            !line[..at].chars().next_back().is_some_and(is_part)
                && !line[at + word.len()..].chars().next().is_some_and(is_part)
        })
    };
    text.lines().enumerate().filter(|(_, line)| found(line)).map(|(index, _)| index + 1).collect()
}

/// The line, from 1, that a byte offset falls on.
pub(crate) fn line_at(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

struct Scanner<'text> {
    text: &'text str,
    bytes: &'text [u8],
    at: usize,
    code: Vec<u8>,
    comments: Vec<u8>,
    strings: Vec<(usize, String)>,
}

impl<'text> Scanner<'text> {
    fn new(text: &'text str) -> Self {
        let blank: Vec<u8> = text.bytes().map(|byte| if byte == b'\n' { b'\n' } else { b' ' }).collect();
        Self { text, bytes: text.as_bytes(), at: 0, code: blank.clone(), comments: blank, strings: Vec::new() }
    }

    fn scan(mut self) -> Source {
        while self.at < self.bytes.len() {
            if self.starts_with("//") {
                let end = self.text[self.at..].find('\n').map_or(self.bytes.len(), |length| self.at + length);
                self.keep_comment(end);
            } else if self.starts_with("/*") {
                let end = self.block_comment_end();
                self.keep_comment(end);
            } else if let Some(hashes) = self.raw_string() {
                self.take_raw_string(hashes);
            } else if self.bytes[self.at] == b'"' {
                self.take_string();
            } else if self.bytes[self.at] == b'\'' {
                self.take_character_or_lifetime();
            } else {
                self.keep_code(1);
            }
        }
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Source { code: text(self.code), comments: text(self.comments), strings: self.strings }
    }

    fn starts_with(&self, prefix: &str) -> bool {
        self.bytes[self.at..].starts_with(prefix.as_bytes())
    }

    /// Keeps one byte of code; a byte that is not ASCII becomes a blank, so that offsets stay those of the original.
    fn keep_code(&mut self, count: usize) {
        for index in self.at..(self.at + count).min(self.bytes.len()) {
            if self.bytes[index].is_ascii() {
                self.code[index] = self.bytes[index];
            }
        }
        self.at += count;
    }

    fn keep_comment(&mut self, end: usize) {
        for index in self.at..end {
            if self.bytes[index].is_ascii() {
                self.comments[index] = self.bytes[index];
            }
        }
        self.at = end;
    }

    /// Block comments nest.
    fn block_comment_end(&self) -> usize {
        let mut depth = 0_usize;
        let mut at = self.at;
        while at < self.bytes.len() {
            if self.bytes[at..].starts_with(b"/*") {
                depth += 1;
                at += 2;
            } else if self.bytes[at..].starts_with(b"*/") {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            } else {
                at += 1;
            }
        }
        self.bytes.len()
    }

    /// The number of hashes when a raw string (`r"`, `br#"`, `cr##"`) opens here.
    fn raw_string(&self) -> Option<usize> {
        let before = self.at.checked_sub(1).map(|index| self.bytes[index]);
        if before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return None;
        }
        let rest = &self.bytes[self.at..];
        let prefix = if rest.starts_with(b"r") {
            1
        } else if rest.starts_with(b"br") || rest.starts_with(b"cr") {
            2
        } else {
            return None;
        };
        let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
        (rest.get(prefix + hashes) == Some(&b'"')).then_some(hashes)
    }

    fn take_raw_string(&mut self, hashes: usize) {
        let open = self.at + self.text[self.at..].find('"').unwrap_or(0);
        let close = format!("\"{}", "#".repeat(hashes));
        let end = self.text[open + 1..].find(&close).map_or(self.bytes.len(), |length| open + 1 + length);
        self.strings.push((open, self.text[open + 1..end].to_owned()));
        self.at = (end + close.len()).min(self.bytes.len());
    }

    fn take_string(&mut self) {
        let open = self.at;
        let mut at = open + 1;
        while at < self.bytes.len() && self.bytes[at] != b'"' {
            at += if self.bytes[at] == b'\\' { 2 } else { 1 };
        }
        let end = at.min(self.bytes.len());
        self.strings.push((open, self.text[open + 1..end].to_owned()));
        self.at = (end + 1).min(self.bytes.len());
    }

    fn take_character_or_lifetime(&mut self) {
        let rest = &self.text[self.at + 1..];
        let mut characters = rest.char_indices();
        match (characters.next(), characters.next()) {
            (Some((_, '\\')), Some((_, escaped))) => {
                let after = 1 + escaped.len_utf8();
                let length = rest[after..].find('\'').map_or(rest.len(), |length| after + length + 1);
                self.at += 1 + length;
            }
            (Some(_), Some((end, '\''))) => self.at += 1 + end + 1,
            _ => self.keep_code(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        let rows = [
            ("let a = 1; // unsafe", false),
            ("/* unsafe /* nested unsafe */ unsafe */ let a = 1;", false),
            ("let a = \"unsafe \\\" unsafe\";", false),
            ("let a = r#\"unsafe \" unsafe\"#;", false),
            ("let a = br\"unsafe\"; let b = b\"unsafe\";", false),
            ("let a = '\"'; let b = unsafe { 1 };", true),
            ("let a = '\\''; let b = unsafe { 1 };", true),
            ("fn a<'b>(c: &'b str) { unsafe {} }", true),
            ("let é = 'é'; unsafe {}", true),
            ("let r#type = 1; unsafe {}", true),
            ("#![deny(unsafe_code)]", false),
        ];
        for (text, expected) in rows {
            assert_eq!(!Source::of(text).lines_with_word("unsafe").is_empty(), expected, "{text}");
        }
    }

    #[test]
    fn strings_and_lines_are_told_as_written() {
        let text = "//! é\nfn a() {\n    b(\"one\", r\"two\");\n}\n";
        let source = Source::of(text);
        let strings: Vec<(usize, &str)> =
            source.strings.iter().map(|(offset, string)| (line_at(text, *offset), string.as_str())).collect();
        assert_eq!(strings, [(3, "one"), (3, "two")]);
        assert_eq!(source.code.len(), text.len());
        assert_eq!(source.code.lines().count(), 4);
        assert!(source.comments.starts_with("//!"));
    }

    #[test]
    fn unfinished_source_is_read_to_its_end() {
        for text in ["\"abc", "r#\"abc", "/* abc", "'", "'\\", "b\"\\", "\"\\"] {
            assert_eq!(Source::of(text).code.len(), text.len(), "{text}");
        }
    }
}
