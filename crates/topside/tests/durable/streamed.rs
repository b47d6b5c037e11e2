//! Streams: whoever was cut off gets exactly the rest, wherever that was.

use crate::kit::{Project, kind};
use crate::service::{Service, Stream, text};
use crate::witness::Witness;
use serde_json::Value;

const SCRIPT: &str = r#"title: two tools
steps:
- expect: {user: 'Go'}
  reply:
  - text: "I look, and then I tell."
  - call: {id: look, tool: look, arguments: {text: here}}
- expect: {outputs: {look: 'told'}}
  reply:
  - call: {id: tell, tool: tell, arguments: {text: news}}
- expect: {outputs: {tell: 'told'}}
  reply:
  - text: "Told."
"#;
const POLICY: &str = "@id(\"look\")\npermit (principal, action, resource == Tool::\"look\");\n@id(\"tell\") @approval(\"always\")\npermit (principal, action, resource == Tool::\"tell\");\n";

/// Reads records up to one of this kind, whose positions follow each other.
fn up_to(stream: &mut Stream, last: &str) -> Vec<(u64, Value)> {
    let mut records: Vec<(u64, Value)> = Vec::new();
    loop {
        let (id, record) = stream.record().unwrap_or_else(|| panic!("the stream ended before `{last}`: {records:?}"));
        assert_eq!(record["position"], id, "the id is not the position");
        records.push((id, record));
        if kind(&records[records.len() - 1].1) == last {
            return records;
        }
    }
}

#[test]
fn who_comes_back_at_any_position_gets_exactly_the_rest() {
    let witness = Witness::start();
    let project = Project::of(&[
        ("topside.yaml", "default_agent: worker\n"),
        ("agents/worker.md", "---\nmodel: main\ntools: [look, tell]\n---\nYou tell.\n"),
        ("models/main.yaml", "main: {provider: script, transcript: main.yaml}\n"),
        ("main.yaml", SCRIPT),
        ("tools/look.yaml", &witness.tool("/look", "")),
        ("tools/tell.yaml", &witness.tool("/tell", "")),
        ("policies/house.cedar", POLICY),
    ]);
    let service = Service::start(&project);
    let run = service.begin("s", "Go.");
    let parked = service.standing(&run, "waiting");
    let call = parked["approvals"][0].as_str().unwrap().to_owned();
    service.kill();
    // A run that waits is followed in a process that never drove it.
    let service = Service::start(&project);
    let path = format!("/runs/{run}/events");
    let before = up_to(&mut service.follow(&path, None), "parked");
    assert!(before.len() >= 8, "{before:?}");
    let mut streams = Vec::new();
    for after in std::iter::once(None).chain(before.iter().map(|(position, _)| Some(*position))) {
        let mut stream = service.follow(&path, after);
        let from = after.map_or(0, |after| usize::try_from(after).unwrap() + 1);
        let rest = if from < before.len() { up_to(&mut stream, "parked") } else { Vec::new() };
        assert_eq!(rest, before[from..], "after {after:?} while it waits");
        streams.push((after, stream, rest));
    }
    service.post(&format!("/approvals/{call}"), r#"{"vote": "approve"}"#).was(200);
    service.standing(&run, "completed");
    let all: Vec<(u64, Value)> =
        service.records(&run).into_iter().map(|record| (record["position"].as_u64().unwrap(), record)).collect();
    let positions: Vec<u64> = all.iter().map(|(position, _)| *position).collect();
    assert_eq!(positions, (0..positions.len() as u64).collect::<Vec<_>>());
    assert_eq!(kind(&all[all.len() - 1].1), "finished");
    let rest_after = |after: Option<u64>| after.map_or(&all[..], |after| &all[usize::try_from(after).unwrap() + 1..]);
    for (after, mut stream, mut got) in streams {
        got.extend(up_to(&mut stream, "finished"));
        assert_eq!(got, rest_after(after), "after {after:?}, over the wait");
        assert!(stream.record().is_none(), "the stream of a run that ended goes on");
    }
    for after in std::iter::once(None).chain(positions.iter().copied().map(Some)) {
        let mut stream = service.follow(&path, after);
        let mut got = Vec::new();
        while let Some(record) = stream.record() {
            got.push(record);
        }
        assert_eq!(got, rest_after(after), "after {after:?}, when all was over");
    }
    assert_eq!(text(&service.run(&run), "reply"), "Told.");
    service.stop();
}
