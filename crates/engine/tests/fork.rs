//! Sessions that go on from others, and sessions that are deleted, on a real journal and real objects.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use bytes::Bytes;
use chunks::Chunks;
use common::{Project, TENANT, ask, kinds, principal, records};
use domain::record::{Checkpointed, Deed, Draft, Finished, Replied, SandboxClosed, SandboxOpened, Snapshot, When};
use domain::{CallStatus, Cost, Digest, Effect, Event, Id, Item, RunStatus, Usage, id};
use engine::{Engine, Fork, IdempotencyKey, Operation, SessionName, Submission, Ticket};
use futures::TryStreamExt;
use journal::{Append, Fence, SessionKey};
use std::sync::Arc;
use std::time::Duration;
use stdx::{Clock, Random};
use tools::{Context, Functions};

const LONG: Duration = Duration::from_secs(60);

const MAIN: &str = r#"
title: two turns
steps:
- reply:
  - call: {id: c1, tool: send, arguments: {n: 1}}
- expect: {outputs: {c1: 'sent'}}
  reply:
  - text: "Sent."
- expect: {user: 'and then'}
  reply:
  - text: "Then this."
"#;

const OTHER: &str = r#"
title: the other model
steps:
- reply:
  - call: {id: c1, tool: send, arguments: {n: 1}}
- expect: {outputs: {c1: 'sent'}}
  reply:
  - text: "The other one says: sent."
"#;

fn functions() -> Functions {
    let mut functions = Functions::new();
    functions.add("send", |_: serde_json::Value, _: Context| async { Ok::<_, String>("sent".to_owned()) });
    functions
}

fn project() -> Project {
    let project = Project::new("", &[("send", "external", "")], MAIN);
    project.write("policies/all.cedar", "permit (principal, action, resource);\n");
    project.write("models/other.yaml", "other: {provider: script, transcript: other.yaml}\n");
    project.write("other.yaml", OTHER);
    project
}

async fn done() -> (Project, Engine, Ticket) {
    let project = project();
    let engine = project.engine(functions());
    let ticket = engine.submit(ask("Send it.")).await.unwrap();
    let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    assert_eq!((view.status, view.failure), (RunStatus::Completed, None));
    (project, engine, ticket)
}

fn fork(session: Id<id::Session>, at: u64) -> Fork {
    Fork {
        tenant: TENANT.into(),
        principal: principal("local"),
        session,
        at,
        agent: None,
        model: None,
        provider: None,
        message: None,
        session_name: None,
        idempotency: None,
    }
}

#[tokio::test]
async fn a_session_can_be_gone_on_from_between_turns_and_at_the_end() {
    let (_project, engine, ticket) = done().await;
    assert_eq!(kinds(&engine, ticket.session).await, "submitted replied judged began returned replied finished");
    let places = engine.checkpoints(TENANT, ticket.session).await.unwrap();
    let at: Vec<_> = places.iter().map(|place| (place.at, place.turn, place.checkpoint)).collect();
    assert_eq!(at, [(1, 0, None), (5, 1, None), (7, 2, None)]);
    for (at, nearest) in
        [(0, "position is 1"), (3, "positions are 1 and 5"), (8, "position is 7"), (99, "position is 7")]
    {
        let refused = engine.fork(fork(ticket.session, at)).await.unwrap_err();
        assert_eq!(refused.code(), "not_forkable", "{at}");
        assert!(refused.to_string().contains(nearest), "{at}: {refused}");
    }
    let nobody = Id::from_bytes([9; 16]);
    assert_eq!(engine.fork(fork(nobody, 1)).await.unwrap_err().code(), "session_not_found");
    assert_eq!(engine.checkpoints(TENANT, nobody).await.unwrap_err().code(), "session_not_found");
    let elsewhere = Fork { tenant: "other".into(), ..fork(ticket.session, 5) };
    assert_eq!(engine.fork(elsewhere).await.unwrap_err().code(), "session_not_found");
}

