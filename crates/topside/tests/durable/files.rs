//! The files of sessions from outside: compared, written to archives, put back; hostile archives are refused by name, and a run that
//! is under way keeps its files.

use crate::kit::{Project, has_sandbox, kind};
use crate::service::{Service, text, verified};
use serde_json::json;
use std::path::Path;
use std::process::Command;

#[path = "../../../jail/tests/support/tar.rs"]
#[allow(dead_code, reason = "the jail's own tests use all of it")]
mod tar;

const SCRIPT: &str = r#"title: one who writes
steps:
- expect: {user: 'Begin'}
  reply:
  - call: {id: begin, tool: exec_command, arguments: {cmd: "printf 'one\\ntwo\\n' > a.txt; mkdir d; echo gone > d/b; printf 'x\\0y' > bin; echo run > run.sh; ln -s a.txt link; echo same > same"}}
- expect: {outputs: {begin: '(?s)exited with code 0'}}
  reply:
  - text: "Begun."
- expect: {user: 'Change'}
  reply:
  - call: {id: change, tool: exec_command, arguments: {cmd: "printf 'one\\n2\\n' > a.txt; rm -r d; printf 'x\\0z' > bin; chmod 755 run.sh; ln -sf bin link; touch same; mkdir new; echo there > new/c; mkfifo pipe"}}
- expect: {outputs: {change: '(?s)exited with code 0'}}
  reply:
  - text: "Changed."
- expect: {user: 'Look'}
  reply:
  - call: {id: look, tool: exec_command, arguments: {cmd: "find . | LC_ALL=C sort | tr '\\n' ' '; tr '\\n' ' ' < a.txt"}}
- expect: {outputs: {look: '(?s)exited with code 0.*?Output:\n(?<found>.*\S)'}}
  reply:
  - text: "${found}"
- expect: {user: 'Wait'}
  reply:
  - call: {id: wait, tool: exec_command, arguments: {cmd: "sleep 1000", yield_time_ms: 1000000}}
"#;

/// What differs between the two, as `topside workspace diff` says it.
const DIFFERS: &str = "\
~ 0644 8 bytes -> 6 bytes  a.txt
~ 0644 3 bytes  bin
- 0755 4096 bytes  d (directory)
- 0644 5 bytes  d/b
~ 0777 5 bytes -> 3 bytes  link (link)
+ 0755 4096 bytes  new (directory)
+ 0644 6 bytes  new/c
~ 0644 -> 0755 4 bytes  run.sh
";

const PATCHES: &str = "\
--- a/a.txt
+++ b/a.txt
@@ -1,2 +1,2 @@
 one
-two
+2
--- a/d/b
+++ /dev/null
@@ -1 +0,0 @@
-gone
--- /dev/null
+++ b/new/c
@@ -0,0 +1 @@
+there
";

const BEGUN: &str = ". ./a.txt ./bin ./d ./d/b ./link ./run.sh ./same one two";
const CHANGED: &str = ". ./a.txt ./bin ./link ./new ./new/c ./run.sh ./same one 2";

fn project() -> Project {
    Project::of(&[
        ("topside.yaml", "default_agent: worker\n"),
        ("agents/worker.md", "---\nmodel: main\nsandbox: local\n---\nYou write.\n"),
        ("models/main.yaml", "main: {provider: script, transcript: script.yaml}\n"),
        ("script.yaml", SCRIPT),
    ])
}

fn say(service: &Service, message: &str) -> String {
    let run = service.begin("day", message);
    text(&service.standing(&run, "completed"), "reply").trim().to_owned()
}

/// The checkpoints of the session that differ, in order.
fn checkpoints(service: &Service) -> Vec<String> {
    let listed = service.get("/sessions/day/checkpoints").was(200);
    let ids = listed["checkpoints"].as_array().unwrap().iter().filter_map(|place| place["checkpoint_id"].as_str());
    let mut ids: Vec<String> = ids.map(str::to_owned).collect();
    ids.dedup();
    ids
}

/// The paths in a tar, by another program than ours.
fn listed(archive: &Path) -> String {
    let listed = Command::new("tar").arg("-tf").arg(archive).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    String::from_utf8(listed.stdout).unwrap()
}

