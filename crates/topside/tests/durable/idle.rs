//! Sandboxes that stand still while their sessions have nothing to do: a program in the background counts, stands still while its
//! run waits, and counts on from there, as the same process; or its sandbox is gone, and the run goes on from its files.

use crate::kit::{Project, has_sandbox, kind};
use crate::service::{Service, text, verified};
use crate::witness::Witness;
use serde_json::{Value, json};

/// How often it is looked for a program that ends by itself.
const LOOKS_MAX: usize = 10_000;
const POLICY: &str = "@id(\"work\")\npermit (principal, action, resource == Tool::\"exec_command\");\n@id(\"press\") @approval(\"always\")\npermit (principal, action, resource == Tool::\"publish\");\n";

/// A worker that starts a program that counts, publishes, looks, publishes again, and looks once more.
struct Counting {
    project: Project,
    /// The last argument of the program.
    marker: String,
}

impl Counting {
    fn new(witness: &Witness, settings: &str) -> Self {
        let project = Project::of(&[
            ("topside.yaml", &format!("default_agent: worker\nsandbox: {settings}\n")),
            ("agents/worker.md", "---\nmodel: main\ntools: [publish]\nsandbox: {provider: local}\n---\nYou count.\n"),
            ("agents/other.md", "---\nmodel: main\nsandbox: {provider: local}\n---\nYou peek.\n"),
            ("models/main.yaml", "main: {provider: script, transcript: main.yaml}\n"),
            ("tools/publish.yaml", &witness.tool("/told", "")),
            ("policies/house.cedar", POLICY),
        ]);
        let marker = format!("counts-for-{}", project.path().file_name().unwrap().to_string_lossy());
        let counts = "i=0; while :; do i=$((i+1)); echo $i > next; mv next count; sleep 0.01; done";
        let count = format!(
            "(sh -c '{counts}' {marker} </dev/null >/dev/null 2>&1 & echo $! > pid); until [ -s count ]; do sleep 0.01; done; echo at $(cat count)."
        );
        // What it is at now, and that it goes on.
        let look = "was=$(cat count); grep -q [c]ounts-for /proc/$(cat pid)/cmdline 2>/dev/null && until [ $(cat count) -gt $was ]; do sleep 0.01; done; echo goes on from $was.";
        let call = |id: &str, cmd: &str| json!({"call": {"id": id, "tool": "exec_command", "arguments": {"cmd": cmd, "yield_time_ms": 30_000}}});
        let publish = |id: &str| json!({"call": {"id": id, "tool": "publish", "arguments": {"text": id}}});
        let transcript = json!({"title": "one who counts", "steps": [
            {"expect": {"user": "Count"}, "reply": [call("count", &count)]},
            {"expect": {"outputs": {"count": "at \\d+\\."}}, "reply": [publish("one")]},
            {"expect": {"outputs": {"one": "told"}}, "reply": [call("look", look)]},
            {"expect": {"outputs": {"look": "(?s)(?<first>.*)"}}, "reply": [publish("two")]},
            {"expect": {"outputs": {"two": "told"}}, "reply": [call("again", look)]},
            {"expect": {"outputs": {"again": "(?s)(?<second>.*)"}}, "reply": [{"text": "${first} ${second}"}]},
            {"expect": {"user": "Look"}, "reply": [call("later", look)]},
            {"expect": {"outputs": {"later": "(?s)(?<third>.*)"}}, "reply": [{"text": "${third}"}]},
            {"expect": {"user": "Peek"}, "reply": [call("peek", "echo there")]},
            {"expect": {"outputs": {"peek": "there"}}, "reply": [{"text": "Peeked."}]},
        ]});
        std::fs::write(project.path().join("main.yaml"), transcript.to_string()).unwrap();
        Self { project, marker }
    }

    /// The program as the host sees it: its number, when it was started, how it stands.
    fn program(&self) -> Option<(u32, String, char)> {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find_map(|process| {
            let command = std::fs::read(format!("/proc/{process}/cmdline")).ok()?;
            let last = command.split(|byte| *byte == 0).rfind(|argument| !argument.is_empty())?;
            if last != self.marker.as_bytes() {
                return None;
            }
            let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
            let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            Some((process, (*fields.get(19)?).to_owned(), fields.first()?.chars().next()?))
        })
    }

    /// Waits until the program is gone.
    fn ends(&self) {
        let is_gone = (0..LOOKS_MAX).any(|_| self.program().is_none());
        assert!(is_gone, "it lives on: {:?}", self.program());
    }

    /// Waits until the one sandbox there is stands so.
    fn until(&self, service: &Service, status: &str) {
        let listed = service.until("/sandboxes", |answer| {
            let listed = answer.json();
            listed["sandboxes"].as_array().unwrap().iter().all(|sandbox| sandbox["status"] == status)
                && !listed["sandboxes"].as_array().unwrap().is_empty()
        });
        assert_eq!(listed.json()["sandboxes"].as_array().unwrap().len(), 1, "two sandboxes of one session");
    }

    /// The program, which stands still.
    #[track_caller]
    fn still(&self) -> (u32, String) {
        let (process, started, state) = self.program().expect("the program is gone");
        assert_eq!(state, 'T', "it does not stand still");
        (process, started)
    }
}

