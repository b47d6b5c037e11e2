//! JSON Schemas of the file kinds, made from the same shapes that files are checked against.

use crate::Kind;
use crate::shape::{Field, Keys, NAME_CHARACTERS_MAX, Need, Object, Secrets, Shape, expected};
use serde_json::{Map, Value, json};

/// JSON Schema (2020-12) of a kind of file. An editor that knows it completes keys and marks mistakes; what only the
/// whole project shows (names that lead nowhere, files that are missing) `topside check` finds.
pub fn schema(kind: Kind) -> Value {
    let mut builder = Builder { definitions: Map::new() };
    let Value::Object(mut root) = builder.shape(kind.shape()) else { return Value::Null };
    root.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    root.insert("title".into(), format!("Topside {}: {}", kind.name(), kind.place()).into());
    root.insert("description".into(), kind.about().into());
    root.insert("$defs".into(), Value::Object(builder.definitions));
    Value::Object(root)
}

struct Builder {
    definitions: Map<String, Value>,
}

impl Builder {
    fn shape(&mut self, shape: &Shape) -> Value {
        match shape {
            Shape::Text { bytes_max } => json!({"type": "string", "minLength": 1, "maxLength": bytes_max}),
            Shape::Verbatim { bytes_max } => json!({"type": "string", "maxLength": bytes_max}),
            Shape::Template { secrets: Secrets::Allowed } => json!({"type": "string", "pattern": "^[^\\n\\r]*$"}),
            Shape::Template { secrets: Secrets::Refused(_) } => {
                json!({"type": "string", "pattern": "^[^\\n\\r]*$", "not": {"pattern": "\\$\\{secret\\."}})
            }
            Shape::Name => self.or_variable(json!({"type": "string", "pattern": name_pattern()})),
            Shape::Path => self.or_variable(json!({"type": "string", "minLength": 1, "not": {"pattern": "^/"}})),
            Shape::OneOf(words) => {
                let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                self.or_variable(json!({"enum": words}))
            }
            Shape::Integer { min, max } => self.or_variable(json!({"type": "integer", "minimum": min, "maximum": max})),
            Shape::Milli { min, max } => {
                let (min, max) = (whole_or_half(*min), whole_or_half(*max));
                self.or_variable(json!({"type": "number", "minimum": min, "maximum": max, "multipleOf": 0.001}))
            }
            Shape::Boolean => self.or_variable(json!({"type": "boolean"})),
            Shape::Mode => json!({"type": ["string", "integer"], "description": expected(shape)}),
            Shape::List { of, items_max } => {
                json!({"type": "array", "items": self.shape(of), "maxItems": items_max})
            }
            Shape::Map { keys, of, entries_max } => {
                let mut map =
                    json!({"type": "object", "additionalProperties": self.shape(of), "maxProperties": entries_max});
                if *keys == Keys::Name {
                    map["propertyNames"] = json!({"pattern": name_pattern()});
                }
                map
            }
            Shape::Object(object) => self.reference(object),
            Shape::Either { short, long } => json!({"anyOf": [self.shape(short), self.reference(long)]}),
            Shape::Choice(fields) => {
                let properties = self.properties(fields, None);
                json!({
                    "type": "object", "properties": properties, "additionalProperties": false,
                    "minProperties": 1, "maxProperties": 1,
                })
            }
            Shape::Tagged(objects) => {
                let all: Vec<Value> = objects.iter().map(|object| self.tagged(object)).collect();
                json!({"oneOf": all})
            }
            Shape::Values => json!({"type": "object"}),
            Shape::JsonSchema => {
                json!({"allOf": [{"$ref": "https://json-schema.org/draft/2020-12/schema"}, {"type": "object"}]})
            }
        }
    }

    /// A value that variables are put into when it is read may stand as text.
    fn or_variable(&mut self, value: Value) -> Value {
        let variable = json!({
            "type": "string", "pattern": "\\$\\{env\\.[A-Za-z0-9_]+(:-[^}]*)?\\}",
            "description": "`${env.NAME}` or `${env.NAME:-default}`, put in when the file is read.",
        });
        self.definitions.insert("variable".into(), variable);
        json!({"anyOf": [value, {"$ref": "#/$defs/variable"}]})
    }

    fn reference(&mut self, object: &Object) -> Value {
        self.define(object.name, object, None)
    }

    fn tagged(&mut self, object: &Object) -> Value {
        self.define(&format!("entry_{}", object.name), object, Some(object.name))
    }

    fn define(&mut self, name: &str, object: &Object, tag: Option<&str>) -> Value {
        if !self.definitions.contains_key(name) {
            // Held before its fields are described: a directory's children are entries again.
            self.definitions.insert(name.into(), Value::Null);
            let mut required: Vec<&str> = tag.iter().map(|_| "type").collect();
            required.extend(object.fields.iter().filter(|field| field.is_required()).map(|field| field.key));
            let properties = self.properties(object.fields, tag);
            let mut value = json!({
                "type": "object", "description": object.about, "properties": properties,
                "additionalProperties": false,
            });
            if !required.is_empty() {
                value["required"] = json!(required);
            }
            let unless: Vec<Value> = object.fields.iter().filter_map(required_unless).collect();
            if !unless.is_empty() {
                value["allOf"] = json!(unless);
            }
            self.definitions.insert(name.into(), value);
        }
        json!({"$ref": format!("#/$defs/{name}")})
    }

    fn properties(&mut self, fields: &[Field], tag: Option<&str>) -> Value {
        let mut properties = Map::new();
        if let Some(tag) = tag {
            properties.insert("type".into(), json!({"const": tag}));
        }
        for field in fields {
            let mut value = self.shape(&field.shape);
            value["description"] = field.told().into();
            properties.insert(field.key.into(), value);
        }
        Value::Object(properties)
    }
}

impl Field {
    fn is_required(&self) -> bool {
        matches!(self.need, Need::Required)
    }

    /// What it means and what holds without it.
    fn told(&self) -> String {
        match self.need {
            Need::Required => self.about.to_owned(),
            Need::Unless { key, choice } => format!("{} Required unless `{key}` is `{choice}`.", self.about),
            Need::Optional(default) => format!("{} Default: {default}.", self.about),
        }
    }
}

/// The rule of a key that is required unless another holds a choice.
fn required_unless(field: &Field) -> Option<Value> {
    let Need::Unless { key, choice } = field.need else { return None };
    let chosen = json!({"required": [key], "properties": {key: {"required": [choice]}}});
    Some(json!({"anyOf": [{"required": [field.key]}, chosen]}))
}

fn name_pattern() -> String {
    format!("^[a-z0-9_-]{{1,{NAME_CHARACTERS_MAX}}}$")
}

/// Thousandths as a JSON number; the bounds of shapes are whole.
fn whole_or_half(milli: i64) -> Value {
    if milli % 1_000 == 0 { json!(milli / 1_000) } else { json!(milli as f64 / 1_000.0) }
}
