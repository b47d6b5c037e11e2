//! Declarations as data: agents, models, tools. How files become these is `catalog`'s. `${env}` and `${secret}` stand unexpanded.

use crate::contract::Contract;
use crate::limits::Limits;
use crate::root::Root;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Its name: the file's.
    pub name: String,
    /// One line for people who choose among agents.
    #[serde(default)]
    pub description: String,
    /// What it is told; the file's body.
    pub instructions: String,
    /// The model it uses, by the name it has in `models/`.
    pub model: String,
    /// The declared tools it may use.
    #[serde(default)]
    pub tools: Vec<String>,
    /// Its sandbox, if it has one.
    #[serde(default)]
    pub sandbox: Option<AgentSandbox>,
    /// Its limits.
    #[serde(default)]
    pub limits: Limits,
    /// Workspace files kept as artifacts when a run ends; relative paths.
    #[serde(default)]
    pub artifacts: Vec<String>,
}

/// An agent's sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentSandbox {
    /// The provider's name; `local`.
    pub provider: String,
    /// The manifest laid down in a fresh workspace, by its name in `manifests/`.
    #[serde(default)]
    pub manifest: Option<String>,
    /// What the agent may do there.
    pub capabilities: Vec<Capability>,
    /// When its workspace is kept, so that the session can go back there.
    #[serde(default, skip_serializing_if = "Checkpoint::is_turn")]
    pub checkpoint: Checkpoint,
    /// What stands at `/` in it.
    #[serde(default, skip_serializing_if = "Root::is_default")]
    pub root: Root,
    /// Who its commands run as: `root`, a user of its manifest, or one that its root has; `None`: the one that every sandbox has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// When a workspace is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Checkpoint {
    /// After each turn that changed it.
    #[default]
    Turn,
    /// Never: it is lost with its sandbox.
    Never,
}

impl Checkpoint {
    /// Whether it is kept after each turn.
    pub const fn is_turn(&self) -> bool {
        matches!(self, Self::Turn)
    }
}

/// A group of built-in tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// `apply_patch`, `view_image`.
    Filesystem,
    /// `exec_command`, `write_stdin`.
    Shell,
}

/// Who serves a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelProvider {
    /// OpenAI itself.
    Openai,
    /// An endpoint that speaks the same wire.
    OpenaiCompatible,
    /// A transcript that is played back.
    Script,
}

/// Which wire is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wire {
    /// `POST /responses`.
    #[default]
    Responses,
    /// `POST /chat/completions`.
    Chat,
}

/// A model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelDecl {
    /// The name agents use.
    pub alias: String,
    /// Who serves it.
    pub provider: ModelProvider,
    /// The name the vendor knows; for a script the transcript's title.
    pub name: String,
    /// The wire.
    #[serde(default)]
    pub wire: Wire,
    /// Whether replies are streamed.
    pub stream: bool,
    /// Base URL, unexpanded, such as `https://api.openai.com/v1`.
    #[serde(default)]
    pub url: Option<String>,
    /// API key, unexpanded.
    #[serde(default)]
    pub key: Option<String>,
    /// Further headers, values unexpanded.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Further query parameters, values unexpanded.
    #[serde(default)]
    pub query: BTreeMap<String, String>,
    /// For `script`: the transcript's text.
    #[serde(default)]
    pub transcript: Option<String>,
    /// Sampling temperature in thousandths; `None`: the vendor's default.
    #[serde(default)]
    pub temperature_milli: Option<u32>,
    /// Tokens of one reply at most; `None`: the vendor's default.
    #[serde(default)]
    pub output_tokens_max: Option<u64>,
    /// Reasoning effort (`low`, `medium`, `high`), where the model knows it.
    #[serde(default)]
    pub reasoning_effort: Option<String>,
    /// Model used instead when a variable that this one needs is not set, by its alias.
    #[serde(default)]
    pub fallback: Option<String>,
}

/// A declared tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Its name: the file's.
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// JSON Schema of its arguments, as JSON text.
    pub input_schema: String,
    /// What it promises.
    pub contract: Contract,
    /// How it is done.
    pub run: ToolRun,
    /// Who calls it.
    #[serde(default, skip_serializing_if = "Caller::is_model")]
    pub caller: Caller,
}

/// Who calls a tool of an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Caller {
    /// The model, which is offered it; the harness too, when another tool's contract names it.
    #[default]
    Model,
    /// The harness alone, because another tool's contract names it: to look at a precondition, or to undo a call.
    Harness,
}

impl Caller {
    /// Whether the model is offered it.
    pub const fn is_model(&self) -> bool {
        matches!(self, Self::Model)
    }
}

/// How a declared tool is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolRun {
    /// A statement on a SQLite file.
    Sql {
        /// The file, relative to the project.
        database: String,
        /// The statement, with `:name` parameters bound from the arguments.
        query: String,
        /// Rows given back at most.
        rows_max: u32,
    },
    /// A program on the harness's side, in a jail of its own: JSON in on stdin, JSON or text out on stdout.
    Command {
        /// Program and arguments; the program relative to the project, or a name on the sandbox's PATH.
        program: Vec<String>,
        /// Environment, values unexpanded; the only secrets it sees.
        env: BTreeMap<String, String>,
    },
    /// A request to a service.
    Http {
        /// The method.
        method: String,
        /// The URL; `{name}` is replaced by the percent-encoded argument, `${…}` by configuration.
        url: String,
        /// Headers, values unexpanded.
        headers: BTreeMap<String, String>,
        /// Arguments that are sent as a JSON body; the rest go where `url` names them.
        body: Vec<String>,
    },
    /// A Rust function registered through the façade.
    Function,
    /// Another agent, which works on a message until it has an answer.
    Agent {
        /// That agent's name.
        agent: String,
    },
}
