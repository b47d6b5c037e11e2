//! What the simulated agents declare: tools of every contract, and transcripts that call them at random.

use crate::hooks::{EVENTS, SECRET};
use crate::network::{HOOK_HOST, MODEL_HOST};
use catalog::Catalog;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};
use stdx::Random;

/// Projects that differ; a seed chooses one.
const PROJECTS: u64 = 16;
/// Ways in which a run can go, by agent and project.
pub(crate) const PLANS: u64 = 6;

/// An agent: its name and further lines of its declaration.
pub(crate) const AGENTS: &[(&str, &str)] = &[
    ("maya", "limits: {turns: 12, tool_calls: 30}\n"),
    (
        "ben",
        "sandbox: {provider: local, capabilities: [shell]}\nlimits: {turns: 12, tool_calls: 30}\nartifacts: [notes]\n",
    ),
    ("carl", "limits: {turns: 2, tool_calls: 4, reached: ask}\n"),
    ("nell", "limits: {turns: 12, tool_calls: 30}\n"),
];

/// Agents whose model is behind the network.
const REMOTE: &[&str] = &["nell", PIA];
/// The nested agent, and the tool that it is for the others.
const PIA: &str = "pia";
pub(crate) const NESTED: &str = "ask";

/// How a tool behaves and what its contract promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    effect: &'static str,
    /// Further lines of its declaration.
    lines: &'static str,
    /// Whether a second deed of one call is harm.
    pub(crate) is_once: bool,
    /// Whether repetitions carry one key.
    pub(crate) is_keyed: bool,
    /// How many must approve of a call.
    pub(crate) approvals: usize,
    /// What a call takes at most, in milliseconds.
    pub(crate) slow_ms_max: u64,
    /// Calls of 100 that fail.
    pub(crate) fails: u64,
}

const fn tool(name: &'static str, effect: &'static str) -> Tool {
    Tool { name, effect, lines: "", is_once: true, is_keyed: false, approvals: 0, slow_ms_max: 0, fails: 0 }
}

const KEYED: Tool = Tool { is_once: false, is_keyed: true, ..tool("", "external") };

/// A tool of each contract, quick, slow and failing.
pub(crate) const TOOLS: &[Tool] = &[
    Tool { is_once: false, ..tool("look", "read") },
    Tool { is_once: false, slow_ms_max: 4_000, lines: "timeout_seconds: 3\n", ..tool("watch", "read") },
    Tool { is_once: false, fails: 40, ..tool("guess", "read") },
    Tool { slow_ms_max: 200, ..tool("note", "write") },
    Tool { name: "pay", lines: "idempotency: {key: call}\napproval: never\n", slow_ms_max: 300, ..KEYED },
    Tool { name: "order", lines: "idempotency: {key: arguments}\napproval: never\n", ..KEYED },
    Tool { name: "charge", lines: "idempotency: {key: caller}\napproval: never\n", slow_ms_max: 50, ..KEYED },
    Tool { name: "grant", lines: "idempotency: {key: call}\napproval: always\n", approvals: 1, ..KEYED },
    Tool { slow_ms_max: 20, lines: "approval: never\n", ..tool("send", "external") },
    Tool {
        slow_ms_max: 4_000,
        lines: "timeout_seconds: 2\napproval: never\nrollback: {compensate: withdraw}\n",
        fails: 10,
        ..tool("publish", "external")
    },
    Tool { name: "withdraw", lines: "idempotency: {key: call}\napproval: never\n", ..KEYED },
    Tool { fails: 5, lines: "approval: never\n", ..tool("wipe", "destructive") },
    Tool { approvals: 2, lines: "approval: {quorum: 2}\n", ..tool("launch", "destructive") },
    Tool {
        lines: "approval: never\npreconditions: [{tool: {name: look, expect: {type: string}}, message: Look first.}]\n",
        slow_ms_max: 100,
        ..tool("mail", "external")
    },
];

/// The declarations in force for a seed; read once for each project.
pub(crate) fn catalog(seed: u64) -> Result<Arc<Catalog>, String> {
    static READ: LazyLock<Mutex<BTreeMap<u64, Arc<Catalog>>>> = LazyLock::new(Mutex::default);
    let number = seed % PROJECTS;
    let mut read = READ.lock();
    if let Some(catalog) = read.get(&number) {
        return Ok(catalog.clone());
    }
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    for (path, text) in files(number) {
        let path = folder.path().join(path);
        let parent = path.parent().unwrap_or(folder.path());
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, text))
            .map_err(|error| error.to_string())?;
    }
    let catalog = Catalog::load(folder.path(), &environment).map_err(|problems| problems.to_string())?;
    let catalog = Arc::new(catalog);
    read.insert(number, catalog.clone());
    Ok(catalog)
}

