//! `tools/*.yaml`: from checked values to tools, and whether schema, contract and deed fit each other. What a contract says is
//! `contracts`' to read; whether the tools and agents that it names are there, `link` sees.

use crate::contracts;
use crate::folder::{Folder, Found, why};
use crate::problem::{Rule, did_you_mean, listed, shown};
use crate::project::{number, required, text_map, texts, word};
use crate::query;
use crate::shape::Check;
use crate::urls;
use crate::yaml::{Node, Place, Value};
use domain::contract::{Effect, Idempotency};
use domain::{Contract, Tool, ToolRun};
use serde_json::Value as Json;

/// Names that tools of the harness have.
pub(crate) const BUILT_IN: [&str; 5] = ["apply_patch", "exec_command", "read_output", "view_image", "write_stdin"];

/// A tool with the places of what it names.
#[derive(Debug)]
pub(crate) struct Drafted {
    pub(crate) tool: Tool,
    /// The arguments that its schema knows.
    pub(crate) arguments: Vec<String>,
    /// Those that a call must have.
    pub(crate) required: Vec<String>,
    /// Where the agent stands that it is.
    pub(crate) agent_at: Place,
    /// The tools that its preconditions look with.
    pub(crate) looks: Vec<contracts::Look>,
    /// Where the tool stands that undoes its calls.
    pub(crate) undo_at: Place,
}

/// Keys that a tool has by itself when it is an agent.
const FIXED_FOR_AGENTS: [&str; 8] =
    ["input_schema", "effect", "idempotency", "repeat", "rollback", "retry", "timeout_seconds", "output_bytes_max"];

/// The arguments of a tool that is an agent.
const MESSAGE_SCHEMA: &str = r#"{"type":"object","properties":{"message":{"type":"string","minLength":1,"description":"What the agent is asked. It sees nothing else of this conversation."}},"required":["message"],"additionalProperties":false}"#;

pub(crate) fn tool(name: &str, node: &Node, check: &mut Check<'_>, folder: &mut Folder) -> Option<Drafted> {
    let [run] = node.get("run")?.entries() else { return None };
    if run.key == "agent" {
        return nested(name, node, &run.node, check);
    }
    let effect: Effect = word(node, "effect")?;
    let schema = node.get("input_schema")?;
    let arguments = arguments(schema, check);
    let (contract, looks) = contracts::contract(node, effect, &arguments, check);
    let mut deed = Deed { tool: node, run: &run.node, contract: &contract, arguments: &arguments, check, folder };
    let run = match run.key.as_str() {
        "sql" => deed.sql(),
        "command" => deed.command(),
        "http" => deed.http(),
        _ => ToolRun::Function,
    };
    let input_schema = schema.json().to_string();
    let description = required(node, "description");
    let tool =
        Tool { name: name.to_owned(), description, input_schema, contract, run, caller: domain::agent::Caller::Model };
    let undo = node.get("rollback").and_then(|node| node.get("compensate"));
    Some(Drafted {
        tool,
        required: texts(schema, "required"),
        arguments,
        agent_at: Place::START,
        looks,
        undo_at: undo.map_or(Place::START, |node| node.at),
    })
}

/// A tool that is another agent: it takes one message and is asked once, within limits of its own.
fn nested(name: &str, node: &Node, run: &Node, check: &mut Check<'_>) -> Option<Drafted> {
    for entry in node.entries().iter().filter(|entry| FIXED_FOR_AGENTS.contains(&entry.key.as_str())) {
        let message = format!("`{}` has no meaning for an agent; expected it to be left out", entry.key);
        check.wrong(Rule::BadValue, entry.at, message, None);
    }
    let message = vec!["message".to_owned()];
    let (contract, looks) = contracts::contract(node, Effect::Write, &message, check);
    let contract = Contract { timeout_ms: 0, ..contract };
    let tool = Tool {
        name: name.to_owned(),
        description: required(node, "description"),
        input_schema: MESSAGE_SCHEMA.to_owned(),
        contract,
        run: ToolRun::Agent { agent: run.text()?.to_owned() },
        caller: domain::agent::Caller::Model,
    };
    Some(Drafted {
        tool,
        required: message.clone(),
        arguments: message,
        agent_at: run.at,
        looks,
        undo_at: Place::START,
    })
}

