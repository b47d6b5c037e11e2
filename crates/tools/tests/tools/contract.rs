//! What contracts promise: preconditions, the call that undoes another, agents as tools, and which failures may pass.

use crate::support::{World, permit, text, tool};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::any;
use domain::agent::Caller;
use domain::contract::{Precondition, Rollback};
use domain::{CallStatus, Contract, Effect, FailureClass, Tool, ToolRun};
use rusqlite::Connection;
use serde_json::{Value, json};
use tools::{Context, Functions, Needed, Reply, Toolbox};

const REFUND: &str = r#"{
  "type": "object",
  "properties": {
    "id": {"type": "integer"}, "cents": {"type": "integer"}, "note": {"type": "string"}, "tags": {"type": "array"},
    "currency": {"type": "string", "default": "EUR"}
  },
  "required": ["id", "cents"]
}"#;

const LOOKUP: &str = r#"{"type": "object", "properties": {"id": {"type": "integer"}}}"#;

fn arguments(schema: Value, message: &str) -> Precondition {
    Precondition::Arguments { schema: schema.to_string(), message: message.into() }
}

fn look(arguments: Value, expect: Value) -> Precondition {
    let (tool, message) = ("lookup".to_owned(), "There is no such account.".to_owned());
    Precondition::Tool { tool, arguments: arguments.to_string(), expect: expect.to_string(), message }
}

fn functions() -> Functions {
    let mut functions = Functions::new();
    let answer = |arguments: Value, _: Context| async move {
        // What it is asked for is what it gives.
        match arguments.get("id").and_then(Value::as_i64) {
            Some(0) => Err("broken".to_owned()),
            Some(1) => Ok(Reply::from("no JSON")),
            Some(2) => Ok(Reply::from(json!("x".repeat(40_000)))),
            id => Ok(Reply::from(json!([{"id": id}]))),
        }
    };
    for name in ["lookup", "refund", "unrefund"] {
        functions.add(name, answer);
    }
    functions
}

/// A tool `refund` with these preconditions, `lookup` to tell and `unrefund` to undo, both for the harness alone.
fn refund(preconditions: Vec<Precondition>) -> Vec<Tool> {
    let rollback = Rollback::Compensate { with: "unrefund".into() };
    let contract = Contract { preconditions, rollback, ..Contract::of(Effect::External) };
    let refund = Tool { contract, ..tool("refund", Effect::External, REFUND, ToolRun::Function) };
    let harness =
        |name, effect, schema| Tool { caller: Caller::Harness, ..tool(name, effect, schema, ToolRun::Function) };
    vec![refund, harness("lookup", Effect::Read, LOOKUP), harness("unrefund", Effect::External, REFUND)]
}

fn toolbox(preconditions: Vec<Precondition>) -> Toolbox {
    Toolbox::new(&refund(preconditions), &[], &functions()).unwrap()
}

