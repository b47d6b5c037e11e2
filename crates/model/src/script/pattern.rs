//! What a transcript says of text that it does not know beforehand: patterns with named captures, and templates that use them.

use crate::failure::cut;
use regex::Regex;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of a compiled pattern.
const COMPILED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Named captures, by name.
pub(super) type Captures = BTreeMap<String, String>;

/// A regular expression that is looked for.
#[derive(Debug)]
pub(super) struct Pattern {
    regex: Regex,
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let regex = regex::RegexBuilder::new(text)
            .size_limit(COMPILED_BYTES_MAX)
            .build()
            .map_err(|error| format!("`{}` is no regular expression: {error}", cut(text)))?;
        Ok(Self { regex })
    }

    /// Whether `text` holds it; what it names goes into `captures`.
    pub(super) fn find(&self, text: &str, captures: &mut Captures) -> bool {
        let Some(found) = self.regex.captures(text) else { return false };
        for name in self.regex.capture_names().flatten() {
            if let Some(value) = found.name(name) {
                captures.insert(name.to_owned(), value.as_str().to_owned());
            }
        }
        true
    }

    pub(super) fn is_in(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    pub(super) fn as_str(&self) -> &str {
        self.regex.as_str()
    }

    /// The names it may give.
    pub(super) fn names(&self) -> impl Iterator<Item = String> + '_ {
        self.regex.capture_names().flatten().map(str::to_owned)
    }
}

/// Text with `${name}` in it; `$${` stands for `${`.
#[derive(Debug)]
pub(super) struct Template(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Text(String),
    Capture { name: String, number: bool },
}

impl Template {
    /// Reads a template whose references must be among `known`.
    pub(super) fn parse(text: &str, known: &BTreeSet<String>) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            if let Some(before) = rest[..at].strip_suffix('$') {
                plain.push_str(before);
                plain.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            plain.push_str(&rest[..at]);
            let inner = &rest[at + 2..];
            let Some(end) = inner.find('}') else {
                return Err("`${` without `}`; hint: write `$${` for a plain `${`".into());
            };
            let (name, number) = match inner[..end].strip_suffix(":number") {
                Some(name) => (name, true),
                None => (&inner[..end], false),
            };
            if !known.contains(name) {
                return Err(format!(
                    "nothing before captures `{}`; hint: capture it with `(?<name>…)`, or write `$${{` for a plain `${{`",
                    cut(name)
                ));
            }
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
            pieces.push(Piece::Capture { name: name.to_owned(), number });
            rest = &inner[end + 1..];
        }
        plain.push_str(rest);
        pieces.push(Piece::Text(plain));
        pieces.retain(|piece| !matches!(piece, Piece::Text(text) if text.is_empty()));
        Ok(Self(pieces))
    }

    /// The text with captures in place. An optional group that took no part is empty.
    pub(super) fn fill(&self, captures: &Captures) -> String {
        let value = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Capture { name, .. } => captures.get(name).cloned().unwrap_or_default(),
        };
        self.0.iter().map(value).collect()
    }

    /// The JSON value: text, or a number where the template is exactly one `${name:number}` and the capture is one.
    fn value(&self, captures: &Captures) -> Value {
        let text = self.fill(captures);
        if let [Piece::Capture { number: true, .. }] = &*self.0
            && let Ok(number) = text.parse::<serde_json::Number>()
        {
            return Value::Number(number);
        }
        Value::String(text)
    }
}

/// A JSON value whose texts are templates.
#[derive(Debug)]
pub(super) enum Tree {
    Plain(Value),
    Text(Template),
    Array(Vec<Self>),
    Object(Vec<(String, Self)>),
}

impl Tree {
    pub(super) fn parse(value: Value, known: &BTreeSet<String>) -> Result<Self, String> {
        Ok(match value {
            Value::String(text) => Self::Text(Template::parse(&text, known)?),
            Value::Array(values) => {
                Self::Array(values.into_iter().map(|value| Self::parse(value, known)).collect::<Result<_, _>>()?)
            }
            Value::Object(map) => Self::Object(
                map.into_iter()
                    .map(|(key, value)| Self::parse(value, known).map(|tree| (key, tree)))
                    .collect::<Result<_, _>>()?,
            ),
            plain @ (Value::Null | Value::Bool(_) | Value::Number(_)) => Self::Plain(plain),
        })
    }

    pub(super) fn fill(&self, captures: &Captures) -> Value {
        match self {
            Self::Plain(value) => value.clone(),
            Self::Text(template) => template.value(captures),
            Self::Array(trees) => trees.iter().map(|tree| tree.fill(captures)).collect(),
            Self::Object(entries) => {
                Value::Object(entries.iter().map(|(key, tree)| (key.clone(), tree.fill(captures))).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn captures_are_used_where_they_are_named() {
        let mut captures = Captures::new();
        let pattern = Pattern::parse(r#"rows=(?<rows>\d+) said=(?<said>.*?);(?<none>x)?"#).unwrap();
        assert!(pattern.find("a rows=12 said=\"hi\";", &mut captures));
        let known: BTreeSet<String> = pattern.names().collect();
        for (text, expected) in [
            ("plain", json!("plain")),
            ("${rows} rows", json!("12 rows")),
            ("${rows}", json!("12")),
            ("${rows:number}", json!(12)),
            ("x${rows:number}", json!("x12")),
            ("${said:number}", json!("\"hi\"")),
            ("${none}", json!("")),
            ("$${rows} $HOME ${rows}", json!("${rows} $HOME 12")),
            ("", json!("")),
        ] {
            let tree = Tree::parse(json!([{ "key": text }]), &known).unwrap();
            assert_eq!(tree.fill(&captures), json!([{ "key": expected }]), "{text}");
        }
        for text in ["${other}", "${rows", "${}"] {
            assert!(Template::parse(text, &known).is_err(), "{text} was taken");
        }
    }
}
