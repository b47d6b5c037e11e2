//! The kinds of tools, one file each, and which of them an agent is offered.

pub(crate) mod apply_patch;
pub(crate) mod command;
pub(crate) mod exec;
mod files;
pub(crate) mod function;
pub(crate) mod http;
pub(crate) mod read_output;
pub(crate) mod sql;
mod url;
pub(crate) mod view_image;

use self::command::Program;
use self::http::Service;
use crate::functions::{Function, Functions};
use crate::reason::Reason;
use crate::schema::Schema;
use crate::sql::{Pool, Statement};
use crate::toolbox::{Error, MESSAGE};
use crate::{Bench, Outcome};
use domain::agent::Capability;
use domain::{Call, CallStatus, Contract, Effect, Tool, ToolRun, ToolSpec};
use serde_json::{Map, Value};
use std::sync::Arc;

/// What a tool does when it is called.
#[derive(Debug)]
pub(crate) enum Kind {
    ExecCommand,
    WriteStdin,
    ApplyPatch,
    ViewImage,
    ReadOutput,
    Function(Function),
    Sql(Statement),
    Command(Program),
    Http(Box<Service>),
    /// Another agent; never performed here.
    Agent(String),
}

/// One call as its kind sees it.
pub(crate) struct Job<'a> {
    pub(crate) call: &'a Call,
    pub(crate) contract: &'a Contract,
    /// The epoch of the lease under which it is made.
    pub(crate) epoch: u64,
    /// Checked against the schema.
    pub(crate) arguments: Map<String, Value>,
    pub(crate) bench: &'a dyn Bench,
}

impl Job<'_> {
    /// A string argument.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.arguments.get(name).and_then(Value::as_str)
    }

    /// A whole, not negative number; JSON Schema also takes `5.0` for one.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        let value = self.arguments.get(name)?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
        value.as_u64().or_else(|| value.as_f64().map(|number| number as u64))
    }

    /// A switch.
    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        self.arguments.get(name).and_then(Value::as_bool)
    }
}

impl Kind {
    /// Whether what it runs and its schema fit together.
    pub(crate) fn check(&self, tool: &str, schema: &Schema) -> Result<(), Error> {
        let (key, unknown) = match self {
            Self::Sql(statement) => ("sql.query", statement.unknown_parameter(schema)),
            Self::Http(service) => ("http", service.unknown_argument(schema)),
            Self::Agent(_) => ("agent", (!schema.names(MESSAGE)).then(|| MESSAGE.to_owned())),
            Self::ExecCommand
            | Self::WriteStdin
            | Self::ApplyPatch
            | Self::ViewImage
            | Self::ReadOutput
            | Self::Command(_)
            | Self::Function(_) => return Ok(()),
        };
        let Some(name) = unknown else { return Ok(()) };
        let detail = format!("`{name}` is no property of input_schema; hint: add it there");
        Err(Error::Run { tool: tool.to_owned(), key, detail })
    }
}

fn spec(name: &str, description: &str, input_schema: &str) -> ToolSpec {
    let (name, description, input_schema) = (name.to_owned(), description.to_owned(), input_schema.to_owned());
    ToolSpec { name, description, input_schema, grammar: None }
}

/// The built-in tools that an agent gets. Whoever has a tool with long output also gets the means to read on in it.
pub(crate) fn built_in(capabilities: &[Capability], declared: bool) -> Vec<(ToolSpec, Contract, Kind)> {
    let write = || Contract::of(Effect::Write);
    let read = || Contract::of(Effect::Read);
    let shell = capabilities.contains(&Capability::Shell);
    let mut tools = Vec::new();
    if shell {
        tools.push((exec::exec_spec(), write(), Kind::ExecCommand));
        tools.push((exec::write_spec(), write(), Kind::WriteStdin));
    }
    if capabilities.contains(&Capability::Filesystem) {
        tools.push((apply_patch::spec(), write(), Kind::ApplyPatch));
        tools.push((view_image::spec(), read(), Kind::ViewImage));
    }
    if shell || declared {
        tools.push((read_output::spec(), read(), Kind::ReadOutput));
    }
    tools
}

/// What is left to say when a call was killed at its time limit.
pub(crate) fn timed_out(kind: &Kind, job: &Job<'_>, seconds: f64) -> Outcome {
    let text = match kind {
        Kind::ExecCommand | Kind::WriteStdin => format!("Command timed out after {seconds:.3} seconds."),
        _ => format!("`{}` timed out after {seconds:.3} seconds and was stopped.", job.call.tool),
    };
    let outcome = Outcome::text(text).failed(CallStatus::TimedOut, Reason::ToolTimeout.code());
    // A service may be quicker next time, and a database free; what runs here takes as long as it takes.
    if matches!(kind, Kind::Http(_) | Kind::Sql(_)) { outcome.passing() } else { outcome }
}

/// What a declared tool runs.
pub(crate) fn declared(tool: &Tool, functions: &Functions, pool: &Arc<Pool>) -> Result<Kind, Error> {
    let wrong = |key, detail| Error::Run { tool: tool.name.clone(), key, detail };
    match &tool.run {
        ToolRun::Function => {
            let missing = || Error::Function { tool: tool.name.clone() };
            Ok(Kind::Function(functions.get(&tool.name).ok_or_else(missing)?.clone()))
        }
        ToolRun::Sql { database, query, rows_max } => {
            let writes = tool.contract.effect != Effect::Read;
            Ok(Kind::Sql(Statement::new(database, query, *rows_max, writes, Arc::clone(pool))))
        }
        ToolRun::Command { program, env } if program.iter().all(|word| !word.is_empty()) && !program.is_empty() => {
            Ok(Kind::Command(Program { argv: program.clone(), environment: env.clone() }))
        }
        ToolRun::Command { .. } => {
            Err(wrong("command.program", "expected a program and its arguments, none of them empty".into()))
        }
        ToolRun::Http { method, url, headers, body } => Service::new(method, url, headers, body)
            .map(|service| Kind::Http(Box::new(service)))
            .map_err(|(key, detail)| wrong(key, detail)),
        ToolRun::Agent { agent } => Ok(Kind::Agent(agent.clone())),
    }
}
