//! One SQL statement on a SQLite file of the project: bound parameters, no way to other files, JSON rows out.

mod connection;
mod pool;
mod rows;

pub(crate) use pool::Pool;

use crate::output::WHOLE_BYTES_MAX;
use crate::project::locate;
use crate::reason::Reason;
use crate::schema::Schema;
use rusqlite::types::Value as Sql;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// A declared statement.
#[derive(Debug)]
pub(crate) struct Statement {
    /// The file, relative to the project.
    database: String,
    query: Arc<str>,
    /// The names of its parameters.
    parameters: Vec<String>,
    rows_max: u32,
    /// Whether it may change the file.
    writes: bool,
    pool: Arc<Pool>,
    /// The project and the file in it that were found at the first call.
    found: OnceLock<(PathBuf, PathBuf)>,
}

impl Statement {
    pub(crate) fn new(database: &str, query: &str, rows_max: u32, writes: bool, pool: Arc<Pool>) -> Self {
        let parameters = parameters(query);
        let (database, query) = (database.to_owned(), query.into());
        Self { database, query, parameters, rows_max, writes, pool, found: OnceLock::new() }
    }

    /// A parameter that the schema does not name: it could never be given.
    pub(crate) fn unknown_parameter(&self, schema: &Schema) -> Option<String> {
        self.parameters.iter().find(|name| !schema.names(name)).cloned()
    }

    /// Performs it with values from `arguments`.
    pub(crate) async fn ask(
        &self,
        project: &Path,
        arguments: &Map<String, Value>,
        shown_bytes_max: u64,
    ) -> Result<Answer, Failure> {
        let bytes = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        let question = Question {
            file: self.file(project)?,
            query: Arc::clone(&self.query),
            writes: self.writes,
            values: values(&self.parameters, arguments)?,
            limits: Limits {
                rows_max: self.rows_max,
                shown_bytes_max: bytes(shown_bytes_max),
                whole_bytes_max: bytes(WHOLE_BYTES_MAX),
            },
        };
        self.pool.ask(question).await
    }

    fn file(&self, project: &Path) -> Result<PathBuf, Failure> {
        if let Some((known, file)) = self.found.get()
            && known == project
        {
            return Ok(file.clone());
        }
        let file = locate(project, &self.database)
            .map_err(|error| Failure::new(Reason::SqlDatabase.code(), format!("the database {error}")))?;
        // Another call may have found it meanwhile; it found the same.
        let _ = self.found.set((project.to_owned(), file.clone()));
        Ok(file)
    }
}

/// What is sent to the threads: a statement with its values.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) file: PathBuf,
    pub(crate) query: Arc<str>,
    pub(crate) writes: bool,
    /// By parameter name without its sign. What is not here is NULL.
    pub(crate) values: Vec<(String, Sql)>,
    pub(crate) limits: Limits,
}

/// What an answer may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) rows_max: u32,
    /// Bytes of JSON shown.
    pub(crate) shown_bytes_max: usize,
    /// Bytes of JSON kept.
    pub(crate) whole_bytes_max: usize,
}

/// What a statement gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// A JSON array of rows, or what was changed.
    pub(crate) json: Vec<u8>,
    /// Where the rows end that fit into what is shown, and how many they are, when not all do.
    pub(crate) shown: Option<(usize, u64)>,
    /// Rows in `json`.
    pub(crate) rows: u64,
    /// Whether there were more rows than `json` holds.
    pub(crate) more: bool,
}

/// Why a statement gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: &'static str,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// Names of the parameters `:name`, `@name`, `$name` in a statement, without those in strings, quoted names and comments.
fn parameters(query: &str) -> Vec<String> {
    let bytes = query.as_bytes();
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 0x80;
    let until = |from: usize, end: &[u8]| {
        bytes
            .get(from..)
            .and_then(|rest| rest.windows(end.len()).position(|window| window == end))
            .map_or(bytes.len(), |at| from + at + end.len())
    };
    let (mut names, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        at = match bytes[at] {
            quote @ (b'\'' | b'"' | b'`') => until(at + 1, &[quote]),
            b'[' => until(at + 1, b"]"),
            b'-' if bytes.get(at + 1) == Some(&b'-') => until(at + 2, b"\n"),
            b'/' if bytes.get(at + 1) == Some(&b'*') => until(at + 2, b"*/"),
            b':' | b'@' | b'$' => {
                let end = bytes[at + 1..]
                    .iter()
                    .position(|byte| !is_word(byte))
                    .map_or(bytes.len(), |length| at + 1 + length);
                let name = &query[at + 1..end];
                if !name.is_empty() && !names.iter().any(|known| known == name) {
                    names.push(name.to_owned());
                }
                end
            }
            _ => at + 1,
        };
    }
    names
}

/// Values for the parameters from arguments, by their JSON type. Text stays text: nothing in it is ever SQL.
fn values(parameters: &[String], arguments: &Map<String, Value>) -> Result<Vec<(String, Sql)>, Failure> {
    let mut values = Vec::new();
    for name in parameters {
        if let Some(argument) = arguments.get(name) {
            let value = bound(argument).ok_or_else(|| {
                Failure::new(Reason::SqlParameter.code(), format!("{name}: the number does not fit into 64 bits"))
            })?;
            values.push((name.clone(), value));
        }
    }
    Ok(values)
}

fn bound(value: &Value) -> Option<Sql> {
    Some(match value {
        Value::Null => Sql::Null,
        Value::Bool(truth) => Sql::Integer((*truth).into()),
        Value::Number(number) if number.is_u64() || number.is_i64() => Sql::Integer(number.as_i64()?),
        Value::Number(number) => Sql::Real(number.as_f64()?),
        Value::String(text) => Sql::Text(text.clone()),
        Value::Array(_) | Value::Object(_) => Sql::Text(value.to_string()),
    })
}
