//! YAML as declarations use it: maps, lists, scalars, each with its place. Aliases, anchors, tags, keys that are no
//! text, second documents and duplicate keys are refused here; what a value means is `shape`'s.

use crate::problem::{Problem, Rule, shown};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};

/// Values of one file at most.
const NODES_MAX: usize = 50_000;
/// Maps and lists inside each other at most.
const DEPTH_MAX: usize = 32;

/// A place in a file, both from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Place {
    /// The first character of a file.
    pub(crate) const START: Self = Self { line: 1, column: 1 };

    /// The parser counts lines from 1 and columns from 0.
    fn of(mark: &Marker) -> Self {
        Self { line: mark.line().max(1), column: mark.col() + 1 }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: Place,
    pub(crate) value: Value,
}

/// A value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Boolean(bool),
    Integer(i64),
    /// A number with a fraction or an exponent, or beyond 64 bits; as it is written.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Stood for a variable that is not set, so that nothing can be said about it.
    Unset,
}

/// A key with its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) at: Place,
    pub(crate) key: String,
    pub(crate) node: Node,
}

impl Value {
    /// An unquoted scalar by the core schema of YAML 1.2, without octal and hexadecimal numbers: they are text here, so that nobody's
    /// `0644` becomes 644.
    pub(crate) fn plain(text: &str) -> Self {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return Self::Null,
            "true" | "True" | "TRUE" => return Self::Boolean(true),
            "false" | "False" | "FALSE" => return Self::Boolean(false),
            _ => {}
        }
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if whole && (digits.len() == 1 || !digits.starts_with('0')) {
            return text.parse().map_or_else(|_| Self::Number(text.to_owned()), Self::Integer);
        }
        let numeric = digits.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte))
            && digits.starts_with(|first: char| first.is_ascii_digit() || first == '.');
        if !whole && numeric && text.parse::<f64>().is_ok_and(f64::is_finite) {
            return Self::Number(text.to_owned());
        }
        Self::Text(text.to_owned())
    }
}

impl Node {
    /// What it is, in the words of a message.
    pub(crate) fn kind(&self) -> String {
        match &self.value {
            Value::Null | Value::Unset => "nothing".into(),
            Value::Boolean(value) => format!("the boolean {value}"),
            Value::Integer(value) => format!("the number {value}"),
            Value::Number(value) => format!("the number {}", shown(value)),
            Value::Text(text) => format!("the text `{}`", shown(text)),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a map".into(),
        }
    }

    /// The value of a key, when this is a map that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// The entries of a map; none for anything else.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The values of a list; none for anything else.
    pub(crate) fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn integer(&self) -> Option<i64> {
        match &self.value {
            Value::Integer(value) => Some(*value),
            _ => None,
        }
    }

    /// As JSON, keys in the order in which they are written.
    pub(crate) fn json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null | Value::Unset => Json::Null,
            Value::Boolean(value) => Json::Bool(*value),
            Value::Integer(value) => Json::from(*value),
            Value::Number(text) => text.parse::<f64>().map_or(Json::Null, Json::from),
            Value::Text(text) => Json::String(text.clone()),
            Value::List(items) => Json::Array(items.iter().map(Self::json).collect()),
            Value::Map(entries) => {
                Json::Object(entries.iter().map(|entry| (entry.key.clone(), entry.node.json())).collect())
            }
        }
    }

    /// What stands at a JSON pointer below this, or the deepest value on the way there.
    pub(crate) fn at_pointer(&self, pointer: &str) -> &Self {
        let mut node = self;
        for step in pointer.split('/').skip(1) {
            let step = step.replace("~1", "/").replace("~0", "~");
            let below = match &node.value {
                Value::List(items) => step.parse::<usize>().ok().and_then(|index| items.get(index)),
                _ => node.get(&step),
            };
            let Some(below) = below else { return node };
            node = below;
        }
        node
    }
}

