//! What tools promise and whom they name: preconditions, retries, rollback, approvals, agents as tools; and what the project sets
//! for all. Each case is a right project with some files replaced.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use catalog::{BadClosure, Breaker, Catalog, Closure, Database, Kind, NESTED_DEPTH_MAX, RETRY_SANDBOX, schema};
use domain::agent::{Caller, Checkpoint, ToolRun};
use domain::contract::{Approval, Precondition, Repeat, Retry, Rollback};
use domain::limits::Reached;
use std::fs;
use std::path::Path;

/// A right project; cases replace its files.
const RIGHT: &[(&str, &str)] = &[
    ("topside.yaml", "default_agent: maya\n"),
    ("agents/maya.md", "--- {model: played, tools: [refund, research]} --- You are Maya."),
    ("agents/nora.md", "--- {model: played, tools: [lookup]} --- You are Nora."),
    ("models/main.yaml", "played: {provider: script, transcript: played.yaml}\n"),
    ("played.yaml", "title: played\nsteps:\n- reply:\n  - text: done\n"),
    ("tools/lookup.yaml", LOOKUP),
    ("tools/refund.yaml", REFUND),
    ("tools/unrefund.yaml", UNREFUND),
    ("tools/research.yaml", "description: Asks Nora.\nrun: {agent: nora}\n"),
    ("a.db", ""),
];

