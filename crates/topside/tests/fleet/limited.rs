//! Fairness between tenants, and how many runs and questions there are at once.

use crate::fleet::Fleet;
use crate::gate::{Came, Gate};
use crate::service::{Service, text};
use serde_json::json;

const SCRIPT: &str = r#"title: tell
steps:
- expect: {user: 'Tell (?<who>\w+)'}
  reply:
  - call: {id: tell, tool: tell, arguments: {text: "${who}"}}
- expect: {outputs: {tell: 'told'}}
  reply:
  - text: "Told."
"#;

/// Runs with which one tenant floods the others.
const FLOOD: usize = 40;

fn fleet(test: &str, gate: &Gate, settings: &str) -> Option<Fleet> {
    Fleet::of(
        test,
        &[
            ("topside.yaml", &format!("default_agent: worker\n{settings}")),
            ("agents/worker.md", "---\nmodel: main\ntools: [tell]\n---\nYou tell.\n"),
            ("models/main.yaml", "main: {provider: script, transcript: main.yaml}\n"),
            ("main.yaml", SCRIPT),
            ("tools/tell.yaml", &gate.tool("/tell", "")),
            ("policies/open.cedar", "@id(\"open\")\npermit (principal, action, resource);\n"),
        ],
    )
}

/// Asks for a run on somebody's behalf.
fn begin(door: &Service, key: &str, who: &str) -> String {
    let body = json!({"message": format!("Tell {who}")}).to_string();
    let headers = [&format!("Authorization: Bearer {key}")[..], "Prefer: respond-async"];
    text(&door.ask("POST", "/runs", &headers, &body).was(202), "run_id")
}

fn of<'a>(came: &'a [Came], who: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_theirs = move |(at, came): (usize, &Came)| came.body.contains(who).then_some(at);
    came.iter().enumerate().filter_map(is_theirs)
}

#[test]
fn a_tenant_that_floods_keeps_nobody_from_starting() {
    let gate = Gate::closed();
    let settings = "concurrency: {per_tenant: 2}\n";
    let Some(fleet) = fleet("a_tenant_that_floods_keeps_nobody_from_starting", &gate, settings) else { return };
    let keys = fleet.keys(&["loud", "quiet"]);
    let door = fleet.door();
    for _ in 0..FLOOD {
        begin(&door, &keys[0], "loud");
    }
    let worker = fleet.worker();
    gate.until(2);
    // Everything that the loud tenant has asked for is older, and its places are taken.
    begin(&door, &keys[1], "quiet");
    let came = gate.until(3);
    assert_eq!(of(&came, "quiet").collect::<Vec<_>>(), [2], "{came:?}");
    gate.open();
    let came = gate.until(FLOOD + 1);
    assert_eq!(of(&came, "loud").count(), FLOOD);
    worker.stop();
    door.stop();
    assert_eq!(gate.came().len(), FLOOD + 1);
}

#[test]
fn tenants_that_wait_begin_in_turns() {
    let gate = Gate::closed();
    gate.open();
    let settings = "concurrency: {per_tenant: 1}\n";
    let Some(fleet) = fleet("tenants_that_wait_begin_in_turns", &gate, settings) else { return };
    let keys = fleet.keys(&["loud", "quiet"]);
    let door = fleet.door();
    for _ in 0..FLOOD {
        begin(&door, &keys[0], "loud");
    }
    for _ in 0..2 {
        begin(&door, &keys[1], "quiet");
    }
    let worker = fleet.worker();
    let came = gate.until(FLOOD + 2);
    let last = of(&came, "quiet").last().unwrap();
    assert!(last < FLOOD / 2, "the quiet tenant began last at {last} of {came:?}");
    worker.stop();
    door.stop();
}

#[test]
fn limits_hold_in_each_process() {
    const RUNS: usize = 24;
    const MOST: usize = 3;
    // One process takes whatever is ready up to its own limits, and asks a model no faster for that.
    for (per, count) in [("per_tenant: 3", 2), ("per_model: {main: 3}", 1)] {
        let gate = Gate::closed();
        let is_model = per.starts_with("per_model");
        let test = "limits_hold_in_each_process";
        let Some(fleet) = fleet(test, &gate, &format!("concurrency: {{{per}}}\n")) else { return };
        if is_model {
            let model = format!(
                "main: {{provider: openai-compatible, url: \"{}\", name: m, wire: chat, stream: false}}\n",
                gate.url
            );
            std::fs::write(fleet.project.path().join("models/main.yaml"), model).unwrap();
        }
        let door = fleet.door();
        let runs: Vec<String> = (0..RUNS).map(|at| door.begin(&format!("s{at}"), "Tell me")).collect();
        let workers: Vec<Service> = (0..count).map(|_| fleet.worker()).collect();
        let path = if is_model { "/chat/completions" } else { "/tell" };
        // Each time that all places are taken, one becomes free.
        for done in 0..RUNS {
            gate.until((done + 1).max((done + workers.len() * MOST).min(RUNS)));
            gate.let_through(1);
        }
        for run in &runs {
            door.standing(run, "completed");
        }
        assert_eq!(gate.most(path), workers.len() * MOST, "{per}");
        workers.into_iter().for_each(Service::stop);
        door.stop();
        assert_eq!(gate.came().len(), RUNS, "{per}");
    }
}
