//! Takes secrets out of text and bytes: as they are, and as base64 (at each of its three alignments, so also inside a
//! longer encoding such as `Authorization: Basic`), hexadecimal, percent-encoding and JSON write them.

use crate::secrets::Secret;
use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

/// Shorter secrets are left alone: they would take half of every text with them.
pub const REDACT_BYTES_MIN: usize = 6;

/// Percent-encoding that keeps the unreserved characters of RFC 3986 §2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Takes secrets out. Building one costs time in proportion to the secrets; using one without secrets costs nothing.
#[derive(Default)]
pub struct Redactor(Option<Found>);

struct Found {
    searcher: AhoCorasick,
    /// By pattern: what is put in its place.
    marks: Vec<String>,
    pattern_bytes_max: usize,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} patterns)", self.0.as_ref().map_or(0, |found| found.marks.len()))
    }
}

impl Redactor {
    /// Takes these secrets out.
    ///
    /// # Panics
    /// When the patterns of all secrets together are above what a searcher can address (some gigabytes): then nothing
    /// may leave.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut patterns = Vec::new();
        let mut marks = Vec::new();
        for secret in secrets {
            for form in forms(secret.expose()) {
                patterns.push(form);
                marks.push(format!("[secret {}]", secret.name()));
            }
        }
        let Some(pattern_bytes_max) = patterns.iter().map(Vec::len).max() else {
            return Self(None);
        };
        let searcher = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(&patterns)
            .expect("secrets are bounded by the configuration");
        Self(Some(Found { searcher, marks, pattern_bytes_max }))
    }

    /// Text without secrets.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let Some(found) = &self.0 else {
            return Cow::Borrowed(text);
        };
        if !found.searcher.is_match(text) {
            return Cow::Borrowed(text);
        }
        // Patterns and marks are whole characters, so this is text again.
        Cow::Owned(found.searcher.replace_all(text, &found.marks))
    }

    /// Bytes without secrets.
    pub fn bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        match &self.0 {
            Some(found) if found.searcher.is_match(bytes) => {
                Cow::Owned(found.searcher.replace_all_bytes(bytes, &found.marks))
            }
            Some(_) | None => Cow::Borrowed(bytes),
        }
    }

    /// For bytes that come in chunks: a secret that lies across their borders is found.
    pub fn stream(&self) -> Stream<'_> {
        Stream { redactor: self, held: Vec::new() }
    }
}

/// Bytes in chunks. Holds back at most as many bytes as the longest form of a secret has.
#[derive(Debug)]
pub struct Stream<'a> {
    redactor: &'a Redactor,
    held: Vec<u8>,
}

impl Stream<'_> {
    /// Takes a chunk; gives what is certain.
    pub fn push(&mut self, chunk: &[u8]) -> Vec<u8> {
        let Some(found) = &self.redactor.0 else {
            return chunk.to_vec();
        };
        self.held.extend_from_slice(chunk);
        // A match that begins at or after this could still begin, or grow longer, with the next chunk.
        let certain = (self.held.len() + 1).saturating_sub(found.pattern_bytes_max);
        let mut out = Vec::with_capacity(certain);
        let mut done = 0;
        for hit in found.searcher.find_iter(&self.held) {
            if hit.start() >= certain {
                break;
            }
            out.extend_from_slice(&self.held[done..hit.start()]);
            out.extend_from_slice(found.marks[hit.pattern()].as_bytes());
            done = hit.end();
        }
        if done < certain {
            out.extend_from_slice(&self.held[done..certain]);
            done = certain;
        }
        self.held.drain(..done);
        out
    }

    /// Gives the rest.
    pub fn finish(self) -> Vec<u8> {
        self.redactor.bytes(&self.held).into_owned()
    }
}