#[tokio::test]
async fn a_fork_in_the_middle_goes_on_on_another_model_and_tells_what_was_done_outside() {
    let (_project, engine, ticket) = done().await;
    let forked = engine.fork(Fork { model: Some("other".into()), ..fork(ticket.session, 5) }).await.unwrap();
    assert_ne!(forked.session, ticket.session);
    let [effect] = &forked.outside_effects[..] else { panic!("{forked:?}") };
    assert_eq!((effect.tool.as_str(), effect.effect, effect.position), ("send", Effect::External, 3));
    assert_eq!((effect.run, effect.status), (ticket.run, Some(CallStatus::Ok)));
    let view = engine.wait(TENANT, forked.run.unwrap(), LONG).await.unwrap();
    assert_eq!((view.status, view.reply.as_deref()), (RunStatus::Completed, Some("The other one says: sent.")));
    assert_eq!(kinds(&engine, forked.session).await, "forked submitted replied finished");
    // The other session is as it was.
    assert_eq!(kinds(&engine, ticket.session).await, "submitted replied judged began returned replied finished");
    assert_eq!(
        engine.replay(TENANT, forked.run.unwrap()).await.unwrap(),
        engine::Replay::Same { records: 4, prompts: 1 }
    );
}

#[tokio::test]
async fn what_is_chosen_for_a_fork_holds_for_all_its_runs_and_for_the_forks_of_it() {
    let (_project, engine, ticket) = done().await;
    let chosen = Fork { model: Some("other".into()), ..fork(ticket.session, 7) };
    let forked = engine.fork(chosen).await.unwrap();
    // At a run's end nothing goes on yet, and what is chosen waits.
    assert_eq!((forked.run, forked.model.as_deref(), forked.provider), (None, Some("other"), None));
    let said = async |session: Id<id::Session>, agent: Option<String>| {
        let message = Submission { session: SessionName::Id(session), agent, ..ask("and then?") };
        let run = engine.submit(message).await.unwrap().run;
        engine.wait(TENANT, run, LONG).await.unwrap().reply.unwrap_or_default()
    };
    for agent in [None, Some("maya".to_owned()), None] {
        assert_eq!(said(forked.session, agent).await, "The other one says: sent.");
    }
    let last = engine.checkpoints(TENANT, forked.session).await.unwrap().pop().unwrap().at;
    let again = engine.fork(fork(forked.session, last)).await.unwrap();
    assert_eq!((again.model.as_deref(), again.run), (Some("other"), None));
    assert_eq!(said(again.session, None).await, "The other one says: sent.");
    let before = engine.fork(fork(forked.session, 1)).await.unwrap();
    assert_eq!(before.model.as_deref(), Some("other"), "also where it had no run yet");
    // Another agent goes on as it is declared.
    let own = Fork { agent: Some("maya".into()), ..fork(forked.session, 1) };
    let own = engine.fork(own).await.unwrap();
    assert_eq!((own.model, said(own.session, None).await.as_str()), (None, "Then this."));
    assert_eq!(said(ticket.session, None).await, "Then this.", "the first session is as it was");
}

#[tokio::test]
async fn a_fork_at_the_end_waits_for_its_message() {
    let (_project, engine, ticket) = done().await;
    let idle = engine.fork(fork(ticket.session, 7)).await.unwrap();
    assert_eq!((idle.run, kinds(&engine, idle.session).await.as_str()), (None, "forked"));
    let session = engine.session(TENANT, idle.session).await.unwrap();
    assert_eq!((session.runs, session.agent.as_str()), (0, "maya"));
    let message = Submission { session: SessionName::Id(idle.session), ..ask("and then?") };
    let next = engine.submit(message).await.unwrap();
    let view = engine.wait(TENANT, next.run, LONG).await.unwrap();
    assert_eq!((view.status, view.reply.as_deref()), (RunStatus::Completed, Some("Then this.")));
    let told = engine.fork(Fork { message: Some("and then?".into()), ..fork(ticket.session, 7) }).await.unwrap();
    let view = engine.wait(TENANT, told.run.unwrap(), LONG).await.unwrap();
    assert_eq!((view.status, view.reply.as_deref()), (RunStatus::Completed, Some("Then this.")));
    for (chosen, code) in [
        (Fork { model: Some("none".into()), ..fork(ticket.session, 5) }, "model_unknown"),
        (Fork { agent: Some("mayo".into()), ..fork(ticket.session, 5) }, "agent_unknown"),
        (Fork { provider: Some("moon".into()), ..fork(ticket.session, 5) }, "sandbox_start"),
        (Fork { message: Some(" ".into()), ..fork(ticket.session, 7) }, "message_empty"),
    ] {
        assert_eq!(engine.fork(chosen).await.unwrap_err().code(), code);
    }
}

