//! Runs from the message to the end, on a real journal.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::{Project, TENANT, ask, kinds, records, text};
use domain::{Event, RunStatus};
use engine::{IdempotencyKey, SessionName, Submission};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tools::{Context, Functions};

const LONG: Duration = Duration::from_secs(60);

const TWO_CALLS: &str = r#"
title: two calls
steps:
- reply:
  - call: {id: c1, tool: look, arguments: {n: 1}}
  - call: {id: c2, tool: look, arguments: {n: 2}}
- expect: {outputs: {c1: 'seen 1', c2: 'seen 2'}}
  reply:
  - text: "Both seen."
"#;

fn look() -> Functions {
    let mut functions = Functions::new();
    functions.add("look", |arguments: serde_json::Value, _: Context| async move {
        Ok::<_, String>(format!("seen {}", arguments["n"]))
    });
    functions
}

#[tokio::test]
async fn a_run_goes_from_message_to_reply_and_every_step_is_on_record() {
    let project = Project::new("", &[("look", "read", "")], TWO_CALLS);
    let engine = project.engine(look());
    let ticket = engine.submit(ask("Look twice.")).await.unwrap();
    let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    assert_eq!((view.status, view.reply.as_deref()), (RunStatus::Completed, Some("Both seen.")));
    assert_eq!((view.turns, view.tool_calls, view.used_sandbox), (2, 2, false));
    let expected = "submitted replied judged judged began began returned returned replied finished";
    assert_eq!(kinds(&engine, ticket.session).await, expected);
    // The same, read back from the journal.
    let again = engine.run(TENANT, ticket.run).await.unwrap();
    assert_eq!((again.status, again.reply, again.usage), (view.status, view.reply, view.usage));
    let key = journal::SessionKey::new(TENANT, ticket.session);
    assert!(matches!(engine.journal().verify(&key).await.unwrap(), journal::Verified::Intact { .. }));
}

#[tokio::test]
async fn quick_reads_cost_few_commits() {
    let project = Project::new("", &[("look", "read", "")], TWO_CALLS);
    let engine = project.engine(look());
    let ticket = engine.submit(ask("Look twice.")).await.unwrap();
    engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    let key = journal::SessionKey::new(TENANT, ticket.session);
    let stored = engine.journal().records(&key, 0, 100).await.unwrap();
    let mut commits: Vec<_> = stored.iter().map(|record| record.commit_id).collect();
    commits.dedup();
    assert_eq!(commits.len(), 3, "submitted | replied … began | returned … finished: {commits:?}");
}

#[tokio::test]
async fn the_result_of_a_call_that_happens_once_is_written_with_the_next_one_if_that_is_known_at_once() {
    let step = |step: u32| match step {
        0 => "- reply:\n  - call: {id: c0, tool: pay, arguments: {n: 0}}\n".to_owned(),
        1 | 2 => format!(
            "- expect: {{outputs: {{c{}: paid}}}}\n  reply:\n  - call: {{id: c{step}, tool: pay, arguments: {{n: {step}}}}}\n",
            step - 1
        ),
        _ => "- expect: {outputs: {c2: paid}}\n  reply:\n  - text: Done.\n".to_owned(),
    };
    let transcript = format!("title: thrice\nsteps:\n{}", (0..4).map(step).collect::<String>());
    let project = Project::new("", &[("pay", "external", "repeat: once\n")], &transcript);
    project.write("policies/all.cedar", "@id(\"all\") permit (principal, action, resource);\n");
    let mut functions = Functions::new();
    functions.add("pay", |_: serde_json::Value, _: Context| async { Ok::<_, String>("paid".to_owned()) });
    let engine = project.engine(functions);
    let ticket = engine.submit(ask("Pay thrice.")).await.unwrap();
    engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    let key = journal::SessionKey::new(TENANT, ticket.session);
    let stored = engine.journal().records(&key, 0, 100).await.unwrap();
    let names: Vec<_> = kinds(&engine, ticket.session).await.split(' ').map(str::to_owned).collect();
    let mut entries: Vec<(u64, Vec<&str>)> = Vec::new();
    for (record, name) in stored.iter().zip(&names) {
        match entries.last_mut().filter(|(commit, _)| *commit == record.commit_id) {
            Some((_, names)) => names.push(name),
            None => entries.push((record.commit_id, vec![name])),
        }
    }
    let entries: Vec<_> = entries.into_iter().map(|(_, names)| names.join(" ")).collect();
    // A deed follows the commit of its `began`, never one that it is not in.
    let next = "returned replied judged began";
    assert_eq!(entries, ["submitted", "replied judged began", next, next, "returned replied finished"]);
}

#[tokio::test]
async fn bad_arguments_and_unknown_tools_go_back_to_the_model() {
    let transcript = r#"
title: mistakes
steps:
- reply:
  - call: {id: c1, tool: look, arguments: {n: "many"}}
  - call: {id: c2, tool: lock, arguments: {}}
- expect: {outputs: {c1: 'n', c2: 'look'}}
  reply:
  - text: "Understood."
"#;
    let project = Project::new("", &[("look", "read", "")], transcript);
    let engine = project.engine(look());
    let ticket = engine.submit(ask("Go.")).await.unwrap();
    let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    assert_eq!((view.status, view.failure), (RunStatus::Completed, None));
    assert_eq!(kinds(&engine, ticket.session).await, "submitted replied returned returned replied finished");
}

