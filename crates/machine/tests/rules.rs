//! The rules of a run, one row each: a history in words, and what is wanted after it.

mod common;

use common::{Teller, wanted};
use machine::{Session, step};

/// What is wanted after a history, or `refused: …` when its last event does not follow.
fn after(history: &str) -> String {
    let (mut teller, mut state) = (Teller::new(), Session::default());
    for word in history.split_whitespace() {
        if let Some((stamp, event)) = teller.event(word)
            && let Err(refused) = step(&mut state, stamp, &event)
        {
            return format!("refused: {}", refused.why);
        }
    }
    wanted(&state, teller.at_ms())
}

fn check(history: &str, expected: &str) {
    assert_eq!(after(history), expected, "after: {history}");
}

#[test]
fn a_run_asks_acts_and_asks_again() {
    check("submitted", "ask:1");
    check("submitted replied:0", "finish:completed");
    check("submitted replied:1", "judge.1");
    check("submitted replied:1 judged.1", "begin.1#1");
    check("submitted replied:1 judged.1 began.1", "perform.1");
    check("submitted replied:1 judged.1 began.1 returned.1", "ask:2");
    check("submitted replied:0 finished", "");
}

#[test]
fn calls_of_one_turn_go_their_own_ways() {
    check("submitted replied:3", "judge.1 judge.2 judge.3");
    check("submitted replied:3 judged.1 denied.2 judged.3 began.1", "perform.1 answer.2:Denied begin.3#1");
    check("submitted replied:2 judged.1 began.1 returned.1", "judge.2");
    check("submitted replied:2 judged.1 judged.2 began.1 began.2 returned.2 returned.1", "ask:2");
    check("submitted replied:?", "answer.1:UnknownTool");
    check("submitted replied:? returned.1", "ask:2");
}

#[test]
fn nothing_is_performed_unjudged_or_twice() {
    check("submitted replied:1 began.1", "refused: the call was not allowed");
    check("submitted replied:1 denied.1 began.1", "refused: the call was not allowed");
    check("submitted replied:1 judged.1 judged.1", "refused: the call was not to be judged");
    check("submitted replied:1 judged.1 began.1 began.1", "refused: the call was not allowed");
    check("submitted replied:1 judged.1 returned.1", "refused: the call has not begun");
    check("submitted replied:2 judged.1 began.1 returned.1 returned.1", "refused: the call has returned already");
    check("submitted replied:1 judged.1 began-again.1", "refused: it is another attempt than the one allowed");
    check("submitted replied:1 judged.2", "refused: there is no such call");
}

#[test]
fn turns_follow_one_another() {
    check("submitted replied:1 replied:1", "refused: the model was not asked");
    check("replied:0", "refused: its run is not the one that is driven");
    check("submitted replied:1 judged.1 began.1 finished", "refused: a call of the run has not returned");
}

#[test]
fn limits_hold_before_the_model_is_asked() {
    let turn = "replied:1 judged.1 began.1 returned.1";
    check(&format!("submitted {turn} {turn}"), "ask:3");
    check(&format!("submitted {turn} {turn} {turn}"), "finish:budget_exhausted/limit_turns");
    check("submitted replied:4", "judge.1 judge.2 judge.3 judge.4");
    check("submitted replied:5", "finish:budget_exhausted/limit_tool_calls");
    check("submitted replied:long judged.1 began.1 returned.1", "finish:budget_exhausted/limit_tokens");
    check("submitted replied:dear judged.1 began.1 returned.1", "finish:budget_exhausted/limit_cost");
    check("submitted replied:unlisted judged.1 began.1 returned.1", "finish:budget_exhausted/limit_cost_unknown");
    // A reply without a call ends the run whatever it used.
    check(&format!("submitted {turn} {turn} replied:0"), "finish:completed");
}

#[test]
fn running_time_counts_only_while_somebody_drives() {
    check("submitted +59999", "ask:1");
    check("submitted +60000", "finish:timed_out/limit_running_seconds");
    check("submitted replied:1 judged.1 began.1 +60000", "abort.1");
    check("submitted replied:1 judged.1 began.1 +60000 returned.1", "finish:timed_out/limit_running_seconds");
    // Nobody was there between the last record and `resumed`.
    check("submitted +1000 replied:1 +99000 resumed +58999", "judge.1");
    check("submitted +1000 replied:1 +99000 resumed +59000", "finish:timed_out/limit_running_seconds");
    // Time spent behind another run is not running time.
    check("submitted @2 submitted @1 +59000 replied:0 finished +59999", "ask:1");
}

#[test]
fn a_crash_leaves_what_its_contract_says() {
    check("submitted resumed", "ask:1");
    check("submitted replied:1 resumed", "judge.1");
    // Its permit died with the process.
    check("submitted replied:1 judged.1 resumed", "judge.1");
    check("submitted replied:1 judged.1 began.1 resumed", "judge.1");
    check("submitted replied:1 judged.1 began.1 resumed judged.1", "begin.1#2+key");
    check("submitted replied:1 judged.1 began.1 resumed judged.1 began-again.1 returned.1", "ask:2");
    check("submitted replied:1 judged.1 began-inside.1 resumed", "answer.1:Interrupted");
    check("submitted replied:1 judged.1 began-inside.1 resumed returned.1", "ask:2");
    check("submitted replied:1 judged.1 began-outside.1 resumed", "doubt.1");
    check("submitted replied:2 judged.1 judged.2 began.1 began.2 returned.1 resumed", "judge.2");
}

#[test]
fn a_call_in_doubt_parks_the_run() {
    let doubt = "submitted replied:1 judged.1 began-outside.1 resumed in_doubt.1";
    check(doubt, "");
    check(&format!("{doubt} +999999"), "");
    check(&format!("{doubt} returned.1"), "refused: the call is in doubt");
    check(&format!("{doubt} cancel"), "finish:cancelled");
    check("submitted replied:1 judged.1 began-outside.1 in_doubt.1", "refused: the call is not in doubt");
}

#[test]
fn cancelling_kills_first_and_ends_then() {
    check("submitted cancel", "finish:cancelled");
    check("submitted replied:2 judged.1 began.1 cancel", "abort.1");
    check("submitted replied:2 judged.1 began.1 cancel returned.1", "finish:cancelled");
    check("submitted replied:0 finished cancel", "");
    // The reply that was under way is still counted.
    check("submitted cancel replied:1", "finish:cancelled");
}

#[test]
fn one_run_at_a_time_in_order() {
    check("submitted @2 submitted", "ask:1");
    check("submitted @2 submitted @1 replied:0 finished", "ask:1");
    check("submitted @2 submitted cancel", "finish:cancelled ask:1");
    check("submitted @2 submitted cancel finished", "ask:1");
    check("submitted @2 submitted replied:0", "refused: its run is not the one that is driven");
}

#[test]
fn a_sandbox_is_gone_with_its_process() {
    let (mut teller, mut state) = (Teller::new(), Session::default());
    for (word, live, workspace) in [
        ("submitted", false, false),
        ("replied:1", false, false),
        ("judged.1", false, false),
        ("began-inside.1", false, false),
        ("opened", true, true),
        ("resumed", false, true),
        ("opened", true, true),
        ("closed", false, true),
    ] {
        let (stamp, event) = teller.event(word).expect("an event");
        state.apply(stamp, &event).expect("it follows");
        assert_eq!((state.sandbox.is_some(), state.workspace), (live, workspace), "after {word}");
    }
}
