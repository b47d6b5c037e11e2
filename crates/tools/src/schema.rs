//! Arguments against their JSON Schema, and what a model is told when they do not fit.

use crate::output::brief;
use crate::reason::Reason;
use crate::toolbox::Error;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::{Map, Value};
use std::fmt::Write as _;

/// Bytes of a call's arguments at most.
pub(crate) const ARGUMENTS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of a value that a message repeats at most.
const ECHO_BYTES_MAX: usize = 64;
/// Wrong fields that a message names at most.
const WRONG_MAX: usize = 8;

/// Why a call was not begun; goes back to the model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Rejection {
    /// Stable code.
    pub code: &'static str,
    /// For the model: which field, and what was expected.
    pub text: String,
}

impl Rejection {
    pub(crate) fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    fn arguments(wrong: &[(String, String)]) -> Self {
        let mut fields: Vec<&str> = Vec::new();
        for (field, _) in wrong {
            if !fields.contains(&field.as_str()) {
                fields.push(field);
            }
        }
        // The first line is the Agents SDK's; what follows lets the model mend it at once.
        let fields = fields.join(", ");
        let mut text = format!("Invalid tool arguments for {fields}. Check the tool schema and try again.");
        for (field, expected) in wrong {
            let _ = write!(text, "\n- {field}: {expected}");
        }
        Self::new(Reason::ArgumentsInvalid.code(), text)
    }
}

/// A compiled schema of a tool's arguments.
#[derive(Debug)]
pub(crate) struct Schema {
    validator: Validator,
    /// What optional properties are when they are missing.
    defaults: Vec<(String, Value)>,
    /// Optional properties that do not take null: a null there means "not given".
    optional: Vec<String>,
    /// The properties the schema names.
    properties: Vec<String>,
}

impl Schema {
    pub(crate) fn new(tool: &str, text: &str) -> Result<Self, Error> {
        let wrong = |path: String, detail: String| Error::Schema { tool: tool.to_owned(), path, detail };
        let value: Value = serde_json::from_str(text).map_err(|error| wrong(String::new(), error.to_string()))?;
        let Some(object) = value.as_object() else {
            return Err(wrong(String::new(), "expected an object".into()));
        };
        if object.get("type").is_some_and(|kind| kind != "object") {
            return Err(wrong("/type".into(), "arguments are always an object; expected \"object\"".into()));
        }
        let validator = compile(&value)
            .map_err(|error| wrong(error.instance_path().to_string(), brief(&error.to_string(), 400)))?;
        let empty = Map::new();
        let properties = object.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let required: Vec<&str> =
            object.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let optional = |name: &str| !required.contains(&name);
        Ok(Self {
            validator,
            defaults: properties
                .iter()
                .filter(|(name, _)| optional(name))
                .filter_map(|(name, property)| Some((name.clone(), property.get("default")?.clone())))
                .collect(),
            optional: properties
                .iter()
                .filter(|(name, property)| optional(name) && refuses_null(property))
                .map(|(name, _)| name.clone())
                .collect(),
            properties: properties.keys().cloned().collect(),
        })
    }

    /// Whether the schema names this property.
    pub(crate) fn names(&self, property: &str) -> bool {
        self.properties.iter().any(|name| name == property)
    }

    /// Reads arguments as a model wrote them: JSON text, nothing at all for none. Missing optional properties get their
    /// defaults.
    pub(crate) fn read(&self, text: &str) -> Result<Map<String, Value>, Rejection> {
        let whole = |expected: String| Rejection::arguments(&[("arguments".to_owned(), expected)]);
        if text.len() > ARGUMENTS_BYTES_MAX {
            return Err(whole(format!("expected at most {ARGUMENTS_BYTES_MAX} bytes, got {}", text.len())));
        }
        let value = if text.trim().is_empty() {
            Value::Object(Map::new())
        } else {
            serde_json::from_str(text).map_err(|error| whole(format!("expected JSON: {error}")))?
        };
        let Value::Object(mut arguments) = value else {
            return Err(whole(format!("expected a JSON object, got {}", kind_of(&value))));
        };
        arguments.retain(|name, value| !(value.is_null() && self.optional.iter().any(|optional| optional == name)));
        let value = Value::Object(arguments);
        let wrong: Vec<_> = self.validator.iter_errors(&value).take(WRONG_MAX).map(|error| told(&error)).collect();
        if !wrong.is_empty() {
            return Err(Rejection::arguments(&wrong));
        }
        let Value::Object(mut arguments) = value else { return Ok(Map::new()) };
        for (name, default) in &self.defaults {
            if !arguments.contains_key(name) {
                arguments.insert(name.clone(), default.clone());
            }
        }
        Ok(arguments)
    }
}

