//! The rules of a run, one row each: a history in words, and what is wanted after it.

mod common;

use common::{Teller, wanted};
use machine::{Files, Session, step};

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
    // Its program outlived the process: it is waited for, and for nothing else.
    check("submitted replied:1 judged.1 began-inside.1 resumed.1", "perform.1");
    check("submitted replied:1 judged.1 began-outside.1 resumed.1", "perform.1");
    check("submitted replied:2 judged.1 judged.2 began-inside.1 began.2 resumed.1", "perform.1 judge.2");
    check("submitted replied:1 judged.1 began-inside.1 resumed.1 returned.1", "ask:2");
    check("submitted replied:1 judged.1 began-inside.1 resumed.1 resumed", "answer.1:Interrupted");
    check("submitted replied:1 judged.1 resumed.1", "judge.1");
    check("submitted replied:2 judged.1 judged.2 began.1 began.2 returned.1 resumed", "judge.2");
}

#[test]
fn a_call_in_doubt_parks_the_run() {
    let doubt = "submitted replied:1 judged.1 began-outside.1 resumed in_doubt.1";
    check(doubt, "");
    check(&format!("{doubt} +999999"), "");
    check(&format!("{doubt} returned.1"), "refused: the call is in doubt");
    check(&format!("{doubt} cancel"), "resume");
    check(&format!("{doubt} cancel resumed"), "finish:cancelled");
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
        assert_eq!((state.sandbox.is_some(), state.files != Files::None), (live, workspace), "after {word}");
    }
}

#[test]
fn a_call_that_is_held_waits_for_votes() {
    let held = "submitted replied:2 judged.1 held.2 began.1 returned.1";
    check("submitted replied:2 judged.1 held.2", "begin.1#1");
    check(held, "park:approval/until");
    check(&format!("{held} parked:approval"), "");
    check(&format!("{held} parked:approval by:201 approved.2"), "resume");
    check(&format!("{held} parked:approval by:201 approved.2 resumed"), "judge.2");
    check(&format!("{held} parked:approval by:201 approved.2 resumed judged.2"), "begin.2#1");
    check(&format!("{held} by:201 rejected.2"), "answer.2:Rejected");
    check(&format!("{held} by:201 rejected.2 answered.2"), "ask:2");
    check(&format!("{held} parked:approval +29999"), "");
    check(&format!("{held} parked:approval +30000"), "resume");
    check(&format!("{held} parked:approval +30000 resumed"), "answer.2:Expired");
    // Time spent waiting is not running time.
    check(&format!("{held} parked:approval +29999 by:201 approved.2 resumed judged.2 +59999"), "begin.2#1");
}

#[test]
fn votes_count_once_each_and_never_the_requesters() {
    let held = "submitted replied:1 held-by-two.1 parked:approval";
    check(&format!("{held} approved.1"), "");
    check(&format!("{held} by:201 approved.1"), "");
    check(&format!("{held} by:201 approved.1 approved.1"), "");
    check(&format!("{held} by:201 approved.1 by:202 approved-stale.1"), "");
    check(&format!("{held} by:201 approved.1 by:202 approved.1"), "resume");
    // Enough is enough: a rejection that comes later is not heard.
    check(&format!("{held} by:201 approved.1 by:202 approved.1 by:203 rejected.1 resumed"), "judge.1");
    // Asked again for the same, votes stay; asked for more, they are void.
    check(&format!("{held} by:201 approved.1 resumed held-by-two.1 by:202 approved.1"), "judge.1");
    let one = "submitted replied:1 held.1 by:201 approved.1";
    check(&format!("{one} held-by-two.1 by:202 approved.1"), "park:approval/until");
    check(&format!("{one} held-by-two.1 by:202 approved.1 by:201 approved.1"), "judge.1");
}

#[test]
fn a_batch_waits_with_its_held_call() {
    check("submitted replied:2 judged.1 held-batch.2", "park:approval/until");
    check("submitted replied:2 judged.1 held-batch.2 by:201 approved.2", "judge.2");
    check("submitted replied:2 judged.1 held-batch.2 by:201 approved.2 judged.2", "begin.1#1 begin.2#1");
    check("submitted replied:2 judged.1 held-batch.2 by:201 rejected.2", "begin.1#1 answer.2:Rejected");
    // While it waited its permit died.
    check("submitted replied:2 judged.1 held-batch.2 parked:approval by:201 approved.2 resumed", "judge.1 judge.2");
}

#[test]
fn a_call_in_doubt_is_resolved() {
    let doubt = "submitted replied:1 judged.1 began-outside.1 resumed in_doubt.1";
    check(&format!("{doubt} happened.1"), "resume");
    check(&format!("{doubt} happened.1 resumed"), "answer.1:Happened");
    check(&format!("{doubt} happened.1 resumed returned.1"), "ask:2");
    check(&format!("{doubt} did-not-happen.1 resumed"), "answer.1:DidNotHappen");
    check(&format!("{doubt} undo.1 resumed"), "compensate.1");
    let undo = format!("{doubt} undo.1 resumed undoes.21");
    check(&undo, "judge.2");
    check(&format!("{undo} judged.2 began.2 returned.2"), "answer.1:Compensated");
    check(&format!("{undo} judged.2 began.2 failed.2"), "park:resolution");
    // Only the first word counts.
    check(&format!("{doubt} did-not-happen.1 undo.1 resumed"), "answer.1:DidNotHappen");
    check("submitted replied:1 judged.1 happened.1", "begin.1#1");
}