#[tokio::test]
async fn a_fork_is_made_once_by_its_key_or_its_name() {
    let (_project, engine, ticket) = done().await;
    let key = |body: u8| Some(IdempotencyKey { key: Digest([1; 32]), body: Digest([body; 32]) });
    let keyed = |body| engine.fork(Fork { idempotency: key(body), ..fork(ticket.session, 7) });
    let (one, again) = (keyed(1).await.unwrap(), keyed(1).await.unwrap());
    assert_eq!(one, again);
    assert_eq!(keyed(2).await.unwrap_err().code(), "idempotency_conflict");
    let named = |at, name: &str| {
        let message = Some("and then?".to_owned());
        engine.fork(Fork { session_name: Some(name.to_owned()), message, ..fork(ticket.session, at) })
    };
    let (one, again) = (named(7, "bob").await.unwrap(), named(7, "bob").await.unwrap());
    assert_eq!(one, again);
    assert_eq!(engine.session(TENANT, one.session).await.unwrap().name.as_deref(), Some("bob"));
    assert_eq!(engine.wait(TENANT, one.run.unwrap(), LONG).await.unwrap().status, RunStatus::Completed);
    assert_eq!(named(5, "bob").await.unwrap_err().code(), "session_exists");
    let id = ticket.session.to_string();
    assert_eq!(named(7, &id).await.unwrap_err().code(), "session_exists");
}

/// The workspaces that the engine keeps.
fn kept(engine: &Engine) -> Chunks {
    let (blobs, keys) = (engine.blobs().clone(), Arc::new(chunks::SameKey([8; 32])));
    let parts = chunks::Parts { blobs, keys, clock: Clock::system(), random: Random::system() };
    Chunks::new(parts, chunks::Config::default())
}

/// Where a checkpoint of this form lies.
fn object_of(session: Id<id::Session>, checkpoint: Id<id::Checkpoint>, form: &str) -> blob::Key {
    let suffix = if form == "tar" { "" } else { chunks::MANIFEST_SUFFIX };
    format!("checkpoints/{TENANT}/{session}/{checkpoint}{suffix}").parse().unwrap()
}

/// A session whose workspace was kept, written by hand: what a sandbox would add is no part of this.
async fn with_files(engine: &Engine, form: &str) -> (SessionKey, Snapshot) {
    let ticket = engine.submit(ask("Send it.")).await.unwrap();
    engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    let Event::Submitted(submitted) = records(engine, ticket.session).await.remove(0).event else { panic!() };
    let key = SessionKey::new(TENANT, Id::from_bytes([5; 16]));
    let sealer = engine.journal().sealer(&key).await.unwrap();
    let (message, first) = sealer.seal("text/plain; charset=utf-8", b"Work.").unwrap();
    let answer = serde_json::to_vec(&[Item::Assistant { text: "Worked.".into(), id: None }]).unwrap();
    let (items, second) = sealer.seal("application/vnd.topside.items+json", &answer).unwrap();
    let (run, checkpoint, sandbox) = (Id::from_bytes([6; 16]), Id::from_bytes([7; 16]), Id::from_bytes([8; 16]));
    let (bytes, object) = (Bytes::from_static(b"files"), object_of(key.session, checkpoint, form));
    match form {
        "tar" => engine.blobs().put(&object, bytes.clone()).await.unwrap(),
        _ => {
            let pieces = futures::stream::iter([Ok(bytes.clone())]);
            kept(engine).put(TENANT, &object, &[], pieces, 100).await.unwrap();
        }
    }
    let (object, digest) = (object.to_string(), Digest::of(&bytes));
    let snapshot = Snapshot { checkpoint, form: form.into(), object, digest, bytes: 5, entries: 1 };
    let opened = SandboxOpened {
        run,
        sandbox,
        provider: "local".into(),
        walls: Vec::new(),
        missing: Vec::new(),
        landlock_version: 0,
        manifest: Some(Digest([1; 32])),
        generation: 1,
        restored: None,
        start: None,
    };
    let replied = Replied {
        run,
        turn: 1,
        items: items.clone(),
        calls: Vec::new(),
        model: "script".into(),
        usage: Usage::default(),
        cost: Cost::default(),
        duration_ms: 1,
        scope: None,
        steers: 0,
    };
    let finished = Finished {
        run,
        status: RunStatus::Completed,
        reply: Some(items),
        failure: None,
        turns: 1,
        tool_calls: 0,
        usage: Usage::default(),
        cost: Cost::default(),
        used_sandbox: true,
    };
    let kept = Checkpointed { run, turn: 1, snapshot: Some(snapshot.clone()), reason: None };
    let mut append = Append::new(key.clone(), Fence::Effect { epoch: 0, expect: 0 }).content(first).content(second);
    for event in [
        Event::Submitted(domain::record::Submitted { run, message: Some(message), ..submitted }),
        Event::SandboxOpened(opened),
        Event::Replied(replied),
        Event::Checkpointed(kept),
        Event::SandboxClosed(SandboxClosed { run, sandbox, reason: "idle".into() }),
        Event::Finished(finished),
    ] {
        append = append.draft(&Draft { at_ms: 1_700_000_000_000, principal: principal("local"), event });
    }
    engine.journal().append(append).await.unwrap();
    (key, snapshot)
}

