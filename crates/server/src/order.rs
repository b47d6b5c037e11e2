//! In which order a viewer is told records and what was seen live between them. Both come on ways of their own; what is
//! said of a turn or a call belongs before the record that closes it.

use crate::feed::Shown;
use domain::Event;
use engine::{Live, LiveKind};
use std::collections::VecDeque;
use std::sync::Arc;

/// How many of the waiting live events are to be told before this record.
pub(crate) fn owed(event: &Event, waiting: &VecDeque<Arc<Shown>>) -> usize {
    let through_last =
        |belongs: &dyn Fn(&Live) -> bool| waiting.iter().rposition(|shown| belongs(&shown.live)).map_or(0, |at| at + 1);
    match event {
        Event::Replied(body) => {
            let asked = through_last(
                &|live| matches!(&live.kind, LiveKind::Asking { turn } if live.run == body.run && *turn <= body.turn),
            );
            let said = waiting.iter().skip(asked).map(|shown| &shown.live).take_while(|live| {
                live.run == body.run && matches!(live.kind, LiveKind::Text(_) | LiveKind::Reasoning(_))
            });
            asked + said.count()
        }
        Event::Returned(body) => through_last(&|live| match &live.kind {
            LiveKind::Performing { call, .. } | LiveKind::Output { call, .. } => *call == body.call,
            LiveKind::Asking { .. } | LiveKind::Text(_) | LiveKind::Reasoning(_) => false,
        }),
        // Of a run that waits, nothing comes any more until it goes on.
        Event::Parked(body) => through_last(&|live| live.run == body.run),
        Event::Finished(body) => through_last(&|live| live.run == body.run),
        Event::Submitted(_)
        | Event::Forked(_)
        | Event::CancelRequested(_)
        | Event::PauseRequested(_)
        | Event::ResumeRequested(_)
        | Event::Steered(_)
        | Event::Voted(_)
        | Event::Resolved(_)
        | Event::Raised(_)
        | Event::Operated(_)
        | Event::WorkspaceRestored(_)
        | Event::Resumed(_)
        | Event::SandboxOpened(_)
        | Event::SandboxClosed(_)
        | Event::WorkspaceLost(_)
        | Event::Deferred(_)
        | Event::ScopeOpened(_)
        | Event::Reserved(_)
        | Event::CallAdded(_)
        | Event::Judged(_)
        | Event::Began(_)
        | Event::InDoubt(_)
        | Event::Checkpointed(_)
        | Event::WorkspaceChanged(_)
        | Event::ArtifactSaved(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::content::media;
    use domain::record::{Finished, Replied, Returned};
    use domain::{CallStatus, ContentRef, Cost, Digest, Id, RunStatus, Usage};

    fn content() -> ContentRef {
        ContentRef { id: Id::from_bytes([0; 16]), bytes: 0, media: media::TEXT.into(), mac: Digest::ZERO }
    }

    /// Waiting events: `a1` asks in turn 1, `t` text, `p1` and `o1` of call 1, `x` of another run.
    fn check(record: &str, waiting: &str, expected: usize) {
        let (run, call) = (Id::from_bytes([1; 16]), |digit: &str| Id::from_bytes([digit.parse().unwrap(); 16]));
        let live = |word: &str| {
            let kind = match word.split_at(1) {
                ("a", turn) => LiveKind::Asking { turn: turn.parse().unwrap() },
                ("p", digit) => {
                    LiveKind::Performing { call: call(digit), tool: String::new(), arguments: String::new() }
                }
                ("o", digit) => LiveKind::Output { call: call(digit), bytes: bytes::Bytes::new() },
                _ => LiveKind::Text(String::new()),
            };
            let run = if word == "x" { Id::from_bytes([9; 16]) } else { run };
            Arc::new(Shown { live: Arc::new(Live { run, kind }), bytes: bytes::Bytes::new() })
        };
        let (usage, cost) = (Usage::default(), Cost::default());
        let event = match record.split_at(1) {
            ("R", turn) => Event::Replied(Replied {
                run,
                turn: turn.parse().unwrap(),
                items: content(),
                calls: Vec::new(),
                model: String::new(),
                usage,
                cost,
                duration_ms: 0,
                scope: None,
                steers: 0,
            }),
            ("O", digit) => Event::Returned(Returned {
                run,
                call: call(digit),
                status: CallStatus::Ok,
                output: content(),
                whole: None,
                code: None,
                duration_ms: 0,
                changed_workspace: false,
                held: false,
            }),
            _ => Event::Finished(Finished {
                run,
                status: RunStatus::Completed,
                reply: None,
                failure: None,
                turns: 1,
                tool_calls: 0,
                usage,
                cost,
                used_sandbox: false,
            }),
        };
        let waiting: VecDeque<_> = waiting.split_whitespace().map(live).collect();
        assert_eq!(owed(&event, &waiting), expected, "{record}");
    }

    #[test]
    fn what_belongs_before_a_record_is_told_before_it() {
        check("R1", "a1 t t", 3);
        check("R1", "t t p1 o1", 2);
        check("R1", "p1 o1 a2 t", 0);
        check("R2", "o1 a2 t p2", 3);
        check("R1", "a1 t x", 2);
        check("R1", "", 0);
        check("O1", "p1 p2 o1 o2 a2", 3);
        check("O2", "p1 o1", 0);
        check("F", "a1 t x", 2);
    }
}
