//! What a tool's declaration promises, read into a contract: preconditions, keys, retries, rollback, approval.

use crate::problem::{Rule, did_you_mean, listed, shown};
use crate::project::{number, required, retry, word};
use crate::shape::Check;
use crate::tools::is_schema;
use crate::yaml::{Node, Place, Value};
use domain::Contract;
use domain::contract::{Approval, Effect, Idempotency, Piece, Precondition, Repeat, Retry, Rollback, pieces};

/// A tool that a precondition looks with.
#[derive(Debug)]
pub(crate) struct Look {
    /// Its name.
    pub(crate) tool: String,
    /// The arguments that it is given.
    pub(crate) given: Vec<(String, Place)>,
    /// Where its name stands.
    pub(crate) at: Place,
}

/// The contract, with the tools that its preconditions look with. `arguments` are those that the tool's schema knows.
pub(crate) fn contract(
    node: &Node,
    effect: Effect,
    arguments: &[String],
    check: &mut Check<'_>,
) -> (Contract, Vec<Look>) {
    let default = Contract::of(effect);
    let idempotency = node
        .get("idempotency")
        .and_then(|key| word(key, "key").or_else(|| word(node, "idempotency")))
        .unwrap_or(default.idempotency);
    let repeat = word(node, "repeat").unwrap_or(default.repeat);
    let (preconditions, looks) = preconditions(node, arguments, check);
    let contract = Contract {
        idempotency,
        repeat,
        rollback: rollback(node, effect, check),
        approval: approval(node).unwrap_or(default.approval),
        timeout_ms: number(node, "timeout_seconds", default.timeout_ms / 1_000) * 1_000,
        output_bytes_max: number(node, "output_bytes_max", default.output_bytes_max),
        effect,
        preconditions,
        retry: retries(node, repeat, idempotency, check),
    };
    (contract, looks)
}

fn approval(node: &Node) -> Option<Approval> {
    let quorum = node.get("approval").filter(|node| node.get("quorum").is_some());
    quorum.map(|node| Approval::Quorum(number(node, "quorum", 1))).or_else(|| word(node, "approval"))
}

/// What may do harm twice is not tried again.
fn retries(node: &Node, repeat: Repeat, idempotency: Idempotency, check: &mut Check<'_>) -> Retry {
    let default = Contract::retry_default(repeat, idempotency);
    let Some(declared) = node.get("retry") else { return default };
    let retry = retry(Some(declared), Retry { attempts: default.attempts, ..Retry::REPEATABLE }, check);
    if retry.attempts == 1 {
        return Retry::NONE;
    }
    if default.attempts == 1 {
        let at = declared.get("attempts").map_or(declared.at, |node| node.at);
        let message = format!("`retry.attempts` is {}, but a call must not be made twice; expected 1", retry.attempts);
        let hint = "write `repeat: safe` if it may, or name the `idempotency` key that the other side knows".to_owned();
        check.wrong(Rule::BadValue, at, message, Some(hint));
    }
    retry
}

fn rollback(node: &Node, effect: Effect, check: &mut Check<'_>) -> Rollback {
    let Some(declared) = node.get("rollback") else { return Rollback::None };
    if let Some(with) = declared.get("compensate").and_then(Node::text) {
        if effect == Effect::Read {
            let message = "the effect is `read`, and what changes nothing is not undone; expected `none`";
            check.wrong(Rule::BadValue, declared.at, message, None);
        }
        return Rollback::Compensate { with: with.to_owned() };
    }
    if declared.text() != Some("checkpoint") {
        return Rollback::None;
    }
    if effect != Effect::Write {
        let name = effect.name();
        let message = format!("the effect is `{name}`, and a checkpoint takes back only what the sandbox holds");
        let hint = "name a tool: `rollback: {compensate: TOOL}`".to_owned();
        check.wrong(Rule::BadValue, declared.at, message, Some(hint).filter(|_| effect != Effect::Read));
    }
    Rollback::Checkpoint
}

fn preconditions(node: &Node, arguments: &[String], check: &mut Check<'_>) -> (Vec<Precondition>, Vec<Look>) {
    let (mut found, mut looks) = (Vec::new(), Vec::new());
    let items = node.get("preconditions").map(Node::items).unwrap_or_default();
    for (index, item) in items.iter().enumerate() {
        let message = required(item, "message");
        let label = format!("preconditions[{index}]");
        match (item.get("arguments"), item.get("tool")) {
            (Some(schema), None) => {
                is_schema(schema, &format!("{label}.arguments"), check);
                found.push(Precondition::Arguments { schema: schema.json().to_string(), message });
            }
            (None, Some(tool)) => {
                let (precondition, look) = look(tool, message, &label, arguments, check);
                found.push(precondition);
                looks.push(look);
            }
            (one, _) => {
                let what = if one.is_some() { "both `arguments` and `tool`" } else { "neither `arguments` nor `tool`" };
                check.wrong(Rule::BadValue, item.at, format!("`{label}` has {what}; expected one of them"), None);
            }
        }
    }
    (found, looks)
}

fn look(
    node: &Node,
    message: String,
    label: &str,
    arguments: &[String],
    check: &mut Check<'_>,
) -> (Precondition, Look) {
    let tool = required(node, "name");
    let expect = node.get("expect").map_or(serde_json::Value::Bool(true), Node::json).to_string();
    if let Some(schema) = node.get("expect") {
        is_schema(schema, &format!("{label}.tool.expect"), check);
    }
    let given = node.get("arguments");
    let json = given.map_or_else(|| serde_json::json!({}), Node::json).to_string();
    if let Some(given) = given {
        references(given, arguments, check);
    }
    let entries = given.map(Node::entries).unwrap_or_default();
    let look = Look {
        tool: tool.clone(),
        given: entries.iter().map(|entry| (entry.key.clone(), entry.at)).collect(),
        at: node.get("name").map_or(node.at, |node| node.at),
    };
    (Precondition::Tool { tool, arguments: json, expect, message }, look)
}

/// Every argument that is put in is one of the tool's, and nothing else is put in.
fn references(node: &Node, arguments: &[String], check: &mut Check<'_>) {
    match &node.value {
        Value::Text(text) => {
            for piece in pieces(text) {
                match piece {
                    Piece::Argument(name) if !arguments.iter().any(|known| known == name) => {
                        let known = arguments.iter().map(String::as_str);
                        let expected = match arguments.len() {
                            0 => "no argument".to_owned(),
                            _ => format!("one of {}", listed(known.clone())),
                        };
                        let message =
                            format!("`${{arguments.{}}}` is no argument of the call; expected {expected}", shown(name));
                        check.wrong(Rule::BadValue, node.at, message, did_you_mean(name, known));
                    }
                    Piece::Text(text) if text.contains("${") => {
                        let message = format!("`{}` is put in nowhere; expected ${{arguments.NAME}}", shown(text));
                        check.wrong(Rule::BadValue, node.at, message, None);
                    }
                    Piece::Argument(_) | Piece::Text(_) => {}
                }
            }
        }
        Value::List(items) => items.iter().for_each(|item| references(item, arguments, check)),
        Value::Map(entries) => entries.iter().for_each(|entry| references(&entry.node, arguments, check)),
        Value::Null | Value::Boolean(_) | Value::Integer(_) | Value::Number(_) | Value::Unset => {}
    }
}