#[tokio::test]
async fn a_fork_has_its_own_copy_of_the_files() {
    own_copy("tar").await;
}

#[tokio::test]
async fn a_fork_has_its_own_manifest_of_the_chunks() {
    own_copy("chunks/1").await;
}

async fn own_copy(form: &str) {
    let project = project();
    let engine = project.engine(functions());
    let (key, snapshot) = with_files(&engine, form).await;
    let places = engine.checkpoints(TENANT, key.session).await.unwrap();
    let at: Vec<_> = places.iter().map(|place| (place.at, place.checkpoint)).collect();
    // Not where the workspace was another than the one that was kept.
    assert_eq!(at, [(1, None), (6, Some(snapshot.checkpoint))]);
    assert_eq!(engine.fork(fork(key.session, 3)).await.unwrap_err().code(), "not_forkable");
    let forked = engine.fork(fork(key.session, 6)).await.unwrap();
    assert_eq!(forked.checkpoint, Some(snapshot.checkpoint));
    let purged = engine.purge(TENANT, key.session, principal("ops")).await.unwrap();
    assert_eq!((purged.session, purged.records), (key.session, 6));
    let object = |session| object_of(session, snapshot.checkpoint, form);
    assert!(engine.blobs().head(&object(key.session)).await.unwrap().is_none(), "the files of the first went with it");
    let copy = match form {
        "tar" => engine.blobs().get(&object(forked.session), 100).await.unwrap().to_vec(),
        _ => {
            let archive = kept(&engine).get(TENANT, &object(forked.session), snapshot.digest, 100).await.unwrap();
            let pieces: Vec<_> = archive.pieces.try_collect().await.unwrap();
            pieces.concat()
        }
    };
    assert_eq!(copy, b"files");
    // One that was changed is not gone on from.
    engine.blobs().put(&object(forked.session), Bytes::from_static(b"other")).await.unwrap();
    assert_eq!(engine.fork(fork(forked.session, 1)).await.unwrap_err().code(), "checkpoint_damaged");
}

#[tokio::test]
async fn what_was_changed_by_hand_and_not_kept_is_not_gone_on_from() {
    for (deed, expected) in [(Deed::Exec, [1, 6]), (Deed::Link, [1, 7])] {
        let project = project();
        let engine = project.engine(functions());
        let (key, snapshot) = with_files(&engine, "chunks/1").await;
        let (session, sandbox) = (key.session, Id::from_bytes([8; 16]));
        let operation = Operation { tenant: TENANT, session, principal: principal("ops"), sandbox, deed, detail: None };
        engine.operated(operation).await.unwrap();
        let places = engine.checkpoints(TENANT, session).await.unwrap();
        assert_eq!(places.iter().map(|place| place.at).collect::<Vec<_>>(), expected, "{deed:?}");
        let now = engine.fork(fork(session, 7)).await;
        match deed {
            Deed::Exec => {
                let refused = now.unwrap_err();
                assert_eq!(refused.code(), "not_forkable");
                let told = "position 7: its files may have been changed by hand since they were kept; its next run that uses its sandbox keeps them; \
                            hint: the nearest position is 6";
                assert!(refused.to_string().ends_with(told), "{refused}");
                // Whoever wants them as they were has them.
                let before = engine.fork(fork(session, 6)).await.unwrap();
                assert_eq!(before.checkpoint, Some(snapshot.checkpoint));
            }
            _ => assert_eq!(now.unwrap().checkpoint, Some(snapshot.checkpoint)),
        }
    }
}