/// The forms that a secret is looked for in, each once.
fn forms(secret: &str) -> BTreeSet<Vec<u8>> {
    let bytes = secret.as_bytes();
    if bytes.len() < REDACT_BYTES_MIN {
        return BTreeSet::new();
    }
    let mut forms = BTreeSet::from([bytes.to_vec(), hex::encode(bytes).into(), hex::encode_upper(bytes).into()]);
    for before in 0..3 {
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let text = engine.encode([&[0; 2][..before], bytes].concat());
            // Characters that hold bits of what stands before or after are not the secret's own.
            let first = (before * 8).div_ceil(6);
            let last = ((before + bytes.len()) * 8) / 6;
            forms.insert(text.as_bytes()[first..last].to_vec());
        }
    }
    for set in [NON_ALPHANUMERIC, RESERVED] {
        let upper = percent_encode(bytes, set).to_string();
        forms.insert(lower_percent(&upper).into());
        forms.insert(upper.into());
    }
    forms.insert(json_inner(secret).into());
    forms
}

/// The same with lower-case digits, as some encoders write them.
fn lower_percent(text: &str) -> String {
    let mut digits = 0;
    let lower = text.chars().map(|character| match character {
        '%' => {
            digits = 2;
            '%'
        }
        digit if digits > 0 => {
            digits -= 1;
            digit.to_ascii_lowercase()
        }
        other => other,
    });
    lower.collect()
}

/// What stands between the quotes of a JSON string.
fn json_inner(secret: &str) -> String {
    let quoted = serde_json::Value::from(secret).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "p@ss/w\"ord+1 Ä";

    fn redactor() -> Redactor {
        Redactor::new(&[Secret::new("db", SECRET.to_owned()), Secret::new("pin", "12345".to_owned())])
    }

    fn encodings() -> Vec<(&'static str, String)> {
        let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        vec![
            ("as it is", format!("a {SECRET} b")),
            ("base64", format!("a {} b", base64(SECRET))),
            ("base64 after one byte", format!("Basic {}", base64(&format!("x{SECRET}")))),
            ("base64 after two bytes", format!("Basic {}", base64(&format!("u:{SECRET}")))),
            ("base64 in the middle", format!("Basic {}", base64(&format!("user:{SECRET} and more")))),
            ("base64 for URLs", URL_SAFE_NO_PAD.encode(SECRET)),
            ("hexadecimal", hex::encode(SECRET)),
            ("HEXADECIMAL", hex::encode_upper(SECRET)),
            ("percent", format!("?q={}", percent_encode(SECRET.as_bytes(), RESERVED))),
            ("percent, all", format!("?q={}", percent_encode(SECRET.as_bytes(), NON_ALPHANUMERIC))),
            (
                "percent, lower",
                format!("?q={}", lower_percent(&percent_encode(SECRET.as_bytes(), RESERVED).to_string())),
            ),
            ("json", serde_json::json!({ "key": SECRET }).to_string()),
        ]
    }

    #[test]
    fn a_secret_is_found_in_every_form() {
        let redactor = redactor();
        for (name, text) in encodings() {
            let clean = redactor.text(&text);
            assert!(clean.contains("[secret db]"), "{name}: {clean}");
            assert_eq!(redactor.bytes(text.as_bytes()), clean.as_bytes(), "{name}");
        }
        assert_eq!(redactor.text("my pin is 12345"), "my pin is 12345", "too short to be taken out");
    }

    #[test]
    fn chunks_give_what_the_whole_gives() {
        let redactor = redactor();
        for (name, text) in encodings() {
            let text = format!("{text}|{text}{text}|tail");
            let whole = redactor.bytes(text.as_bytes());
            for size in [1, 2, 3, 7, 16, 64, text.len()] {
                let mut stream = redactor.stream();
                let mut out = Vec::new();
                for chunk in text.as_bytes().chunks(size) {
                    out.extend(stream.push(chunk));
                    assert!(stream.held.len() <= redactor.0.as_ref().unwrap().pattern_bytes_max);
                }
                out.extend(stream.finish());
                assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&whole), "{name} by {size}");
            }
        }
    }

    #[test]
    fn the_longest_secret_wins_and_text_without_any_is_not_copied() {
        let secrets = [Secret::new("short", "abcdef".to_owned()), Secret::new("long", "abcdefgh".to_owned())];
        let redactor = Redactor::new(&secrets);
        assert_eq!(redactor.text("xabcdefghx abcdef!"), "x[secret long]x [secret short]!");
        assert!(matches!(redactor.text("nothing here"), Cow::Borrowed(_)));
        assert!(matches!(Redactor::default().bytes(b"abcdefgh"), Cow::Borrowed(_)));
    }
}