/// Checks a schema and gives the names of the arguments it knows.
fn arguments(node: &Node, check: &mut Check<'_>) -> Vec<String> {
    let schema = node.json();
    let known = || -> Vec<String> {
        node.get("properties").map(Node::entries).unwrap_or_default().iter().map(|entry| entry.key.clone()).collect()
    };
    if schema.get("type").and_then(Json::as_str) != Some("object") {
        let at = node.get("type").map_or(node.at, |node| node.at);
        check.wrong(Rule::BadSchema, at, "`input_schema.type` must be there; expected `object`", None);
        return known();
    }
    is_schema(node, "input_schema", check);
    known()
}

/// Checks that a value is a JSON Schema that leads nowhere else; `label` names it in messages.
pub(crate) fn is_schema(node: &Node, label: &str, check: &mut Check<'_>) {
    let schema = node.json();
    if let Some(place) = foreign_reference(&schema, "") {
        let at = node.at_pointer(&place).at;
        check.wrong(
            Rule::BadSchema,
            at,
            "a `$ref` that leads out of the schema; expected one that begins with `#`",
            None,
        );
        return;
    }
    let refused = jsonschema::draft202012::meta::validate(&schema)
        .map_err(|error| (error.instance_path().to_string(), error.to_string()))
        .and_then(|()| {
            // What the meta-schema can't say: patterns that don't compile, references to nowhere.
            jsonschema::options()
                .with_draft(jsonschema::Draft::Draft202012)
                .offline()
                .with_pattern_options(jsonschema::PatternOptions::regex())
                .build(&schema)
                .map(|_| ())
                .map_err(|error| (error.instance_path().to_string(), error.to_string()))
        });
    if let Err((place, detail)) = refused {
        let at = node.at_pointer(&place).at;
        let place = format!("{label}{}", place.replace('/', "."));
        check.wrong(Rule::BadSchema, at, format!("`{}` is no JSON Schema: {}", shown(&place), shown(&detail)), None);
    }
}

/// The pointer to a `$ref` that is no fragment of the schema itself.
fn foreign_reference(value: &Json, at: &str) -> Option<String> {
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Json::Object(map) => map.iter().find_map(|(key, below)| {
            let at = format!("{at}/{}", escaped(key));
            match below.as_str() {
                Some(text) if matches!(key.as_str(), "$ref" | "$dynamicRef" | "$schema" | "$id") => {
                    let known = key == "$schema" && text == "https://json-schema.org/draft/2020-12/schema";
                    (!text.starts_with('#') && !known).then_some(at)
                }
                _ => foreign_reference(below, &at),
            }
        }),
        Json::Array(items) => {
            items.iter().enumerate().find_map(|(index, below)| foreign_reference(below, &format!("{at}/{index}")))
        }
        _ => None,
    }
}

/// One tool's `run`, with what it must fit.
struct Deed<'a, 'b> {
    tool: &'a Node,
    run: &'a Node,
    contract: &'a Contract,
    arguments: &'a [String],
    check: &'a mut Check<'b>,
    folder: &'a mut Folder,
}

impl Deed<'_, '_> {
    fn sql(&mut self) -> ToolRun {
        let query = required(self.run, "query");
        if let Some(node) = self.run.get("query") {
            self.statement(node, &query);
        }
        if let Some(node) = self.run.get("database") {
            self.file(node, "the database", false);
        }
        self.keyless("a statement");
        ToolRun::Sql { database: required(self.run, "database"), query, rows_max: number(self.run, "rows_max", 100) }
    }

    fn statement(&mut self, node: &Node, text: &str) {
        let statement = query::read(text);
        if statement.verb.is_empty() {
            self.check.wrong(Rule::BadValue, node.at, "the query is empty; expected one statement", None);
        }
        if statement.several {
            self.check.wrong(Rule::BadValue, node.at, "the query has several statements; expected one", None);
        }
        if let Some(foreign) = &statement.foreign {
            let message = format!("the query has the parameter `{}`; expected `:name`", shown(foreign));
            self.check.wrong(Rule::BadValue, node.at, message, None);
        }
        if statement.writes() && self.contract.effect == Effect::Read {
            let at = self.tool.get("effect").map_or(node.at, |node| node.at);
            let message = format!("the effect is `read`, but the query begins with `{}`", statement.verb);
            self.check.wrong(Rule::BadValue, at, message, Some("write `effect: write`".to_owned()));
        }
        self.fits(node, "the query", &statement.parameters);
    }