#[test]
fn files_are_compared_written_out_and_put_back() {
    if !has_sandbox("files_are_compared_written_out_and_put_back") {
        return;
    }
    let project = project();
    let service = Service::start(&project);
    assert_eq!((say(&service, "Begin."), say(&service, "Change.")), ("Begun.".to_owned(), "Changed.".to_owned()));
    let [first, last] = <[String; 2]>::try_from(checkpoints(&service)).unwrap();
    let asked = |arguments: &[&str]| {
        let there = [&["workspace"], arguments, &["--url", &service.url]].concat();
        project.topside(&there)
    };
    // Directories are as long as their file system says.
    let plain = |said: &str| {
        said.replace(" 60 bytes", " 4096 bytes").replace(" 80 bytes", " 4096 bytes").replace(" 40 bytes", " 4096 bytes")
    };
    assert_eq!(plain(&asked(&["diff", "day"]).ended(0).data), DIFFERS);
    assert_eq!(plain(&asked(&["diff", "day", "--patch"]).ended(0).data), format!("{DIFFERS}{PATCHES}"));
    let same = asked(&["diff", "day", "--from", &last]).ended(0);
    assert!(same.data.is_empty() && same.talk.contains("do not differ"), "{same:?}");
    // A file and stdout are the same bytes, and another program reads them.
    let (out, old) = (project.path().join("out.tar"), project.path().join("old.tar"));
    asked(&["export", "day", "--out", out.to_str().unwrap()]).ended(0);
    asked(&["export", "day", "--checkpoint", &first, "--out", old.to_str().unwrap()]).ended(0);
    let arguments = ["workspace", "export", "day", "--out", "-", "--url", &service.url];
    let stdout = project.command(&arguments).output().unwrap();
    assert!(stdout.status.success() && stdout.stdout == std::fs::read(&out).unwrap());
    assert_eq!(listed(&out), "./\na.txt\nbin\nlink\nnew/\nnew/c\nrun.sh\nsame\n");
    let nowhere =
        asked(&["export", "day", "--checkpoint", "chk_00000000000000000000000000000000", "--out", "-"]).ended(1);
    assert!(nowhere.talk.contains("checkpoint_not_found") || nowhere.talk.contains("has no checkpoint"), "{nowhere:?}");
    // Back, forth by an archive, and on record.
    assert_eq!(asked(&["restore", "day", "--checkpoint", &first]).ended(0).data.trim(), first);
    assert_eq!(say(&service, "Look."), BEGUN);
    let taken = asked(&["restore", "day", "--archive", out.to_str().unwrap()]).ended(0).data.trim().to_owned();
    assert!(taken != first && taken != last, "an archive is a checkpoint of its own");
    let same = asked(&["diff", "day", "--from", &last, "--to", &taken]).ended(0);
    assert!(same.data.is_empty(), "{same:?}");
    assert_eq!(say(&service, "Look."), CHANGED);
    refused_under_way(&service, &first);
    service.stop();
    // Without a service the data directory is served for as long as it takes.
    let here = project.topside(&["workspace", "diff", "day", "--from", &last, "--to", &taken]).ended(0);
    assert!(here.data.is_empty(), "{here:?}");
    let records = verified(&project, "day");
    assert_eq!(records.iter().filter(|record| kind(record) == "workspace_restored").count(), 3);
    let left = std::fs::read_dir(project.data().join("workspaces/default")).unwrap().count();
    assert_eq!(left, 1, "what comparing and unpacking made is gone");
}

fn refused_under_way(service: &Service, checkpoint: &str) {
    let run = service.begin("day", "Wait.");
    service.record(&run, |record| kind(record) == "began");
    let body = json!({"checkpoint_id": checkpoint}).to_string();
    assert_eq!(service.post("/sessions/day/workspace/restore", &body).refusal(), "409 run_under_way");
    service.post(&format!("/runs/{run}/cancel"), "{}").was(202);
    service.standing(&run, "cancelled");
    let restored = service.post("/sessions/day/workspace/restore", &body).was(200);
    assert_eq!(text(&restored, "checkpoint_id"), checkpoint);
}

#[test]
fn hostile_archives_are_refused_by_their_rules_and_change_nothing() {
    if !has_sandbox("hostile_archives_are_refused_by_their_rules_and_change_nothing") {
        return;
    }
    let project = project();
    let service = Service::start(&project);
    assert_eq!(say(&service, "Begin."), "Begun.");
    let archive = project.path().join("hostile.tar");
    // What is too large for a narrow sandbox is not for this one.
    let narrow = [sandbox::Rule::TooManyEntries, sandbox::Rule::TooLarge];
    let hostile: Vec<_> = tar::hostile().into_iter().filter(|(_, rule, _)| !narrow.contains(rule)).collect();
    assert!(hostile.len() > 40, "{}", hostile.len());
    for (name, rule, bytes) in hostile {
        std::fs::write(&archive, bytes).unwrap();
        let there = ["workspace", "restore", "day", "--archive", archive.to_str().unwrap(), "--url", &service.url];
        let said = project.topside(&there).ended(1);
        assert!(
            said.talk.trim_end().ends_with(&format!(": {rule}")) || said.talk.contains(&format!("`: {rule}")),
            "{name}: {said:?}"
        );
    }
    assert_eq!(say(&service, "Look."), BEGUN);
    let records = service.get("/sessions/day/events?limit=200").was(200);
    let restored =
        records["records"].as_array().unwrap().iter().filter(|record| kind(record) == "workspace_restored").count();
    assert_eq!(restored, 0);
    service.stop();
}
