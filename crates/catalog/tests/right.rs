//! A right project: what it gives, what is switched off in it, its digests, its schemas, and its changes while it serves.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use catalog::{BadClosure, Catalog, Closure, Contents, Kind, Live, Look, NoAgent, schema};
use domain::agent::{Capability, ModelProvider, ToolRun, Wire};
use domain::contract::{Approval, Effect, Idempotency, Repeat};
use std::fs;
use std::path::Path;
use std::sync::Arc;

const FILES: &[(&str, &str)] = &[
    (
        "topside.yaml",
        "default_agent: ${env.AGENT:-maya}\ncontents: plain\nsandbox:\n  limits: {memory_bytes_max: 536870912, processes_max: 32, io_bytes_per_second_max: 1048576, io_operations_per_second_max: 500}\n  walls_optional: [cpu_limit]\n  landlock_version_min: 3\n  workspaces_bytes_max: 300000000\n  warm_min: 3\n  warm_max: 2\n  keep_parked_ms: 5000\n  keep_idle_ms: 700\n  idle_max: 3\n",
    ),
    (
        "agents/maya.md",
        "---\ndescription: Tier-1 support\nmodel: main\ntools: [find, score, send, stop]\nsandbox: {provider: local, manifest: desk, capabilities: [shell]}\nlimits: {turns: 10, tool_calls: 20, running_seconds: 300, tokens: 5000, cost_micro_usd: 700}\nartifacts: [./out/report.md]\n---\n\nYou are Maya.\n\nCall ${env.NOTHING} by its name.\n",
    ),
    ("agents/otto.md", "--- {model: played, sandbox: local} --- You are Otto."),
    (
        "models/main.yaml",
        "main:\n  provider: openai-compatible\n  url: ${env.URL:-http://localhost:9/v1}\n  key: ${env.KEY}\n  name: ${env.NAME:-small}\n  wire: chat\n  stream: false\n  headers: {x-team: \"${secret.TEAM}\"}\n  query: {api-version: \"2\"}\n  temperature: 0.25\n  output_tokens_max: 900\n  reasoning_effort: low\n  fallback: played\n",
    ),
    ("models/played.yaml", "played: {provider: script, transcript: transcripts/otto.yaml}\n"),
    ("transcripts/otto.yaml", "title: otto's transcript\nsteps:\n- reply:\n  - text: done\n"),
    (
        "tools/find.yaml",
        "description: Finds.\ninput_schema: {type: object, properties: {id: {type: integer}}, required: [id]}\neffect: read\ntimeout_seconds: 5\noutput_bytes_max: 1024\nrun: {sql: {database: data/a.db, query: \"select :id\", rows_max: 7}}\n",
    ),
    (
        "tools/score.yaml",
        "description: Scores.\ninput_schema: {type: object}\neffect: write\nrepeat: safe\nrun: {command: {program: [bin/score, --fast], env: {TOKEN: \"${secret.TOKEN}\"}}}\n",
    ),
    (
        "tools/send.yaml",
        "description: Sends.\ninput_schema: {type: object, properties: {to: {type: string}, text: {type: string}}}\neffect: external\nidempotency: call\napproval: always\nrun:\n  http:\n    method: POST\n    url: https://example.com/{to}\n    headers: {authorization: \"Bearer ${secret.MAIL}\"}\n    body: [text]\n",
    ),
    (
        "tools/stop.yaml",
        "description: Stops.\ninput_schema: {type: object}\neffect: destructive\nrun: {function: {}}\n",
    ),
    (
        "manifests/desk.yaml",
        "entries:\n  notes.txt: {type: file, content: \"${HOME}\", mode: 0600}\n  data: {type: local_dir, source: data}\n  deep: {type: dir, children: {a/b.txt: {type: local_file, source: data/a.db}}}\nenvironment: {LANGUAGE: \"${env.LANGUAGE:-en}\"}\n",
    ),
    ("policies/all.cedar", "@id(\"all\") permit (principal, action, resource);\n"),
    ("prices.yaml", "small: {input: 250000, cached_input: 25000, output: 2000000}\n"),
    ("data/a.db", ""),
    ("bin/score", "#!/bin/sh\necho 1\n"),
    // None of these is a declaration.
    ("tools/.swp", "{"),
    ("tools/score.py", "{"),
    ("README.md", "{"),
];