#[tokio::test]
async fn a_denied_call_names_the_policy_and_the_line() {
    let transcript = r#"
title: denied
steps:
- reply:
  - call: {id: c1, tool: look, arguments: {n: 1}}
- expect: {outputs: {c1: 'policies/a\.cedar:2 no\.look'}}
  reply:
  - text: "Not allowed, then."
"#;
    let project = Project::new("", &[("look", "read", "")], transcript);
    project.write(
        "policies/a.cedar",
        "permit (principal, action, resource);\n@id(\"no.look\") forbid (principal, action, resource == Tool::\"look\");\n",
    );
    let engine = project.engine(look());
    let ticket = engine.submit(ask("Go.")).await.unwrap();
    let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    assert_eq!((view.status, view.failure), (RunStatus::Completed, None));
    assert_eq!(kinds(&engine, ticket.session).await, "submitted replied judged returned replied finished");
}

#[tokio::test]
async fn limits_end_a_run_with_their_name() {
    let forever = |steps: u32| {
        let step = |n| format!("- reply:\n  - call: {{id: c{n}, tool: look, arguments: {{n: {n}}}}}\n");
        format!("title: forever\nsteps:\n{}", (1..=steps).map(step).collect::<String>())
    };
    for (limits, status, code) in [
        ("turns: 2", RunStatus::BudgetExhausted, "limit_turns"),
        ("tool_calls: 2", RunStatus::BudgetExhausted, "limit_tool_calls"),
        ("tokens: 20", RunStatus::BudgetExhausted, "limit_tokens"),
    ] {
        let project = Project::new(limits, &[("look", "read", "")], &forever(4));
        let engine = project.engine(look());
        let ticket = engine.submit(ask("Go on.")).await.unwrap();
        let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
        assert_eq!((view.status, view.failure.unwrap().code.as_str()), (status, code), "{limits}");
    }
}

#[tokio::test]
async fn running_time_ends_a_call_that_hangs() {
    let hang = "title: hang\nsteps:\n- reply:\n  - call: {id: c1, tool: look, arguments: {}}\n";
    let project = Project::new("running_seconds: 1", &[("look", "write", "")], hang);
    let mut functions = Functions::new();
    functions.add("look", |_: serde_json::Value, _: Context| async move {
        std::future::pending::<()>().await;
        Ok::<_, String>(String::new())
    });
    let engine = project.engine(functions);
    let ticket = engine.submit(ask("Go.")).await.unwrap();
    let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    assert_eq!((view.status, view.failure.unwrap().code.as_str()), (RunStatus::TimedOut, "limit_running_seconds"));
    assert_eq!(kinds(&engine, ticket.session).await, "submitted replied judged began returned finished");
}

#[tokio::test]
async fn cancelling_ends_the_call_that_runs() {
    let hang = "title: hang\nsteps:\n- reply:\n  - call: {id: c1, tool: look, arguments: {}}\n";
    let project = Project::new("", &[("look", "write", "")], hang);
    let (began, dropped) = (Arc::new(Notify::new()), Arc::new(AtomicU32::new(0)));
    let mut functions = Functions::new();
    let (told, count) = (began.clone(), dropped.clone());
    functions.add("look", move |_: serde_json::Value, _: Context| {
        let (told, guard) = (told.clone(), Guard(count.clone()));
        async move {
            let _guard = guard;
            told.notify_one();
            std::future::pending::<()>().await;
            Ok::<_, String>(String::new())
        }
    });
    let engine = project.engine(functions);
    let ticket = engine.submit(ask("Go.")).await.unwrap();
    began.notified().await;
    let local = domain::Id::from_name(TENANT, "local");
    engine.cancel(TENANT, ticket.run, local, domain::record::When::Now, None).await.unwrap();
    let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    assert_eq!(view.status, RunStatus::Cancelled);
    assert_eq!(dropped.load(Ordering::SeqCst), 1, "the call's future is gone");
    let expected = "submitted replied judged began cancel_requested returned finished";
    assert_eq!(kinds(&engine, ticket.session).await, expected);
}

