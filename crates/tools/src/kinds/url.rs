//! URL templates: `{name}` is an argument, percent-encoded where it stands; `${…}` is configuration. An argument is
//! never expanded, never changes the path's shape, and makes the host untrusted when it stands in it.

use crate::output::brief;
use domain::template;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// Everything but the unreserved characters of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A parsed template.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    /// Scheme, host and path.
    front: Vec<Piece>,
    /// The parts of the query.
    pairs: Vec<Vec<Piece>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// May hold `${…}`.
    Text(String),
    Argument(String),
}

/// A URL ready to parse.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Built {
    pub(crate) url: String,
    /// Whether nothing of the host came from an argument.
    pub(crate) operator: bool,
}

/// Why no URL came of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Configuration(template::Error),
    Argument { name: String, expected: &'static str },
}

impl Template {
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        if !["http://", "https://", "${"].iter().any(|start| text.starts_with(start)) {
            return Err("expected http://…, https://… or ${env.…}…".into());
        }
        template::references(text).map_err(|error| error.to_string())?;
        let pieces = pieces(text)?;
        let (mut front, mut pairs, mut in_query) = (Vec::new(), Vec::<Vec<Piece>>::new(), false);
        for piece in pieces {
            let text = match piece {
                Piece::Argument(_) => {
                    pairs.last_mut().filter(|_| in_query).unwrap_or(&mut front).push(piece);
                    continue;
                }
                Piece::Text(text) => text,
            };
            let query = if in_query {
                text
            } else if let Some((before, after)) = split_outside(&text, '?') {
                front.push(Piece::Text(before));
                in_query = true;
                pairs.push(vec![]);
                after
            } else {
                front.push(Piece::Text(text));
                continue;
            };
            let mut rest = query;
            while let Some((before, after)) = split_outside(&rest, '&') {
                pairs.last_mut().unwrap_or(&mut front).push(Piece::Text(before));
                pairs.push(vec![]);
                rest = after;
            }
            pairs.last_mut().unwrap_or(&mut front).push(Piece::Text(rest));
        }
        Ok(Self { front, pairs })
    }

    /// The arguments it names.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = &str> {
        self.front.iter().chain(self.pairs.iter().flatten()).filter_map(|piece| match piece {
            Piece::Argument(name) => Some(name.as_str()),
            Piece::Text(_) => None,
        })
    }

    /// The URL with its values.
    pub(crate) fn build(
        &self,
        arguments: &Map<String, Value>,
        expand: &mut dyn FnMut(&str) -> Result<String, template::Error>,
    ) -> Result<Built, Refusal> {
        let (mut url, mut operator) = (String::new(), true);
        for piece in &self.front {
            match piece {
                Piece::Text(text) => url += &expand(text).map_err(Refusal::Configuration)?,
                Piece::Argument(name) => {
                    let wrong = |expected| Refusal::Argument { name: name.clone(), expected };
                    let value = given(arguments, name).ok_or_else(|| wrong("required here, but missing"))?;
                    if is_host_done(&url) {
                        url += &segment(&value)
                            .ok_or_else(|| wrong("expected neither nothing nor only dots: it is part of a path"))?;
                    } else {
                        operator = false;
                        url += host(&value).ok_or_else(|| wrong("expected a host name or an address"))?;
                    }
                }
            }
        }
        let mut sign = if url.contains('?') { '&' } else { '?' };
        for pair in &self.pairs {
            let missing = |piece: &Piece| matches!(piece, Piece::Argument(name) if given(arguments, name).is_none());
            // What was not given is not asked for.
            if pair.iter().any(missing) {
                continue;
            }
            url.push(std::mem::replace(&mut sign, '&'));
            for piece in pair {
                match piece {
                    Piece::Text(text) => url += &expand(text).map_err(Refusal::Configuration)?,
                    Piece::Argument(name) => {
                        let value = given(arguments, name).unwrap_or_default();
                        url.extend(utf8_percent_encode(&value, ENCODED));
                    }
                }
            }
        }
        Ok(Built { url, operator })
    }
}

/// Cuts `{name}` out of the text; `${…}` stays in it.
fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let (mut pieces, mut plain, mut rest) = (Vec::new(), String::new(), text);
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        let end = from.find('}').ok_or_else(|| "`{` without `}`".to_owned())?;
        if from.starts_with('}') {
            return Err("`}` without `{`".into());
        }
        if before.ends_with('$') {
            plain += &rest[..at + end + 1];
        } else {
            let name = &from[1..end];
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
            {
                return Err(format!("`{{{}}}` names no argument", brief(name, 64)));
            }
            plain += before;
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
            pieces.push(Piece::Argument(name.to_owned()));
        }
        rest = &from[end + 1..];
    }
    plain += rest;
    pieces.push(Piece::Text(plain));
    pieces.retain(|piece| *piece != Piece::Text(String::new()));
    Ok(pieces)
}