fn project() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    for (name, text) in FILES {
        write(root.path(), name, text);
    }
    fs::set_permissions(root.path().join("bin/score"), fs::Permissions::from_mode(0o755)).unwrap();
    root
}

fn write(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn with_key(name: &str) -> Option<String> {
    (name == "KEY").then(|| "k".to_owned())
}

#[test]
fn every_key_arrives() {
    let root = project();
    let catalog = Catalog::load(root.path(), &with_key).unwrap();
    assert_eq!(catalog.default_agent.as_deref(), Some("maya"));
    assert_eq!(catalog.settings.contents, Contents::Plain);
    let limits = catalog.settings.sandbox.limits;
    assert_eq!((limits.memory_bytes_max, limits.processes_max), (536_870_912, 32));
    assert_eq!((limits.io_bytes_per_second_max, limits.io_operations_per_second_max), (1 << 20, 500));
    assert_eq!(limits.commands_max, sandbox::Limits::default().commands_max);
    assert_eq!(catalog.settings.sandbox.walls_optional, ["cpu_limit"]);
    assert_eq!(catalog.settings.sandbox.landlock_version_min, 3);
    assert_eq!(catalog.settings.sandbox.workspaces_bytes_max, Some(300_000_000));
    let warm = (catalog.settings.sandbox.warm_min, catalog.settings.sandbox.warm_max);
    assert_eq!(warm, (2, 2), "the least is never above the most");
    let catalog::SandboxSettings { keep_parked_ms, keep_idle_ms, idle_max, .. } = catalog.settings.sandbox;
    assert_eq!((keep_parked_ms, keep_idle_ms, idle_max), (5_000, 700, 3));
    assert_eq!(catalog.prices["small"].cached_input, Some(25_000));
    assert!(catalog.pack.name().starts_with("project@"));
    assert_eq!(catalog.switched_off, []);

    let maya = catalog.agent(None).unwrap();
    let agent = &maya.agent;
    assert_eq!(agent.instructions, "You are Maya.\n\nCall ${env.NOTHING} by its name.");
    assert_eq!((agent.limits.turns, agent.limits.cost_micro_usd), (10, Some(700)));
    assert_eq!(agent.artifacts, ["out/report.md"]);
    assert_eq!(agent.sandbox.as_ref().unwrap().capabilities, [Capability::Shell]);
    let model = &maya.model;
    assert_eq!((model.alias.as_str(), model.name.as_str(), model.wire), ("main", "small", Wire::Chat));
    assert_eq!(model.url.as_deref(), Some("${env.URL:-http://localhost:9/v1}"), "kept as written");
    assert_eq!((model.temperature_milli, model.output_tokens_max, model.stream), (Some(250), Some(900), false));
    assert_eq!(model.headers["x-team"], "${secret.TEAM}");
    let manifest = maya.manifest.as_ref().unwrap();
    assert_eq!(manifest.entries.len(), 3);
    let file = &manifest.entries[&"notes.txt".parse().unwrap()];
    let expected = sandbox::Entry::File { content: "${HOME}".into(), mode: Some(0o600), ephemeral: false, group: None };
    assert_eq!(file, &expected);
    assert_eq!(manifest.environment["LANGUAGE"], "${env.LANGUAGE:-en}");

    let names: Vec<&str> = maya.tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(names, ["find", "score", "send", "stop"]);
    let [find, score, send, stop] = maya.tools.as_slice() else { panic!("four") };
    assert_eq!(find.input_schema, r#"{"type":"object","properties":{"id":{"type":"integer"}},"required":["id"]}"#);
    assert_eq!((find.contract.timeout_ms, find.contract.output_bytes_max), (5_000, 1_024));
    assert!(matches!(&find.run, ToolRun::Sql { rows_max: 7, .. }));
    assert_eq!((score.contract.effect, score.contract.repeat), (Effect::Write, Repeat::Safe));
    assert_eq!((send.contract.idempotency, send.contract.approval), (Idempotency::Call, Approval::Always));
    assert!(matches!(&send.run, ToolRun::Http { method, .. } if method == "POST"));
    assert_eq!((stop.contract.effect, &stop.run), (Effect::Destructive, &ToolRun::Function));

    let otto = catalog.agent(Some("otto")).unwrap();
    assert_eq!((otto.model.provider, otto.model.name.as_str()), (ModelProvider::Script, "otto's transcript"));
    assert_eq!(otto.model.transcript.as_deref(), Some("title: otto's transcript\nsteps:\n- reply:\n  - text: done\n"));
    let all = [Capability::Filesystem, Capability::Shell];
    assert_eq!(otto.agent.sandbox.as_ref().unwrap().capabilities, all);
}

#[test]
fn agents_that_are_not_there_are_told() {
    let root = project();
    let catalog = Catalog::load(root.path(), &with_key).unwrap();
    let told = catalog.agent(Some("oto")).unwrap_err();
    assert_eq!(told.to_string(), "there is no agent `oto`; expected one of `maya`, `otto`; hint: did you mean `otto`?");
    assert_eq!(told.code(), "agent_unknown");
    write(root.path(), "topside.yaml", "");
    let catalog = Catalog::load(root.path(), &with_key).unwrap();
    let told = catalog.agent(None).unwrap_err();
    assert_eq!(
        told.to_string(),
        "no agent was named and the project has no default; expected one of `maya`, `otto`; hint: set `default_agent` in topside.yaml"
    );
    fs::remove_file(root.path().join("agents/otto.md")).unwrap();
    let catalog = Catalog::load(root.path(), &with_key).unwrap();
    assert_eq!(catalog.agent(None).unwrap().agent.name, "maya", "the only agent is the default");
}

#[test]
fn a_missing_variable_switches_off_what_needs_it_unless_something_stands_in() {
    let root = project();
    // An empty value is none.
    let catalog = Catalog::load(root.path(), &|name| (name == "KEY").then(String::new)).unwrap();
    let maya = catalog.agent(None).unwrap();
    assert!(maya.model_stands_in());
    assert_eq!(maya.model.alias, "played");
    let told: Vec<String> = catalog.switched_off.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        ["model `main` is switched off: it needs the environment variable KEY, which is not set (models/main.yaml:4)"]
    );
    assert!(catalog.check_report().contains("stands in for main, which is switched off"), "{}", catalog.check_report());

    let text = fs::read_to_string(root.path().join("models/main.yaml")).unwrap();
    write(root.path(), "models/main.yaml", &text.replace("  fallback: played\n", ""));
    let tool = fs::read_to_string(root.path().join("tools/send.yaml")).unwrap();
    write(root.path(), "tools/send.yaml", &tool.replace("https://example.com", "${env.MAIL}"));
    let otto = "--- {model: played, limits: {turns: \"${env.TURNS}\"}} --- You are Otto.";
    write(root.path(), "agents/otto.md", otto);
    let catalog = Catalog::load(root.path(), &|_| None).unwrap();
    let told: Vec<String> = catalog.switched_off.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "agent `maya` is switched off: its model `main` needs the environment variable KEY, which is not set (models/main.yaml:4)",
            "agent `maya` is switched off: its tool `send` needs the environment variable MAIL, which is not set (tools/send.yaml:9)",
            "agent `otto` is switched off: it needs the environment variable TURNS, which is not set (agents/otto.md:1)",
            "model `main` is switched off: it needs the environment variable KEY, which is not set (models/main.yaml:4)",
            "tool `send` is switched off: it needs the environment variable MAIL, which is not set (tools/send.yaml:9)",
        ]
    );
    assert_eq!(catalog.agents().count(), 0);
    assert_eq!(catalog.agents_off(), ["maya", "otto"]);
    let Err(error @ NoAgent::SwitchedOff { .. }) = catalog.agent(None) else { panic!("maya runs") };
    assert_eq!(
        error.to_string(),
        "agent `maya` is switched off: its model `main` needs the environment variable KEY, which is not set (models/main.yaml:4); hint: set the variable and start again"
    );
    let set = |name: &str| (name == "TURNS").then(|| "7".to_owned());
    let catalog = Catalog::load(root.path(), &set).unwrap();
    assert_eq!(catalog.agent(Some("otto")).unwrap().agent.limits.turns, 7);
    let wrong = |name: &str| (name == "TURNS").then(|| "many".to_owned());
    let told = Catalog::load(root.path(), &wrong).unwrap_err().to_string();
    assert_eq!(told, "agents/otto.md:1:37: `limits.turns` is the text `many`; expected a whole number from 1 to 10000");
}