#[tokio::test]
async fn a_session_is_deleted_with_all_that_belongs_to_it_once_its_runs_have_ended() {
    let hang = "title: hang\nsteps:\n- reply:\n  - call: {id: c1, tool: send, arguments: {n: 1}}\n";
    let project = Project::new("", &[("send", "write", "")], hang);
    let mut functions = Functions::new();
    functions.add("send", |_: serde_json::Value, _: Context| async {
        std::future::pending::<()>().await;
        Ok::<_, String>(String::new())
    });
    let engine = project.engine(functions);
    let ticket = engine.submit(ask("Send it.")).await.unwrap();
    common::until(&engine, ticket.session, |kinds| kinds.ends_with("began")).await;
    let ops = principal("ops");
    let purge = || engine.purge(TENANT, ticket.session, ops);
    assert_eq!(purge().await.unwrap_err().code(), "session_unended");
    engine.cancel(TENANT, ticket.run, ops, When::Now, None).await.unwrap();
    engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    let orphan = format!("outputs/{TENANT}/{}/left", ticket.run).parse().unwrap();
    engine.blobs().put(&orphan, Bytes::from_static(b"x")).await.unwrap();
    let purged = purge().await.unwrap();
    assert!(engine.blobs().head(&orphan).await.unwrap().is_none());
    assert_eq!(engine.run(TENANT, ticket.run).await.unwrap_err().code(), "run_not_found");
    assert_eq!(engine.session(TENANT, ticket.session).await.unwrap_err().code(), "session_not_found");
    // Asked again, it takes away what may be left.
    assert_eq!(purge().await.unwrap(), purged);
    let nobody = engine.purge(TENANT, Id::from_bytes([9; 16]), ops).await;
    assert_eq!(nobody.unwrap_err().code(), "session_not_found");
}

#[tokio::test]
async fn a_session_in_quarantine_takes_nothing_until_it_is_released() {
    let (_project, engine, ticket) = done().await;
    let ops = principal("ops");
    let put = engine.quarantine(TENANT, ticket.session, ops, "looked into").await.unwrap();
    assert_eq!(put.reason, "looked into");
    let message = || Submission { session: SessionName::Id(ticket.session), ..ask("and then?") };
    assert_eq!(engine.submit(message()).await.unwrap_err().code(), "session_quarantined");
    assert_eq!(engine.quarantined(TENANT, ticket.session).await.unwrap(), Some(put));
    assert!(engine.release(TENANT, ticket.session).await.unwrap());
    assert!(!engine.release(TENANT, ticket.session).await.unwrap());
    let next = engine.submit(message()).await.unwrap();
    assert_eq!(engine.wait(TENANT, next.run, LONG).await.unwrap().status, RunStatus::Completed);
    let nobody = Id::from_bytes([9; 16]);
    assert_eq!(engine.quarantine(TENANT, nobody, ops, "").await.unwrap_err().code(), "session_not_found");
    assert_eq!(engine.release(TENANT, nobody).await.unwrap_err().code(), "session_not_found");
}

#[tokio::test]
async fn old_sessions_are_swept_and_young_ones_stay() {
    let (_project, engine, ticket) = done().await;
    let (old, _) = with_files(&engine, "chunks/1").await;
    assert_eq!(engine.sweep(Duration::from_secs(3_600)).await.unwrap(), 1);
    assert_eq!(engine.session(TENANT, old.session).await.unwrap_err().code(), "session_not_found");
    engine.session(TENANT, ticket.session).await.unwrap();
    assert_eq!(engine.sweep(Duration::from_secs(3_600)).await.unwrap(), 0);
}
