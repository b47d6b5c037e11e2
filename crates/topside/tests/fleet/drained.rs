//! A process that is told to end hands on what it has not ended.

use crate::fleet::Fleet;
use crate::gate::Gate;
use crate::kit::kind;
use crate::service::text;

const SCRIPT: &str = r#"title: two turns
steps:
- expect: {user: 'Go'}
  reply:
  - call: {id: one, tool: first, arguments: {text: one}}
- expect: {outputs: {one: 'told'}}
  reply:
  - call: {id: two, tool: second, arguments: {text: two}}
- expect: {outputs: {two: 'told'}}
  reply:
  - text: "Both."
"#;

#[test]
fn a_worker_that_is_told_to_end_hands_its_run_on() {
    let gate = Gate::closed();
    let files = [
        ("topside.yaml", "default_agent: worker\nworker: {lease_seconds: 300}\n"),
        ("agents/worker.md", "---\nmodel: main\ntools: [first, second]\n---\nYou tell.\n"),
        ("models/main.yaml", "main: {provider: script, transcript: main.yaml}\n"),
        ("main.yaml", SCRIPT),
        ("tools/first.yaml", &gate.tool("/first", "")),
        ("tools/second.yaml", &gate.tool("/second", "")),
        ("policies/open.cedar", "@id(\"open\")\npermit (principal, action, resource);\n"),
    ];
    let Some(fleet) = Fleet::of("a_worker_that_is_told_to_end_hands_its_run_on", &files) else { return };
    let door = fleet.door();
    let first = fleet.start(&["worker", "--drain-seconds", "5"]);
    let run = door.begin("s", "Go.");
    gate.until(1);
    assert_eq!(fleet.holder(&run), first.process());
    let second = fleet.worker();
    first.signal("-TERM");
    // Its call is under way still, and may end.
    first.until_logged("runs under way begin no further turn", 1);
    gate.let_through(1);
    first.ended();
    // Its lease has minutes to run: the session was given back.
    let came = gate.until(2);
    assert_eq!(fleet.holder(&run), second.process());
    gate.open();
    let ended = door.standing(&run, "completed");
    assert_eq!(text(&ended, "reply"), "Both.");
    second.stop();
    door.stop();
    let paths: Vec<&str> = came.iter().map(|came| came.path.as_str()).collect();
    assert_eq!(paths, ["/first", "/second"]);
    assert_eq!(gate.came().len(), 2, "a deed was done again");
    let records = fleet.verified("s");
    let count = |name: &str| records.iter().filter(|record| kind(record) == name).count();
    assert_eq!((count("finished"), count("returned"), count("in_doubt")), (1, 2, 0));
}