const LOOKUP: &str = "description: Looks up.
input_schema: {type: object, properties: {id: {type: integer}}, required: [id]}
effect: read
run: {sql: {database: a.db, query: \"select :id\"}}
";

const REFUND: &str = "description: Refunds.
input_schema: {type: object, properties: {id: {type: integer}, cents: {type: integer}}, required: [id, cents]}
effect: external
approval: {quorum: 2}
rollback: {compensate: unrefund}
preconditions:
- arguments: {properties: {cents: {maximum: 5000}}}
  message: At most 50.00.
- tool:
    name: lookup
    arguments: {id: \"${arguments.id}\"}
    expect: {minItems: 1}
  message: There is no such account.
run: {http: {method: POST, url: \"http://localhost:9/refunds\", body: [id, cents]}}
";

const UNREFUND: &str = "description: Takes a refund back.
input_schema: {type: object, properties: {id: {type: integer}, cents: {type: integer}}, required: [id]}
effect: external
idempotency: arguments
retry: {attempts: 5, backoff_seconds: 0.25}
run: {http: {method: POST, url: \"http://localhost:9/unrefunds\", body: [id, cents]}}
";

fn write(root: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn project(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), RIGHT);
    write(root.path(), files);
    root
}

fn load(files: &[(&str, &str)]) -> Catalog {
    let root = project(files);
    Catalog::load(root.path(), &|_| None).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Loads the right project with `files` replaced and compares all that is told.
fn check(name: &str, files: &[(&str, &str)], expected: &[&str]) {
    let root = project(files);
    let told = match Catalog::load(root.path(), &|_| None) {
        Ok(_) => "nothing is wrong".to_owned(),
        Err(problems) => problems.to_string(),
    };
    assert_eq!(told, expected.join("\n"), "case `{name}`");
}

#[test]
fn promises_arrive_in_contracts_with_the_tools_they_name() {
    let catalog = load(&[]);
    let maya = catalog.agent(Some("maya")).unwrap();
    let tools: Vec<_> = maya.tools.iter().map(|tool| (tool.name.as_str(), tool.caller)).collect();
    let (model, harness) = (Caller::Model, Caller::Harness);
    assert_eq!(tools, [("refund", model), ("research", model), ("lookup", harness), ("unrefund", harness)]);
    let contract = &maya.tools[0].contract;
    assert_eq!((contract.approval, contract.retry), (Approval::Quorum(2), Retry::NONE));
    assert_eq!(contract.rollback, Rollback::Compensate { with: "unrefund".into() });
    let expected = [
        Precondition::Arguments {
            schema: r#"{"properties":{"cents":{"maximum":5000}}}"#.into(),
            message: "At most 50.00.".into(),
        },
        Precondition::Tool {
            tool: "lookup".into(),
            arguments: r#"{"id":"${arguments.id}"}"#.into(),
            expect: r#"{"minItems":1}"#.into(),
            message: "There is no such account.".into(),
        },
    ];
    assert_eq!(contract.preconditions, expected);
    let undo = &maya.tools[3].contract;
    assert_eq!(undo.retry, Retry { attempts: 5, backoff_ms: 250, ..Retry::REPEATABLE });
    assert_eq!(maya.tools[2].contract.retry, Retry::REPEATABLE, "what only reads may be repeated");
    let report = catalog.check_report();
    for line in ["tool     research (write, the agent nora)", "tool     lookup (read, for the harness alone)"] {
        assert!(report.contains(line), "{report}");
    }
    // A tool that the agent names itself stays the model's.
    let both = load(&[("agents/maya.md", "--- {model: played, tools: [refund, lookup]} --- You are Maya.")]);
    let maya = both.agent(Some("maya")).unwrap();
    let tools: Vec<_> = maya.tools.iter().map(|tool| (tool.name.as_str(), tool.caller)).collect();
    assert_eq!(tools, [("refund", model), ("lookup", model), ("unrefund", harness)]);
}

#[test]
fn a_closure_holds_the_agents_that_its_tools_are() {
    let catalog = load(&[]);
    let (maya, nora) = (catalog.agent(Some("maya")).unwrap(), catalog.agent(Some("nora")).unwrap());
    let tool = &maya.tools[1];
    assert_eq!(tool.run, ToolRun::Agent { agent: "nora".into() });
    assert_eq!((tool.contract.repeat, tool.contract.timeout_ms), (Repeat::Once, 0));
    assert_eq!(maya.nested("nora").as_deref(), Some(nora.as_ref()), "it is what it is by itself");
    assert_eq!(maya.nested("maya"), None);
    assert_eq!(maya.deepest(), ["maya", "nora"]);
    let read = Closure::from_bytes(maya.bytes()).unwrap();
    assert_eq!(&read, maya.as_ref());
    assert_eq!(read.nested("nora").unwrap().digest(), nora.digest());
    // Another Nora, another Maya.
    let other = load(&[("agents/nora.md", "--- {model: played, tools: [lookup]} --- You are another Nora.")]);
    assert_ne!(other.agent(Some("maya")).unwrap().digest(), maya.digest());
}

#[test]
fn another_model_makes_another_closure_of_the_same_agent() {
    let more = "played: {provider: script, transcript: played.yaml}\nother: {provider: script, transcript: played.yaml, name: other}\n";
    let catalog = load(&[("models/main.yaml", more)]);
    let maya = catalog.agent(Some("maya")).unwrap();
    let other = maya.with_model(catalog.model("other").unwrap().clone()).unwrap();
    assert_eq!((other.model.name.as_str(), other.agent.model.as_str()), ("other", "other"));
    assert_eq!((&other.tools, other.nested("nora")), (&maya.tools, maya.nested("nora")));
    assert_ne!(other.digest(), maya.digest());
    let back = other.with_model(maya.model.clone()).unwrap();
    assert_eq!(back.digest(), maya.digest());
    assert_eq!(catalog.model("none"), None);
}

#[test]
fn another_provider_reaches_the_agents_inside() {
    let sandboxed = "--- {model: played, sandbox: local, tools: [lookup]} --- You are Nora.";
    let maya = load(&[("agents/nora.md", sandboxed)]).agent(Some("maya")).unwrap();
    let other = maya.with_provider("elsewhere").unwrap();
    let provider = |closure: &Closure| closure.agent.sandbox.as_ref().map(|sandbox| sandbox.provider.clone());
    let nora = other.nested("nora").unwrap();
    assert_eq!((provider(&other), provider(&nora).as_deref()), (None, Some("elsewhere")));
    assert_eq!(Closure::from_bytes(other.bytes()).unwrap(), other, "its bytes say so too");
    let back = other.with_provider("local").unwrap();
    assert_eq!(back.digest(), maya.digest());
}

/// Agents of these names, of which each asks the next.
fn row(names: &[&str]) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let tools = names.get(index + 1).map_or(String::new(), |next| format!(", tools: [ask_{next}]"));
        files.push((format!("agents/{name}.md"), format!("--- {{model: played{tools}}} --- You are one of many.")));
        files.push((format!("tools/ask_{name}.yaml"), format!("description: Asks.\nrun: {{agent: {name}}}\n")));
    }
    files
}

fn check_row(names: &[&str], expected: &str) {
    let files = row(names);
    let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    check(&names.join(" "), &files, &[expected]);
}

#[test]
fn agents_stand_in_one_another_so_deep_and_never_in_a_circle() {
    assert_eq!(NESTED_DEPTH_MAX, 4, "the rows below are made for it");
    check_row(&["a", "b", "c", "d", "e"], "nothing is wrong");
    let told = "the agents stand more than 4 deep in one another";
    check_row(
        &["a", "b", "c", "d", "e", "f"],
        &format!("tools/ask_f.yaml:2:14: {told}: `a` → `b` → `c` → `d` → `e` → `f`"),
    );
    // Those that stand deepest are looked at first.
    check_row(
        &["f", "e", "d", "c", "b", "a"],
        &format!("tools/ask_e.yaml:2:14: {told}: `f` → `e` → `d` → `c` → `b` → `a`"),
    );
    let files = [
        ("agents/a.md", "--- {model: played, tools: [research]} --- You are A."),
        ("agents/nora.md", "--- {model: played, tools: [back]} --- You are Nora."),
        ("tools/back.yaml", "description: Asks Maya.\nrun: {agent: maya}\n"),
    ];
    let told = "tools/research.yaml:2:14: the agents lead in a circle: `nora` → `maya` → `nora`";
    check("a circle", &files, &[told]);
    check(
        "itself",
        &[("agents/nora.md", "--- {model: played, tools: [research]} --- You are Nora.")],
        &["tools/research.yaml:2:14: the agents lead in a circle: `nora` → `nora`"],
    );
    check(
        "nobody",
        &[("tools/research.yaml", "description: Asks Nora.\nrun: {agent: norah}\n")],
        &[
            "tools/research.yaml:2:14: there is no agent `norah`; expected one of `maya`, `nora`; hint: did you mean `nora`?",
        ],
    );
}

#[test]
fn a_stored_closure_is_read_no_deeper_than_one_is_made() {
    let files = row(&["a", "b", "c", "d", "e"]);
    let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let deep = load(&files).agent(Some("a")).unwrap();
    assert_eq!(Closure::from_bytes(deep.bytes()).unwrap().deepest().len(), NESTED_DEPTH_MAX + 1);
    // One level more, as no program would write it.
    let flat = load(&[("agents/top.md", "--- {model: played} --- You are on top.")]).agent(Some("top")).unwrap();
    let text = String::from_utf8(flat.bytes().to_vec()).unwrap();
    let inner = String::from_utf8(deep.bytes().to_vec()).unwrap();
    let forged = format!("{},\"nested\":{{\"a\":{inner}}}}}", text.strip_suffix('}').unwrap());
    assert_eq!(Closure::from_bytes(forged.as_bytes()), Err(BadClosure::TooDeep));
    let nested = [("a".to_owned(), deep)].into();
    let (agent, model) = (flat.agent.clone(), flat.model.clone());
    assert_eq!(Closure::new(agent, model, vec![], None, nested), Err(BadClosure::TooDeep));
}

#[test]
fn what_a_tool_names_switches_its_agents_off() {
    let switched = UNREFUND.replace("http://localhost:9", "${env.BANK}");
    let nora = "--- {model: played, limits: {turns: \"${env.TURNS}\"}} --- You are Nora.";
    let catalog = load(&[("tools/unrefund.yaml", &switched), ("agents/nora.md", nora)]);
    let told: Vec<String> = catalog.switched_off.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "agent `maya` is switched off: its agent `nora` needs the environment variable TURNS, which is not set (agents/nora.md:1)",
            "agent `maya` is switched off: its tool `unrefund` needs the environment variable BANK, which is not set (tools/unrefund.yaml:6)",
            "agent `nora` is switched off: it needs the environment variable TURNS, which is not set (agents/nora.md:1)",
            "tool `unrefund` is switched off: it needs the environment variable BANK, which is not set (tools/unrefund.yaml:6)",
        ]
    );
    assert_eq!(catalog.agents_off(), ["maya", "nora"]);
}

/// A case of a wrong `refund`: what `from` says is said otherwise.
fn refund(name: &str, from: &str, to: &str, expected: &[&str]) {
    assert!(REFUND.contains(from), "{from}");
    check(name, &[("tools/refund.yaml", &REFUND.replacen(from, to, 1))], expected);
}

#[test]
fn preconditions_that_can_not_be_kept() {
    refund(
        "neither",
        "- arguments: {properties: {cents: {maximum: 5000}}}\n  message",
        "- message",
        &["tools/refund.yaml:7:3: `preconditions[0]` has neither `arguments` nor `tool`; expected one of them"],
    );
    refund(
        "no message",
        "  message: At most 50.00.\n",
        "",
        &["tools/refund.yaml:7:3: `preconditions[0].message` is missing; expected text of 1 to 1000 bytes"],
    );
    refund(
        "no schema",
        "{maximum: 5000}",
        "{maximum: many}",
        &[
            "tools/refund.yaml:7:45: `preconditions[0].arguments.properties.cents.maximum` is no JSON Schema: \"many\" is not of type \"number\"",
        ],
    );
    refund(
        "no such tool",
        "name: lookup",
        "name: lokup",
        &[
            "tools/refund.yaml:10:11: there is no tool `lokup`; expected one of `lookup`, `refund`, `research`, `unrefund`; hint: did you mean `lookup`?",
        ],
    );
    refund(
        "a tool that changes something",
        "name: lookup",
        "name: unrefund",
        &["tools/refund.yaml:10:11: the effect of `unrefund` is `external`; expected a tool that changes nothing"],
    );
    refund(
        "an agent",
        "name: lookup",
        "name: research",
        &[
            "tools/refund.yaml:10:11: `research` is an agent, which is not asked by the harness itself; expected another tool",
        ],
    );
    refund(
        "arguments that nobody has",
        "{id: \"${arguments.id}\"}",
        "{ids: \"${arguments.account}\"}",
        &[
            "tools/refund.yaml:10:11: `lookup` needs the argument `id`, which it is not given",
            "tools/refund.yaml:11:17: `lookup` has no argument `ids`; expected one of `id`; hint: did you mean `id`?",
            "tools/refund.yaml:11:22: `${arguments.account}` is no argument of the call; expected one of `id`, `cents`",
        ],
    );
    refund(
        "an argument of the environment",
        "{id: \"${arguments.id}\"}",
        "{id: \"${env.ID}\"}",
        &["tools/refund.yaml:11:21: `${env.ID}` is put in nowhere; expected ${arguments.NAME}"],
    );
}

#[test]
fn promises_that_contradict_each_other() {
    refund(
        "a second attempt of what must not happen twice",
        "approval:",
        "retry: {attempts: 2}\napproval:",
        &[
            "tools/refund.yaml:4:19: `retry.attempts` is 2, but a call must not be made twice; expected 1; hint: write `repeat: safe` if it may, or name the `idempotency` key that the other side knows",
        ],
    );
    refund("one attempt", "approval:", "retry: {attempts: 1}\napproval:", &["nothing is wrong"]);
    refund(
        "waits that shrink",
        "approval:",
        "repeat: safe\nretry: {backoff_seconds: 20}\napproval:",
        &["tools/refund.yaml:5:26: the first wait of 20 s is longer than the longest of 10 s; hint: set both"],
    );
}

#[test]
fn calls_that_can_not_be_taken_back_so() {
    refund(
        "a checkpoint of the world",
        "{compensate: unrefund}",
        "checkpoint",
        &[
            "tools/refund.yaml:5:11: the effect is `external`, and a checkpoint takes back only what the sandbox holds; hint: name a tool: `rollback: {compensate: TOOL}`",
        ],
    );
    refund(
        "undone by itself",
        "{compensate: unrefund}",
        "{compensate: refund}",
        &["tools/refund.yaml:5:24: `refund` can't undo itself; expected another tool"],
    );
    refund(
        "undone by one that reads, and takes less",
        "{compensate: unrefund}",
        "{compensate: lookup}",
        &[
            "tools/refund.yaml:5:24: `lookup` has no argument `cents`; expected a tool with the same arguments",
            "tools/refund.yaml:5:24: the effect of `lookup` is `read`; expected a tool that undoes",
        ],
    );
    refund(
        "undone by one that needs more",
        "required: [id, cents]}",
        "required: []}",
        &[
            "tools/refund.yaml:5:24: `unrefund` needs the argument `id`, which a call may lack; expected a tool with the same arguments",
        ],
    );
    let reads = LOOKUP.replace("effect: read\n", "effect: read\nrollback: {compensate: unrefund}\n");
    check(
        "a reading that is undone",
        &[("tools/lookup.yaml", &reads)],
        &["tools/lookup.yaml:4:11: the effect is `read`, and what changes nothing is not undone; expected `none`"],
    );
}

#[test]
fn promises_that_have_no_meaning() {
    refund(
        "a quorum of nobody",
        "{quorum: 2}",
        "{quorum: 0}",
        &["tools/refund.yaml:4:20: `approval.quorum` is the number 0; expected a whole number from 1 to 16"],
    );
    check(
        "an agent with a schema",
        &[("tools/research.yaml", "description: Asks Nora.\neffect: read\nretry: {attempts: 1}\nrun: {agent: nora}\n")],
        &[
            "tools/research.yaml:2:1: `effect` has no meaning for an agent; expected it to be left out",
            "tools/research.yaml:3:1: `retry` has no meaning for an agent; expected it to be left out",
        ],
    );
    check(
        "another tool without one",
        &[("tools/lookup.yaml", "description: Looks up.\nrun: {function: {}}\n")],
        &[
            "tools/lookup.yaml:1:1: `effect` is missing; expected one of `read`, `write`, `external`, `destructive`",
            "tools/lookup.yaml:1:1: `input_schema` is missing; expected a JSON Schema",
        ],
    );
}

const SETTINGS: &str = "default_agent: maya
concurrency: {per_tenant: 100, per_model: {played: 8}}
retries:
  model: {attempts: 9}
  dependency: {backoff_seconds: 1.5, backoff_seconds_max: 30, total_seconds: 86400}
breaker: {failures: 7}
webhooks:
- {url: \"https://example.com/hook?from=topside\", secret: \"${secret.HOOK}\", events: [finished, in_doubt]}
- {url: \"${env.HOOK_URL}\", secret: \"${env.HOOK_KEY}\"}
retention: {sessions_days: 30}
database: {url: \"${env.DATABASE_URL}\", direct_url: \"${env.DATABASE_URL_DIRECT:-}\"}
worker: {lease_seconds: 20, no_progress_seconds_max: 60}
";

#[test]
fn settings_arrive_and_what_misses_a_variable_is_off() {
    let root = project(&[("topside.yaml", SETTINGS)]);
    let set = |name: &str| {
        let value = match name {
            "HOOK_URL" => "http://localhost:9/hook",
            "HOOK_KEY" => "k",
            "DATABASE_URL" => "postgres://localhost/topside",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let catalog = Catalog::load(root.path(), &set).unwrap();
    let settings = &catalog.settings;
    assert_eq!((settings.concurrency.per_tenant, settings.concurrency.per_model["played"]), (Some(100), 8));
    let Retry { attempts, backoff_ms, .. } = settings.retries.model;
    assert_eq!((attempts, backoff_ms), (9, 5_000), "what is left out stays");
    let dependency = Retry { attempts: 20, backoff_ms: 1_500, backoff_ms_max: 30_000, total_ms: 86_400_000 };
    assert_eq!((settings.retries.dependency, settings.retries.sandbox), (dependency, RETRY_SANDBOX));
    assert_eq!(settings.breaker, Breaker { failures: 7, open_seconds: 30 });
    let hooks: Vec<_> = settings.webhooks.iter().map(|hook| (hook.url.as_str(), hook.events.join(" "))).collect();
    let first = ("https://example.com/hook?from=topside", "finished in_doubt".to_owned());
    assert_eq!(hooks, [first.clone(), ("${env.HOOK_URL}", "parked in_doubt finished".to_owned())]);
    assert_eq!(settings.webhooks[0].secret, "${secret.HOOK}", "kept as written");
    assert_eq!((settings.retention.sessions_days, settings.worker.lease_seconds), (Some(30), 20));
    assert_eq!(settings.worker.no_progress_seconds_max, 60);
    let database =
        Database { url: "${env.DATABASE_URL}".into(), direct_url: Some("${env.DATABASE_URL_DIRECT:-}".into()) };
    assert_eq!(settings.database.as_ref(), Some(&database));

    let catalog = Catalog::load(root.path(), &|_| None).unwrap();
    assert_eq!((catalog.settings.database.as_ref(), catalog.settings.webhooks.len()), (None, 1));
    assert_eq!(catalog.settings.webhooks[0].url, first.0);
    let told: Vec<String> = catalog.switched_off.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "setting `database` is switched off: it needs the environment variable DATABASE_URL, which is not set (topside.yaml:11)",
            "setting `webhooks[1]` is switched off: it needs the environment variable HOOK_KEY, which is not set (topside.yaml:9)",
            "setting `webhooks[1]` is switched off: it needs the environment variable HOOK_URL, which is not set (topside.yaml:9)",
        ]
    );
    let bare = load(&[]).settings;
    assert_eq!((bare.worker.lease_seconds, bare.retention.sessions_days, bare.webhooks.len()), (15, None, 0));
    assert_eq!(bare.worker.no_progress_seconds_max, 1_800);
    assert_eq!((bare.concurrency.per_tenant, bare.database), (None, None));
}

#[test]
fn settings_that_are_wrong() {
    let setting = |name: &str, text: &str, expected: &[&str]| check(name, &[("topside.yaml", text)], expected);
    setting(
        "no such model",
        "default_agent: maya\nconcurrency: {per_model: {plaid: 1}}\n",
        &["topside.yaml:2:27: there is no model `plaid`; expected one of `played`; hint: did you mean `played`?"],
    );
    setting(
        "a secret that is none, an event that is none",
        "default_agent: maya\nwebhooks: [{url: \"http://localhost/\", secret: hunter2}, {url: \"ftp://x/\", secret: \"${env.A:-b}\", events: []}]\n",
        &[
            "topside.yaml:2:47: the secret is written out; expected a reference, since whoever reads the file could sign; hint: write ${secret.NAME} or ${env.NAME}",
            "topside.yaml:2:63: `ftp://x/` is no URL that can be called: the scheme is `ftp`; expected http:// or https:// and a host",
            "topside.yaml:2:106: no event is named; expected at least one",
        ],
    );
    setting(
        "an event that is none",
        "default_agent: maya\nwebhooks: [{url: \"http://localhost/\", secret: \"${env.A:-b}\", events: [finish]}]\n",
        &[
            "topside.yaml:2:71: `webhooks[0].events[0]` is the text `finish`; expected one of `submitted`, `parked`, `resumed`, `in_doubt`, `artifact_saved`, `finished`; hint: did you mean `finished`?",
        ],
    );
    setting(
        "a lease of a moment, waits that shrink",
        "default_agent: maya\nworker: {lease_seconds: 1}\nretries: {model: {backoff_seconds: 90}}\n",
        &["topside.yaml:2:25: `worker.lease_seconds` is the number 1; expected a whole number from 3 to 300"],
    );
    setting(
        "waits that shrink",
        "default_agent: maya\nretries: {model: {backoff_seconds: 90}}\n",
        &["topside.yaml:2:36: the first wait of 90 s is longer than the longest of 60 s; hint: set both"],
    );
    setting(
        "another variable of the whole project",
        "default_agent: maya\ncontents: \"${env.CONTENTS}\"\n",
        &[
            "topside.yaml:2:11: the environment variable CONTENTS is not set; the whole project needs it; hint: set it, or write a default: ${env.CONTENTS:-default}",
        ],
    );
}

#[test]
fn agents_say_what_happens_at_a_limit_and_when_their_files_are_kept() {
    let agent = |text: &str| load(&[("agents/nora.md", text)]).agent(Some("nora")).unwrap().agent.clone();
    let nora = agent(
        "--- {model: played, sandbox: {provider: local, checkpoint: never}, limits: {reached: ask}} --- You are Nora.",
    );
    assert_eq!((nora.sandbox.unwrap().checkpoint, nora.limits.reached), (Checkpoint::Never, Reached::Ask));
    let nora = agent("--- {model: played, sandbox: local} --- You are Nora.");
    assert_eq!((nora.sandbox.unwrap().checkpoint, nora.limits.reached), (Checkpoint::Turn, Reached::Stop));
}

#[test]
fn schemas_say_the_same() {
    let check = |kind: Kind, value: serde_json::Value, right: bool| {
        let validator = jsonschema::draft202012::new(&schema(kind)).unwrap();
        let told: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert_eq!(told.is_empty(), right, "{value}: {told:?}");
    };
    use serde_json::json;
    check(Kind::Tool, json!({"description": "x", "run": {"agent": "nora"}}), true);
    check(Kind::Tool, json!({"description": "x", "run": {"function": {}}}), false);
    let whole = json!({
        "description": "x", "input_schema": {"type": "object"}, "effect": "write", "approval": {"quorum": 3},
        "rollback": "checkpoint", "retry": {"attempts": 1}, "run": {"function": {}},
        "preconditions": [{"tool": {"name": "a", "arguments": {"b": [1, "${arguments.c}"]}, "expect": {}}, "message": "no"}],
    });
    check(Kind::Tool, whole, true);
    check(Kind::Tool, json!({"description": "x", "run": {"agent": "nora"}, "approval": {"quorum": 0}}), false);
    check(Kind::Project, json!({"webhooks": [{"url": "https://a.test/", "secret": "${env.A}"}]}), true);
    check(Kind::Project, json!({"webhooks": [{"url": "https://a.test/"}]}), false);
    check(Kind::Project, json!({"worker": {"lease_seconds": 2}}), false);
    check(Kind::Agent, json!({"model": "a", "limits": {"reached": "wait"}}), false);
}
