//! `topside.yaml` and `prices.yaml`: from checked values to settings and prices.

use crate::shape::Missing;
use crate::yaml::{Node, Place, Value};
use crate::{Contents, Settings};
use domain::usage::Price;
use sandbox::Limits;
use std::collections::BTreeMap;

/// `topside.yaml`.
#[derive(Debug, Default)]
pub(crate) struct Project {
    pub(crate) default_agent: Option<(String, Place)>,
    pub(crate) settings: Settings,
}

/// Something that was declared.
#[derive(Debug)]
pub(crate) struct Declared<T> {
    /// What it says; `None` when it is wrong, or nothing can be said because a variable is not set.
    pub(crate) value: Option<T>,
    /// Variables it needs that are not set.
    pub(crate) missing: Vec<Missing>,
    pub(crate) file: String,
    pub(crate) at: Place,
}

/// Reads a checked value. A whole number that was checked to lie within bounds fits its type.
pub(crate) fn number<T: TryFrom<i64>>(node: &Node, key: &str, default: T) -> T {
    node.get(key).and_then(Node::integer).and_then(|value| T::try_from(value).ok()).unwrap_or(default)
}

/// The text of a key.
pub(crate) fn text(node: &Node, key: &str) -> Option<String> {
    node.get(key).and_then(Node::text).map(str::to_owned)
}

/// The text of a key that was checked to be there.
pub(crate) fn required(node: &Node, key: &str) -> String {
    text(node, key).unwrap_or_default()
}

/// The texts of a list.
pub(crate) fn texts(node: &Node, key: &str) -> Vec<String> {
    let items = node.get(key).map(Node::items).unwrap_or_default();
    items.iter().filter_map(Node::text).map(str::to_owned).collect()
}

/// The texts of a map.
pub(crate) fn text_map(node: &Node, key: &str) -> BTreeMap<String, String> {
    let entries = node.get(key).map(Node::entries).unwrap_or_default();
    entries.iter().filter_map(|entry| Some((entry.key.clone(), entry.node.text()?.to_owned()))).collect()
}

/// One of the domain's words; the shape admits no others.
pub(crate) fn word<T: serde::de::DeserializeOwned>(node: &Node, key: &str) -> Option<T> {
    let text = node.get(key).and_then(Node::text)?;
    serde_json::from_value(serde_json::Value::String(text.to_owned())).ok()
}

pub(crate) fn project(node: &Node) -> Project {
    let mut settings = Settings::default();
    if text(node, "contents").as_deref() == Some("plain") {
        settings.contents = Contents::Plain;
    }
    if let Some(sandbox) = node.get("sandbox") {
        settings.sandbox.walls_optional = texts(sandbox, "walls_optional");
        if let Some(limits) = sandbox.get("limits") {
            settings.sandbox.limits = sandbox_limits(limits);
        }
    }
    let default_agent = node.get("default_agent").and_then(|node| Some((node.text()?.to_owned(), node.at)));
    Project { default_agent, settings }
}

fn sandbox_limits(node: &Node) -> Limits {
    let default = Limits::default();
    Limits {
        memory_bytes_max: number(node, "memory_bytes_max", default.memory_bytes_max),
        processes_max: number(node, "processes_max", default.processes_max),
        cpu_milli_max: number(node, "cpu_milli_max", default.cpu_milli_max),
        workspace_bytes_max: number(node, "workspace_bytes_max", default.workspace_bytes_max),
        workspace_inodes_max: number(node, "workspace_inodes_max", default.workspace_inodes_max),
        tmp_bytes_max: number(node, "tmp_bytes_max", default.tmp_bytes_max),
        open_files_max: number(node, "open_files_max", default.open_files_max),
        commands_max: number(node, "commands_max", default.commands_max),
    }
}

pub(crate) fn prices(node: &Node) -> BTreeMap<String, Price> {
    let price = |node: &Node| Price {
        input: number(node, "input", 0),
        cached_input: node.get("cached_input").map(|_| number(node, "cached_input", 0)),
        output: number(node, "output", 0),
    };
    node.entries().iter().map(|entry| (entry.key.clone(), price(&entry.node))).collect()
}

/// An empty file is a map without keys.
pub(crate) fn as_map(mut node: Node) -> Node {
    if matches!(node.value, Value::Null) {
        node.value = Value::Map(Vec::new());
    }
    node
}