/// The variables of the environment.
pub(crate) fn environment(name: &str) -> Option<String> {
    (name == "HOOK_SECRET").then(|| SECRET.to_owned())
}

/// What the project says of itself: retries that are used up soon, breakers that open early, and somebody who is told.
fn settings() -> String {
    let retry = "{attempts: 3, backoff_seconds: 4, backoff_seconds_max: 30, total_seconds: 300}";
    let events = EVENTS.join(", ");
    format!(
        "default_agent: maya\nretries: {{model: {retry}}}\nbreaker: {{failures: 2, open_seconds: 20}}\n\
         webhooks: [{{url: 'http://{HOOK_HOST}/told', secret: '${{env.HOOK_SECRET}}', events: [{events}]}}]\n"
    )
}

fn files(number: u64) -> Vec<(String, String)> {
    let names: Vec<_> = TOOLS.iter().map(|tool| tool.name).collect();
    let mut files = vec![
        ("topside.yaml".to_owned(), settings()),
        ("policies/all.cedar".to_owned(), "permit (principal, action, resource);\n".to_owned()),
    ];
    let mut models = String::new();
    let nested = (PIA, "limits: {turns: 2, tool_calls: 3}\n");
    for (place, (name, lines)) in AGENTS.iter().chain([&nested]).enumerate() {
        let asks = if *name == PIA { "" } else { ", ask" };
        let front = format!("model: {name}\ntools: [{}{asks}]\n{lines}", names.join(", "));
        files.push((format!("agents/{name}.md"), format!("---\n{front}---\nYou are {name}.\n")));
        if REMOTE.contains(name) {
            let url = format!("http://{MODEL_HOST}/v1");
            // Writing to a string does not fail.
            let _ = writeln!(
                models,
                "{name}: {{provider: openai-compatible, wire: chat, name: remote, url: '{url}', stream: true}}"
            );
            continue;
        }
        // Writing to a string does not fail.
        let _ = writeln!(models, "{name}: {{provider: script, transcript: {name}.yaml}}");
        let random = Random::seeded(0x5c21_9700 + number * 16 + place as u64);
        // JSON is YAML.
        files.push((format!("{name}.yaml"), script(&random, lines.contains("sandbox")).to_string()));
    }
    files.push(("models/all.yaml".to_owned(), models));
    files.push((format!("tools/{NESTED}.yaml"), format!("description: Asks {PIA}.\nrun: {{agent: {PIA}}}\n")));
    for Tool { name, effect, lines, .. } in TOOLS {
        let schema = "{type: object, properties: {n: {type: integer}}}";
        let text = format!(
            "description: Does {name}.\ninput_schema: {schema}\neffect: {effect}\n{lines}run: {{function: {{}}}}\n"
        );
        files.push((format!("tools/{name}.yaml"), text));
    }
    files
}

/// A transcript with a section for each plan.
fn script(random: &Random, has_sandbox: bool) -> Value {
    let mut steps = Vec::new();
    for plan in 0..PLANS {
        let turns = random.below(4);
        for turn in 0..turns {
            let mut reply: Vec<Value> = Vec::new();
            if random.below(3) == 0 {
                reply.push(json!({"text": format!("Turn {turn}.")}));
            }
            for call in 0..=random.below(3) {
                reply.push(json!({"call": call_of(random, &format!("p{plan}t{turn}c{call}"), has_sandbox)}));
            }
            steps.push(step(plan, turn, &reply));
        }
        steps.push(step(plan, turns, &[json!({"text": format!("Plan {plan} is done.")})]));
    }
    json!({"title": "played", "steps": steps})
}

fn step(plan: u64, turn: u64, reply: &[Value]) -> Value {
    match turn {
        0 => json!({"expect": {"user": format!("^plan-{plan} ")}, "reply": reply}),
        _ => json!({"reply": reply}),
    }
}

fn call_of(random: &Random, id: &str, has_sandbox: bool) -> Value {
    let n = random.below(4);
    match random.below(20) {
        0 => json!({"id": id, "tool": "nothing_like_it", "arguments": {}}),
        1 => json!({"id": id, "tool": "send", "arguments": {"n": "not a number"}}),
        2 | 3 => json!({"id": id, "tool": NESTED, "arguments": {"message": format!("plan-{n} for you")}}),
        4..13 if has_sandbox => {
            let ms = if random.below(3) == 0 { random.below(12_000) } else { random.below(100) };
            json!({"id": id, "tool": "exec_command", "arguments": {"cmd": format!("put notes {ms}")}})
        }
        _ => {
            let place = usize::try_from(random.below(TOOLS.len() as u64)).unwrap_or(0);
            json!({"id": id, "tool": TOOLS[place].name, "arguments": {"n": n}})
        }
    }
}