fn approve(service: &Service, run: &Value) {
    let call = run["approvals"][0].as_str().unwrap();
    service.post(&format!("/approvals/{call}"), r#"{"vote": "approve"}"#).was(200);
}

/// Waits until a run has been parked so often.
fn parked(service: &Service, run: &str, times: usize) -> Value {
    let mut stream = service.follow(&format!("/runs/{run}/events"), None);
    let mut seen = 0;
    while seen < times {
        seen += usize::from(stream.next().expect("it is parked again").name == "parked");
    }
    service.run(run)
}

/// How each sandbox of a run was come by.
fn ways(service: &Service, run: &str) -> Vec<String> {
    let opened = service.records(run).into_iter().filter(|record| kind(record) == "sandbox_opened");
    opened.map(|record| text(&record["body"]["start"], "way")).collect()
}

/// Whether a run saw its program go on from ever higher counts.
#[track_caller]
fn grew(reply: &str, times: usize) {
    let counts =
        reply.split("goes on from ").skip(1).map(|rest| rest.split('.').next().unwrap().parse::<u64>().unwrap());
    let counts: Vec<u64> = counts.collect();
    assert!(counts.len() == times && counts.is_sorted_by(|one, next| one < next), "{reply}");
}

#[test]
fn what_runs_in_the_background_stands_still_while_its_run_waits_and_goes_on_with_it() {
    if !has_sandbox("what_runs_in_the_background_stands_still_while_its_run_waits_and_goes_on_with_it") {
        return;
    }
    let witness = Witness::start();
    let counting = Counting::new(&witness, "{keep_parked_ms: 600000, keep_idle_ms: 600000}");
    let service = Service::start(&counting.project);
    let run = service.begin("s", "Count.");
    let waits = parked(&service, &run, 1);
    counting.until(&service, "idle");
    let program = counting.still();
    let list = counting.project.topside(&["sandbox", "list"]).ended(0).data;
    assert!(list.contains("idle"), "{list}");
    approve(&service, &waits);
    let waits = parked(&service, &run, 2);
    counting.until(&service, "idle");
    assert_eq!(counting.still(), program, "another process");
    approve(&service, &waits);
    let ended = service.standing(&run, "completed");
    grew(&text(&ended, "reply"), 2);
    assert_eq!(ways(&service, &run)[1..], ["woken", "woken"]);
    let log = counting.project.topside(&["log", "s"]).ended(0).data;
    assert!(log.contains("woken, wake ") && log.contains("claim ") && log.contains("ready "), "{log}");
    // Kept for the next run of the session, too.
    counting.until(&service, "idle");
    assert_eq!(counting.still(), program);
    let next = service.begin("s", "Look.");
    let ended = service.standing(&next, "completed");
    grew(&text(&ended, "reply"), 1);
    assert_eq!(ways(&service, &next), ["woken"]);
    counting.until(&service, "idle");
    assert_eq!(counting.still(), program);
    // But not for another agent.
    let body = json!({"session": "s", "agent": "other", "message": "Peek."}).to_string();
    let other = text(&service.ask("POST", "/runs", &["Prefer: respond-async"], &body).was(202), "run_id");
    assert_eq!(text(&service.standing(&other, "completed"), "reply"), "Peeked.");
    assert_ne!(ways(&service, &other), ["woken"]);
    counting.ends();
    counting.until(&service, "idle");
    service.stop();
    verified(&counting.project, "s");
}

#[test]
fn a_run_goes_on_from_its_files_when_its_sandbox_was_not_kept_for_so_long() {
    if !has_sandbox("a_run_goes_on_from_its_files_when_its_sandbox_was_not_kept_for_so_long") {
        return;
    }
    for settings in ["{keep_parked_ms: 1}", "{keep_parked_ms: 0}", "{idle_max: 0}"] {
        let witness = Witness::start();
        let counting = Counting::new(&witness, settings);
        let service = Service::start(&counting.project);
        let run = service.begin("s", "Count.");
        // Who comes before it is gone wakes it, however short its time is.
        let none = || service.until("/sandboxes", |answer| answer.json()["sandboxes"].as_array().unwrap().is_empty());
        let waits = parked(&service, &run, 1);
        none();
        counting.ends();
        approve(&service, &waits);
        let waits = parked(&service, &run, 2);
        none();
        // The program is gone, its files are there.
        approve(&service, &waits);
        let reply = text(&service.standing(&run, "completed"), "reply");
        assert_eq!(reply.matches("goes on from ").count(), 2, "{settings}: {reply}");
        assert!(ways(&service, &run).iter().all(|way| way == "cold" || way == "warm"), "{settings}");
        service.stop();
        verified(&counting.project, "s");
    }
}

#[test]
fn a_sandbox_that_stood_still_is_taken_over_when_the_service_is_killed() {
    if !has_sandbox("a_sandbox_that_stood_still_is_taken_over_when_the_service_is_killed") {
        return;
    }
    let witness = Witness::start();
    let counting = Counting::new(&witness, "{keep_parked_ms: 600000}");
    let service = Service::start(&counting.project);
    let run = service.begin("s", "Count.");
    let waits = parked(&service, &run, 1);
    counting.until(&service, "idle");
    let program = counting.still();
    service.kill();
    let service = Service::start(&counting.project);
    counting.until(&service, "left");
    approve(&service, &waits);
    let waits = parked(&service, &run, 2);
    counting.until(&service, "idle");
    assert_eq!(counting.still(), program, "another process");
    approve(&service, &waits);
    grew(&text(&service.standing(&run, "completed"), "reply"), 2);
    assert_eq!(ways(&service, &run)[1..], ["taken_over", "woken"]);
    service.stop();
    assert_eq!(counting.program(), None);
    verified(&counting.project, "s");
}
