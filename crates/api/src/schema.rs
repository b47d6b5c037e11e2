//! JSON Schemas of the domain's nouns where they stand on the wire; `domain` itself knows no schema.

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

pub(crate) fn sandbox(_: &mut SchemaGenerator) -> Schema {
    id("sbx")
}

pub(crate) fn artifact(_: &mut SchemaGenerator) -> Schema {
    id("art")
}

pub(crate) fn principal(_: &mut SchemaGenerator) -> Schema {
    id("prn")
}

pub(crate) fn run_status(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "enum": ["queued", "running", "needs_resolution", "completed", "failed", "cancelled", "timed_out", "budget_exhausted"],
    })
}

pub(crate) fn call_status(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "enum": ["ok", "error", "invalid", "denied", "timed_out", "cancelled", "interrupted"],
    })
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
