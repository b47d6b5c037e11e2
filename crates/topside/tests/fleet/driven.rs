//! One process takes requests, others drive; and nobody does much while there is nothing to do.

use crate::fleet::Fleet;
use crate::gate::Gate;
use crate::kit::kind;
use crate::service::{Service, text};

const SCRIPT: &str = r#"title: tell
steps:
- expect: {user: 'Go'}
  reply:
  - call: {id: tell, tool: tell, arguments: {text: news}}
- expect: {outputs: {tell: 'told'}}
  reply:
  - text: "Told."
"#;

fn fleet(test: &str, gate: &Gate) -> Option<Fleet> {
    Fleet::of(
        test,
        &[
            ("topside.yaml", "default_agent: worker\n"),
            ("agents/worker.md", "---\nmodel: main\ntools: [tell]\n---\nYou tell.\n"),
            ("models/main.yaml", "main: {provider: script, transcript: main.yaml}\n"),
            ("main.yaml", SCRIPT),
            ("tools/tell.yaml", &gate.tool("/tell", "")),
            ("policies/open.cedar", "@id(\"open\")\npermit (principal, action, resource);\n"),
        ],
    )
}

#[test]
fn a_run_is_driven_by_a_worker_and_streamed_where_it_was_asked_for() {
    let gate = Gate::closed();
    let Some(fleet) = fleet("a_run_is_driven_by_a_worker_and_streamed_where_it_was_asked_for", &gate) else { return };
    let door = fleet.door();
    let health = door.get("/health").was(200);
    assert_eq!((&health["status"], &health["backends"]["postgres"]), (&"ok".into(), &true.into()), "{health}");
    let run = door.begin("s", "Go.");
    // There is nobody yet who drives.
    assert_eq!(fleet.ask(&["SELECT count(*) FROM public.heads WHERE holder IS NULL"]), ["1"]);
    let mut stream = door.follow(&format!("/runs/{run}/events"), None);
    let workers = [fleet.worker(), fleet.worker()];
    gate.until(1);
    let mut positions = Vec::new();
    // The beginning of the call is seen while the call is under way.
    loop {
        let (position, record) = stream.record().expect("the stream goes on while the run does");
        positions.push(position);
        if kind(&record) == "began" {
            break;
        }
    }
    let holder = fleet.holder(&run);
    assert!(workers.iter().any(|worker| worker.process() == holder), "{holder} drives, who is no worker");
    assert_eq!(door.run(&run)["status"], "running");
    gate.open();
    while let Some((position, _)) = stream.record() {
        positions.push(position);
    }
    assert_eq!(positions, (0..positions.len() as u64).collect::<Vec<_>>(), "the stream is not the log");
    assert_eq!(text(&door.run(&run), "reply"), "Told.");
    // A request that waits is answered once another process has ended its run.
    let waited = door.post("/runs", r#"{"session": "t", "message": "Go."}"#).was(200);
    assert_eq!(text(&waited, "reply"), "Told.");
    for worker in workers {
        assert_eq!(worker.get("/readyz").status, 200);
        assert_eq!(worker.get("/runs").status, 404, "a worker takes requests");
        worker.stop();
    }
    door.stop();
    assert_eq!(fleet.verified("s").len(), positions.len());
    assert_eq!(gate.came().len(), 2);
}

/// Seconds over which the statements of idle processes are counted.
const IDLE_SECONDS: u32 = 6;
/// Polls that a process has, each once a second at most: what is ready, who is dead, news, webhooks, its lease.
const POLLS: u64 = 6;

#[test]
fn idle_processes_ask_no_faster_than_once_a_second() {
    let gate = Gate::closed();
    gate.open();
    let Some(fleet) = fleet("idle_processes_ask_no_faster_than_once_a_second", &gate) else { return };
    let processes: Vec<Service> = vec![fleet.door(), fleet.start(&["serve"]), fleet.worker(), fleet.worker()];
    // All of them have had something to do before.
    let done = processes[0].post("/runs", r#"{"session": "s", "message": "Go."}"#).was(200);
    assert_eq!(text(&done, "reply"), "Told.");
    // Processes tell the server's statistics once a second, so what they did before may still be counted: the bound has room.
    let count = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    let told = fleet.ask(&["SELECT pg_sleep(2)", count, &format!("SELECT pg_sleep({IDLE_SECONDS})"), count]);
    let counts: Vec<u64> = told.iter().filter_map(|line| line.parse().ok()).collect();
    let [before, after] = counts[..] else { panic!("{told:?}") };
    let most = processes.len() as u64 * POLLS * u64::from(IDLE_SECONDS);
    assert!(after > before, "idle workers keep no lease");
    assert!(after - before <= most, "{} transactions in {IDLE_SECONDS} s, expected at most {most}", after - before);
    processes.into_iter().for_each(Service::stop);
}
