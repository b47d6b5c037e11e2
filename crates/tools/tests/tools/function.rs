//! Rust functions as tools.

use crate::support::{World, text, tool};
use domain::{CallStatus, Contract, Effect, Part, Tool, ToolRun};
use serde_json::{Value, json};
use tools::{Context, Functions, Toolbox};

fn world(functions: &Functions) -> World {
    let tools: Vec<_> =
        functions.names().map(|name| tool(name, Effect::Read, r#"{"type":"object"}"#, ToolRun::Function)).collect();
    World::with(&tools, functions)
}

#[tokio::test]
async fn functions_answer_fail_and_break() {
    let mut functions = Functions::new();
    functions.add("sum", |arguments: Value, _: Context| async move {
        let numbers = arguments["numbers"].as_array().ok_or("no numbers")?;
        Ok::<_, &str>(json!({"sum": numbers.iter().filter_map(Value::as_i64).sum::<i64>()}))
    });
    functions.add("text", |_, context: Context| async move {
        Ok::<_, String>(format!("key {:?}", context.idempotency_key))
    });
    functions.add("image", |_, _| async {
        Ok::<_, String>(vec![Part::text("see"), Part::Image { media: "image/png".into(), base64: "AA==".into() }])
    });
    functions.add("broken", |arguments: Value, _| async move {
        Ok::<_, String>(arguments["name"].as_str().expect("a name").to_owned())
    });
    functions.add("forever", |_, _| std::future::pending::<Result<String, String>>());
    let mut world = world(&functions);
    world.key = Some("k1".into());
    assert_eq!(text(&world.call("sum", r#"{"numbers":[1,2]}"#).await), r#"{"sum":3}"#);
    assert_eq!(text(&world.call("text", "{}").await), "key Some(\"k1\")");
    assert_eq!(world.call("image", "").await.parts.len(), 2);
    let outcome = world.call("sum", "{}").await;
    assert_eq!(
        (outcome.status, outcome.code, text(&outcome)),
        (CallStatus::Error, Some("function_failed"), "no numbers")
    );
    let outcome = world.call("broken", "{}").await;
    assert_eq!((outcome.status, outcome.code), (CallStatus::Error, Some("function_panicked")));
}

#[tokio::test]
async fn a_function_is_stopped_at_its_limit() {
    let mut functions = Functions::new();
    functions.add("forever", |_, _| std::future::pending::<Result<String, String>>());
    let declared = tool("forever", Effect::Read, r#"{"type":"object"}"#, ToolRun::Function);
    let contract = Contract { timeout_ms: 50, ..declared.contract.clone() };
    let outcome = World::with(&[Tool { contract, ..declared }], &functions).call("forever", "{}").await;
    assert_eq!((outcome.status, outcome.code), (CallStatus::TimedOut, Some("tool_timeout")));
    assert!(text(&outcome).starts_with("`forever` timed out after 0."), "{outcome:?}");
    assert!(text(&outcome).ends_with(" seconds and was stopped."), "{outcome:?}");
}

#[test]
fn a_function_must_be_registered() {
    let tools = [tool("lost", Effect::Read, r#"{"type":"object"}"#, ToolRun::Function)];
    assert_eq!(Toolbox::new(&tools, &[], &Functions::new()).unwrap_err().code(), "tool_function_missing");
}