/// Runs pin closures by these digests: when one changes, old runs still have the old bytes, but the same files give
/// another closure. That is a change of form; it is meant, or it is a mistake.
#[test]
fn a_closure_has_the_same_bytes_for_ever() {
    let root = project();
    let catalog = Catalog::load(root.path(), &with_key).unwrap();
    let again = Catalog::load(root.path(), &with_key).unwrap();
    assert_eq!(catalog.digest, again.digest);
    for (name, golden) in [
        ("maya", "647eae1bdc1dd57d9e68395ccf70344da6c2a4305fe9197dad1781b514a2b4f0"),
        ("otto", "e861b949cb06aa94df58ebf3d48872f695943759242bece395e9db8311f9835f"),
    ] {
        let closure = catalog.agent(Some(name)).unwrap();
        assert_eq!(closure.digest().to_string(), golden, "{name}: {}", String::from_utf8_lossy(closure.bytes()));
        let read = Closure::from_bytes(closure.bytes()).unwrap();
        assert_eq!(&read, closure.as_ref());
    }
    let text = String::from_utf8(catalog.agent(None).unwrap().bytes().to_vec()).unwrap();
    let newer = text.replacen("\"form\":1", "\"form\":2", 1);
    assert_eq!(Closure::from_bytes(newer.as_bytes()), Err(BadClosure::Form { form: 2 }));
    let unknown = text.replacen("\"form\":1", "\"form\":1,\"x\":1", 1);
    assert_eq!(Closure::from_bytes(unknown.as_bytes()).unwrap_err().code(), "closure_unreadable");
}

