//! Replay: what was recorded is what the harness would do again, without network, model or tool; and what was altered is found at its
//! place.

use crate::kit::{Project, Said, has_sandbox, kind};
use crate::service::{Service, skipped, text};
use crate::witness::Witness;
use rusqlite::{Connection, params};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

const RUNS: usize = 100;

/// What each run is asked. Those that wait for approval are then seen to in different ways.
const SHAPES: [&str; 10] = ["Hello", "Tell", "Deny", "Approve", "Reject", "Fail", "Nest", "Check", "Work", "Cancel"];

const SCRIPT: &str = r#"title: of many shapes
steps:
- expect: {user: 'Hello'}
  reply:
  - text: "Hello, what can I do?"
- expect: {user: 'Tell'}
  reply:
  - text: "I tell two."
  - call: {id: t1, tool: tell, arguments: {text: one}}
  - call: {id: t2, tool: tell, arguments: {text: two}}
- expect: {outputs: {t1: 'told', t2: 'told'}}
  reply:
  - text: "Both are told."
- expect: {user: 'Deny'}
  reply:
  - call: {id: d1, tool: shut, arguments: {text: it}}
- expect: {outputs: {d1: 'does not allow'}}
  reply:
  - text: "It may not be."
- expect: {user: 'Approve|Reject|Cancel'}
  reply:
  - call: {id: a1, tool: ask, arguments: {text: it}}
- expect: {outputs: {a1: '(?s)(?<answer>.*)'}}
  reply:
  - text: "I was told: ${answer}"
- expect: {user: 'Fail'}
  reply:
  - call: {id: f1, tool: tell, arguments: {text: it}}
- expect: {outputs: {f1: 'never this'}}
  reply:
  - text: "Not reached."
- expect: {user: 'Nest'}
  reply:
  - call: {id: n1, tool: clerk, arguments: {message: "Tell."}}
- expect: {outputs: {n1: '(?s)(?<answer>.*)'}}
  reply:
  - text: "The clerk: ${answer}"
- expect: {user: 'Check'}
  reply:
  - call: {id: k1, tool: checked, arguments: {text: "10"}}
- expect: {outputs: {k1: 'Only words'}}
  reply:
  - text: "Only words, then."
- expect: {user: 'Work'}
  reply:
  - call: {id: w1, tool: exec_command, arguments: {cmd: "echo kept > file.txt; cat file.txt"}}
- expect: {outputs: {w1: 'kept'}}
  reply:
  - text: "It is kept."
"#;

const POLICY: &str = "@id(\"open\")\npermit (principal, action, resource);\n@id(\"asked\") @approval(\"always\")\npermit (principal, action, resource == Tool::\"ask\");\n@id(\"shut\")\nforbid (principal, action, resource == Tool::\"shut\");\n";

fn project(witness: &Witness) -> Project {
    let tools = "tools: [tell, shut, ask, clerk, checked]\n";
    let desk = format!("---\nmodel: main\n{tools}---\nYou work.\n");
    let bench = format!("---\nmodel: main\nsandbox: local\n{tools}---\nYou work in a sandbox.\n");
    let checked = "preconditions:\n- arguments: {properties: {text: {pattern: '^[a-z]+$'}}}\n  message: Only words.\n";
    Project::of(&[
        ("topside.yaml", "default_agent: desk\ncontents: plain\n"),
        ("agents/desk.md", &desk),
        ("agents/bench.md", &bench),
        ("agents/clerk.md", "---\nmodel: main\ntools: [tell]\n---\nYou tell.\n"),
        ("models/main.yaml", "main: {provider: script, transcript: main.yaml}\n"),
        ("main.yaml", SCRIPT),
        ("tools/tell.yaml", &witness.tool("/tell", "")),
        ("tools/shut.yaml", &witness.tool("/shut", "")),
        ("tools/ask.yaml", &witness.tool("/ask", "")),
        ("tools/checked.yaml", &witness.tool("/checked", checked)),
        ("tools/clerk.yaml", "description: Asks the clerk.\nrun: {agent: clerk}\n"),
        ("policies/house.cedar", POLICY),
    ])
}

