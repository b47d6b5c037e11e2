//! The few files of the data directory that people write, from YAML to JSON values, which are then read by type.

use crate::Error;
use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::io::{ErrorKind, Read};
use std::path::Path;

/// Bytes of one file at most.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Nesting allowed.
const DEPTH_MAX: usize = 8;

/// Reads a file; `None` when there is none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let wrong = |reason: String| Error::File { path: path.to_owned(), reason };
    let mut text = String::new();
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|error| wrong(error.to_string()))?,
    };
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(wrong(format!("larger than {FILE_BYTES_MAX} bytes")));
    }
    parse(&text).map(Some).map_err(wrong)
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let documents = Yaml::load_from_str(text).map_err(|error| {
        let at = error.marker();
        format!("line {}, column {}: {}", at.line(), at.col() + 1, error.info())
    })?;
    let tree = match &*documents {
        [document] => value(document, DEPTH_MAX)?,
        [] => Value::Null,
        _ => return Err("it holds more than one document".into()),
    };
    // The message may repeat a value; a file of secrets must not be quoted.
    serde_json::from_value(tree).map_err(|error| error.to_string())
}

fn value(node: &Yaml<'_>, depth: usize) -> Result<Value, String> {
    let depth = depth.checked_sub(1).ok_or_else(|| format!("it is nested deeper than {DEPTH_MAX} levels"))?;
    Ok(match node {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(flag)) => Value::Bool(*flag),
        Yaml::Value(Scalar::Integer(number)) => Value::Number((*number).into()),
        Yaml::Value(Scalar::FloatingPoint(number)) => Value::String(number.to_string()),
        Yaml::Value(Scalar::String(text)) => Value::String(text.to_string()),
        Yaml::Sequence(nodes) => Value::Array(nodes.iter().map(|node| value(node, depth)).collect::<Result<_, _>>()?),
        Yaml::Mapping(entries) => {
            let mut map = Map::new();
            for (key, node) in entries {
                let Value::String(key) = value(key, 1)? else { return Err("a key must be text".into()) };
                map.insert(key, value(node, depth)?);
            }
            Value::Object(map)
        }
        Yaml::Representation(text, ..) => Value::String(text.to_string()),
        Yaml::Tagged(..) | Yaml::Alias(_) | Yaml::BadValue => return Err("tags and aliases have no place here".into()),
    })
}