#[test]
fn schemas_take_right_files_and_refuse_wrong_ones() {
    let check = |kind: Kind, text: &str, right: bool| {
        let schema = schema(kind);
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let value = as_json(text);
        let told: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert_eq!(told.is_empty(), right, "{}: {text}: {told:?}", kind.name());
    };
    for (name, text) in FILES {
        let front = text.split("---").find(|part| !part.trim().is_empty()).unwrap_or_default();
        match name.split('/').next() {
            Some("topside.yaml") => check(Kind::Project, text, true),
            Some("agents") => check(Kind::Agent, front, true),
            Some("models") => check(Kind::Model, text, true),
            Some("tools") if name.ends_with(".yaml") => check(Kind::Tool, text, true),
            Some("manifests") => check(Kind::Manifest, text, true),
            Some("prices.yaml") => check(Kind::Prices, text, true),
            _ => {}
        }
    }
    check(Kind::Project, "contents: plane", false);
    check(Kind::Agent, "{modle: fast}", false);
    check(Kind::Agent, "{model: fast, limits: {turns: 0}}", false);
    check(Kind::Agent, "{model: fast, sandbox: remote}", false);
    check(Kind::Model, "Fast: {provider: script}", false);
    check(Kind::Tool, "{description: x, input_schema: {type: strng}, effect: read, run: {function: {}}}", false);
    check(Kind::Tool, "{description: x, input_schema: {type: object}, effect: read, run: {}}", false);
    check(Kind::Manifest, "entries: {a: {type: file}}", false);
    let keys = "access_key_id: \"${secret.A}\", secret_access_key: \"${env.B}\"";
    check(Kind::Manifest, &format!("entries: {{a: {{type: s3_mount, bucket: b, {keys}}}}}"), true);
    check(Kind::Manifest, &format!("entries: {{a: {{type: r2_mount, bucket: b, {keys}}}}}"), false);
    check(Kind::Manifest, "environment: {A: \"${secret.B}\"}", false);
    check(Kind::Prices, "small: {input: -1, output: 1}", false);
    for kind in Kind::ALL {
        assert_eq!(Kind::of_name(kind.name()), Some(kind));
        jsonschema::draft202012::meta::validate(&schema(kind)).unwrap();
    }
}

