//! Runs that are replayed on their record, and runs that are compared, on a real journal.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::{Project, TENANT, World, ask, kinds, principal, records};
use domain::record::Vote;
use domain::{ContentRef, Event, Record, RunStatus};
use engine::{Ballot, Differing, Engine, LimitChange, Replay, Submission, Ticket};
use journal::ContentsMode;
use std::collections::HashMap;
use std::time::Duration;
use tools::{Context, Functions};

const LONG: Duration = Duration::from_secs(60);

const TRANSCRIPT: &str = r#"
title: look, then write
steps:
- reply:
  - call: {id: c1, tool: look, arguments: {n: 1}}
  - call: {id: c2, tool: look, arguments: {n: "wrong"}}
- expect: {outputs: {c1: 'seen 1'}}
  reply:
  - call: {id: c3, tool: send, arguments: {n: 2}}
- expect: {outputs: {c3: 'sent'}}
  reply:
  - text: "Done."
"#;

const TOOLS: [common::ToolLines<'static>; 2] =
    [("look", "read", ""), ("send", "external", "idempotency: {key: arguments}\n")];

fn functions() -> Functions {
    let mut functions = Functions::new();
    functions.add("look", |arguments: serde_json::Value, _: Context| async move {
        Ok::<_, String>(format!("seen {}", arguments["n"]))
    });
    functions.add("send", |_: serde_json::Value, _: Context| async { Ok::<_, String>("sent".to_owned()) });
    functions
}

/// A run with a call that was held, an invalid one, and one with a key.
async fn done(contents: ContentsMode) -> (Project, Engine, Ticket) {
    let project = Project::new("", &TOOLS, TRANSCRIPT);
    let engine = project.engine_in(World { contents, functions: functions(), ..World::default() });
    let ticket = engine.submit(ask("Go.")).await.unwrap();
    let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    assert_eq!(view.status, RunStatus::Waiting, "{:?}", view.failure);
    let approve = Ballot { vote: Vote::Approve, reason: Some("all fine".into()), binding: None };
    engine.vote(TENANT, view.approvals[0], principal("boss"), approve, None).await.unwrap();
    let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    assert_eq!((view.status, view.failure), (RunStatus::Completed, None));
    (project, engine, ticket)
}

#[tokio::test]
async fn a_run_replays_as_it_was_recorded_with_no_model_and_no_tool() {
    let (project, engine, ticket) = done(ContentsMode::Sealed).await;
    let length = records(&engine, ticket.session).await.len() as u64;
    let same = Replay::Same { records: length, prompts: 3 };
    assert_eq!(engine.replay(TENANT, ticket.run).await.unwrap(), same);
    engine.journal().close().await.unwrap();
    drop(engine);
    // What would be asked now is gone; what was recorded is enough.
    project.write("script.yaml", "title: other\nsteps:\n- reply:\n  - text: Other.\n");
    let mut functions = Functions::new();
    for name in ["look", "send"] {
        functions.add(name, move |_: serde_json::Value, _: Context| async move {
            panic!("{name} was called");
            #[expect(unreachable_code, reason = "it says what the function would give")]
            Ok::<_, String>(String::new())
        });
    }
    let engine = project.engine(functions);
    assert_eq!(engine.replay(TENANT, ticket.run).await.unwrap(), same);
    assert_eq!(records(&engine, ticket.session).await.len() as u64, length, "a replay writes nothing");
    assert_eq!(engine.replay("other", ticket.run).await.unwrap_err().code(), "run_not_found");
}

#[tokio::test]
async fn a_run_that_is_under_way_replays_as_far_as_it_has_come() {
    let project = Project::new("", &[("look", "read", ""), ("send", "external", "")], TRANSCRIPT);
    let engine = project.engine(functions());
    let ticket = engine.submit(ask("Go.")).await.unwrap();
    assert_eq!(engine.wait(TENANT, ticket.run, LONG).await.unwrap().status, RunStatus::Waiting);
    let replay = engine.replay(TENANT, ticket.run).await.unwrap();
    assert!(matches!(replay, Replay::Same { prompts: 2, .. }), "{replay:?}");
}

/// Changes bytes of the database behind the journal's back: the last of `from` becomes `to`, within what follows `after`.
fn alter(project: &Project, after: &str, from: &str, to: u8) {
    let file = project.data().join("journal.db");
    let mut bytes = std::fs::read(&file).unwrap();
    let find = |text: &str, from: usize| {
        let found = bytes[from..].windows(text.len()).position(|window| window == text.as_bytes());
        from + found.unwrap_or_else(|| panic!("`{text}` is not in the database"))
    };
    let at = find(from, find(after, 0)) + from.len() - 1;
    bytes[at] = to;
    std::fs::write(&file, bytes).unwrap();
}

#[tokio::test]
async fn a_content_that_was_altered_fails_at_its_position() {
    for (text, kind) in
        [("seen 1", "returned"), ("\"text\":\"Done", "replied"), ("all fine", "voted"), ("Go.", "submitted")]
    {
        let (project, engine, ticket) = done(ContentsMode::Plain).await;
        let log = records(&engine, ticket.session).await;
        engine.journal().close().await.unwrap();
        drop(engine);
        alter(&project, text, text, b'#');
        let engine = project.engine(functions());
        let replay = engine.replay(TENANT, ticket.run).await.unwrap();
        let Replay::Differs { position, expected, found } = replay else { panic!("{text} passed") };
        let at = log.iter().find(|record| record.head.position == position).unwrap();
        assert_eq!(at.event.kind(), kind, "{expected}: {found}");
        assert!(expected.contains("con_"), "{expected}: {found}");
    }
}

#[tokio::test]
async fn a_record_that_was_altered_fails_at_its_position() {
    let (project, engine, ticket) = done(ContentsMode::Sealed).await;
    let log = records(&engine, ticket.session).await;
    engine.journal().close().await.unwrap();
    drop(engine);
    for record in log {
        let place = format!("\"position\":{},\"previous\"", record.head.position);
        alter(&project, &place, "\"at_ms\":1", b'2');
        let engine = project.engine(functions());
        let replay = engine.replay(TENANT, ticket.run).await.unwrap();
        assert!(
            matches!(replay, Replay::Differs { position, .. } if position == record.head.position),
            "{}: {replay:?}",
            record.head.position
        );
        engine.journal().close().await.unwrap();
        drop(engine);
        alter(&project, &place, "\"at_ms\":2", b'1');
    }
}

#[tokio::test]
async fn a_record_that_the_machine_did_not_want_is_told() {
    let project = Project::new("", &[("look", "read", ""), ("send", "external", "")], TRANSCRIPT);
    let engine = project.engine(functions());
    let ticket = engine.submit(ask("Go.")).await.unwrap();
    assert_eq!(engine.wait(TENANT, ticket.run, LONG).await.unwrap().status, RunStatus::Waiting);
    let log = records(&engine, ticket.session).await;
    let position = log.len() as u64;
    // A driver that checkpoints where nothing was changed.
    let event =
        Event::Checkpointed(domain::record::Checkpointed { run: ticket.run, turn: 9, snapshot: None, reason: None });
    let draft = domain::record::Draft { at_ms: log[log.len() - 1].head.at_ms, principal: principal("engine"), event };
    let key = journal::SessionKey::new(TENANT, ticket.session);
    let epoch = engine.journal().claim(&key).await.unwrap().epoch;
    let append = journal::Append::new(key, journal::Fence::Effect { epoch, expect: position }).draft(&draft);
    engine.journal().append(append).await.unwrap();
    let replay = engine.replay(TENANT, ticket.run).await.unwrap();
    let Replay::Differs { position: at, found, .. } = replay else { panic!("{replay:?}") };
    assert!(at == position && found.contains("checkpointed"), "{at}: {found}");
}

/// A log in which one record stands elsewhere, with links of its own in another house, so that only the replay can tell.
async fn moved(engine: &Engine, ticket: Ticket, from: usize, to: usize) -> (Vec<&'static str>, Replay) {
    let mut log = records(engine, ticket.session).await;
    let record = log.remove(from);
    log.insert(to, record);
    let kinds = log.iter().map(|record| record.event.kind()).collect();
    let project = Project::new("", &TOOLS, TRANSCRIPT);
    let other = project.engine_in(World { functions: functions(), ..World::default() });
    // Its agent is pinned there as well.
    let pinned = other.submit(ask("Go.")).await.unwrap();
    other.wait(TENANT, pinned.run, LONG).await.unwrap();
    let key = journal::SessionKey::new(TENANT, ticket.session);
    let sealer = other.journal().sealer(&key).await.unwrap();
    let mut append = journal::Append::new(key.clone(), journal::Fence::Effect { epoch: 0, expect: 0 });
    let at_ms = log.iter().map(|record| record.head.at_ms).max().unwrap();
    let mut sealed = HashMap::new();
    for Record { head, mut event } in log {
        for content in contents_of(&mut event) {
            let anew = match sealed.get(&content.id) {
                Some(anew) => Clone::clone(anew),
                None => {
                    let read = engine.journal().content(&key, content).await.unwrap();
                    let (anew, item) = sealer.seal(&content.media, &read.into_bytes().unwrap()).unwrap();
                    append = append.content(item);
                    anew
                }
            };
            sealed.insert(content.id, anew.clone());
            *content = anew;
        }
        append = append.draft(&domain::record::Draft { at_ms, principal: head.principal, event });
    }
    other.journal().append(append).await.unwrap();
    (kinds, other.replay(TENANT, ticket.run).await.unwrap())
}

/// The contents that a record of these runs points to.
fn contents_of(event: &mut Event) -> Vec<&mut ContentRef> {
    match event {
        Event::Submitted(body) => body.message.iter_mut().collect(),
        Event::Voted(body) => body.reason.iter_mut().collect(),
        Event::Replied(body) => vec![&mut body.items],
        Event::Returned(body) => vec![&mut body.output],
        Event::Finished(body) => body.reply.iter_mut().collect(),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn a_record_that_stands_elsewhere_fails_where_it_stands() {
    let (_project, engine, ticket) = done(ContentsMode::Sealed).await;
    let log = kinds(&engine, ticket.session).await;
    let log: Vec<_> = log.split(' ').collect();
    let (_, same) = moved(&engine, ticket, 0, 0).await;
    assert!(matches!(same, Replay::Same { prompts: 3, .. }), "{same:?}\n{log:?}");
    let place = |kind: &str, nth: usize| {
        let (at, _) = log.iter().enumerate().filter(|(_, there)| **there == kind).nth(nth).unwrap();
        at
    };
    // What is moved, where to, and the first record that can't stand where it then stands: what was moved, when it comes too early,
    // else what needed it. Each was wanted at some time.
    for (from, to, missed) in [
        (place("judged", 0), place("replied", 1), place("returned", 0)),
        (place("began", 0), place("replied", 1), place("began", 0)),
        (place("returned", 1), place("began", 0), place("began", 0)),
        (place("replied", 1), place("replied", 0) + 1, place("replied", 0) + 1),
        (place("parked", 0), place("resumed", 0), place("resumed", 0)),
        (place("judged", 2), place("judged", 1), place("judged", 1) + 1),
        (place("finished", 0), place("finished", 0) - 1, place("finished", 0) - 1),
    ] {
        let (kinds, replay) = moved(&engine, ticket, from, to).await;
        let Replay::Differs { position, .. } = replay else { panic!("{} to {to}: {kinds:?}", log[from]) };
        assert_eq!(position, missed as u64, "{} from {from} to {to}: {replay:?} in {kinds:?}", log[from]);
    }
}

#[tokio::test]
async fn two_runs_are_compared_turn_by_turn() {
    let (_project, engine, first) = done(ContentsMode::Sealed).await;
    let limits = LimitChange { turns: Some(1), ..LimitChange::default() };
    let second = engine.submit(Submission { limits, ..ask("Go on.") }).await.unwrap();
    engine.wait(TENANT, second.run, LONG).await.unwrap();
    assert_eq!(engine.diff(TENANT, first.run, first.run).await.unwrap(), []);
    let differences = engine.diff(TENANT, first.run, second.run).await.unwrap();
    let told: Vec<_> = differences.iter().map(|difference| (difference.turn, difference.what)).collect();
    let expected = [
        (0, Differing::Message),
        (1, Differing::Usage),
        (2, Differing::Reply),
        (2, Differing::Call),
        (2, Differing::Outcome),
        (2, Differing::Usage),
        (3, Differing::Reply),
        (3, Differing::Usage),
        (0, Differing::Status),
    ];
    assert_eq!(told, expected, "{differences:#?}\n{}", kinds(&engine, second.session).await);
    let call = &differences[3];
    assert_eq!((call.a.as_deref(), call.b.as_deref()), (Some("send {\"n\":2}"), None));
    let status = &differences[8];
    assert_eq!(status.b.as_deref(), Some("budget_exhausted (limit_turns)"));
    assert_eq!(engine.diff("other", first.run, second.run).await.unwrap_err().code(), "run_not_found");
}