/// Does one run of a shape; gives its id.
fn done(service: &Service, number: usize, shape: &str, with_sandbox: bool) -> String {
    // Some are of one session, one after the other.
    let session = if number.is_multiple_of(3) { format!("talk-{}", number % 4) } else { format!("s-{number}") };
    let agent = if shape == "Work" && with_sandbox { "bench" } else { "desk" };
    let shape = if shape == "Work" && !with_sandbox { "Tell" } else { shape };
    let body = serde_json::json!({"session": session, "agent": agent, "message": shape}).to_string();
    let answer = service.ask("POST", "/runs", &["Prefer: respond-async"], &body);
    let run = text(&answer.json(), "run_id");
    if let "Approve" | "Reject" | "Cancel" = shape {
        let waiting = service.standing(&run, "waiting");
        let call = waiting["approvals"][0].as_str().unwrap_or_else(|| panic!("{waiting}"));
        match shape {
            "Approve" => service.post(&format!("/approvals/{call}"), r#"{"vote": "approve"}"#).was(200),
            "Reject" => service.post(&format!("/approvals/{call}"), r#"{"vote": "reject", "reason": "No."}"#).was(200),
            _ => service.post(&format!("/runs/{run}/cancel"), "").was(202),
        };
    }
    let end = match shape {
        "Fail" => "failed",
        "Cancel" => "cancelled",
        _ => "completed",
    };
    service.standing(&run, end);
    run
}

/// The binary without any network.
fn alone(project: &Project, data: &Path, run: &str) -> Said {
    let mut command = Command::new("unshare");
    command.args(["--net", env!("CARGO_BIN_EXE_topside"), "replay", run, "--data"]).arg(data);
    command.current_dir(project.path()).env_clear().env("PATH", "/usr/bin:/bin");
    Said::of(command.output().unwrap())
}

#[test]
fn a_hundred_runs_replay_alone_and_what_was_altered_is_found() {
    let test = "a_hundred_runs_replay_alone_and_what_was_altered_is_found";
    if !Command::new("unshare").args(["--net", "true"]).status().is_ok_and(|status| status.success()) {
        return skipped(test, "no network namespace can be made");
    }
    let with_sandbox = has_sandbox(test);
    let witness = Witness::start();
    let project = project(&witness);
    let service = Service::start(&project);
    let runs: Vec<String> =
        (0..RUNS).map(|number| done(&service, number, SHAPES[number % SHAPES.len()], with_sandbox)).collect();
    service.stop();
    // A model that were asked would say something else now.
    std::fs::write(
        project.path().join("main.yaml"),
        "title: another\nsteps:\n- reply:\n  - text: \"Something else.\"\n",
    )
    .unwrap();
    let told = witness.requests().len();
    for run in &runs {
        let said = alone(&project, &project.data(), run).ended(0);
        assert!(said.data.contains("replay as they were written"), "{run}: {}", said.data);
    }
    assert_eq!(witness.requests().len(), told, "a replay called a tool");
    let session = |number: usize| format!("s-{number}");
    // An altered result, in a run of another shape each: `Tell`, `Deny`, `Approve`, `Nest`.
    for number in [1, 2, 13, 16] {
        altered(&project, &runs[number], &session(number));
    }
    for number in [1, 13] {
        damaged(&project, &runs[number], &session(number));
    }
}

/// A copy of the data directory, whose database is open for whoever alters it.
fn copied(project: &Project) -> (tempfile::TempDir, Connection) {
    let folder = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-a").arg(project.data()).arg(folder.path().join("data")).status().unwrap();
    assert!(copied.success());
    let database = Connection::open(folder.path().join("data/journal.db")).unwrap();
    (folder, database)
}

/// The place of the last result in the log of a session that has one run: its rowid in `records`, its position and what it says.
fn last_result(project: &Project, database: &Connection, session: &str) -> (i64, u64, Value) {
    let log = project.topside(&["log", session, "--json"]).ended(0).json();
    let result = log.iter().rfind(|line| kind(&line["record"]) == "returned").unwrap();
    let (position, run) = (result["record"]["position"].as_u64().unwrap(), text(&result["record"], "run_id"));
    let mut rows = database.prepare("select rowid, bytes from records where position = ?1").unwrap();
    let found = rows.query_map([position], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))).unwrap();
    let mut records = found.map(|row| row.unwrap());
    records
        .find_map(|(row, bytes)| {
            let record: Value = serde_json::from_slice(&bytes).unwrap();
            (record["body"]["run"] == run.as_str()).then_some((row, position, record))
        })
        .unwrap()
}

/// The replay fails, and names this position.
#[track_caller]
fn differs_at(project: &Project, data: &Path, run: &str, position: u64) {
    let said = alone(project, &data.join("data"), run).ended(1);
    assert_eq!(said.data.lines().next(), Some(format!("differs at position {position}").as_str()), "{}", said.data);
}

/// One letter of a stored result is another one.
fn altered(project: &Project, run: &str, session: &str) {
    let (folder, database) = copied(project);
    let (_, position, record) = last_result(project, &database, session);
    let content = text(&record["body"]["output"], "id");
    let id = hex::decode(content.strip_prefix("con_").unwrap()).unwrap();
    let select = "select rowid, body from contents where id = ?1";
    let (row, mut body): (i64, Vec<u8>) =
        database.query_row(select, params![id], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let letter = body.iter().rposition(u8::is_ascii_lowercase).unwrap();
    body[letter] = if body[letter] == b'x' { b'y' } else { b'x' };
    assert_eq!(database.execute("update contents set body = ?2 where rowid = ?1", params![row, body]).unwrap(), 1);
    drop(database);
    differs_at(project, folder.path(), run, position);
}

/// One bit of a record is another one.
fn damaged(project: &Project, run: &str, session: &str) {
    let (folder, database) = copied(project);
    let (row, position, _) = last_result(project, &database, session);
    let select = "select bytes from records where rowid = ?1";
    let mut bytes: Vec<u8> = database.query_row(select, [row], |row| row.get(0)).unwrap();
    let digit = bytes.iter().rposition(u8::is_ascii_digit).unwrap();
    bytes[digit] ^= 1;
    assert_eq!(database.execute("update records set bytes = ?2 where rowid = ?1", params![row, bytes]).unwrap(), 1);
    drop(database);
    differs_at(project, folder.path(), run, position);
}
