//! JSON Schemas of the domain's nouns where they stand on the wire; `domain` itself knows no schema.

use domain::{RunStatus, Wait};
use schemars::{Schema, SchemaGenerator, json_schema};

fn id(prefix: &str) -> Schema {
    json_schema!({ "type": "string", "pattern": format!("^{prefix}_[0-9a-f]{{32}}$") })
}

pub(crate) fn run(_: &mut SchemaGenerator) -> Schema {
    id("run")
}

pub(crate) fn session(_: &mut SchemaGenerator) -> Schema {
    id("ses")
}

pub(crate) fn call(_: &mut SchemaGenerator) -> Schema {
    id("call")
}

pub(crate) fn calls(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": id("call") })
}

pub(crate) fn principals(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": id("prn") })
}

pub(crate) fn sandbox(_: &mut SchemaGenerator) -> Schema {
    id("sbx")
}

pub(crate) fn artifact(_: &mut SchemaGenerator) -> Schema {
    id("art")
}

pub(crate) fn principal(_: &mut SchemaGenerator) -> Schema {
    id("prn")
}

pub(crate) fn checkpoint(_: &mut SchemaGenerator) -> Schema {
    id("chk")
}

pub(crate) fn digest(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[0-9a-f]{64}$" })
}

pub(crate) fn run_status(_: &mut SchemaGenerator) -> Schema {
    let names: Vec<_> = RunStatus::ALL.iter().map(|status| status.name()).collect();
    json_schema!({ "type": "string", "enum": names })
}

pub(crate) fn wait(_: &mut SchemaGenerator) -> Schema {
    let names: Vec<_> = Wait::ALL.iter().map(|wait| wait.name()).collect();
    json_schema!({ "type": "string", "enum": names })
}

pub(crate) fn call_status(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "enum": [
            "ok", "error", "invalid", "denied", "timed_out", "cancelled", "interrupted", "rejected", "compensated",
        ],
    })
}

pub(crate) fn when(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["now", "after_turn"] })
}

pub(crate) fn vote(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["approve", "reject"] })
}

pub(crate) fn restored_from(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["checkpoint", "archive"] })
}

pub(crate) fn deed(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["exec", "end", "link"] })
}

pub(crate) fn hold(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["call", "batch"] })
}

pub(crate) fn purpose(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["precondition", "compensation"] })
}

pub(crate) fn effect(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["read", "write", "external", "destructive"] })
}

pub(crate) fn changed(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["added", "modified", "removed"] })
}

pub(crate) fn verdict(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["allow", "deny", "hold"] })
}

pub(crate) fn failure_class(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "enum": ["tool", "model", "policy", "dependency", "sandbox", "budget", "harness"],
    })
}