#[test]
fn a_precondition_is_looked_at_first() {
    let checking = "submitted replied:1 judged.1 checks.21";
    check(checking, "judge.2");
    check(&format!("{checking} judged.2 began.2 returned.2"), "begin.1#1");
    check(&format!("{checking} judged.2 began.2 failed.2"), "answer.1:Unmet");
    check(&format!("{checking} denied.2 answered.2"), "answer.1:Unmet");
    check("submitted replied:1 checks.21", "refused: the call it serves does not want it");
    check("submitted replied:1 judged.1 undoes.21", "refused: the call it serves does not want it");
}

#[test]
fn a_paused_run_finishes_what_it_began() {
    check("submitted pause", "park:resume");
    check("submitted pause parked:resume +999999", "");
    check("submitted pause parked:resume resume", "resume");
    check("submitted pause parked:resume resume resumed", "ask:1");
    check("submitted replied:2 judged.1 judged.2 began.1 pause", "perform.1");
    check("submitted replied:2 judged.1 judged.2 began.1 pause returned.1", "park:resume");
    check("submitted replied:1 pause parked:resume cancel", "resume");
    check("submitted replied:1 pause parked:resume cancel resumed", "finish:cancelled");
}

#[test]
fn cancelling_after_the_turn_lets_it_end() {
    check("submitted replied:1 judged.1 began.1 cancel:later", "perform.1");
    check("submitted replied:1 judged.1 began.1 cancel:later returned.1", "finish:cancelled");
    check("submitted replied:1 cancel:later", "judge.1");
    check("submitted replied:1 cancel:later cancel", "finish:cancelled");
    check("submitted replied:1 judged.1 began.1 cancel cancel:later", "abort.1");
    // A turn that waits for somebody would never end.
    check("submitted replied:1 held.1 cancel:later", "finish:cancelled");
    check("submitted replied:0 cancel:later", "finish:completed");
}

#[test]
fn steering_is_heard_with_the_next_turn_or_at_once() {
    check("submitted steered", "ask:1");
    check("submitted steered replied:0/1", "finish:completed");
    // An answer that did not hear it is not the last word.
    check("submitted steered replied:0", "ask:2");
    check("submitted replied:0 steered", "ask:2");
    check("submitted replied:0/1", "refused: it saw messages that are not there");
    check("submitted replied:2 judged.1 began.1 steered", "perform.1 judge.2");
    check("submitted replied:2 judged.1 began.1 interrupted", "abort.1 answer.2:Steered");
    check("submitted replied:2 judged.1 began.1 interrupted answered.1 answered.2", "ask-anew:2");
    check("submitted interrupted", "ask-anew:1");
}

#[test]
fn a_limit_may_ask_instead_of_stopping() {
    let turn = "replied:1 judged.1 began.1 returned.1";
    let three = format!("submitted:asks {turn} {turn} {turn}");
    check(&three, "park:budget");
    check(&format!("{three} parked:budget +999999"), "");
    check(&format!("{three} parked:budget raised"), "resume");
    check(&format!("{three} parked:budget raised resumed"), "ask:4");
    check("submitted:asks replied:5", "park:budget");
    check("submitted:asks replied:5 raised", "judge.1 judge.2 judge.3 judge.4 judge.5");
    check(&format!("{three} cancel"), "finish:cancelled");
}

#[test]
fn what_failed_is_tried_again_when_its_time_has_come() {
    check("submitted deferred", "park:retry/until");
    check("submitted deferred parked:retry +19999", "");
    check("submitted deferred parked:retry +20000", "resume");
    check("submitted deferred parked:retry +20000 resumed", "ask:1");
    check("submitted replied:1 judged.1 began.1 deferred.1", "park:retry/until");
    check("submitted replied:1 judged.1 began.1 deferred.1 +20000", "judge.1");
    check("submitted replied:1 judged.1 began.1 deferred.1 +20000 judged.1", "begin.1#2+key");
    // What is tried again soon keeps its driver and its sandbox.
    check("submitted deferred-soon", "");
    check("submitted deferred-soon +1000", "ask:1");
    check("submitted replied:1 judged.1 deferred.1", "refused: that attempt has not begun");
    check("submitted replied:1 deferred", "refused: the model was not asked");
}