/// Reads the one document of `text`. Duplicate keys are told and the first one kept; anything else ends the reading.
pub(crate) fn parse(file: &str, text: &str) -> Result<(Node, Vec<Problem>), Problem> {
    let mut reader = Reader { file, events: Parser::new_from_str(text), nodes: 0, problems: Vec::new(), ahead: None };
    let node = reader.document()?;
    Ok((node, reader.problems))
}

struct Reader<'a> {
    file: &'a str,
    events: Parser<'a, saphyr_parser::StrInput<'a>>,
    nodes: usize,
    problems: Vec<Problem>,
    ahead: Option<(Event<'a>, Span)>,
}

impl<'a> Reader<'a> {
    fn wrong(&self, at: Place, message: impl Into<String>, hint: Option<&str>) -> Problem {
        let (file, message, hint) = (self.file.to_owned(), message.into(), hint.map(str::to_owned));
        Problem { rule: Rule::Syntax, file, line: at.line, column: at.column, message, hint }
    }

    fn scan(&self, error: &ScanError) -> Problem {
        let info = error.info();
        let hint = if info.contains("tab") { Some("indent with spaces") } else { None };
        self.wrong(Place::of(error.marker()), format!("not YAML: {}", shown(info)), hint)
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Problem> {
        if let Some(ahead) = self.ahead.take() {
            return Ok(ahead);
        }
        match self.events.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(self.scan(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn document(&mut self) -> Result<Node, Problem> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            let at = Place::of(&span.start);
            match event {
                Event::Nothing | Event::StreamStart | Event::DocumentEnd => {}
                Event::StreamEnd => {
                    return Ok(root.unwrap_or(Node { at: Place::START, value: Value::Null }));
                }
                Event::DocumentStart(_) if root.is_none() => {}
                Event::DocumentStart(_) => {
                    return Err(self.wrong(at, "a second document; expected one for each file", None));
                }
                event => {
                    self.ahead = Some((event, span));
                    root = Some(self.node(0)?);
                }
            }
        }
    }

    fn node(&mut self, depth: usize) -> Result<Node, Problem> {
        let (event, span) = self.next()?;
        let at = Place::of(&span.start);
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(self.wrong(at, format!("more than {NODES_MAX} values in one file"), None));
        }
        if depth > DEPTH_MAX {
            return Err(self.wrong(at, format!("maps and lists stand more than {DEPTH_MAX} deep in each other"), None));
        }
        let (anchor, tag) = match &event {
            Event::Scalar(_, _, anchor, tag) | Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => {
                (*anchor, tag.is_some())
            }
            _ => (0, false),
        };
        if anchor != 0 || matches!(event, Event::Alias(_)) {
            let message = "an anchor or alias (`&`, `*`); expected every value to be written out";
            return Err(self.wrong(at, message, Some("quote a text that begins with & or *")));
        }
        if tag {
            let message = "a tag (`!`); expected a plain value";
            return Err(self.wrong(at, message, Some("quote a text that begins with !")));
        }
        let value = match event {
            Event::Scalar(text, ScalarStyle::Plain, ..) => Value::plain(&text),
            Event::Scalar(text, ..) => Value::Text(text.into_owned()),
            Event::SequenceStart(..) => Value::List(self.list(depth)?),
            Event::MappingStart(..) => Value::Map(self.map(depth)?),
            _ => return Err(self.wrong(at, "not YAML: expected a value", None)),
        };
        Ok(Node { at, value })
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Problem> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                event => {
                    self.ahead = Some(event);
                    items.push(self.node(depth + 1)?);
                }
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<Entry>, Problem> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut places = std::collections::HashMap::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(entries);
            }
            let at = Place::of(&span.start);
            let key = match event {
                Event::Scalar(text, _, 0, None) => text.into_owned(),
                _ => return Err(self.wrong(at, "a key that is no text; expected `key: value`", None)),
            };
            let node = self.node(depth + 1)?;
            if let Some(first) = places.get(&key) {
                let Place { line, column } = *first;
                let message = format!("duplicate key `{}`; it stands at {line}:{column} already", shown(&key));
                self.problems.push(Problem { rule: Rule::Duplicate, ..self.wrong(at, message, None) });
                continue;
            }
            places.insert(key.clone(), at);
            entries.push(Entry { at, key, node });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let got = match parse("a.yaml", text) {
            Ok((node, problems)) if problems.is_empty() => node.json().to_string(),
            Ok((node, problems)) => format!("{} {}", node.json(), problems[0]),
            Err(problem) => problem.to_string(),
        };
        assert_eq!(got, expected, "{}", shown(text));
    }

