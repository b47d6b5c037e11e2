//! Every judge, with a good history that it lets pass and a bad one that makes it red.

use super::*;
use crate::claims::Claimed;
use crate::ledger::{Reading, Request};
use crate::time::Time;
use crate::trace::Trace;
use domain::content::media;
use domain::record::{
    AfterCrash, Began, CallHead, CancelRequested, Head, Replied, Resolution, Resolved, Resumed, Returned, Save,
    Submitted, Voted, When, WorkspaceLost,
};
use domain::{ContentRef, Cost, Limits};
use engine::{SessionName, Ticket};
use std::sync::Arc;

fn session() -> Id<id::Session> {
    Id::from_bytes([1; 16])
}

fn run() -> Id<id::Run> {
    Id::from_bytes([2; 16])
}

fn call(tool: &str) -> Id<id::Call> {
    Id::from_name(TENANT, tool)
}

fn content() -> ContentRef {
    ContentRef { id: Id::from_bytes([3; 16]), bytes: 1, media: media::TEXT.into(), mac: Digest::ZERO }
}

fn usage(tokens: u64) -> Usage {
    Usage { model_calls: 1, input_tokens: tokens, ..Usage::default() }
}

/// What a word of a history means: `began/TOOL@EPOCH`, `returned/TOOL`, `denied/TOOL`, `voted/TOOL`, `replied/TOOL`, …
fn event(word: &str) -> Event {
    let (kind, rest) = word.split_once('/').unwrap_or((word, ""));
    let (tool, epoch) = rest.split_once('@').unwrap_or((rest, "1"));
    let (run, call, epoch) = (run(), call(tool), epoch.parse().unwrap());
    let returned = |status| {
        let (output, whole, code) = (content(), None, None);
        Event::Returned(Returned {
            run,
            call,
            status,
            output,
            whole,
            code,
            duration_ms: 1,
            changed_workspace: false,
            held: false,
        })
    };
    match kind {
        "submitted" => Event::Submitted(Submitted {
            run,
            agent: "maya".into(),
            closure: Digest::ZERO,
            message: None,
            session_name: None,
            idempotency: Some(Digest::of(b"key")),
            limits: Limits::default(),
            save: Save::Declared,
            callback: None,
        }),
        "replied" => Event::Replied(Replied {
            run,
            turn: 1,
            items: content(),
            calls: vec![CallHead { call, index: 0, tool: Some(tool.to_owned()) }],
            model: "m".into(),
            usage: usage(5),
            cost: Cost::default(),
            duration_ms: 1,
            scope: None,
            steers: 0,
        }),
        "began" => {
            let after_crash = AfterCrash::Repeat;
            Event::Began(Began { run, call, attempt: 1, epoch, key: None, after_crash })
        }
        "resumed" => Event::Resumed(Resumed { run, epoch, attached: vec![] }),
        "returned" => returned(CallStatus::Ok),
        "denied" => returned(CallStatus::Denied),
        "voted" => Event::Voted(Voted { run, call, vote: Vote::Approve, reason: None, binding: Digest::ZERO }),
        "resolved" => Event::Resolved(Resolved { run, call, resolution: Resolution::DidNotHappen }),
        "cancelled" => Event::CancelRequested(CancelRequested { run, when: When::Now }),
        "finished" => Event::Finished(Finished {
            run,
            status: RunStatus::Completed,
            reply: None,
            failure: None,
            turns: 1,
            tool_calls: 0,
            usage: usage(5),
            cost: Cost::default(),
            used_sandbox: false,
        }),
        other => panic!("`{other}` is no word of a history"),
    }
}

/// The records of a history. Votes are those of one person after the other; all else is the requester's.
fn history(words: &str) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    for (position, word) in words.split_whitespace().enumerate() {
        let by = if word.starts_with("voted") { format!("voter-{position}") } else { "asker".into() };
        let head = Head {
            tenant: TENANT.into(),
            session: session(),
            position: position as u64,
            previous: Digest::ZERO,
            at_ms: 1,
            principal: Id::from_name(TENANT, &by),
        };
        records.push(Record { head, event: event(word) });
    }
    records
}

