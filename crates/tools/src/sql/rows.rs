//! Performs one statement and writes its rows as JSON, bounded while they come.

use super::connection::Connections;
use super::{Answer, Failure, Limits, Question};
use crate::output::brief;
use crate::reason::Reason;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rusqlite::types::ValueRef;
use rusqlite::{Error, ErrorCode, Rows};
use std::io::Write as _;

pub(super) fn answer(connections: &mut Connections, question: &Question) -> Result<Answer, Failure> {
    let connection = connections.get(&question.file, question.writes)?;
    let mut statement = connection.prepare_cached(&question.query).map_err(|error| refused(&error, question.writes))?;
    if !question.writes && !statement.readonly() {
        return Err(Failure::new(
            Reason::SqlRefused.code(),
            "the statement would write, and the tool is declared to read",
        ));
    }
    for index in 1..=statement.parameter_count() {
        let name = statement.parameter_name(index).map(|name| name.trim_start_matches([':', '@', '$']));
        let value = question.values.iter().find(|(known, _)| Some(known.as_str()) == name);
        // A statement from the cache has no values left of its last use; what is not bound is NULL.
        if let Some((_, value)) = value {
            statement.raw_bind_parameter(index, value).map_err(|error| refused(&error, question.writes))?;
        }
    }
    if statement.column_count() == 0 {
        let changed = statement.raw_execute().map_err(|error| refused(&error, question.writes))?;
        let json = format!("{{\"rows_changed\":{changed}}}").into_bytes();
        return Ok(Answer { json, shown: None, rows: 0, more: false });
    }
    let names = unique(&statement.column_names());
    rows(statement.raw_query(), &names, question.limits, question.writes)
        .map_err(|error| refused(&error, question.writes))
}

/// Column names as JSON keys; a name that comes again gets its number.
fn unique(columns: &[&str]) -> Vec<Vec<u8>> {
    let mut seen: Vec<String> = Vec::with_capacity(columns.len());
    for column in columns {
        let mut name = (*column).to_owned();
        let mut number = 2;
        while seen.contains(&name) {
            name = format!("{column}_{number}");
            number += 1;
        }
        seen.push(name);
    }
    seen.iter().map(|name| serde_json::to_vec(name).unwrap_or_default()).collect()
}

fn rows(mut rows: Rows<'_>, names: &[Vec<u8>], limits: Limits, writes: bool) -> Result<Answer, Error> {
    let mut answer = Answer { json: vec![b'['], shown: None, rows: 0, more: false };
    // Where the last row ends that fits into what is shown, the closing bracket counted.
    let (mut fits, mut fits_rows) = (1, 0);
    while let Some(row) = rows.next()? {
        if answer.more {
            // A statement that writes is done only when it has been stepped to its end.
            continue;
        }
        let before = answer.json.len();
        if answer.rows >= limits.rows_max.into() {
            answer.more = true;
        } else {
            let json = &mut answer.json;
            json.extend_from_slice(if answer.rows == 0 { b"{" } else { b",\n{" });
            for (index, name) in names.iter().enumerate() {
                if index > 0 {
                    json.push(b',');
                }
                json.extend_from_slice(name);
                json.push(b':');
                value(row.get_ref(index)?, json);
            }
            json.push(b'}');
            if json.len() >= limits.whole_bytes_max {
                json.truncate(before);
                answer.more = true;
            } else {
                answer.rows += 1;
                if json.len() < limits.shown_bytes_max {
                    (fits, fits_rows) = (json.len(), answer.rows);
                }
            }
        }
        if answer.more && !writes {
            break;
        }
    }
    answer.json.push(b']');
    if fits_rows < answer.rows {
        answer.shown = Some((fits, fits_rows));
    }
    Ok(answer)
}

fn value(value: ValueRef<'_>, json: &mut Vec<u8>) {
    // Writing to a vector can't fail.
    let _ = match value {
        ValueRef::Null => json.write_all(b"null"),
        ValueRef::Integer(number) => write!(json, "{number}"),
        ValueRef::Real(number) => serde_json::to_writer(&mut *json, &number).map_err(Into::into),
        ValueRef::Text(text) => serde_json::to_writer(&mut *json, &String::from_utf8_lossy(text)).map_err(Into::into),
        ValueRef::Blob(bytes) => write!(json, "{{\"base64\":\"{}\"}}", STANDARD.encode(bytes)),
    };
}

/// What a model can make of SQLite's refusal.
fn refused(error: &Error, writes: bool) -> Failure {
    let text = match error {
        Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    };
    let reason = match error {
        Error::MultipleStatement => Reason::SqlRefused,
        // A function that the authorizer refuses comes as a plain error.
        _ if text.starts_with("not authorized") => Reason::SqlRefused,
        Error::SqliteFailure(inner, _) | Error::SqlInputError { error: inner, .. } => match inner.code {
            ErrorCode::OperationInterrupted => Reason::ToolTimeout,
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Reason::SqlBusy,
            ErrorCode::AuthorizationForStatementDenied | ErrorCode::ReadOnly => Reason::SqlRefused,
            ErrorCode::ConstraintViolation => Reason::SqlConstraint,
            ErrorCode::NotADatabase | ErrorCode::CannotOpen | ErrorCode::DatabaseCorrupt => Reason::SqlDatabase,
            _ => Reason::SqlFailed,
        },
        _ => Reason::SqlFailed,
    };
    let hint = match reason {
        Reason::SqlRefused if !writes => "; the tool is declared to read, with one statement, on one file",
        Reason::SqlRefused => {
            "; a tool has one statement on one file, without ATTACH, PRAGMA or a transaction of its own"
        }
        _ => "",
    };
    Failure::new(reason.code(), format!("{}{hint}", brief(&text, 1_000)))
}
