//! `${env.NAME}`, `${env.NAME:-default}` and `${secret.NAME}` in configuration values. Parsing and expansion are pure; where
//! the values come from is the caller's.

use std::fmt;

/// Where a reference points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// The environment of the process.
    Env,
    /// The vault.
    Secret,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Env => "env",
            Self::Secret => "secret",
        })
    }
}

/// One `${…}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference<'a> {
    /// Where it points.
    pub source: Source,
    /// The name there.
    pub name: &'a str,
    /// What stands in when there is none.
    pub default: Option<&'a str>,
}

/// Why a value can't be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `${` without `}`.
    #[error("`${{` without `}}` at byte {at}")]
    Open {
        /// Byte offset of the `$`.
        at: usize,
    },
    /// Neither `env.` nor `secret.`, or a name of other characters than letters, digits and `_`.
    #[error("`${{{text}}}` is no reference; expected ${{env.NAME}}, ${{env.NAME:-default}} or ${{secret.NAME}}")]
    Form {
        /// What stands between the braces.
        text: String,
    },
    /// The value is not set and has no default.
    #[error("{source_name}.{name} is not set")]
    Missing {
        /// Where it was looked for.
        source_name: Source,
        /// Its name.
        name: String,
    },
}

/// The references in `text`, in order.
pub fn references(text: &str) -> Result<Vec<Reference<'_>>, Error> {
    let mut found = Vec::new();
    walk(text, |piece| {
        if let Piece::Reference(reference) = piece {
            found.push(reference);
        }
        Ok(())
    })?;
    Ok(found)
}

/// `text` with every reference replaced by what `lookup` gives, else its default, else [`Error::Missing`].
pub fn expand(text: &str, mut lookup: impl FnMut(Source, &str) -> Option<String>) -> Result<String, Error> {
    let mut out = String::with_capacity(text.len());
    walk(text, |piece| {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Reference(reference) => match (lookup(reference.source, reference.name), reference.default) {
                (Some(value), _) => out.push_str(&value),
                (None, Some(default)) => out.push_str(default),
                (None, None) => {
                    return Err(Error::Missing { source_name: reference.source, name: reference.name.to_owned() });
                }
            },
        }
        Ok(())
    })?;
    Ok(out)
}

enum Piece<'a> {
    Text(&'a str),
    Reference(Reference<'a>),
}

fn walk<'a>(text: &'a str, mut visit: impl FnMut(Piece<'a>) -> Result<(), Error>) -> Result<(), Error> {
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        visit(Piece::Text(&rest[..start]))?;
        let inner = &rest[start + 2..];
        let Some(end) = inner.find('}') else {
            return Err(Error::Open { at: text.len() - rest.len() + start });
        };
        visit(Piece::Reference(parse(&inner[..end])?))?;
        rest = &inner[end + 1..];
    }
    visit(Piece::Text(rest))
}

fn parse(text: &str) -> Result<Reference<'_>, Error> {
    let form = || Error::Form { text: text.to_owned() };
    let (source, rest) = match text.split_once('.') {
        Some(("env", rest)) => (Source::Env, rest),
        Some(("secret", rest)) => (Source::Secret, rest),
        _ => return Err(form()),
    };
    let (name, default) = match rest.split_once(":-") {
        Some((name, default)) if source == Source::Env => (name, Some(default)),
        Some(_) => return Err(form()),
        None => (rest, None),
    };
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(form());
    }
    Ok(Reference { source, name, default })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let got = expand(text, |source, name| match (source, name) {
            (Source::Env, "HOST") => Some("h".into()),
            (Source::Secret, "KEY") => Some("s3".into()),
            _ => None,
        });
        assert_eq!(got.unwrap_or_else(|error| format!("error: {error}")), expected, "{text}");
    }

    #[test]
    fn references_are_replaced_or_named() {
        check("plain $ text", "plain $ text");
        check("http://${env.HOST}/${secret.KEY}", "http://h/s3");
        check("${env.NONE:-fall back}", "fall back");
        check("${env.NONE:-}", "");
        check("${env.NONE}", "error: env.NONE is not set");
        check("a ${env.HOST", "error: `${` without `}` at byte 2");
        check(
            "${home}",
            "error: `${home}` is no reference; expected ${env.NAME}, ${env.NAME:-default} or ${secret.NAME}",
        );
        check(
            "${secret.KEY:-x}",
            "error: `${secret.KEY:-x}` is no reference; expected ${env.NAME}, ${env.NAME:-default} or ${secret.NAME}",
        );
    }
}