#[track_caller]
fn expect(judged: Result<(), String>, wrong: &str) {
    match judged {
        Ok(()) => assert_eq!(wrong, "", "it was let pass"),
        Err(told) => assert!(!wrong.is_empty() && told.contains(wrong), "{told}"),
    }
}

fn logs(words: &str) -> Logs {
    let records = history(words);
    let stored = |record: &Record| StoredRecord {
        position: record.head.position,
        hash: Digest::of(&record.head.position.to_be_bytes()),
        bytes: Arc::from(Vec::new()),
        commit_id: 1,
    };
    BTreeMap::from([(session(), (records.iter().map(stored).collect(), records))])
}

#[test]
fn epochs_only_grow() {
    let check = |words, wrong| expect(one_holder(&SessionKey::new(TENANT, session()), &history(words)), wrong);
    check("resumed/x@1 began/look@1 resumed/x@2 began/look@2", "");
    check("began/look@2 began/look@1", "is of epoch 1, after one of epoch 2");
    check("resumed/x@3 began/look@2", "is of epoch 2, after one of epoch 3");
}

#[test]
fn what_is_recorded_was_done_and_no_more() {
    let check = |words, done: &[(&str, u32)], wrong| {
        let times = done.iter().map(|(tool, times)| (call(tool), *times)).collect();
        expect(done_as_told(&history(words), &times), wrong);
    };
    check("replied/send began/send returned/send", &[("send", 1)], "");
    check("replied/send began/send returned/send", &[], "was never done");
    check("replied/send began/send returned/send", &[("send", 2)], "was done more often");
    check("replied/send denied/send", &[("send", 1)], "not to have begun and was done");
    check("replied/send began/send returned/send returned/send", &[("send", 1)], "returned twice");
    check("replied/send began/send resolved/send returned/send", &[], "");
}

#[test]
fn approvals_come_before_the_deed_and_from_others() {
    let check = |words, approvals, wrong| {
        let deed = Deed { tool: "launch", session: session(), run: run(), call: call("launch"), key: None, approvals };
        expect(approved(&history(words), &[deed]), wrong);
    };
    check("submitted voted/launch voted/launch began/launch", 2, "");
    check("submitted voted/launch began/launch", 2, "with 1 approvals of 2");
    check("submitted began/launch voted/launch", 1, "with 0 approvals of 1");
    let mut own = history("submitted voted/launch began/launch");
    own[1].head.principal = own[0].head.principal;
    let deed = Deed { tool: "launch", session: session(), run: run(), call: call("launch"), key: None, approvals: 1 };
    expect(approved(&own, &[deed]), "with 0 approvals of 1");
}

#[test]
fn files_are_what_was_put() {
    let check = |words, lines, put, wrong| expect(workspaces_are_told(Files { lines, put }, &history(words)), wrong);
    let put = "replied/exec_command began/exec_command returned/exec_command";
    check(put, 1, 1, "");
    check(put, 2, 2, "has 2 lines; 1 puts began");
    check(put, 0, 1, "has 0 lines; 1 puts began, 1 were put");
    let mut lost = history(put);
    let event = Event::WorkspaceLost(WorkspaceLost { run: run(), reason: "gone".into() });
    lost.push(Record { event, ..lost[0].clone() });
    expect(workspaces_are_told(Files { lines: 0, put: 1 }, &lost), "");
}

#[test]
fn every_run_ends_once_and_adds_up() {
    let check = |words, wrong| expect(ended(&history(words), &Session::default()).map(drop), wrong);
    check("submitted replied/look finished", "");
    check("submitted replied/look", "has not ended");
    check("submitted replied/look finished finished", "ended twice");
    check("submitted finished", "and its end says");
    check("submitted replied/look replied/look finished", "and its end says");
    let mut open = Session::default();
    let stamp = Stamp { at_ms: 1, principal: Id::from_name(TENANT, "asker") };
    open.apply(stamp, &event("submitted")).unwrap();
    expect(ended(&history("submitted replied/look finished"), &open).map(drop), "is not over");
}