    #[test]
    fn values_are_what_the_core_schema_says() {
        check("", "null");
        check("# nothing\n", "null");
        check("a: 1\nb: -2\nc: 1.5\nd: true\ne: ~\nf:\n", r#"{"a":1,"b":-2,"c":1.5,"d":true,"e":null,"f":null}"#);
        check("a: no\nb: on\nc: 0644\nd: 0x10\ne: '1'\n", r#"{"a":"no","b":"on","c":"0644","d":"0x10","e":"1"}"#);
        check("a: 1.2.3\nb: 2024-01-01\nc: 1e3\nd: .5", r#"{"a":"1.2.3","b":"2024-01-01","c":1000.0,"d":0.5}"#);
        check("a: {b: [1, two]}\n", r#"{"a":{"b":[1,"two"]}}"#);
        check("a: |\n  x\n  y\n", r#"{"a":"x\ny\n"}"#);
    }

    #[test]
    fn hazards_are_refused_where_they_stand() {
        check("a: 1\nb: 2\na: 3\n", r#"{"a":1,"b":2} a.yaml:3:1: duplicate key `a`; it stands at 1:1 already"#);
        let anchor = "an anchor or alias (`&`, `*`); expected every value to be written out; hint: quote a text that begins with & or *";
        check("a: &x 1\nb: *x\n", &format!("a.yaml:1:7: {anchor}"));
        check("b:\n  - &x {a: 1}\n", &format!("a.yaml:2:8: {anchor}"));
        check(
            "a: !!binary x\n",
            "a.yaml:1:13: a tag (`!`); expected a plain value; hint: quote a text that begins with !",
        );
        check("a: 1\n---\nb: 2\n", "a.yaml:2:1: a second document; expected one for each file");
        check("? [a]\n: 1\n", "a.yaml:1:3: a key that is no text; expected `key: value`");
        check(
            &format!("{}{}", "[".repeat(40), "]".repeat(40)),
            "a.yaml:1:34: maps and lists stand more than 32 deep in each other",
        );
        check(&format!("[{}1]", "1,".repeat(NODES_MAX)), "a.yaml:1:100000: more than 50000 values in one file");
    }

    #[test]
    fn a_pointer_finds_the_value_or_the_nearest_above() {
        let (node, _) = parse("a.yaml", "a:\n  b: [1, {c~/d: 2}]\n").unwrap();
        assert_eq!(node.at_pointer("/a/b/1/c~0~1d").at, Place { line: 2, column: 17 });
        assert_eq!(node.at_pointer("/a/b/7").at, Place { line: 2, column: 6 });
        assert_eq!(node.at_pointer("").at, Place { line: 1, column: 1 });
    }

    #[test]
    fn no_text_makes_the_reader_panic() {
        let seed = "a: {b: [1, 'x', \"y\\n\"], c: |\n  t\n}\n- ? !k &a *b : > % @ ` --- ...\n\t#";
        let letters: Vec<char> = seed.chars().collect();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut draw = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap_or(0) % below
        };
        for _ in 0..5_000 {
            let length = draw(60);
            let text: String = (0..length).map(|_| letters[draw(letters.len())]).collect();
            let _ = parse("a.yaml", &text);
        }
    }
}
