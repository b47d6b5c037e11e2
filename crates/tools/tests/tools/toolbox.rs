//! What is offered, checked and refused before anything happens.

use crate::support::{World, permit, text, tool};
use domain::agent::Capability;
use domain::{CallStatus, Effect, ToolRun};
use std::time::Duration;
use tools::{Functions, Toolbox};

fn sql(query: &str) -> ToolRun {
    ToolRun::Sql { database: "a.db".into(), query: query.into(), rows_max: 10 }
}

const ACCOUNT: &str = r#"{
  "type": "object",
  "properties": {
    "account_id": {"type": "integer", "minimum": 1},
    "plan": {"enum": ["free", "paid"]},
    "code": {"type": "string", "pattern": "^[a-z]{3}$", "maxLength": 3},
    "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
    "range": {"type": "object", "properties": {"from": {"type": ["integer", "null"]}}}
  },
  "required": ["account_id"],
  "additionalProperties": false
}"#;

fn toolbox() -> Toolbox {
    let tools = [tool("lookup_account", Effect::Read, ACCOUNT, sql("select :account_id"))];
    Toolbox::new(&tools, &[Capability::Shell, Capability::Filesystem], &Functions::new()).unwrap()
}

#[test]
fn tools_are_offered_by_capability() {
    let names = |capabilities: &[Capability], declared: bool| {
        let tools = [tool("t", Effect::Read, r#"{"type":"object"}"#, sql("select 1"))];
        let toolbox = Toolbox::new(&tools[..usize::from(declared)], capabilities, &Functions::new()).unwrap();
        toolbox.specs().iter().map(|spec| spec.name.clone()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(&[], false), "");
    assert_eq!(names(&[], true), "read_output t");
    assert_eq!(names(&[Capability::Shell], false), "exec_command write_stdin read_output");
    assert_eq!(names(&[Capability::Filesystem], false), "apply_patch view_image");
    let all = [Capability::Shell, Capability::Filesystem];
    assert_eq!(names(&all, true), "exec_command write_stdin apply_patch view_image read_output t");
}

#[test]
fn contracts_of_built_in_tools_are_fixed() {
    let toolbox = toolbox();
    for (name, effect, in_doubt) in [
        ("exec_command", Effect::Write, false),
        ("write_stdin", Effect::Write, false),
        ("apply_patch", Effect::Write, false),
        ("view_image", Effect::Read, false),
        ("read_output", Effect::Read, false),
    ] {
        let contract = toolbox.contract(name).unwrap();
        assert_eq!((contract.effect, contract.in_doubt_after_crash()), (effect, in_doubt), "{name}");
    }
    assert!(toolbox.contract("none").is_none());
    let grammars: Vec<_> =
        toolbox.specs().iter().filter(|spec| spec.grammar.is_some()).map(|spec| spec.name.clone()).collect();
    assert_eq!(grammars, ["apply_patch"]);
}

#[test]
fn wrong_arguments_name_the_field_and_what_was_expected() {
    let (world, toolbox) = (World::new(&[]), toolbox());
    let long = "x".repeat(100);
    let rows: [(&str, &str); 15] = [
        (r#"{"account_id":1}"#, ""),
        (r#"{"account_id":1.0,"plan":null}"#, ""),
        (r#"{}"#, "account_id: required, but missing"),
        (r#"{"account_id":null}"#, "account_id: expected integer, got null"),
        (r#"{"account_id":"7"}"#, "account_id: expected integer, got \"7\""),
        (&format!(r#"{{"account_id":"{long}"}}"#), "account_id: expected integer, got a string of 102 bytes"),
        (r#"{"account_id":0}"#, "account_id: expected at least 1, got 0"),
        (r#"{"account_id":1,"plan":"gold"}"#, "plan: expected one of [\"free\",\"paid\"], got \"gold\""),
        (r#"{"account_id":1,"code":"ABC"}"#, "code: expected a match of ^[a-z]{3}$, got \"ABC\""),
        (r#"{"account_id":1,"tags":["a",5]}"#, "tags.1: expected string, got 5"),
        (r#"{"account_id":1,"tags":["a","b","c"]}"#, "tags: expected at most 2 items"),
        (r#"{"account_id":1,"range":{"from":"x"}}"#, "range.from: expected null or integer, got \"x\""),
        (r#"{"account_id":1,"acount":2}"#, "arguments: unexpected `acount`"),
        (r#"[1]"#, "arguments: expected a JSON object, got an array"),
        (r#"{"account_id":1"#, "arguments: expected JSON: EOF while parsing an object at line 1 column 15"),
    ];
    for (arguments, expected) in rows {
        let got = toolbox.check(&world.call_of("lookup_account", arguments)).err();
        let got = got.map_or(String::new(), |rejection| {
            assert_eq!(rejection.code, "arguments_invalid");
            let (first, rest) = rejection.text.split_once("\n- ").unwrap();
            let field = expected.split(':').next().unwrap();
            assert_eq!(first, format!("Invalid tool arguments for {field}. Check the tool schema and try again."));
            rest.to_owned()
        });
        assert_eq!(got, expected, "{arguments}");
    }
    let mut call = world.call_of("lookup_account", "free text");
    call.custom = true;
    assert_eq!(toolbox.check(&call).unwrap_err().text, "`lookup_account` takes a JSON object, not free text.");
}

#[test]
fn unknown_tools_lead_to_the_nearest() {
    let toolbox = toolbox();
    let all =
        " The tools are `exec_command`, `write_stdin`, `apply_patch`, `view_image`, `read_output`, `lookup_account`.";
    for (name, hint) in [
        ("exec", " Did you mean `exec_command`?"),
        ("lookup_acount", " Did you mean `lookup_account`?"),
        ("Apply-Patch", " Did you mean `apply_patch`?"),
        ("frobnicate", ""),
    ] {
        let rejection = toolbox.unknown(name);
        assert_eq!(rejection.code, "tool_unknown");
        assert_eq!(rejection.text, format!("There is no tool named `{name}`.{hint}{all}"));
    }
    assert!(toolbox.unknown(&"x".repeat(1_000)).text.len() < 400);
    let none = Toolbox::new(&[], &[], &Functions::new()).unwrap();
    assert_eq!(none.unknown("a").text, "There is no tool named `a`. This agent has no tools.");
}

#[test]
fn tools_that_can_not_serve_are_refused_by_name() {
    let http = |url: &str, body: &[&str]| ToolRun::Http {
        method: "GET".into(),
        url: url.into(),
        headers: [].into(),
        body: body.iter().map(|name| (*name).to_owned()).collect(),
    };
    let object = r#"{"type":"object"}"#;
    for (name, schema, run, expected) in [
        ("t", "{", sql("select 1"), "tool `t`: input_schema: EOF while parsing an object at line 1 column 1"),
        ("t", "[]", sql("select 1"), "tool `t`: input_schema: expected an object"),
        (
            "t",
            r#"{"type":"string"}"#,
            sql("select 1"),
            "tool `t`: input_schema at /type: arguments are always an object; expected \"object\"",
        ),
        (
            "t",
            r#"{"type":"object","properties":{"a":{"type":"strng"}}}"#,
            sql("select 1"),
            "tool `t`: input_schema at /properties/a/type: ",
        ),
        ("t", r#"{"type":"object","$ref":"http://127.0.0.1:1/x.json"}"#, sql("select 1"), "tool `t`: input_schema"),
        ("t", r#"{"type":"object","$ref":"file:///etc/passwd"}"#, sql("select 1"), "tool `t`: input_schema"),
        (
            "exec_command",
            object,
            sql("select 1"),
            "tool `exec_command`: the name is taken by a built-in tool; hint: name it otherwise",
        ),
        (
            "t",
            object,
            sql("select :id"),
            "tool `t`: run.sql.query: `id` is no property of input_schema; hint: add it there",
        ),
        ("t", object, http("https://a.test/{id}", &[]), "tool `t`: run.http: `id` is no property of input_schema"),
        ("t", object, http("https://a.test/", &["id"]), "tool `t`: run.http: `id` is no property of input_schema"),
        (
            "t",
            object,
            http("gopher://a.test/", &[]),
            "tool `t`: run.http.url: expected http://…, https://… or ${env.…}…",
        ),
        (
            "t",
            object,
            ToolRun::Command { program: vec![], env: [].into() },
            "tool `t`: run.command.program: expected a program",
        ),
    ] {
        let error = Toolbox::new(&[tool(name, Effect::Read, schema, run)], &[], &Functions::new()).unwrap_err();
        assert!(error.to_string().starts_with(expected), "got {error}\nwant {expected}");
    }
    let twice = [tool("t", Effect::Read, object, sql("select 1")), tool("t", Effect::Read, object, sql("select 1"))];
    let error = Toolbox::new(&twice, &[], &Functions::new()).unwrap_err();
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        ("tool_duplicate", "tool `t`: the name is taken; hint: name it otherwise")
    );
}

#[tokio::test]
async fn an_expired_permit_does_nothing() {
    let mut world = World::new(&[]);
    let call = world.call_of("exec_command", r#"{"cmd":"touch done"}"#);
    let old = permit(&call, Duration::ZERO);
    world.clock = stdx::Clock::manual(policy::PERMIT_MS_MAX + 1);
    let outcome = tools::execute(old, &world.toolbox, &world).await;
    assert_eq!((outcome.status, outcome.code), (CallStatus::Error, Some("permit_expired")));
    assert!(!world.workspace.path.join("done").exists());
}

#[tokio::test]
async fn an_unknown_tool_does_nothing() {
    let world = World::new(&[]);
    let outcome = world.call("exec", r#"{"cmd":"touch done"}"#).await;
    assert_eq!((outcome.status, outcome.code), (CallStatus::Invalid, Some("tool_unknown")));
    assert!(text(&outcome).contains("Did you mean `exec_command`?"));
}
