//! The tools of one agent: what is offered to the model, what is promised of each, and which arguments fit.

use crate::functions::Functions;
use crate::kinds::{self, Kind};
use crate::output::brief;
use crate::reason::Reason;
use crate::schema::{Rejection, Schema};
use domain::agent::Capability;
use domain::{Call, Contract, Tool, ToolSpec};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// Tools that a hint lists at most.
const LISTED_MAX: usize = 24;

/// The tools of one agent.
#[derive(Debug)]
pub struct Toolbox {
    entries: Vec<Entry>,
    places: HashMap<String, usize>,
    specs: Arc<[ToolSpec]>,
}

/// One tool.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) contract: Contract,
    pub(crate) schema: Schema,
    pub(crate) kind: Kind,
}

/// Why a set of tools can't serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The schema of a tool's arguments is none.
    #[error("tool `{tool}`: input_schema{}{path}: {detail}", if .path.is_empty() { "" } else { " at " })]
    Schema {
        /// The tool.
        tool: String,
        /// Where in the schema, as a JSON pointer.
        path: String,
        /// What is wrong there.
        detail: String,
    },
    /// Two tools of one name, or a name that a built-in tool has.
    #[error("tool `{tool}`: the name is taken{}; hint: name it otherwise", if *.built_in { " by a built-in tool" } else { "" })]
    Duplicate {
        /// The tool.
        tool: String,
        /// Whether a built-in tool has the name.
        built_in: bool,
    },
    /// A tool of kind `function` that no function was registered for.
    #[error(
        "tool `{tool}`: no function of this name is registered; hint: add it to `Functions` before the project is loaded"
    )]
    Function {
        /// The tool.
        tool: String,
    },
    /// What a tool runs is declared wrongly.
    #[error("tool `{tool}`: run.{key}: {detail}")]
    Run {
        /// The tool.
        tool: String,
        /// The key, such as `http.url`.
        key: &'static str,
        /// What is wrong there.
        detail: String,
    },
}

impl Error {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Schema { .. } => "tool_schema",
            Self::Duplicate { .. } => "tool_duplicate",
            Self::Function { .. } => "tool_function_missing",
            Self::Run { .. } => "tool_run",
        }
    }
}

impl Toolbox {
    /// The declared tools and the built-in ones that `capabilities` grants; schemas are compiled here, once.
    ///
    /// # Errors
    /// The first tool that can't serve.
    pub fn new(tools: &[Tool], capabilities: &[Capability], functions: &Functions) -> Result<Self, Error> {
        let mut toolbox = Self { entries: Vec::new(), places: HashMap::new(), specs: Arc::default() };
        let mut specs = Vec::new();
        for (spec, contract, kind) in kinds::built_in(capabilities, !tools.is_empty()) {
            toolbox.add(&spec, contract, kind)?;
            specs.push(spec);
        }
        let pool = Arc::default();
        for tool in tools {
            if crate::BUILT_IN.contains(&tool.name.as_str()) {
                return Err(Error::Duplicate { tool: tool.name.clone(), built_in: true });
            }
            let spec = ToolSpec {
                name: tool.name.clone(),
                description: tool.description.clone(),
                input_schema: tool.input_schema.clone(),
                grammar: None,
            };
            toolbox.add(&spec, tool.contract.clone(), kinds::declared(tool, functions, &pool)?)?;
            specs.push(spec);
        }
        toolbox.specs = specs.into();
        Ok(toolbox)
    }

    fn add(&mut self, spec: &ToolSpec, contract: Contract, kind: Kind) -> Result<(), Error> {
        let schema = Schema::new(&spec.name, &spec.input_schema)?;
        kind.check(&spec.name, &schema)?;
        if self.places.insert(spec.name.clone(), self.entries.len()).is_some() {
            return Err(Error::Duplicate { tool: spec.name.clone(), built_in: false });
        }
        self.entries.push(Entry { name: spec.name.clone(), contract, schema, kind });
        Ok(())
    }

    /// The tools as they are offered to a model: built-in ones first, then as declared.
    pub fn specs(&self) -> Arc<[ToolSpec]> {
        Arc::clone(&self.specs)
    }

    /// What a tool promises; `None` when there is no such tool.
    pub fn contract(&self, tool: &str) -> Option<&Contract> {
        self.entry(tool).map(|entry| &entry.contract)
    }

    /// Checks a call before it is judged: whether the tool exists and the arguments fit its schema.
    ///
    /// # Errors
    /// What the model has to mend.
    pub fn check(&self, call: &Call) -> Result<(), Rejection> {
        let entry = self.entry(&call.tool).ok_or_else(|| self.unknown(&call.tool))?;
        entry.read(call).map(drop)
    }

    /// Tells a model that a tool does not exist and which come near.
    pub fn unknown(&self, name: &str) -> Rejection {
        let name = brief(name, 64);
        let mut near: Vec<(f64, &str)> = self
            .entries
            .iter()
            .map(|entry| (strsim::jaro_winkler(&name.to_lowercase(), &entry.name.to_lowercase()), entry.name.as_str()))
            .filter(|(likeness, _)| *likeness > 0.75)
            .collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0));
        let quoted = |names: Vec<&str>| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let mut text = format!("There is no tool named `{name}`.");
        if !near.is_empty() {
            text += &format!(" Did you mean {}?", quoted(near.iter().take(2).map(|(_, name)| *name).collect()));
        }
        match self.entries.len() {
            0 => text += " This agent has no tools.",
            count if count <= LISTED_MAX => {
                text += &format!(
                    " The tools are {}.",
                    quoted(self.entries.iter().map(|entry| entry.name.as_str()).collect())
                );
            }
            _ => {}
        }
        Rejection::new(Reason::ToolUnknown.code(), text)
    }

    pub(crate) fn entry(&self, tool: &str) -> Option<&Entry> {
        self.places.get(tool).and_then(|place| self.entries.get(*place))
    }
}

impl Entry {
    /// The arguments of a call, checked.
    pub(crate) fn read(&self, call: &Call) -> Result<Map<String, Value>, Rejection> {
        match &self.kind {
            // A patch comes as free text, as a string argument, or as a list of operations.
            Kind::ApplyPatch => kinds::apply_patch::read(call, &self.schema),
            _ if call.custom => {
                let text = format!("`{}` takes a JSON object, not free text.", self.name);
                Err(Rejection::new(Reason::ArgumentsInvalid.code(), text))
            }
            _ => self.schema.read(&call.arguments),
        }
    }
}
