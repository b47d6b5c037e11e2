//! What must hold before a call: tests of its arguments, and calls of other tools that tell. Which of those calls are made, and
//! when, is `engine`'s.

use crate::output::brief;
use crate::reason::Reason;
use crate::schema::{self, Rejection};
use crate::{Outcome, toolbox::Error};
use domain::contract::{Piece, Precondition, pieces};
use domain::{CallStatus, Part};
use jsonschema::Validator;
use serde_json::{Map, Value};
use std::sync::Arc;

/// A call that the harness has to make for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// The declared tool.
    pub tool: String,
    /// Its arguments, as JSON text.
    pub arguments: String,
}

/// What a call that tells of a precondition must give.
#[derive(Clone, Debug)]
pub struct Expected {
    validator: Arc<Validator>,
    message: Arc<str>,
}

/// The preconditions of one tool, compiled.
#[derive(Debug, Default)]
pub(crate) struct Preconditions {
    arguments: Vec<Expected>,
    looks: Vec<Look>,
}

/// A precondition that another tool tells of.
#[derive(Debug)]
struct Look {
    tool: String,
    arguments: Map<String, Value>,
    expected: Expected,
}

impl Preconditions {
    pub(crate) fn new(tool: &str, declared: &[Precondition]) -> Result<Self, Error> {
        let mut compiled = Self::default();
        for (index, precondition) in declared.iter().enumerate() {
            let wrong = |detail: String| {
                let detail = format!("the precondition number {}: {detail}", index + 1);
                Error::Contract { tool: tool.to_owned(), key: "preconditions", detail }
            };
            match precondition {
                Precondition::Arguments { schema, message } => {
                    compiled.arguments.push(Expected::new(schema, message).map_err(wrong)?);
                }
                Precondition::Tool { tool, arguments, expect, message } => {
                    let arguments = serde_json::from_str(arguments).map_err(|error| wrong(error.to_string()))?;
                    let expected = Expected::new(expect, message).map_err(wrong)?;
                    compiled.looks.push(Look { tool: tool.clone(), arguments, expected });
                }
            }
        }
        Ok(compiled)
    }

    /// The tools that tell.
    pub(crate) fn tools(&self) -> impl Iterator<Item = &str> {
        self.looks.iter().map(|look| look.tool.as_str())
    }

    /// Tests the arguments themselves.
    pub(crate) fn test(&self, arguments: &Map<String, Value>) -> Result<(), Rejection> {
        if self.arguments.is_empty() {
            return Ok(());
        }
        let arguments = Value::Object(arguments.clone());
        match self.arguments.iter().find(|expected| !expected.validator.is_valid(&arguments)) {
            Some(unmet) => {
                let text = format!("The call was not made, because a precondition is not met. {}", unmet.message);
                Err(Rejection::new(Reason::PreconditionFailed.code(), text))
            }
            None => Ok(()),
        }
    }

    /// The calls that tell, with their arguments taken from those of the call.
    pub(crate) fn needed(&self, arguments: &Map<String, Value>) -> Vec<Needed> {
        let needed = |look: &Look| {
            let filled =
                look.arguments.iter().filter_map(|(name, value)| Some((name.clone(), fill(value, arguments)?)));
            Needed { tool: look.tool.clone(), arguments: Value::Object(filled.collect()).to_string() }
        };
        self.looks.iter().map(needed).collect()
    }

    /// What the call at this place among [`Self::needed`] must give.
    pub(crate) fn expected(&self, index: usize) -> Option<&Expected> {
        self.looks.get(index).map(|look| &look.expected)
    }
}

impl Expected {
    fn new(text: &str, message: &str) -> Result<Self, String> {
        let schema: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let validator = schema::compile(&schema).map_err(|error| brief(&error.to_string(), 400))?;
        Ok(Self { validator: Arc::new(validator), message: message.into() })
    }
}

/// What the call that tells of a precondition comes to: itself when it gave what was expected or failed by itself, else a failure
/// with what the model is to be told.
pub fn expect(expected: &Expected, outcome: Outcome) -> Outcome {
    if outcome.status != CallStatus::Ok || expected.validator.is_valid(&given(&outcome)) {
        return outcome;
    }
    Outcome::error(Reason::PreconditionFailed.code(), expected.message.as_ref())
}

/// What a call gave, as a value: its text read as JSON, or as a string when it is none.
fn given(outcome: &Outcome) -> Value {
    let text = |part: &Part| match part {
        Part::Text { text } => Some(text.clone()),
        Part::Image { .. } => None,
    };
    let whole = match &outcome.whole {
        Some(whole) => String::from_utf8_lossy(whole).into_owned(),
        None => outcome.parts.iter().filter_map(text).collect::<Vec<_>>().join("\n"),
    };
    serde_json::from_str(&whole).unwrap_or(Value::String(whole))
}

/// `value` with arguments put in. One that was not given leaves out the property that stands for it.
fn fill(value: &Value, arguments: &Map<String, Value>) -> Option<Value> {
    Some(match value {
        Value::String(text) => match pieces(text).as_slice() {
            [Piece::Argument(name)] => arguments.get(*name)?.clone(),
            pieces => {
                let mut out = String::new();
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => out.push_str(text),
                        Piece::Argument(name) => match arguments.get(*name)? {
                            Value::String(text) => out.push_str(text),
                            other => out.push_str(&other.to_string()),
                        },
                    }
                }
                Value::String(out)
            }
        },
        Value::Array(items) => Value::Array(items.iter().filter_map(|item| fill(item, arguments)).collect()),
        Value::Object(map) => {
            let filled = map.iter().filter_map(|(name, value)| Some((name.clone(), fill(value, arguments)?)));
            Value::Object(filled.collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    })
}
