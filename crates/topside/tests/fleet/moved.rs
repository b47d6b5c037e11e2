//! A run goes on where its files are not: on another machine, which has the same database, the same objects and the tenant's keys,
//! and nothing else.

use crate::fleet::Fleet;
use crate::gate::Gate;
use crate::kit::{has_sandbox, kind};
use crate::objects::Objects;
use crate::service::{Service, text};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The whole tree in one word.
const TREE: &str = "(find . -mindepth 1 -printf '%y %m %p %l\\\\n' | LC_ALL=C sort; find . -type f -printf '%T@ %p\\\\n' | LC_ALL=C sort; find . -type f | LC_ALL=C sort | xargs sha256sum) | sha256sum | cut -d' ' -f1";

fn script() -> String {
    let made = "mkdir -p src/deep; for i in $(seq 200); do echo $i-$RANDOM > src/f$i; done; head -c 3000000 /dev/urandom > src/deep/big; chmod 750 src/deep; ln -s ../f1 src/deep/link; ln src/f2 src/hard";
    format!(
        r#"title: one who moves
steps:
- expect: {{user: 'Go'}}
  reply:
  - call: {{id: make, tool: exec_command, arguments: {{cmd: "{made}; {TREE}", yield_time_ms: 30000}}}}
- expect: {{outputs: {{make: '(?s)exited with code 0.*?Output:\n(?<made>\w+)'}}}}
  reply:
  - call: {{id: tell, tool: tell, arguments: {{text: news}}}}
- expect: {{outputs: {{tell: 'told'}}}}
  reply:
  - call: {{id: look, tool: exec_command, arguments: {{cmd: "{TREE}", yield_time_ms: 30000}}}}
- expect: {{outputs: {{look: '(?s)exited with code 0.*?Output:\n(?<found>\w+)'}}}}
  reply:
  - text: "${{made}} ${{found}}"
- expect: {{user: 'Again'}}
  reply:
  - call: {{id: again, tool: exec_command, arguments: {{cmd: "{TREE}", yield_time_ms: 30000}}}}
- expect: {{outputs: {{again: '(?s)exited with code 0.*?Output:\n(?<found>\w+)'}}}}
  reply:
  - text: "${{found}}"
"#
    )
}

/// Another machine's data directory: the same objects and keys, no workspaces, a launcher of its own.
fn machine(fleet: &Fleet, name: &str, keys: Keys) -> PathBuf {
    let data = fleet.project.path().join(name);
    std::fs::create_dir_all(&data).unwrap();
    // On S3 they share no directory.
    if fleet.variables.is_empty() {
        std::os::unix::fs::symlink(fleet.project.data().join("objects"), data.join("objects")).unwrap();
    }
    if keys == Keys::Shared {
        let copied =
            Command::new("cp").arg("-a").arg(fleet.project.data().join("keys")).arg(data.join("keys")).status();
        assert!(copied.unwrap().success());
    }
    data
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    Shared,
    Missing,
}

fn worker_at(fleet: &Fleet, data: &Path) -> Service {
    fleet.start(&["worker", "--data", data.to_str().unwrap()])
}

fn opened(service: &Service, run: &str) -> Vec<Value> {
    let records = service.records(run).into_iter();
    records.filter(|record| kind(record) == "sandbox_opened").map(|record| record["body"]["restored"].clone()).collect()
}

#[test]
fn a_run_goes_on_with_its_files_on_another_machine() {
    moves("a_run_goes_on_with_its_files_on_another_machine", None);
}

#[test]
fn a_run_goes_on_with_its_files_over_s3() {
    moves("a_run_goes_on_with_its_files_over_s3", Some(&Objects::serve()));
}

/// `objects` are where all machines have them, or in a directory that they share.
fn moves(name: &str, objects: Option<&Objects>) {
    if !has_sandbox(name) {
        return;
    }
    let gate = Gate::closed();
    let files = [
        ("topside.yaml", "default_agent: worker\nworker: {lease_seconds: 3}\n"),
        ("agents/worker.md", "---\nmodel: main\nsandbox: local\ntools: [tell]\n---\nYou move.\n"),
        ("models/main.yaml", "main: {provider: script, transcript: main.yaml}\n"),
        ("main.yaml", &script()),
        ("tools/tell.yaml", &gate.tool("/tell", "idempotency: {key: call}\n")),
        ("policies/open.cedar", "@id(\"open\")\npermit (principal, action, resource);\n"),
    ];
    let Some(mut fleet) = Fleet::of(name, &files) else { return };
    fleet.variables = objects.map(Objects::variables).unwrap_or_default();
    let door = fleet.door();
    let first = fleet.worker();
    let run = door.begin("s", "Go.");
    gate.until(1);
    // Its machine is gone, in the middle of a call.
    first.kill();
    let second = worker_at(&fleet, &machine(&fleet, "second", Keys::Shared));
    gate.open();
    let reply = text(&door.standing(&run, "completed"), "reply");
    let (made, found) = reply.split_once(' ').unwrap();
    assert_eq!((made, made.len()), (found, 64), "the files are others: {reply}");
    let restored = opened(&door, &run);
    assert!(restored[0].is_null() && restored[1].is_string(), "{restored:?}");
    second.stop();
    // Without the tenant's key nobody can do anything with the session, and nothing is lost by trying.
    let third = machine(&fleet, "third", Keys::Missing);
    let keyless = worker_at(&fleet, &third);
    let run = door.begin("s", "Again.");
    keyless.until_logged("can't be driven", 1);
    assert!(keyless.logged().contains("journal_key"), "{}", keyless.logged());
    keyless.stop();
    let fourth = worker_at(&fleet, &machine(&fleet, "fourth", Keys::Shared));
    assert_eq!(text(&door.standing(&run, "completed"), "reply"), made);
    fourth.stop();
    // Chunks that are gone are said to be.
    let kept = objects.map_or_else(|| fleet.project.data().join("objects"), Objects::path);
    std::fs::remove_dir_all(kept.join("packs")).unwrap();
    let fifth = worker_at(&fleet, &machine(&fleet, "fifth", Keys::Shared));
    let run = door.begin("s", "Again.");
    let ended = door.standing(&run, "failed");
    let error = &ended["error"];
    assert!(text(error, "message").contains("chunks_missing"), "{error}");
    fifth.stop();
    // What the first one left lives on for a while, unless its machine serves again.
    fleet.worker().stop();
    door.stop();
}