    /// Every name that is used is an argument, and every argument is used.
    fn fits(&mut self, node: &Node, what: &str, used: &[String]) {
        for name in used.iter().filter(|name| !self.arguments.contains(name)) {
            let known = self.arguments.iter().map(String::as_str);
            let expected = if self.arguments.is_empty() {
                "no argument".to_owned()
            } else {
                format!("one of {}", listed(known.clone()))
            };
            let message =
                format!("{what} uses `{}`, which `input_schema` does not have; expected {expected}", shown(name));
            self.check.wrong(Rule::BadSchema, node.at, message, did_you_mean(name, known));
        }
        let properties = self.tool.get("input_schema").and_then(|node| node.get("properties"));
        for entry in properties.map(Node::entries).unwrap_or_default() {
            if !used.contains(&entry.key) {
                let message = format!("the argument `{}` is never used by {what}", shown(&entry.key));
                self.check.wrong(
                    Rule::BadSchema,
                    entry.at,
                    message,
                    did_you_mean(&entry.key, used.iter().map(String::as_str)),
                );
            }
        }
    }

    fn file(&mut self, node: &Node, what: &str, program: bool) {
        let Some(name) = node.text() else { return };
        match self.folder.find(name) {
            Ok(Found::File { executable }) if !program || executable => {}
            Ok(Found::File { .. }) => {
                let hint = Some(format!("chmod +x {}", shown(name)));
                let message = format!("{what} `{}` can't be executed", shown(name));
                self.check.wrong(Rule::Dangling, node.at, message, hint);
            }
            Ok(Found::Folder) => {
                let message = format!("{what} `{}` is a folder; expected a file", shown(name));
                self.check.wrong(Rule::Dangling, node.at, message, None);
            }
            Err(error) => {
                let message = format!("{what} `{}` can't be used: {}", shown(name), why(&error));
                self.check.wrong(Rule::Dangling, node.at, message, self.folder.similar(name));
            }
        }
    }

    fn keyless(&mut self, what: &str) {
        if self.contract.idempotency != Idempotency::None
            && let Some(node) = self.tool.get("idempotency")
        {
            let message = format!("{what} sends no idempotency key; expected `none`");
            self.check.wrong(Rule::BadValue, node.at, message, None);
        }
    }

    fn command(&mut self) -> ToolRun {
        let program = texts(self.run, "program");
        match self.run.get("program").map(|node| (node, node.items())) {
            Some((node, [])) => {
                let message = "the program is missing; expected a file of the project or a name";
                self.check.wrong(Rule::BadValue, node.at, message, None);
            }
            Some((_, [first, ..])) if first.text().is_some_and(|text| text.contains('/')) => self.program(first),
            _ => {}
        }
        ToolRun::Command { program, env: text_map(self.run, "env") }
    }

    fn program(&mut self, node: &Node) {
        let text = node.text().unwrap_or_default();
        if text.parse::<sandbox::RelPath>().is_err() {
            let message = format!("the program `{}` is no path of the project", shown(text));
            let hint = Some("write a path relative to the project, or a bare name".to_owned());
            self.check.wrong(Rule::BadValue, node.at, message, hint);
        } else {
            self.file(node, "the program", true);
        }
    }

    fn http(&mut self) -> ToolRun {
        let method = self.run.get("method").and_then(Node::text).unwrap_or("GET").to_owned();
        let body = texts(self.run, "body");
        if method == "GET"
            && let Some(node) = self.run.get("body")
            && matches!(&node.value, Value::List(items) if !items.is_empty())
        {
            let hint = Some("write `method: POST`, or put the arguments into `url`".to_owned());
            self.check.wrong(Rule::BadValue, node.at, "a GET has no body", hint);
        }
        if matches!(method.as_str(), "DELETE" | "PATCH" | "PUT") && self.contract.effect == Effect::Read {
            let at = self.tool.get("effect").map_or(self.run.at, |node| node.at);
            let hint = Some("write `effect: external` or `effect: destructive`".to_owned());
            self.check.wrong(Rule::BadValue, at, format!("the effect is `read`, but the method is {method}"), hint);
        }
        if let Some(node) = self.run.get("url") {
            let mut used = urls::check_placed(node, self.check);
            used.extend(body.iter().cloned());
            self.fits(node, "the request", &used);
        }
        ToolRun::Http { method, url: required(self.run, "url"), headers: text_map(self.run, "headers"), body }
    }
}
