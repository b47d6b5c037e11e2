//! `agents/*.md`: from front matter and body to an agent. Whether what it names is there, `link` sees.

use crate::problem::Rule;
use crate::project::{number, required, text, texts, word};
use crate::roots;
use crate::shape::Check;
use crate::yaml::{Node, Place, Value};
use domain::agent::{Capability, Checkpoint};
use domain::{Agent, AgentSandbox, Limits, Root};
use sandbox::RelPath;

/// Bytes of an agent's instructions at most.
const INSTRUCTIONS_BYTES_MAX: usize = 256 << 10;

/// An agent with the places of what it names.
#[derive(Debug)]
pub(crate) struct Drafted {
    pub(crate) agent: Agent,
    pub(crate) model_at: Place,
    pub(crate) tools_at: Vec<Place>,
    pub(crate) manifest_at: Place,
    pub(crate) root_at: Place,
    /// Where a limit on cost stands.
    pub(crate) cost_at: Option<Place>,
}

pub(crate) fn agent(name: &str, node: &Node, body: &str, check: &mut Check<'_>) -> Drafted {
    let instructions = body.replace("\r\n", "\n").trim().to_owned();
    if instructions.is_empty() {
        let hint = Some("write them below the front matter".to_owned());
        check.wrong(Rule::MissingKey, Place::START, "the instructions are missing; expected text", hint);
    }
    if instructions.len() > INSTRUCTIONS_BYTES_MAX {
        let message =
            format!("the instructions have {} bytes; expected at most {INSTRUCTIONS_BYTES_MAX}", instructions.len());
        check.wrong(Rule::BadValue, Place::START, message, None);
    }
    let place = |node: Option<&Node>| node.map_or(Place::START, |node| node.at);
    let sandbox = node.get("sandbox").and_then(|node| sandbox(node, check));
    if let (None, Some(artifacts)) = (&sandbox, node.get("artifacts")) {
        let hint = Some("add `sandbox: local`".to_owned());
        check.wrong(Rule::BadValue, artifacts.at, "artifacts come from a workspace; expected a sandbox", hint);
    }
    let agent = Agent {
        name: name.to_owned(),
        description: text(node, "description").unwrap_or_default(),
        instructions,
        model: required(node, "model"),
        tools: texts(node, "tools"),
        sandbox,
        limits: node.get("limits").map(limits).unwrap_or_default(),
        artifacts: texts(node, "artifacts")
            .iter()
            .filter_map(|path| Some(path.parse::<RelPath>().ok()?.as_str().to_owned()))
            .collect(),
    };
    Drafted {
        agent,
        model_at: place(node.get("model")),
        tools_at: node.get("tools").map(Node::items).unwrap_or_default().iter().map(|node| node.at).collect(),
        manifest_at: place(node.get("sandbox").and_then(|node| node.get("manifest"))),
        root_at: place(node.get("sandbox").and_then(|node| node.get("root"))),
        cost_at: node.get("limits").and_then(|node| node.get("cost_micro_usd")).map(|node| node.at),
    }
}

fn sandbox(node: &Node, check: &mut Check<'_>) -> Option<AgentSandbox> {
    let all = vec![Capability::Filesystem, Capability::Shell];
    match &node.value {
        Value::Text(provider) => Some(AgentSandbox {
            provider: provider.clone(),
            manifest: None,
            capabilities: all,
            checkpoint: Checkpoint::Turn,
            root: Root::default(),
            user: None,
        }),
        Value::Map(_) => Some(AgentSandbox {
            provider: required(node, "provider"),
            manifest: text(node, "manifest"),
            capabilities: node.get("capabilities").map_or(all, capabilities),
            checkpoint: word(node, "checkpoint").unwrap_or_default(),
            root: node.get("root").map(|root| roots::root(root, check)).unwrap_or_default(),
            user: text(node, "user"),
        }),
        _ => None,
    }
}

fn capabilities(node: &Node) -> Vec<Capability> {
    let mut found: Vec<_> = node
        .items()
        .iter()
        .filter_map(|item| match item.text()? {
            "filesystem" => Some(Capability::Filesystem),
            "shell" => Some(Capability::Shell),
            _ => None,
        })
        .collect();
    found.sort();
    found
}

fn limits(node: &Node) -> Limits {
    let default = Limits::default();
    Limits {
        turns: number(node, "turns", default.turns),
        tool_calls: number(node, "tool_calls", default.tool_calls),
        tokens: number(node, "tokens", default.tokens),
        running_seconds: number(node, "running_seconds", default.running_seconds),
        cost_micro_usd: node.get("cost_micro_usd").map(|_| number(node, "cost_micro_usd", 0)),
        reached: word(node, "reached").unwrap_or_default(),
    }
}