/// Splits at the first `sign` that is not within `${…}`.
fn split_outside(text: &str, sign: char) -> Option<(String, String)> {
    let mut inside = false;
    for (at, found) in text.char_indices() {
        match found {
            '$' if text[at..].starts_with("${") => inside = true,
            '}' => inside = false,
            found if found == sign && !inside => return Some((text[..at].to_owned(), text[at + 1..].to_owned())),
            _ => {}
        }
    }
    None
}

/// Whether the host is behind what is written so far.
fn is_host_done(url: &str) -> bool {
    url.split_once("://").is_some_and(|(_, rest)| rest.contains(['/', '?', '#', '\\']))
}

fn given<'a>(arguments: &'a Map<String, Value>, name: &str) -> Option<Cow<'a, str>> {
    match arguments.get(name)? {
        Value::Null => None,
        Value::String(text) => Some(Cow::Borrowed(text)),
        other => Some(Cow::Owned(other.to_string())),
    }
}

/// A value within a path. A segment of dots would climb, an empty one would name the collection.
fn segment(value: &str) -> Option<String> {
    let climbs = value.bytes().all(|byte| byte == b'.');
    (!climbs).then(|| utf8_percent_encode(value, ENCODED).to_string())
}

fn host(value: &str) -> Option<&str> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
    (!value.is_empty() && value.bytes().all(fits)).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(template: &str, arguments: &str, expected: &str) {
        let got = Template::new(template).and_then(|template| {
            let mut expand = |text: &str| {
                template::expand(text, |_, name| match name {
                    "BASE" => Some("https://api.test/v1".into()),
                    "HOST" => Some("https://api.test".into()),
                    "KEY" => Some("s&=".into()),
                    _ => None,
                })
            };
            template
                .build(&serde_json::from_str(arguments).unwrap(), &mut expand)
                .map_err(|refusal| format!("{refusal:?}"))
        });
        let got = match got {
            Ok(Built { url, operator: true }) => url,
            Ok(Built { url, operator: false }) => format!("untrusted {url}"),
            Err(error) => format!("! {error}"),
        };
        assert!(got.starts_with(expected), "{template} with {arguments}\n got {got}\nwant {expected}");
        assert!(
            expected.starts_with('!') || got == expected,
            "{template} with {arguments}\n got {got}\nwant {expected}"
        );
    }

    #[test]
    fn arguments_stay_what_they_are() {
        check("https://a.test/u/{id}", r#"{"id":"x y/../z?q#f"}"#, "https://a.test/u/x%20y%2F..%2Fz%3Fq%23f");
        check("https://a.test/u/{id}", r#"{"id":7}"#, "https://a.test/u/7");
        check("https://a.test/u/{id}", r#"{"id":".."}"#, "! Argument");
        check("https://a.test/u/{id}", r#"{"id":""}"#, "! Argument");
        check("https://a.test/u/{id}", "{}", "! Argument");
        check("https://a.test/u/{id}", r#"{"id":"${secret.KEY}"}"#, "https://a.test/u/%24%7Bsecret.KEY%7D");
        check("https://a.test/?q={q}&n={n}", r#"{"q":"a&b=c"}"#, "https://a.test/?q=a%26b%3Dc");
        check("https://a.test/?n={n}&q={q}", r#"{"q":"x","n":null}"#, "https://a.test/?q=x");
        check("https://a.test/s?fixed=1&q={q}", "{}", "https://a.test/s?fixed=1");
        check("${env.BASE}/u/{id}?k=${secret.KEY}", r#"{"id":"x"}"#, "https://api.test/v1/u/x?k=s&=");
        check("${env.BASE:-http://x.test/?a&b}/u", "{}", "https://api.test/v1/u");
    }

    #[test]
    fn an_argument_in_the_host_makes_it_untrusted() {
        check("https://{host}/x", r#"{"host":"evil.test:8080"}"#, "untrusted https://evil.test:8080/x");
        check("https://{host}/x", r#"{"host":"evil.test/y"}"#, "! Argument");
        check("https://{host}/x", r#"{"host":"user@evil.test"}"#, "! Argument");
        check("https://a.{zone}.test/x", r#"{"zone":"eu"}"#, "untrusted https://a.eu.test/x");
        check("${env.HOST}{path}", r#"{"path":".evil.test"}"#, "untrusted https://api.test.evil.test");
        check("${env.HOST}/{path}", r#"{"path":".evil.test"}"#, "https://api.test/.evil.test");
    }

    #[test]
    fn templates_that_are_none_are_refused() {
        check("{url}", "{}", "! expected http");
        check("ftp://a.test", "{}", "! expected http");
        check("https://a.test/{id", "{}", "! `{` without `}`");
        check("https://a.test/}", "{}", "! `}` without `{`");
        check("https://a.test/{a b}", "{}", "! `{a b}` names no argument");
        check("https://a.test/${home}", "{}", "! `${home}` is no reference");
        check("https://a.test/${env.NONE}", "{}", "! Configuration");
    }
}
