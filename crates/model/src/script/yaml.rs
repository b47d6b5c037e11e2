//! YAML as JSON values, for forms that are then read by type. Errors of syntax carry line and column.

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Map, Number, Value};

/// Nesting allowed.
const DEPTH_MAX: usize = 64;

/// The one document in `text`.
pub(super) fn read(text: &str) -> Result<Value, String> {
    let documents = Yaml::load_from_str(text).map_err(|error| {
        let at = error.marker();
        format!("line {}, column {}: {}", at.line(), at.col() + 1, error.info())
    })?;
    match &*documents {
        [document] => value(document, DEPTH_MAX),
        [] => Err("it is empty".into()),
        _ => Err("it holds more than one document".into()),
    }
}

fn value(node: &Yaml<'_>, depth: usize) -> Result<Value, String> {
    let depth = depth.checked_sub(1).ok_or_else(|| format!("it is nested deeper than {DEPTH_MAX} levels"))?;
    Ok(match node {
        Yaml::Value(scalar) => self::scalar(scalar)?,
        Yaml::Sequence(nodes) => Value::Array(nodes.iter().map(|node| value(node, depth)).collect::<Result<_, _>>()?),
        Yaml::Mapping(entries) => {
            let mut map = Map::with_capacity(entries.len());
            for (key, node) in entries {
                map.insert(self::key(key)?, value(node, depth)?);
            }
            Value::Object(map)
        }
        Yaml::Tagged(_, node) => value(node, depth)?,
        Yaml::Representation(text, ..) => Value::String(text.to_string()),
        Yaml::Alias(_) => return Err("an alias leads nowhere".into()),
        Yaml::BadValue => return Err("it holds a value that can't be read".into()),
    })
}

fn key(node: &Yaml<'_>) -> Result<String, String> {
    match value(node, 1)? {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => Err("a key must be text".into()),
    }
}

fn scalar(scalar: &Scalar<'_>) -> Result<Value, String> {
    Ok(match scalar {
        Scalar::Null => Value::Null,
        Scalar::Boolean(flag) => Value::Bool(*flag),
        Scalar::Integer(number) => Value::Number((*number).into()),
        Scalar::FloatingPoint(number) => Number::from_f64(number.into_inner())
            .map(Value::Number)
            .ok_or_else(|| format!("{number} is a number that JSON does not know"))?,
        Scalar::String(text) => Value::String(text.to_string()),
    })
}