/// The values of a YAML text, by another reader than the one under test.
fn as_json(text: &str) -> serde_json::Value {
    use saphyr::{LoadableYamlNode, Yaml};
    fn convert(yaml: &Yaml<'_>) -> serde_json::Value {
        if let Some(map) = yaml.as_mapping() {
            let pairs = map.iter().map(|(key, value)| (key.as_str().unwrap().to_owned(), convert(value)));
            return pairs.collect::<serde_json::Map<_, _>>().into();
        }
        if let Some(list) = yaml.as_sequence() {
            return list.iter().map(convert).collect::<Vec<_>>().into();
        }
        None.or_else(|| yaml.as_bool().map(Into::into))
            .or_else(|| yaml.as_integer().map(Into::into))
            .or_else(|| yaml.as_floating_point().map(Into::into))
            .or_else(|| yaml.as_str().map(Into::into))
            .unwrap_or_default()
    }
    convert(&Yaml::load_from_str(text).unwrap()[0])
}

#[test]
fn the_reference_page_is_made_from_the_shapes() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/project.md");
    let stored = fs::read_to_string(&page).unwrap_or_default();
    let made = catalog::reference();
    if stored != made {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("project.md");
        fs::write(&place, made).unwrap();
        panic!("docs/reference/project.md is behind; hint: cp {} docs/reference/project.md", place.display());
    }
}

#[test]
fn a_project_is_read_again_and_the_last_good_one_stays() {
    let root = project();
    let live = Live::open(root.path(), Arc::new(with_key)).unwrap();
    let first = live.current().digest;
    assert_eq!(live.look(), Look::Same);
    // What is no declaration changes nothing.
    write(root.path(), "tools/.other.swp", "x");
    let settled = |expected: Look| {
        let looks = [live.look(), live.look()];
        assert_eq!(looks, [Look::Changing, expected]);
        assert_eq!(live.look(), Look::Same);
    };
    settled(Look::Same);

    write(root.path(), "agents/otto.md", "--- {modle: played} --- You are Otto, who waits.");
    settled(Look::Refused);
    assert_eq!(live.current().digest, first);
    let told = live.last_problems().unwrap();
    assert!(told.to_string().contains("unknown key `modle`"), "{told}");

    write(root.path(), "agents/otto.md", "--- {model: played} --- You are Otto, who waits.");
    settled(Look::Renewed);
    assert_eq!(live.last_problems(), None);
    assert_eq!(live.current().agent(Some("otto")).unwrap().agent.instructions, "You are Otto, who waits.");

    // What a declaration names is watched too, whether it is there or not.
    fs::remove_file(root.path().join("transcripts/otto.yaml")).unwrap();
    settled(Look::Refused);
    write(root.path(), "transcripts/otto.yaml", "title: another\nsteps:\n- reply:\n  - text: done\n");
    settled(Look::Renewed);
    assert_eq!(live.current().agent(Some("otto")).unwrap().model.name, "another");

    // Still changing: not read.
    write(root.path(), "topside.yaml", "default_agent: otto # one\n");
    assert_eq!(live.look(), Look::Changing);
    write(root.path(), "topside.yaml", "default_agent: otto # two, longer\n");
    assert_eq!(live.look(), Look::Changing);
    assert_eq!(live.look(), Look::Renewed);
    assert_eq!(live.current().default_agent.as_deref(), Some("otto"));
}

#[tokio::test]
async fn a_watch_ends_when_it_is_told_to() {
    let root = project();
    let live = Arc::new(Live::open(root.path(), Arc::new(with_key)).unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let watch = tokio::spawn(live.watch(async {
        let _ = stopped.await;
    }));
    stop.send(()).unwrap();
    watch.await.unwrap();
}
