//! Tools of kind `sql`.

use super::Job;
use crate::reason::Reason;
use crate::sql::{Answer, Failure, Statement};
use crate::{Outcome, output};
use domain::CallStatus;

pub(crate) async fn run(statement: &Statement, job: &Job<'_>) -> Outcome {
    match statement.ask(job.bench.project(), &job.arguments, job.contract.output_bytes_max).await {
        Ok(answer) => shown(answer, job),
        Err(Failure { code, text }) => {
            let outcome = Outcome::error(code, format!("`{}` failed: {text}", job.call.tool));
            if code == Reason::SqlBusy.code() { outcome.passing() } else { outcome }
        }
    }
}

/// Whole rows up to the limit, then what is left out.
fn shown(answer: Answer, job: &Job<'_>) -> Outcome {
    let Answer { json, shown, rows, more } = answer;
    let beyond = format!("\n[the statement has more rows than these {rows}; narrow it down to see others]");
    let Some((end, shown_rows)) = shown else {
        let mut text = output::clean(&json);
        if more {
            text += &beyond;
        }
        return Outcome::text(text);
    };
    let rest = rows - shown_rows;
    let mut text = output::clean(&json[..end]);
    text += &format!(
        "]\n[{rest} of {rows} rows left out; read on with read_output {{\"output\":\"{}\",\"offset\":{end}}}]",
        job.call.id
    );
    if more {
        text += &beyond;
    }
    Outcome { status: CallStatus::Ok, whole: Some(json.into()), ..Outcome::text(text) }
}