/// Compiles a schema. References stay within it, and matching takes time linear in the text, whatever the pattern.
pub(crate) fn compile(schema: &Value) -> Result<Validator, ValidationError<'static>> {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .offline()
        .with_pattern_options(PatternOptions::regex())
        .build(schema)
        .map_err(ValidationError::to_owned)
}

fn refuses_null(property: &Value) -> bool {
    if let Some(options) = property.get("enum").and_then(Value::as_array) {
        return !options.contains(&Value::Null);
    }
    match property.get("type") {
        Some(Value::String(kind)) => kind != "null",
        Some(Value::Array(kinds)) => !kinds.iter().any(|kind| kind == "null"),
        _ => false,
    }
}

/// The field an error is about and what was expected there.
fn told(error: &ValidationError<'_>) -> (String, String) {
    let path = error.instance_path().to_string();
    let field = |path: &str| {
        let name = path.trim_start_matches('/').replace('/', ".");
        if name.is_empty() { "arguments".to_owned() } else { brief(&name, ECHO_BYTES_MAX) }
    };
    let got = || echo(error.instance());
    let listed = |names: &[String]| {
        names
            .iter()
            .take(WRONG_MAX)
            .map(|name| format!("`{}`", brief(name, ECHO_BYTES_MAX)))
            .collect::<Vec<_>>()
            .join(", ")
    };
    use ValidationErrorKind as Kind;
    let expected = match error.kind() {
        Kind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            return (field(&format!("{path}/{name}")), "required, but missing".into());
        }
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            format!("unexpected {}", listed(unexpected))
        }
        Kind::Type { kind: TypeKind::Single(kind) } => format!("expected {kind}, got {}", got()),
        Kind::Type { kind: TypeKind::Multiple(kinds) } => {
            let kinds: Vec<String> = kinds.iter().map(|kind| kind.to_string()).collect();
            format!("expected {}, got {}", kinds.join(" or "), got())
        }
        Kind::Enum { options } => format!("expected one of {}, got {}", brief(&options.to_string(), 400), got()),
        Kind::Constant { expected_value } => {
            format!("expected {}, got {}", brief(&expected_value.to_string(), 400), got())
        }
        Kind::Minimum { limit } => format!("expected at least {limit}, got {}", got()),
        Kind::Maximum { limit } => format!("expected at most {limit}, got {}", got()),
        Kind::ExclusiveMinimum { limit } => format!("expected more than {limit}, got {}", got()),
        Kind::ExclusiveMaximum { limit } => format!("expected less than {limit}, got {}", got()),
        Kind::MinLength { limit } => format!("expected at least {limit} characters, got {}", got()),
        Kind::MaxLength { limit } => format!("expected at most {limit} characters, got {}", got()),
        Kind::MinItems { limit } => format!("expected at least {limit} items"),
        Kind::MaxItems { limit } => format!("expected at most {limit} items"),
        Kind::Pattern { pattern } => format!("expected a match of {}, got {}", brief(pattern, 200), got()),
        Kind::Format { format } => format!("expected the format {format}, got {}", got()),
        _ => format!("does not fit `{}` of the schema, got {}", error.schema_path(), got()),
    };
    (field(&path), expected)
}

/// A value short enough to repeat, else its kind and size: what a model wrote may be large, or not for every reader.
fn echo(value: &Value) -> String {
    let text = value.to_string();
    if text.len() <= ECHO_BYTES_MAX { text } else { format!("{} of {} bytes", kind_of(value), text.len()) }
}

const fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
