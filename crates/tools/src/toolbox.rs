//! The tools of one agent: what is offered to the model, what is promised of each, and which arguments fit.

use crate::functions::Functions;
use crate::kinds::{self, Kind};
use crate::output::brief;
use crate::precondition::{Expected, Needed, Preconditions};
use crate::reason::Reason;
use crate::schema::{Rejection, Schema};
use domain::agent::{Caller, Capability};
use domain::contract::Rollback;
use domain::{Call, Contract, Tool, ToolSpec};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// Tools that a hint lists at most.
const LISTED_MAX: usize = 24;
/// The argument of a tool that is an agent.
pub(crate) const MESSAGE: &str = "message";

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
    preconditions: Preconditions,
    caller: Caller,
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
    /// A contract that can't be kept.
    #[error("tool `{tool}`: {key}: {detail}")]
    Contract {
        /// The tool.
        tool: String,
        /// The key of its declaration.
        key: &'static str,
        /// What is wrong there.
        detail: String,
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
            Self::Contract { .. } => "tool_contract",
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
            toolbox.add(&spec, contract, kind, Caller::Model)?;
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
            toolbox.add(&spec, tool.contract.clone(), kinds::declared(tool, functions, &pool)?, tool.caller)?;
            specs.extend(tool.caller.is_model().then_some(spec));
        }
        toolbox.are_whole()?;
        toolbox.specs = specs.into();
        Ok(toolbox)
    }

    fn add(&mut self, spec: &ToolSpec, contract: Contract, kind: Kind, caller: Caller) -> Result<(), Error> {
        let preconditions = Preconditions::new(&spec.name, &contract.preconditions)?;
        let schema = Schema::new(&spec.name, &spec.input_schema)?;
        kind.check(&spec.name, &schema)?;
        if self.places.insert(spec.name.clone(), self.entries.len()).is_some() {
            return Err(Error::Duplicate { tool: spec.name.clone(), built_in: false });
        }
        self.entries.push(Entry { name: spec.name.clone(), contract, schema, kind, preconditions, caller });
        Ok(())
    }

    /// Whether every tool that a contract names is here, and the harness can call it.
    fn are_whole(&self) -> Result<(), Error> {
        for entry in &self.entries {
            let looks = entry.preconditions.tools().map(|name| ("preconditions", name));
            let undoes = match &entry.contract.rollback {
                Rollback::Compensate { with } => Some(("rollback", with.as_str())),
                Rollback::None | Rollback::Checkpoint => None,
            };
            for (key, name) in looks.chain(undoes) {
                let detail = match self.entry(name).map(|named| &named.kind) {
                    Some(Kind::Agent(_)) => format!("`{name}` is an agent, which the harness does not ask by itself"),
                    Some(_) => continue,
                    None => format!("there is no tool `{name}`"),
                };
                return Err(Error::Contract { tool: entry.name.clone(), key, detail });
            }
        }
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

    /// Whether the model is offered this tool; the harness alone may call others that are here.
    pub fn offers(&self, tool: &str) -> bool {
        self.entry(tool).is_some_and(|entry| entry.caller.is_model())
    }

    /// Whether a call of this tool asks for the session's sandbox.
    pub fn takes_sandbox(&self, tool: &str) -> bool {
        self.entry(tool)
            .is_some_and(|entry| matches!(entry.kind, Kind::ExecCommand | Kind::ApplyPatch | Kind::ViewImage))
    }

    /// The agent that a tool is; `None` when it is another kind of tool.
    pub fn nested(&self, tool: &str) -> Option<&str> {
        match &self.entry(tool)?.kind {
            Kind::Agent(agent) => Some(agent),
            _ => None,
        }
    }

    /// The calls that tell whether a call's preconditions are met, in order. The arguments were checked.
    pub fn preconditions(&self, call: &Call) -> Vec<Needed> {
        let entry = self.entry(&call.tool).filter(|entry| entry.preconditions.tools().next().is_some());
        let read = entry.and_then(|entry| Some((entry, entry.read(call).ok()?)));
        read.map(|(entry, arguments)| entry.preconditions.needed(&arguments)).unwrap_or_default()
    }

    /// What the call at this place among [`Toolbox::preconditions`] must give; see [`crate::expect`].
    pub fn expected(&self, call: &Call, index: usize) -> Option<Expected> {
        self.entry(&call.tool)?.preconditions.expected(index).cloned()
    }

    /// The call that undoes a call: the tool that its contract names, with the same arguments.
    pub fn compensation(&self, call: &Call) -> Option<Needed> {
        let Rollback::Compensate { with } = &self.entry(&call.tool)?.contract.rollback else { return None };
        Some(Needed { tool: with.clone(), arguments: call.arguments.clone() })
    }

    /// Checks a call before it is judged: whether the tool exists, the arguments fit its schema and meet the preconditions that are
    /// about them alone.
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
        let offered = || self.entries.iter().filter(|entry| entry.caller.is_model());
        let mut near: Vec<(f64, &str)> = offered()
            .map(|entry| (strsim::jaro_winkler(&name.to_lowercase(), &entry.name.to_lowercase()), entry.name.as_str()))
            .filter(|(likeness, _)| *likeness > 0.75)
            .collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0));
        let quoted = |names: Vec<&str>| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let mut text = format!("There is no tool named `{name}`.");
        if !near.is_empty() {
            text += &format!(" Did you mean {}?", quoted(near.iter().take(2).map(|(_, name)| *name).collect()));
        }
        match offered().count() {
            0 => text += " This agent has no tools.",
            count if count <= LISTED_MAX => {
                text += &format!(" The tools are {}.", quoted(offered().map(|entry| entry.name.as_str()).collect()));
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
        let arguments = match &self.kind {
            // A patch comes as free text, as a string argument, or as a list of operations.
            Kind::ApplyPatch => kinds::apply_patch::read(call, &self.schema)?,
            _ if call.custom => {
                let text = format!("`{}` takes a JSON object, not free text.", self.name);
                return Err(Rejection::new(Reason::ArgumentsInvalid.code(), text));
            }
            _ => self.schema.read(&call.arguments)?,
        };
        self.preconditions.test(&arguments)?;
        Ok(arguments)
    }
}

/// What a call of a tool that is an agent asks that agent.
pub fn nested_message(call: &Call) -> String {
    let arguments: Map<String, Value> = serde_json::from_str(&call.arguments).unwrap_or_default();
    arguments.get(MESSAGE).and_then(Value::as_str).unwrap_or_default().to_owned()
}