#[test]
fn a_workspace_that_changed_is_kept_between_calls() {
    let changed = "submitted replied:1 judged.1 began-inside.1 made returned-changed.1";
    check(changed, "ask:2 checkpoint:1");
    check(&format!("{changed} checkpointed"), "ask:2");
    // Asking goes on; the next calls wait.
    check(&format!("{changed} replied:1 judged.1"), "checkpoint:2");
    check(&format!("{changed} replied:1 judged.1 checkpointed"), "begin.1#1");
    check(&format!("{changed} replied:0"), "checkpoint:2");
    check(&format!("{changed} replied:0 checkpointed"), "finish:completed");
    check(&format!("{changed} cancel"), "finish:cancelled");
    // A call that is still performed keeps the files in motion.
    check("submitted replied:2 judged.1 judged.2 began.1 began.2 made returned-changed.1", "perform.2");
    // What was performed when the process died may have changed files.
    check("submitted replied:1 judged.1 began-inside.1 made checkpointed resumed", "answer.1:Interrupted checkpoint:1");
    check("submitted replied:1 judged.1 began-back.1 made checkpointed resumed", "answer.1:RolledBack");
    check(&format!("{changed} lost"), "ask:2");
}

#[test]
fn what_is_changed_by_hand_while_nobody_works_is_kept_once_somebody_does() {
    let kept = "submitted replied:1 judged.1 began-inside.1 made returned-changed.1 checkpointed";
    check(&format!("{kept} operated"), "ask:2 checkpoint:1");
    let parked = format!("{kept} pause parked:resume");
    check(&format!("{parked} resume resumed made"), "ask:2");
    check(&format!("{parked} operated"), "");
    check(&format!("{parked} operated resume"), "resume");
    // Nothing is opened only to be kept.
    check(&format!("{parked} operated resume resumed"), "ask:2");
    check(&format!("{parked} operated resume resumed made"), "ask:2 checkpoint:1");
    check(&format!("{parked} operated resume resumed made checkpointed"), "ask:2");
    check(&format!("{parked} operated resume resumed lost made"), "ask:2");
    let ended = format!("{kept} replied:0 closed finished");
    check(&format!("{ended} operated"), "");
    check(&format!("{ended} operated @2 submitted made"), "ask:1 checkpoint:0");
    check(&format!("{ended} operated restored @2 submitted made"), "ask:1");
    let goes_back = "submitted replied:1 judged.1 began-back.1 made checkpointed closed operated resumed made";
    check(goes_back, "answer.1:RolledBack");
}

#[test]
fn a_forked_session_goes_on_from_its_checkpoint() {
    check("forked submitted:on", "ask:1");
    check("submitted forked", "refused: the session has begun already");
    let (mut teller, mut state) = (Teller::new(), Session::default());
    for (word, files) in [
        ("forked", Files::InSnapshot),
        ("submitted:on", Files::InSnapshot),
        ("replied:1", Files::InSnapshot),
        ("made:again", Files::Kept { generation: 7 }),
        ("lost", Files::Lost),
    ] {
        let (stamp, event) = teller.event(word).expect("an event");
        state.apply(stamp, &event).expect("it follows");
        assert_eq!(state.files, files, "after {word}");
    }
    assert_eq!(state.history.len(), 2, "what was inherited, and a reply");
}

#[test]
fn a_nested_agent_works_inside_a_call() {
    let nested = "submitted replied:1 judged.1 nested.1 in:1";
    check(nested, "reserve.1:1/100");
    check(&format!("{nested} reserved:100"), "ask.1:1/100");
    check(&format!("{nested} reserved:100 replied:0"), "answer.1:Nested");
    check(&format!("{nested} reserved:100 replied:0 in:root returned.1"), "ask:2");
    check(&format!("{nested} reserved:100 replied:1"), "judge.1");
    check(&format!("{nested} reserved:100 replied:1 judged.1 began.1 returned.1"), "reserve.1:2/85");
    let twice = "reserved:85 replied:1 judged.1 began.1 returned.1";
    check(&format!("{nested} {twice} {twice}"), "answer.1:NestedLimit");
    // It spends what its run has: 4 calls in all.
    check(&format!("{nested} reserved:100 replied:4"), "answer.1:NestedLimit");
    let dear = "replied:long judged.1 began.1 returned.1";
    check(&format!("{nested} {dear}"), "finish:budget_exhausted/limit_tokens");
    check(&format!("{nested} reserved:100 replied:1 judged.1 began.1 cancel"), "abort.1");
    check(&format!("{nested} reserved:100 replied:1 judged.1 began.1 interrupted"), "abort.1");
    check(&format!("{nested} reserved:100 replied:1 judged.1 began.1 interrupted answered.1"), "answer.1:Steered");
    // An approval inside holds the run at the top.
    check(&format!("{nested} reserved:100 replied:1 held.1"), "park:approval/until");
}

#[test]
fn nested_agents_share_what_is_left() {
    let two = "submitted replied:2 judged.1 judged.2 nested.1 nested.2";
    check(two, "reserve.1:1/100 reserve.2:1/100");
    check(&format!("{two} in:1 reserved:100"), "ask.1:1/100 reserve.2:1/100");
    // 970 tokens are used up, 30 are left.
    let scarce = "submitted replied:much judged.1 judged.2 nested.1 nested.2";
    check(scarce, "reserve.1:1/15 reserve.2:1/15");
    check(&format!("{scarce} in:1 reserved:15"), "ask.1:1/15 reserve.2:1/15");
    check(&format!("{scarce} in:1 reserved:30"), "ask.1:1/30");
}
