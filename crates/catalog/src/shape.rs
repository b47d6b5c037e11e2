//! The shape of a declaration: which keys it has, what their values may be, and the check that holds a file to it.
//! Schemas and the reference page are made from the same shapes, so that they can't tell another story.

use crate::problem::{Problem, Rule, did_you_mean, listed, shown};
use crate::yaml::{Entry, Node, Place, Value};
use domain::template::{self, Source};
use sandbox::RelPath;

/// A map with known keys.
#[derive(Debug)]
pub(crate) struct Object {
    /// Its name in schemas and on the reference page.
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) fields: &'static [Field],
}

/// A key of an [`Object`].
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) key: &'static str,
    pub(crate) about: &'static str,
    pub(crate) shape: Shape,
    pub(crate) need: Need,
}

/// Whether a key must be there.
#[derive(Debug)]
pub(crate) enum Need {
    Required,
    /// Required unless another key, a [`Shape::Choice`], holds this choice.
    Unless {
        key: &'static str,
        choice: &'static str,
    },
    /// With what holds when it is not there, in words.
    Optional(&'static str),
}

/// What a value may be.
#[derive(Debug)]
pub(crate) enum Shape {
    /// Text of 1 to so many bytes; variables are put in when it is read.
    Text { bytes_max: usize },
    /// Text of at most so many bytes, possibly none, in which `${` means nothing.
    Verbatim { bytes_max: usize },
    /// Text that keeps its references until it is used.
    Template { secrets: Secrets },
    /// A name of ours.
    Name,
    /// A path relative to the project or the workspace.
    Path,
    /// One of these words, each with what it means.
    OneOf(&'static [(&'static str, &'static str)]),
    /// A whole number within bounds, both included.
    Integer { min: i64, max: i64 },
    /// A number with at most three decimals, bounds in thousandths.
    Milli { min: i64, max: i64 },
    /// `true` or `false`.
    Boolean,
    /// Permission bits in octal.
    Mode,
    /// Distinct values.
    List { of: &'static Shape, items_max: usize },
    /// Keys of the project's choosing.
    Map { keys: Keys, of: &'static Shape, entries_max: usize },
    /// Known keys.
    Object(&'static Object),
    /// A word, or the same and more as a map.
    Either { short: &'static Shape, long: &'static Object },
    /// A map with exactly one of these keys.
    Choice(&'static [Field]),
    /// A map whose key `type` says which of these it is.
    Tagged(&'static [Object]),
    /// A JSON Schema.
    JsonSchema,
    /// A map of any values, which stay as they are written.
    Values,
}

/// Whether `${secret.NAME}` may stand in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secrets {
    Allowed,
    /// With the reason.
    Refused(&'static str),
}

/// What the keys of a map may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    Name,
    Path,
    Header,
    Variable,
    Text,
}

/// Bytes of a text that keeps its references at most.
const TEMPLATE_BYTES_MAX: usize = 8_192;
/// Characters of a name at most.
pub(crate) const NAME_CHARACTERS_MAX: usize = 64;

/// A variable of the environment that is not set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) variable: String,
    pub(crate) at: Place,
}

/// Reads the environment. An empty value counts as none.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Holds one file to a shape and collects what is wrong and what is not set.
pub(crate) struct Check<'a> {
    pub(crate) file: &'a str,
    pub(crate) environment: Environment<'a>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) missing: Vec<Missing>,
    /// Whether a value could not be read because a variable is not set.
    unset: bool,
}

impl<'a> Check<'a> {
    pub(crate) fn new(file: &'a str, environment: Environment<'a>) -> Self {
        Self { file, environment, problems: Vec::new(), missing: Vec::new(), unset: false }
    }

    /// Whether nothing is wrong so far and every value is known, but for those that keep their references.
    pub(crate) fn is_whole(&self) -> bool {
        self.problems.is_empty() && !self.unset
    }

    /// Notes a problem.
    pub(crate) fn wrong(&mut self, rule: Rule, at: Place, message: impl Into<String>, hint: Option<String>) {
        let (file, message) = (self.file.to_owned(), message.into());
        self.problems.push(Problem { rule, file, line: at.line, column: at.column, message, hint });
    }

    /// Checks `node`, named `path` in messages, against `shape`, and puts variables into values that don't keep them.
    pub(crate) fn check(&mut self, node: &mut Node, shape: &Shape, path: &str) {
        self.put_variables_in(node, shape);
        if matches!(node.value, Value::Unset) {
            return;
        }
        match shape {
            Shape::List { of, items_max } => self.list(node, of, *items_max, path, shape),
            Shape::Map { keys, of, entries_max } => self.map(node, *keys, of, *entries_max, path, shape),
            Shape::Object(object) => self.object(node, object.fields, path, shape),
            Shape::Either { short, long } => match node.value {
                Value::Map(_) => self.object(node, long.fields, path, shape),
                Value::Text(_) => self.check(node, short, path),
                _ => self.mistyped(node, path, shape),
            },
            Shape::Choice(fields) => self.choice(node, fields, path, shape),
            Shape::Tagged(objects) => self.tagged(node, objects, path, shape),
            Shape::JsonSchema | Shape::Values => {
                if !matches!(node.value, Value::Map(_)) {
                    self.mistyped(node, path, shape);
                }
            }
            _ => self.scalar(node, shape, path),
        }
    }

    fn mistyped(&mut self, node: &Node, path: &str, shape: &Shape) {
        let hint = match (shape, &node.value) {
            (
                Shape::Text { .. } | Shape::Verbatim { .. } | Shape::Template { .. } | Shape::Name,
                Value::Boolean(_) | Value::Integer(_),
            ) => Some("quote it to make it text".to_owned()),
            (Shape::List { .. }, Value::Text(text)) => Some(format!("write [{}]", shown(text))),
            _ => None,
        };
        let message = format!("{} is {}; expected {}", named(path), told(node, shape), expected(shape));
        self.wrong(Rule::WrongType, node.at, message, hint);
    }

    fn unfit(&mut self, node: &Node, path: &str, shape: &Shape, hint: Option<String>) {
        let message = format!("{} is {}; expected {}", named(path), told(node, shape), expected(shape));
        self.wrong(Rule::BadValue, node.at, message, hint);
    }

    fn scalar(&mut self, node: &Node, shape: &Shape, path: &str) {
        match (shape, &node.value) {
            (Shape::Text { bytes_max }, Value::Text(text)) => {
                if text.trim().is_empty() || text.len() > *bytes_max {
                    self.unfit(node, path, shape, None);
                }
            }
            (Shape::Verbatim { bytes_max }, Value::Text(text)) => {
                if text.len() > *bytes_max {
                    self.unfit(node, path, shape, None);
                }
            }
            (Shape::Template { secrets }, Value::Text(text)) => self.template(node, text, *secrets, path, shape),
            (Shape::Name, Value::Text(text)) => self.name(text, node.at),
            (Shape::Path, Value::Text(text)) => {
                if let Err(sandbox::Error::Path { reason, .. }) = text.parse::<RelPath>() {
                    self.bad_path(text, reason, node.at);
                }
            }
            (Shape::OneOf(words), Value::Text(text)) => {
                let words = || words.iter().map(|(word, _)| *word);
                if !words().any(|word| word == text) {
                    self.unfit(node, path, shape, did_you_mean(text, words()));
                }
            }
            (Shape::Integer { min, max }, Value::Integer(value)) => {
                if value < min || value > max {
                    self.unfit(node, path, shape, None);
                }
            }
            (Shape::Milli { min, max }, Value::Integer(_) | Value::Number(_)) => match milli(node) {
                Some(value) if value >= *min && value <= *max => {}
                _ => self.unfit(node, path, shape, None),
            },
            (Shape::Boolean, Value::Boolean(_)) => {}
            (Shape::Mode, Value::Text(_) | Value::Integer(_)) => {
                if mode(node).is_none() {
                    self.unfit(node, path, shape, None);
                }
            }
            _ => self.mistyped(node, path, shape),
        }
    }

    fn bad_path(&mut self, text: &str, reason: &str, at: Place) {
        let why = match reason {
            "absolute" => "absolute",
            "escape_root" => "climbing with `..`",
            "empty" => "empty",
            "too_long" => "too long",
            _ => "no path",
        };
        let message = format!("the path `{}` is {why}; expected a relative path below the folder", shown(text));
        self.wrong(Rule::BadValue, at, message, None);
    }

    /// Checks a name of ours: what may stand in URLs, logs and on every wire.
    pub(crate) fn name(&mut self, text: &str, at: Place) {
        if is_name(text) {
            return;
        }
        let better: String = text.to_lowercase().chars().map(|c| if c == ' ' || c == '.' { '_' } else { c }).collect();
        let hint = is_name(&better).then(|| format!("did you mean `{better}`?"));
        let message = format!("`{}` is no name; expected {}", shown(text), expected(&Shape::Name));
        self.wrong(Rule::BadName, at, message, hint);
    }

    fn template(&mut self, node: &Node, text: &str, secrets: Secrets, path: &str, shape: &Shape) {
        if text.len() > TEMPLATE_BYTES_MAX || text.contains(['\0', '\n', '\r']) {
            return self.unfit(node, path, shape, None);
        }
        let references = match template::references(text) {
            Ok(references) => references,
            Err(error) => return self.bad_reference(node, path, &error),
        };
        for reference in references {
            match (reference.source, secrets) {
                (Source::Secret, Secrets::Refused(why)) => {
                    let message = format!("{} holds ${{secret.{}}}; {why}", named(path), reference.name);
                    self.wrong(Rule::BadValue, node.at, message, None);
                }
                (Source::Env, _) if reference.default.is_none() && self.value_of(reference.name).is_none() => {
                    self.missing.push(Missing { variable: reference.name.to_owned(), at: node.at });
                }
                _ => {}
            }
        }
    }

    fn bad_reference(&mut self, node: &Node, path: &str, error: &template::Error) {
        self.wrong(Rule::BadValue, node.at, format!("{}: {error}", named(path)), None);
    }

    fn value_of(&self, variable: &str) -> Option<String> {
        (self.environment)(variable).filter(|value| !value.is_empty())
    }

    /// Puts variables into a scalar that does not keep its references.
    fn put_variables_in(&mut self, node: &mut Node, shape: &Shape) {
        let Value::Text(text) = &node.value else { return };
        if !text.contains("${")
            || matches!(shape, Shape::Template { .. } | Shape::Verbatim { .. } | Shape::JsonSchema | Shape::Values)
        {
            return;
        }
        let found = template::expand(text, |source, name| match source {
            Source::Env => self.value_of(name),
            Source::Secret => None,
        });
        match found {
            Ok(text) if matches!(shape, Shape::Integer { .. } | Shape::Milli { .. } | Shape::Boolean | Shape::Mode) => {
                node.value = Value::plain(&text);
            }
            Ok(text) => node.value = Value::Text(text),
            Err(template::Error::Missing { source_name: Source::Env, name }) => {
                self.missing.push(Missing { variable: name, at: node.at });
                self.unset = true;
                node.value = Value::Unset;
            }
            Err(template::Error::Missing { source_name: Source::Secret, name }) => {
                let message = format!("${{secret.{name}}} has no place here; expected {}", expected(shape));
                self.wrong(Rule::BadValue, node.at, message, None);
                node.value = Value::Unset;
            }
            Err(error @ (template::Error::Open { .. } | template::Error::Form { .. })) => {
                self.bad_reference(node, "", &error);
                node.value = Value::Unset;
            }
        }
    }

    fn list(&mut self, node: &mut Node, of: &Shape, items_max: usize, path: &str, shape: &Shape) {
        let Value::List(items) = &mut node.value else { return self.mistyped(node, path, shape) };
        if items.len() > items_max {
            let message = format!("{} has {} values; expected at most {items_max}", named(path), items.len());
            self.wrong(Rule::BadValue, node.at, message, None);
            return;
        }
        let mut seen = std::collections::HashSet::new();
        for (index, item) in items.iter_mut().enumerate() {
            self.check(item, of, &format!("{path}[{index}]"));
            if let Some(text) = item.text()
                && !matches!(of, Shape::Template { .. })
                && !seen.insert(text.to_owned())
            {
                self.wrong(Rule::Duplicate, item.at, format!("{} names `{}` twice", named(path), shown(text)), None);
            }
        }
    }

    fn map(&mut self, node: &mut Node, keys: Keys, of: &Shape, entries_max: usize, path: &str, shape: &Shape) {
        let Value::Map(entries) = &mut node.value else { return self.mistyped(node, path, shape) };
        if entries.len() > entries_max {
            let message = format!("{} has {} entries; expected at most {entries_max}", named(path), entries.len());
            self.wrong(Rule::BadValue, node.at, message, None);
            return;
        }
        for Entry { at, key, node } in entries {
            self.key(keys, key, *at);
            self.check(node, of, &below(path, key));
        }
    }

    fn key(&mut self, keys: Keys, key: &str, at: Place) {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let ok = match keys {
            Keys::Name => return self.name(key, at),
            Keys::Path => {
                if let Err(sandbox::Error::Path { reason, .. }) = key.parse::<RelPath>() {
                    self.bad_path(key, reason, at);
                }
                return;
            }
            Keys::Header => !key.is_empty() && key.len() <= 256 && key.bytes().all(is_token),
            Keys::Variable => {
                !key.is_empty()
                    && key.len() <= 256
                    && !key.starts_with(|first: char| first.is_ascii_digit())
                    && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            }
            Keys::Text => !key.trim().is_empty() && key.len() <= 256 && !key.contains(char::is_control),
        };
        if !ok {
            self.wrong(Rule::BadName, at, format!("`{}` is no name; expected {}", shown(key), keys.expected()), None);
        }
    }

    fn object(&mut self, node: &mut Node, fields: &[Field], path: &str, shape: &Shape) {
        let at = node.at;
        let Value::Map(entries) = &mut node.value else { return self.mistyped(node, path, shape) };
        for field in fields.iter().filter(|field| field.need.holds(entries)) {
            if !entries.iter().any(|entry| entry.key == field.key) {
                let key = below(path, field.key);
                let message = format!("`{key}` is missing; expected {}", expected(&field.shape));
                self.wrong(Rule::MissingKey, at, message, None);
            }
        }
        for entry in entries {
            match fields.iter().find(|field| field.key == entry.key) {
                Some(field) => self.check(&mut entry.node, &field.shape, &below(path, field.key)),
                None => self.unknown(entry, fields.iter().map(|field| field.key).collect()),
            }
        }
    }

    fn unknown(&mut self, entry: &Entry, known: Vec<&str>) {
        let expected = match known.len() {
            0 => "no keys here".to_owned(),
            1 => listed(known.iter().copied()),
            _ => format!("one of {}", listed(known.iter().copied())),
        };
        let message = format!("unknown key `{}`; expected {expected}", shown(&entry.key));
        self.wrong(Rule::UnknownKey, entry.at, message, did_you_mean(&entry.key, known));
    }

    fn choice(&mut self, node: &mut Node, fields: &[Field], path: &str, shape: &Shape) {
        let Value::Map(entries) = &mut node.value else { return self.mistyped(node, path, shape) };
        let known = || fields.iter().map(|field| field.key);
        match entries.as_mut_slice() {
            [entry] => match fields.iter().find(|field| field.key == entry.key) {
                Some(field) => self.check(&mut entry.node, &field.shape, &below(path, field.key)),
                None => self.unknown(entry, known().collect()),
            },
            entries => {
                let message =
                    format!("{} has {} keys; expected one of {}", named(path), entries.len(), listed(known()));
                self.wrong(Rule::BadValue, node.at, message, None);
            }
        }
    }

    fn tagged(&mut self, node: &mut Node, objects: &[Object], path: &str, shape: &Shape) {
        let Value::Map(entries) = &mut node.value else { return self.mistyped(node, path, shape) };
        let names = || objects.iter().map(|object| object.name);
        let Some(index) = entries.iter().position(|entry| entry.key == "type") else {
            let message = format!("`{}` is missing; expected one of {}", below(path, "type"), listed(names()));
            return self.wrong(Rule::MissingKey, node.at, message, None);
        };
        let tag = entries.remove(index);
        let found = objects.iter().find(|object| Some(object.name) == tag.node.text());
        if let Some(object) = found {
            self.object(node, object.fields, path, shape);
        } else {
            let path = below(path, "type");
            let message = format!("`{path}` is {}; expected one of {}", tag.node.kind(), listed(names()));
            let hint = tag.node.text().and_then(|text| did_you_mean(text, names()));
            self.wrong(Rule::BadValue, tag.node.at, message, hint);
        }
        if let Value::Map(entries) = &mut node.value {
            entries.insert(index, tag);
        }
    }
}

impl Need {
    /// Whether the key must be there, beside these.
    fn holds(&self, entries: &[Entry]) -> bool {
        match self {
            Self::Required => true,
            Self::Optional(_) => false,
            Self::Unless { key, choice } => {
                !entries.iter().any(|entry| entry.key == *key && entry.node.get(choice).is_some())
            }
        }
    }
}

/// Whether a text is a name of ours.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=NAME_CHARACTERS_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-')
}

fn below(path: &str, key: &str) -> String {
    let key = shown(key);
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

fn named(path: &str) -> String {
    if path.is_empty() { "the file".to_owned() } else { format!("`{path}`") }
}

impl Keys {
    pub(crate) const fn expected(self) -> &'static str {
        match self {
            Self::Name => "1 to 64 of a-z, 0-9, _ and -",
            Self::Path => "a relative path",
            Self::Header => "the name of a header",
            Self::Variable => "letters, digits and _, not beginning with a digit",
            Self::Text => "1 to 256 bytes of text",
        }
    }
}

/// A value in the words of a message. What may be a secret is not repeated.
fn told(node: &Node, shape: &Shape) -> String {
    let open = !matches!(shape, Shape::Template { secrets: Secrets::Allowed });
    match &node.value {
        Value::Text(_) if !open => "text of several lines, or too long".to_owned(),
        Value::Integer(_) | Value::Number(_) if !open => "a number".to_owned(),
        _ => node.kind(),
    }
}

/// What a value of a shape is, in words.
pub(crate) fn expected(shape: &Shape) -> String {
    match shape {
        Shape::Text { bytes_max } => format!("text of 1 to {bytes_max} bytes"),
        Shape::Verbatim { bytes_max } => format!("text of at most {bytes_max} bytes"),
        Shape::Template { .. } => format!("one line of text, at most {TEMPLATE_BYTES_MAX} bytes"),
        Shape::Name => format!("a name: {}", Keys::Name.expected()),
        Shape::Path => "a relative path".into(),
        Shape::OneOf([(word, _)]) => format!("`{word}`"),
        Shape::OneOf(words) => format!("one of {}", listed(words.iter().map(|(word, _)| *word))),
        Shape::Integer { min, max } => format!("a whole number from {min} to {max}"),
        Shape::Milli { min, max } => {
            format!("a number from {} to {} with at most three decimals", decimal(*min), decimal(*max))
        }
        Shape::Boolean => "true or false".into(),
        Shape::Mode => "permission bits in octal, such as 0644".into(),
        Shape::List { of, .. } => format!("a list, each value {}", expected(of)),
        Shape::Map { keys, .. } => format!("a map, each key {}", keys.expected()),
        Shape::Object(object) => format!("a map with {}", keys_of(object.fields)),
        Shape::Either { short, long } => format!("{}, or a map with {}", expected(short), keys_of(long.fields)),
        Shape::Choice(fields) => format!("a map with one of {}", listed(fields.iter().map(|field| field.key))),
        Shape::Tagged(objects) => {
            format!("a map whose `type` is one of {}", listed(objects.iter().map(|object| object.name)))
        }
        Shape::JsonSchema => "a JSON Schema".into(),
        Shape::Values => "a map".into(),
    }
}

fn keys_of(fields: &[Field]) -> String {
    if fields.is_empty() { "no keys".to_owned() } else { listed(fields.iter().map(|field| field.key)) }
}

fn decimal(milli: i64) -> String {
    if milli % 1_000 == 0 { (milli / 1_000).to_string() } else { format!("{}.{:03}", milli / 1_000, milli % 1_000) }
}

/// A number in thousandths; `None` when it has more than three decimals, an exponent, or does not fit.
pub(crate) fn milli(node: &Node) -> Option<i64> {
    match &node.value {
        Value::Integer(value) => value.checked_mul(1_000),
        Value::Number(text) => {
            let (whole, fraction) = text.split_once('.')?;
            if fraction.is_empty() || fraction.len() > 3 || whole.starts_with('-') {
                return None;
            }
            let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
            let fraction: i64 = format!("{fraction:0<3}").parse().ok()?;
            whole.checked_mul(1_000)?.checked_add(fraction)
        }
        _ => None,
    }
}

/// Permission bits, as `0644`, `0o644` or `644`; no set-user-id and its like.
pub(crate) fn mode(node: &Node) -> Option<u32> {
    let digits = match &node.value {
        Value::Integer(value) => value.to_string(),
        Value::Text(text) => text.strip_prefix("0o").unwrap_or(text).to_owned(),
        _ => return None,
    };
    let octal = digits.bytes().all(|byte| byte.is_ascii_digit());
    u32::from_str_radix(&digits, 8).ok().filter(|mode| octal && digits.len() >= 3 && *mode <= 0o777)
}