#[test]
fn arguments_are_tested_before_a_call_is_judged() {
    let world = World::new(&[]);
    let toolbox = toolbox(vec![
        arguments(json!({"properties": {"cents": {"maximum": 5000}}}), "At most 50.00."),
        arguments(json!({"properties": {"currency": {"enum": ["EUR"]}}, "required": ["currency"]}), "Only euros."),
    ]);
    for (given, code, message) in [
        (r#"{"id": 7, "cents": 5000}"#, "", ""),
        (r#"{"id": 7, "cents": 5001}"#, "precondition_failed", "At most 50.00."),
        (r#"{"id": 7, "cents": 5, "currency": "USD"}"#, "precondition_failed", "Only euros."),
        (r#"{"id": 7, "cents": 5001, "currency": "USD"}"#, "precondition_failed", "At most 50.00."),
        // What does not fit the schema is told first.
        (r#"{"id": "x", "cents": 5001}"#, "arguments_invalid", "- id: expected integer, got \"x\""),
    ] {
        let rejection = toolbox.check(&world.call_of("refund", given)).err();
        let (got, told) = rejection.map_or(("", String::new()), |rejection| (rejection.code, rejection.text));
        assert_eq!(got, code, "{given}: {told}");
        assert!(told.ends_with(message), "{given}: {told}");
    }
}

#[tokio::test]
async fn a_call_whose_arguments_fail_a_precondition_is_not_performed_either() {
    let world = World::new(&[]);
    let toolbox = toolbox(vec![arguments(json!({"properties": {"cents": {"maximum": 5000}}}), "At most 50.00.")]);
    let call = world.call_of("refund", r#"{"id": 7, "cents": 5001}"#);
    let outcome = tools::execute(permit(&call, world.clock.monotonic()), &toolbox, &world).await;
    assert_eq!((outcome.status, outcome.code), (CallStatus::Invalid, Some("precondition_failed")));
}

#[test]
fn what_another_tool_has_to_tell_is_asked_with_the_calls_arguments() {
    let world = World::new(&[]);
    for (template, given, expected) in [
        (json!({}), "{}", "{}"),
        (json!({"id": "${arguments.id}"}), "{}", r#"{"id":7}"#),
        (
            json!({"text": "account ${arguments.id}, ${arguments.note}"}),
            r#"{"note": "a\"b"}"#,
            r#"{"text":"account 7, a\"b"}"#,
        ),
        (
            json!({"a": {"b": ["${arguments.tags}", 5, null, true]}}),
            r#"{"tags": ["x"]}"#,
            r#"{"a":{"b":[["x"],5,null,true]}}"#,
        ),
        (json!({"currency": "${arguments.currency}"}), "{}", r#"{"currency":"EUR"}"#),
        // What was not given leaves out what stands for it.
        (json!({"id": "${arguments.id}", "note": "${arguments.note}"}), "{}", r#"{"id":7}"#),
        (json!({"note": "so: ${arguments.note}", "tags": ["${arguments.note}"]}), "{}", r#"{"tags":[]}"#),
        // An argument is never read as a template again.
        (json!({"note": "${arguments.note}"}), r#"{"note": "${arguments.id}"}"#, r#"{"note":"${arguments.id}"}"#),
    ] {
        let toolbox = toolbox(vec![look(template.clone(), json!({}))]);
        let mut all: Value = serde_json::from_str(given).unwrap();
        all["id"] = 7.into();
        all["cents"] = 100.into();
        let needed = toolbox.preconditions(&world.call_of("refund", &all.to_string()));
        assert_eq!(needed, [Needed { tool: "lookup".into(), arguments: expected.into() }], "{template}");
    }
    let toolbox =
        toolbox(vec![arguments(json!({}), "never"), look(json!({}), json!({})), look(json!({}), json!(false))]);
    let call = world.call_of("refund", r#"{"id": 7, "cents": 1}"#);
    assert_eq!(toolbox.preconditions(&call).len(), 2, "those about arguments alone need no call");
    assert!(toolbox.expected(&call, 1).is_some() && toolbox.expected(&call, 2).is_none());
    assert_eq!(toolbox.preconditions(&world.call_of("lookup", "{}")), []);
}

async fn check_expected(id: i64, expect: Value, status: CallStatus, code: Option<&str>, told: &str) {
    let world = World::new(&[]);
    let toolbox = toolbox(vec![look(json!({"id": id}), expect.clone())]);
    let call = world.call_of("refund", r#"{"id": 7, "cents": 1}"#);
    let needed = toolbox.preconditions(&call).remove(0);
    let asked = world.call_of(&needed.tool, &needed.arguments);
    let outcome = tools::execute(permit(&asked, world.clock.monotonic()), &toolbox, &world).await;
    let outcome = tools::expect(&toolbox.expected(&call, 0).unwrap(), outcome);
    assert_eq!((outcome.status, outcome.code), (status, code), "{expect}: {outcome:?}");
    assert!(text(&outcome).starts_with(told), "{expect}: {}", text(&outcome));
    assert!(!outcome.transient, "{expect}");
}

#[tokio::test]
async fn what_it_tells_meets_what_is_expected_or_the_message_is_told() {
    use CallStatus::{Error, Ok};
    let (unmet, message) = (Some("precondition_failed"), "There is no such account.");
    check_expected(7, json!({"minItems": 1}), Ok, None, "[{\"id\":7}]").await;
    check_expected(7, json!({"contains": {"properties": {"id": {"const": 7}}}}), Ok, None, "[").await;
    check_expected(7, json!({"minItems": 2}), Error, unmet, message).await;
    check_expected(7, json!(false), Error, unmet, message).await;
    // Text is a string; of a long output the whole counts, not what is shown.
    check_expected(1, json!({"const": "no JSON"}), Ok, None, "no JSON").await;
    check_expected(1, json!({"type": "array"}), Error, unmet, message).await;
    check_expected(2, json!({"type": "string", "minLength": 40_000, "maxLength": 40_000}), Ok, None, "").await;
    // One that fails by itself says why.
    check_expected(0, json!({}), Error, Some("function_failed"), "broken").await;
}

#[test]
fn what_only_the_harness_calls_is_not_offered() {
    let (world, toolbox) = (World::new(&[]), toolbox(vec![look(json!({}), json!({}))]));
    let names: Vec<_> = toolbox.specs().iter().map(|spec| spec.name.clone()).collect();
    assert_eq!(names, ["read_output", "refund"]);
    for (name, offered, known) in [("refund", true, true), ("lookup", false, true), ("nothing", false, false)] {
        assert_eq!((toolbox.offers(name), toolbox.contract(name).is_some()), (offered, known), "{name}");
    }
    assert_eq!(
        toolbox.unknown("lookups").text,
        "There is no tool named `lookups`. The tools are `read_output`, `refund`."
    );
    let call = world.call_of("refund", r#"{"id":7,"cents":1}"#);
    let undo = Needed { tool: "unrefund".into(), arguments: call.arguments.clone() };
    assert_eq!(toolbox.compensation(&call), Some(undo));
    assert_eq!(toolbox.compensation(&world.call_of("lookup", "{}")), None);
}

#[tokio::test]
async fn an_agent_is_a_tool_that_is_never_performed() {
    let schema = r#"{"type":"object","properties":{"message":{"type":"string"}},"required":["message"]}"#;
    let run = ToolRun::Agent { agent: "nora".into() };
    let world = World::new(&[tool("research", Effect::Write, schema, run)]);
    assert_eq!(world.toolbox.nested("research"), Some("nora"));
    assert_eq!((world.toolbox.nested("read_output"), world.toolbox.nested("nothing")), (None, None));
    let call = world.call_of("research", r#"{"message":"Where is it?"}"#);
    assert_eq!(tools::nested_message(&call), "Where is it?");
    let outcome = world.call("research", &call.arguments).await;
    assert_eq!((outcome.status, outcome.code), (CallStatus::Error, Some("tool_nested")));
    assert_eq!(outcome.failure.unwrap().class, FailureClass::Harness);
}

#[test]
fn contracts_that_can_not_be_kept_are_refused() {
    let agent = ToolRun::Agent { agent: "nora".into() };
    let named = |run: ToolRun, schema: &str| {
        let mut tools = refund(vec![look(json!({}), json!({}))]);
        tools[1] = tool("lookup", Effect::Read, schema, run);
        tools
    };
    let message = r#"{"type":"object","properties":{"message":{"type":"string"}}}"#;
    for (tools, expected) in [
        (
            refund(vec![arguments(json!({"type": "strng"}), "x")]),
            "tool `refund`: preconditions: the precondition number 1: ",
        ),
        (
            refund(vec![look(json!({}), json!({})), look(json!([]), json!({}))]),
            "tool `refund`: preconditions: the precondition number 2: ",
        ),
        (named(agent.clone(), message), "tool `refund`: preconditions: `lookup` is an agent, "),
        (refund(vec![])[..1].to_vec(), "tool `refund`: rollback: there is no tool `unrefund`"),
        (named(agent, LOOKUP), "tool `lookup`: run.agent: `message` is no property of input_schema; "),
    ] {
        let error = Toolbox::new(&tools, &[], &functions()).unwrap_err();
        assert!(error.to_string().starts_with(expected), "got {error}\nwant {expected}");
    }
}

/// What becomes of one request to a server that answers so.
async fn check_http(status: u16, timeout_ms: u64, expected: (Option<&str>, Option<FailureClass>, bool)) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let answer = move || async move {
        if status == 0 {
            std::future::pending::<()>().await;
        }
        StatusCode::from_u16(status).unwrap()
    };
    let service = tokio::spawn(async move { axum::serve(listener, Router::new().route("/", any(answer))).await });
    let run = ToolRun::Http { method: "GET".into(), url, headers: [].into(), body: vec![] };
    let declared = tool("fetch", Effect::Read, r#"{"type":"object"}"#, run);
    let contract = Contract { timeout_ms, ..declared.contract.clone() };
    let outcome = World::new(&[Tool { contract, ..declared }]).call("fetch", "{}").await;
    service.abort();
    let class = outcome.failure.as_ref().map(|failure| failure.class);
    assert_eq!((outcome.code, class, outcome.transient), expected, "{status}: {outcome:?}");
    assert_eq!(outcome.failure.map(|failure| failure.code).as_deref(), outcome.code, "{status}");
}

#[tokio::test]
async fn failures_of_a_service_may_pass_or_not() {
    let (tool, dependency) = (Some(FailureClass::Tool), Some(FailureClass::Dependency));
    check_http(200, 60_000, (None, None, false)).await;
    for status in [400, 401, 404, 409, 422, 500, 501] {
        check_http(status, 60_000, (Some("http_status"), tool, false)).await;
    }
    for status in [429, 502, 503, 504] {
        check_http(status, 60_000, (Some("http_status"), dependency, true)).await;
    }
    check_http(0, 200, (Some("tool_timeout"), dependency, true)).await;
}

#[tokio::test]
async fn other_failures_are_of_the_part_that_failed() {
    // Nobody listens on a port that was just given back.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let http = |url: String| ToolRun::Http { method: "GET".into(), url, headers: [].into(), body: vec![] };
    let sql = |query: &str| ToolRun::Sql { database: "a.db".into(), query: query.into(), rows_max: 1 };
    let object = r#"{"type":"object"}"#;
    let rows = [
        ("fetch", http(url), Some("net_connect"), FailureClass::Dependency, true),
        ("bad", sql("select nothing"), Some("sql_failed"), FailureClass::Tool, false),
        ("twice", sql("insert into a values (1)"), Some("sql_constraint"), FailureClass::Tool, false),
    ];
    let tools: Vec<_> = rows.iter().map(|(name, run, ..)| tool(name, Effect::Write, object, run.clone())).collect();
    let world = World::new(&tools);
    let file = Connection::open(world.project.path().join("a.db")).unwrap();
    file.execute_batch("create table a (id integer primary key); insert into a values (1)").unwrap();
    for (name, _, code, class, transient) in rows {
        let outcome = world.call(name, "{}").await;
        let got = outcome.failure.as_ref().map(|failure| failure.class);
        assert_eq!((outcome.code, got, outcome.transient), (code, Some(class), transient), "{name}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_database_that_another_holds_may_be_free_later() {
    let run = ToolRun::Sql { database: "a.db".into(), query: "insert into a values (1)".into(), rows_max: 1 };
    let declared = tool("add", Effect::Write, r#"{"type":"object"}"#, run);
    let contract = Contract { timeout_ms: 200, ..declared.contract.clone() };
    let world = World::new(&[Tool { contract, ..declared }]);
    let file = Connection::open(world.project.path().join("a.db")).unwrap();
    file.execute_batch("create table a (id integer); begin immediate").unwrap();
    let outcome = world.call("add", "{}").await;
    assert_eq!((outcome.code, outcome.transient), (Some("tool_timeout"), true));
    file.execute_batch("rollback").unwrap();
    let outcome = world.call("add", "{}").await;
    assert_eq!((outcome.code, text(&outcome)), (None, r#"{"rows_changed":1}"#));
}
