//! Commands that outlive the service: killed in mid-command and started again, it goes on with what runs in the sandbox, and the
//! model is told all that the command said, once.

use crate::kit::{Project, has_sandbox, kind};
use crate::service::{Service, text, verified};

const LINES: u32 = 40;

fn transcript(tty: &str) -> String {
    let command = format!(
        "i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i.; [ $i = 5 ] && touch five; sleep 0.1; done; exit 3"
    );
    format!(
        r#"title: one who counts
steps:
- expect: {{user: 'Count'}}
  reply:
  - call: {{id: count, tool: exec_command, arguments: {{cmd: "{command}", tty: {tty}, yield_time_ms: 30000}}}}
- expect: {{outputs: {{count: '(?s)exited with code 3.*line 1\..*line {LINES}\.'}}}}
  reply:
  - text: "Counted."
"#
    )
}

#[test]
fn a_command_goes_on_when_the_service_is_killed() {
    if !has_sandbox("a_command_goes_on_when_the_service_is_killed") {
        return;
    }
    for tty in ["false", "true"] {
        let project = Project::of(&[
            ("topside.yaml", "default_agent: worker\n"),
            ("agents/worker.md", "---\nmodel: main\nsandbox: {provider: local}\n---\nYou work.\n"),
            ("models/main.yaml", "main: {provider: script, transcript: script.yaml}\n"),
            ("script.yaml", &transcript(tty)),
        ]);
        let service = Service::start(&project);
        let run = service.begin("day", "Count.");
        let mut stream = service.follow(&format!("/runs/{run}/events"), None);
        while stream.next().expect("it says something").name != "delta.output" {}
        service.kill();
        let service = Service::start(&project);
        let ended = service.standing(&run, "completed");
        assert_eq!(ended["reply"], "Counted.", "{ended}");
        let records = service.records(&run);
        let began: Vec<_> = records.iter().filter(|record| kind(record) == "began").collect();
        assert_eq!(began.len(), 1, "it was begun once: {began:?}");
        let resumed = records.iter().find(|record| kind(record) == "resumed").expect("it was taken up");
        assert_eq!(resumed["body"]["attached"][0], began[0]["body"]["call"], "{resumed}");
        let returned = records.iter().find(|record| kind(record) == "returned").expect("it returned");
        let output = returned["body"]["output"].to_string();
        for n in 1..=LINES {
            assert_eq!(output.matches(&format!("line {n}.")).count(), 1, "line {n} of a terminal ({tty}): {output}");
        }
        let session = text(&service.get("/sessions/day").was(200), "session_id");
        service.stop();
        assert!(project.data().join("workspaces/default").join(session).exists());
        verified(&project, "day");
    }
}

const LOOKS: &str = r#"title: one who looks
steps:
- expect: {user: 'Look'}
  reply:
  - call: {id: write, tool: exec_command, arguments: {cmd: "echo written > kept.txt"}}
- reply:
  - call: {id: slow, tool: exec_command, arguments: {cmd: "echo more >> kept.txt; echo begun; exec sleep 3600", yield_time_ms: 30000}}
- expect: {outputs: {slow: 'lost'}}
  reply:
  - call: {id: look, tool: exec_command, arguments: {cmd: "cat kept.txt; echo and more"}}
- expect: {outputs: {look: '(?s)written.*more.*and more'}}
  reply:
  - text: "Looked."
"#;

/// The service lives, and its launcher does not: another one serves, and the run goes on with its files.
#[test]
fn a_run_goes_on_when_its_launcher_is_killed() {
    if !has_sandbox("a_run_goes_on_when_its_launcher_is_killed") {
        return;
    }
    let project = Project::of(&[
        ("topside.yaml", "default_agent: worker\n"),
        ("agents/worker.md", "---\nmodel: main\nsandbox: {provider: local}\n---\nYou work.\n"),
        ("models/main.yaml", "main: {provider: script, transcript: script.yaml}\n"),
        ("script.yaml", LOOKS),
    ]);
    let service = Service::start(&project);
    let run = service.begin("day", "Look.");
    let mut stream = service.follow(&format!("/runs/{run}/events"), None);
    while !stream.next().expect("it says something").data.to_string().contains("begun\\n") {}
    service.kill_launcher();
    let ended = service.standing(&run, "completed");
    assert_eq!(ended["reply"], "Looked.", "{ended}");
    let opened: Vec<_> = service.records(&run).into_iter().filter(|record| kind(record) == "sandbox_opened").collect();
    assert_eq!(opened.len(), 2, "{opened:?}");
    service.stop();
    verified(&project, "day");
}