struct Guard(Arc<AtomicU32>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn runs_of_a_session_come_one_after_another_and_remember() {
    let transcript = r#"
title: two runs
steps:
- expect: {user: 'first'}
  reply:
  - text: "One."
- expect: {user: 'second'}
  reply:
  - text: "Two."
"#;
    let project = Project::new("", &[("look", "read", "")], transcript);
    let engine = project.engine(look());
    let named = |message: &str| Submission { session: SessionName::Named("alice".into()), ..ask(message) };
    let first = engine.submit(named("the first")).await.unwrap();
    let second = engine.submit(named("the second")).await.unwrap();
    assert_eq!(first.session, second.session);
    let two = engine.wait(TENANT, second.run, LONG).await.unwrap();
    let one = engine.wait(TENANT, first.run, LONG).await.unwrap();
    assert_eq!((one.reply.as_deref(), two.reply.as_deref()), (Some("One."), Some("Two.")));
    assert_eq!(two.session_name.as_deref(), Some("alice"));
    let position = |records: &[domain::Record], run| {
        records.iter().position(|record| matches!(&record.event, Event::Finished(body) if body.run == run)).unwrap()
    };
    let records = records(&engine, first.session).await;
    assert!(position(&records, first.run) < position(&records, second.run));
}

#[tokio::test]
async fn an_idempotent_request_is_taken_once() {
    let project = Project::new("", &[("look", "read", "")], TWO_CALLS);
    let engine = project.engine(look());
    let with = |body: u8| {
        let idempotency = IdempotencyKey { key: domain::Digest([1; 32]), body: domain::Digest([body; 32]) };
        Submission { idempotency: Some(idempotency), ..ask("Look twice.") }
    };
    let (first, again) = tokio::join!(engine.submit(with(1)), engine.submit(with(1)));
    let (first, again) = (first.unwrap(), again.unwrap());
    assert_eq!((first.run, first.session), (again.run, again.session));
    assert_ne!(first.existing, again.existing);
    assert_eq!(engine.submit(with(2)).await.unwrap_err().code(), "idempotency_conflict");
}

#[tokio::test]
async fn an_unmatched_transcript_fails_the_run_loudly() {
    let transcript = "title: strict\nsteps:\n- expect: {user: 'something else'}\n  reply:\n  - text: 'Hm.'\n";
    let project = Project::new("", &[("look", "read", "")], transcript);
    let engine = project.engine(look());
    let ticket = engine.submit(ask("Hello.")).await.unwrap();
    let view = engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    assert_eq!((view.status, view.failure.unwrap().code.as_str()), (RunStatus::Failed, "script_unmatched"));
}

#[tokio::test]
async fn what_is_refused_leaves_nothing_behind() {
    let project = Project::new("", &[("look", "read", "")], TWO_CALLS);
    let engine = project.engine(look());
    for (submission, code) in [
        (ask("  "), "message_empty"),
        (ask(&"x".repeat(engine::MESSAGE_BYTES_MAX + 1)), "message_too_large"),
        (Submission { agent: Some("mayo".into()), ..ask("Hi.") }, "agent_unknown"),
    ] {
        assert_eq!(engine.submit(submission).await.unwrap_err().code(), code);
    }
    let page = engine.runs(TENANT, journal::RunFilter::default(), None, 10).await.unwrap();
    assert!(page.rows.is_empty());
}

#[tokio::test]
async fn content_is_sealed_and_no_record_holds_it() {
    let project = Project::new("", &[("look", "read", "")], TWO_CALLS);
    let engine = project.engine(look());
    let ticket = engine.submit(ask("a very private sentence")).await.unwrap();
    engine.wait(TENANT, ticket.run, LONG).await.unwrap();
    let records = records(&engine, ticket.session).await;
    let Event::Submitted(body) = &records[0].event else { panic!("{records:?}") };
    assert_eq!(text(&engine, ticket.session, body.message.as_ref().unwrap()).await, "a very private sentence");
    engine.journal().close().await.unwrap();
    for file in std::fs::read_dir(project.data()).unwrap().flatten() {
        if file.path().is_file() {
            let bytes = std::fs::read(file.path()).unwrap();
            let found = bytes.windows(21).any(|window| window == b"very private sentence");
            assert!(!found, "{:?}", file.path());
        }
    }
}

/// A client that goes away takes its request with it at any of these points; what was durable by then is driven all the same.
#[tokio::test]
async fn a_run_whose_client_went_away_is_driven() {
    let project = Project::new("", &[("look", "read", "")], TWO_CALLS);
    let engine = project.engine(look());
    let first = engine.submit(ask("Look twice.")).await.unwrap();
    engine.wait(TENANT, first.run, LONG).await.unwrap();
    let mut abandoned = 0;
    for polls in (0..40).map(|step| 1 + step * step * 4) {
        let mut submission = Box::pin(engine.submit(ask("Look twice.")));
        let mut left = polls;
        let gone = std::future::poll_fn(|context| {
            left -= 1;
            match submission.as_mut().poll(context) {
                std::task::Poll::Ready(_) => std::task::Poll::Ready(false),
                std::task::Poll::Pending if left == 0 => std::task::Poll::Ready(true),
                std::task::Poll::Pending => {
                    context.waker().wake_by_ref();
                    std::task::Poll::Pending
                }
            }
        });
        abandoned += u32::from(gone.await);
    }
    assert!(abandoned > 10, "only {abandoned} requests were abandoned");
    let page = engine.runs(TENANT, journal::RunFilter::default(), None, 100).await.unwrap();
    assert!(page.rows.len() > 2, "no request was abandoned late enough: {}", page.rows.len());
    for run in page.rows {
        let end = engine.wait(TENANT, run.run, LONG).await.unwrap();
        assert_eq!(end.status, RunStatus::Completed, "{}", run.run);
    }
}
