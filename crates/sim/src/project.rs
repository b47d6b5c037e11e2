//! What the simulated agents declare: tools of every contract, and transcripts that call them at random.

use catalog::Catalog;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use stdx::Random;

/// Projects that differ; a seed chooses one.
const PROJECTS: u64 = 16;
/// Ways in which a run can go, by project.
pub(crate) const PLANS: u64 = 6;

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
    /// What a call takes at most, in milliseconds.
    pub(crate) slow_ms_max: u64,
    /// Calls of 100 that fail.
    pub(crate) fails: u64,
}

const fn tool(name: &'static str, effect: &'static str) -> Tool {
    Tool { name, effect, lines: "", is_once: true, is_keyed: false, slow_ms_max: 0, fails: 0 }
}

const KEYED: Tool = Tool { is_once: false, is_keyed: true, ..tool("", "external") };

/// A tool of each contract, quick, slow and failing.
pub(crate) const TOOLS: &[Tool] = &[
    Tool { is_once: false, ..tool("look", "read") },
    Tool { is_once: false, slow_ms_max: 4_000, lines: "timeout_seconds: 3\n", ..tool("watch", "read") },
    Tool { is_once: false, fails: 40, ..tool("guess", "read") },
    Tool { slow_ms_max: 200, ..tool("note", "write") },
    Tool { name: "pay", lines: "idempotency: {key: call}\n", slow_ms_max: 300, ..KEYED },
    Tool { name: "order", lines: "idempotency: {key: arguments}\n", ..KEYED },
    Tool { name: "charge", lines: "idempotency: {key: caller}\n", slow_ms_max: 50, ..KEYED },
    Tool { slow_ms_max: 20, ..tool("send", "external") },
    Tool { slow_ms_max: 4_000, lines: "timeout_seconds: 2\n", fails: 10, ..tool("publish", "external") },
    Tool { fails: 5, ..tool("wipe", "destructive") },
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
    let catalog = Catalog::load(folder.path(), &|_| None).map_err(|problems| problems.to_string())?;
    let catalog = Arc::new(catalog);
    read.insert(number, catalog.clone());
    Ok(catalog)
}

fn files(number: u64) -> Vec<(String, String)> {
    let names: Vec<_> = TOOLS.iter().map(|tool| tool.name).collect();
    let front = format!("model: main\ntools: [{}]\nlimits: {{turns: 12, tool_calls: 30}}", names.join(", "));
    let mut files = vec![
        ("topside.yaml".to_owned(), "default_agent: maya\n".to_owned()),
        ("agents/maya.md".to_owned(), format!("---\n{front}\n---\nYou are Maya.\n")),
        ("models/main.yaml".to_owned(), "main: {provider: script, transcript: script.yaml}\n".to_owned()),
        ("policies/all.cedar".to_owned(), "permit (principal, action, resource);\n".to_owned()),
        // JSON is YAML.
        ("script.yaml".to_owned(), script(number).to_string()),
    ];
    for Tool { name, effect, lines, .. } in TOOLS {
        let text = format!(
            "description: Does {name}.\ninput_schema: {{type: object, properties: {{n: {{type: integer}}}}, required: [n]}}\n\
             effect: {effect}\n{lines}run: {{function: {{}}}}\n"
        );
        files.push((format!("tools/{name}.yaml"), text));
    }
    files
}

/// A transcript with a section for each plan.
fn script(number: u64) -> Value {
    let random = Random::seeded(0x5c21_9700 + number);
    let mut steps = Vec::new();
    for plan in 0..PLANS {
        let turns = random.below(4);
        for turn in 0..turns {
            let mut reply: Vec<Value> = Vec::new();
            if random.below(3) == 0 {
                reply.push(json!({"text": format!("Turn {turn}.")}));
            }
            for call in 0..=random.below(3) {
                reply.push(json!({"call": call_of(&random, &format!("p{plan}t{turn}c{call}"))}));
            }
            steps.push(step(plan, turn, reply));
        }
        steps.push(step(plan, turns, vec![json!({"text": format!("Plan {plan} is done.")})]));
    }
    json!({"title": format!("project {number}"), "steps": steps})
}

fn step(plan: u64, turn: u64, reply: Vec<Value>) -> Value {
    match turn {
        0 => json!({"expect": {"user": format!("^plan-{plan} ")}, "reply": reply}),
        _ => json!({"reply": reply}),
    }
}

fn call_of(random: &Random, id: &str) -> Value {
    let n = random.below(4);
    match random.below(20) {
        0 => json!({"id": id, "tool": "nothing_like_it", "arguments": {}}),
        1 => json!({"id": id, "tool": "send", "arguments": {"n": "not a number"}}),
        _ => {
            let place = usize::try_from(random.below(TOOLS.len() as u64)).unwrap_or(0);
            json!({"id": id, "tool": TOOLS[place].name, "arguments": {"n": n}})
        }
    }
}