#[test]
fn a_run_is_shown_and_replayed_as_it_was() {
    let ended = ended(&history("submitted replied/look finished"), &Session::default()).unwrap().remove(0);
    expect(is_shown((RunStatus::Completed, usage(5), 1), &ended), "");
    expect(is_shown((RunStatus::Failed, usage(5), 1), &ended), "is shown as");
    expect(is_shown((RunStatus::Completed, usage(4), 1), &ended), "is shown as");
    expect(is_same(run(), &Replay::Same { records: 3, prompts: 1 }), "");
    let differs = Replay::Differs { position: 2, expected: "a judgement".into(), found: "a beginning".into() };
    expect(is_same(run(), &differs), "differs at 2: expected a judgement, found a beginning");
}

#[test]
fn others_are_told_of_all_that_is_there_and_of_nothing_else() {
    let logs = logs("submitted replied/look finished");
    let check = |told: &[(u64, &str)], wrong| {
        let told = told.iter().map(|(position, kind)| ((session(), *position), (*kind).to_owned())).collect();
        expect(others_are_told(&logs, &told), wrong);
    };
    check(&[(0, "submitted"), (2, "finished")], "");
    check(&[(0, "submitted")], "nobody was told of `finished`");
    check(&[(0, "submitted"), (2, "finished"), (3, "finished")], "which is not in the log");
    check(&[(0, "submitted"), (2, "parked")], "which is not in the log");
}

#[test]
fn nothing_that_was_promised_is_lost() {
    let check = |words, promise: &dyn Fn(&Ledger), wrong| {
        let ledger = Ledger::new(Trace::new(Time::default()));
        promise(&ledger);
        expect(nothing_lost(&logs(words), &ledger), wrong);
    };
    let ticket = |ledger: &Ledger| {
        let request = Request {
            client: 1,
            message: String::new(),
            session: SessionName::New,
            agent: None,
            save_reply: false,
            key: None,
        };
        ledger.answered(&request, Ticket { run: run(), session: session(), existing: false });
    };
    check("submitted finished", &ticket, "");
    check("finished", &ticket, "was promised in");
    check("submitted submitted", &|_| {}, "under a key that had given another run");
    let vote = |ledger: &Ledger| ledger.voted(call("launch"), Id::from_name(TENANT, "voter-1"), Vote::Approve);
    check("submitted voted/launch", &vote, "");
    check("submitted voted/send", &vote, "was told to count and is not recorded");
    let settled = |ledger: &Ledger| ledger.did_not_happen(call("send"));
    check("submitted resolved/send", &settled, "");
    check("submitted", &settled, "was told to be durable and is not recorded");
    check("submitted cancelled", &|ledger| ledger.cancelled(run()), "");
    check("submitted", &|ledger| ledger.cancelled(run()), "was promised and nothing is recorded");
    check("submitted", &|ledger| ledger.forked(session(), None), "");
    check("submitted", &|ledger| ledger.forked(Id::from_bytes([9; 16]), None), "and is not there");
}

#[test]
fn a_stream_is_its_log() {
    let logs = logs("submitted replied/look finished");
    let hash = |position: u64| Digest::of(&position.to_be_bytes());
    let check = |from, hashes: &[Digest], wrong| {
        let ledger = Ledger::new(Trace::new(Time::default()));
        ledger.read(Reading { session: session(), from, hashes: hashes.to_vec() });
        expect(streams_are_logs(&logs, &ledger), wrong);
    };
    check(1, &[hash(1), hash(2)], "");
    check(1, &[hash(2)], "something else than its log");
    check(2, &[hash(2), hash(3)], "something else than its log");
}

#[test]
fn nobody_writes_after_the_next_ones_claim() {
    let key = SessionKey::new(TENANT, session());
    let check = |words, (epoch, position), wrong| {
        let claimed = Claimed::default();
        claimed.note(&key, epoch, position);
        claimed.note(&SessionKey::new(TENANT, Id::from_bytes([9; 16])), 99, 0);
        expect(claimed.hold(&key, &history(words)), wrong);
    };
    check("submitted resumed/x@1 began/send@1 voted/send began/send@2", (2, 3), "");
    check("submitted resumed/x@1 began/send@1 voted/send began/send@2", (2, 2), "2 had claimed it before");
    check("submitted resumed/x@1", (1, 0), "");
    check("submitted resumed/x@1", (2, 1), "record 1");
}
