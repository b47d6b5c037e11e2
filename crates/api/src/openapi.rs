//! The OpenAPI 3.1 document, made from the table and the wire types.

use crate::endpoint::{Access, Answer, Body, Endpoint, Parameter, Request, of};
use crate::table::PROBLEM;
use crate::{Delta, ENDPOINTS, ExecSays, ExecStart, ExecTold, Record, Resync};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The document.
pub fn openapi() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for endpoint in ENDPOINTS {
        let path = paths.entry(endpoint.path.replace("{*", "{")).or_insert_with(|| json!({}));
        path[endpoint.method.name().to_ascii_lowercase()] = operation(&mut generator, endpoint);
    }
    // Streams have no schema in OpenAPI; what their events hold is named all the same.
    for schema in [of::<Record>, of::<Delta>, of::<Resync>, of::<ExecStart>, of::<ExecSays>, of::<ExecTold>] {
        schema(&mut generator);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Topside",
            "version": domain::VERSION,
            "description": "Start agent runs, follow and steer them, approve of their calls, read their record. Every path stands a second time under /api/v1.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }, { "url": crate::BASE }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "key": { "type": "apiKey", "in": "header", "name": "X-API-Key" },
            },
            "schemas": generator.take_definitions(true),
        },
    })
}

fn operation(generator: &mut SchemaGenerator, endpoint: &Endpoint) -> Value {
    let mut operation = Map::new();
    operation.insert("operationId".into(), endpoint.id.into());
    operation.insert("summary".into(), endpoint.summary.into());
    if !endpoint.description.is_empty() {
        operation.insert("description".into(), endpoint.description.into());
    }
    let parameters = parameters(endpoint);
    if !parameters.is_empty() {
        operation.insert("parameters".into(), parameters.into());
    }
    if let Some(body) = endpoint.request.body() {
        let required = matches!(endpoint.request, Request::Required(_));
        let body = json!({ "required": required, "content": content(generator, &[body]) });
        operation.insert("requestBody".into(), body);
    }
    operation.insert("responses".into(), responses(generator, endpoint));
    operation.insert(
        "security".into(),
        match endpoint.access {
            Access::Open | Access::Link => json!([]),
            Access::Scope(scope) => json!([{ "bearer": [scope.name()] }, { "key": [scope.name()] }]),
        },
    );
    operation.insert(
        "x-codeSamples".into(),
        json!([{ "lang": "Shell", "source": endpoint.example.replace("{base}", "http://127.0.0.1:8787").replace("{auth}", "") }]),
    );
    operation.into()
}

fn parameters(endpoint: &Endpoint) -> Vec<Value> {
    let path = endpoint
        .path_parameters()
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    let optional = |place: &'static str| {
        move |parameter: &Parameter| {
            json!({
                "name": parameter.name,
                "in": place,
                "description": parameter.description,
                "schema": { "type": parameter.kind },
            })
        }
    };
    let query = endpoint.query.iter().map(optional("query"));
    // OpenAPI 3.1 §4.8.12.1 ignores a parameter named Accept: the content types of the answers say it.
    let headers = endpoint.headers.iter().filter(|header| header.name != "Accept").map(optional("header"));
    path.chain(query).chain(headers).collect()
}

fn responses(generator: &mut SchemaGenerator, endpoint: &Endpoint) -> Value {
    let mut responses = BTreeMap::new();
    for Answer { status, description, bodies } in endpoint.answers {
        responses.insert(*status, json!({ "description": description, "content": content(generator, bodies) }));
    }
    let mut problems: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for refusal in endpoint.common_refusals().iter().chain(endpoint.refusals) {
        problems.entry(refusal.status()).or_default().push(format!("`{}`: {}.", refusal.code(), refusal.title()));
    }
    for (status, code) in endpoint.errors {
        problems.entry(*status).or_default().push(format!("`{code}`."));
    }
    for (status, codes) in problems {
        let problem = json!({ "description": codes.join(" "), "content": content(generator, &[PROBLEM]) });
        responses.insert(status, problem);
    }
    responses.into_iter().map(|(status, response)| (status.to_string(), response)).collect::<Map<_, _>>().into()
}

fn content(generator: &mut SchemaGenerator, bodies: &[Body]) -> Value {
    let mut content = Map::new();
    for body in bodies {
        let schema = match body.schema {
            Some(schema) => json!({ "schema": schema(generator) }),
            None if body.media.starts_with("text/") => json!({ "schema": { "type": "string" } }),
            None => json!({}),
        };
        content.insert(body.media.to_owned(), schema);
    }
    content.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pointers of every reference in a document.
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(reference)) = map.get("$ref") {
                    found.push(reference.clone());
                }
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = openapi();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let pointer = reference.strip_prefix('#').expect(&reference);
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    /// Run with `UPDATE=1` to write the file.
    #[test]
    fn the_committed_document_is_the_one_that_is_made() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi/openapi.json");
        let made = format!("{:#}\n", openapi());
        if std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi")).unwrap();
            std::fs::write(file, &made).unwrap();
        }
        let committed = std::fs::read_to_string(file).unwrap_or_default();
        assert!(
            committed == made,
            "openapi/openapi.json is not what the code says; hint: UPDATE=1 cargo test -p topside-api"
        );
    }
}
