//! Histories written in words: `submitted replied:2 judged.1 began.1 returned.1`. Calls are numbered from 1 in each turn; `+500` lets
//! half a second pass; `@2` turns to the second run.
#![allow(dead_code, unreachable_pub, reason = "shared by tests that each use a part")]

use domain::content::ContentRef;
use domain::limits::Reached;
use domain::record::{
    AfterCrash, Began, CallAdded, CallHead, CancelRequested, Checkpointed, Deed, Deferred, Finished, Forked, Head,
    InDoubt, Judged, Operated, Parked, PauseRequested, Purpose, Raised, Replied, Reserved, Resolution, Resolved,
    RestoredFrom, ResumeRequested, Resumed, Returned, SandboxClosed, SandboxOpened, Save, ScopeOpened, Snapshot,
    Steered, Submitted, Vote, Voted, When, WorkspaceChanged, WorkspaceLost, WorkspaceRestored,
};
use domain::{
    CallStatus, Cost, Digest, Event, Failure, FailureClass, Hold, Id, Judgement, Limits, Obligation, Record, RunStatus,
    Usage, Verdict, Wait, id, record,
};
use machine::{Answer, Effect, Files, Session, Stamp};

pub const LIMITS: Limits = Limits {
    turns: 3,
    tool_calls: 4,
    tokens: 1_000,
    running_seconds: 60,
    cost_micro_usd: Some(100),
    reached: Reached::Stop,
};

/// What a call that is held was shown as.
const BINDING: Digest = Digest([7; 32]);

/// Writes events in words.
pub struct Teller {
    at_ms: u64,
    run: u8,
    turns: [u32; 4],
    contents: u8,
    /// The principal that the next inputs come from.
    principal: u8,
    /// The nested agent that is told of, by the number of its call in the root's turn.
    scope: Option<Id<id::Call>>,
    inner_turn: u32,
}

impl Teller {
    pub fn new() -> Self {
        Self {
            at_ms: 1_700_000_000_000,
            run: 1,
            turns: [0; 4],
            contents: 0,
            principal: 200,
            scope: None,
            inner_turn: 0,
        }
    }

    pub fn at_ms(&self) -> u64 {
        self.at_ms
    }

    fn run(&self) -> Id<id::Run> {
        Id::from_bytes([self.run; 16])
    }

    fn call(&self, number: &str) -> Id<id::Call> {
        let number: u8 = number.parse().expect("a call's number");
        if let Some(scope) = self.scope {
            let turn = u8::try_from(self.inner_turn).expect("few turns");
            return Id::from_bytes([128 + scope.as_bytes()[0] % 8 * 16 + turn * 8 + number; 16]);
        }
        let turn = u8::try_from(self.turns[usize::from(self.run)]).expect("few turns");
        Id::from_bytes([self.run * 64 + turn * 8 + number; 16])
    }

    fn content(&mut self, media: &str) -> ContentRef {
        self.contents += 1;
        ContentRef { id: Id::from_bytes([self.contents; 16]), bytes: 5, media: media.into(), mac: Digest([9; 32]) }
    }

    /// The event that a word stands for, if it stands for one.
    pub fn event(&mut self, word: &str) -> Option<(Stamp, Event)> {
        if let Some(ms) = word.strip_prefix('+') {
            self.at_ms += ms.parse::<u64>().expect("milliseconds");
            return None;
        }
        if let Some(run) = word.strip_prefix('@') {
            self.run = run.parse().expect("a run's number");
            return None;
        }
        if let Some(principal) = word.strip_prefix("by:") {
            self.principal = principal.parse().expect("a principal's number");
            return None;
        }
        if let Some(call) = word.strip_prefix("in:") {
            // The call is one of the root's.
            self.scope = None;
            self.scope = (call != "root").then(|| self.call(call));
            self.inner_turn = 0;
            return None;
        }
        let (name, argument) = word.split_once(['.', ':']).unwrap_or((word, ""));
        let event = self.named(name, argument);
        let stamp = Stamp { at_ms: self.at_ms, principal: Id::from_bytes([self.principal; 16]) };
        Some((stamp, event))
    }

    fn named(&mut self, name: &str, argument: &str) -> Event {
        let event = self.input(name, argument).or_else(|| self.course(name, argument));
        event.or_else(|| self.of_call(name, argument)).unwrap_or_else(|| panic!("no event is called {name}"))
    }

    /// What comes from outside.
    fn input(&mut self, name: &str, argument: &str) -> Option<Event> {
        let run = self.run();
        Some(match name {
            "submitted" => {
                let reached = if argument == "asks" { Reached::Ask } else { Reached::Stop };
                Event::Submitted(Submitted {
                    run,
                    agent: "maya".into(),
                    closure: Digest([1; 32]),
                    message: (argument != "on").then(|| self.content("text/plain; charset=utf-8")),
                    session_name: None,
                    idempotency: None,
                    limits: Limits { reached, ..LIMITS },
                    save: Save::Declared,
                    callback: None,
                })
            }
            "cancel" => Event::CancelRequested(CancelRequested { run, when: when(argument) }),
            "steered" | "interrupted" => {
                let when = if name == "steered" { When::AfterTurn } else { When::Now };
                Event::Steered(Steered { run, message: self.content("text/plain; charset=utf-8"), when })
            }
            "pause" => Event::PauseRequested(PauseRequested { run }),
            "resume" => Event::ResumeRequested(ResumeRequested { run }),
            "raised" => Event::Raised(Raised { run, limits: Limits { turns: 9, tool_calls: 9, ..LIMITS } }),
            "operated" => {
                let (sandbox, detail) = (Id::from_bytes([100; 16]), Some(self.content("text/plain; charset=utf-8")));
                Event::Operated(Operated { run, sandbox, deed: Deed::Exec, detail })
            }
            "approved" => self.voted(argument, Vote::Approve, BINDING),
            "approved-stale" => self.voted(argument, Vote::Approve, Digest::ZERO),
            "rejected" => self.voted(argument, Vote::Reject, BINDING),
            "happened" => {
                let output = self.content("application/vnd.topside.parts+json");
                self.resolved(argument, Resolution::Happened { output })
            }
            "did-not-happen" => self.resolved(argument, Resolution::DidNotHappen),
            "undo" => self.resolved(argument, Resolution::Compensate),
            "forked" => Event::Forked(Forked {
                run: Id::from_bytes([9; 16]),
                session: Id::from_bytes([51; 16]),
                position: 12,
                head: Digest([3; 32]),
                history: self.content("application/vnd.topside.items+json"),
                agent: "maya".into(),
                checkpoint: Some(snapshot()),
                session_name: None,
                model: None,
                provider: None,
            }),
            _ => return None,
        })
    }

    fn deferred(&self, argument: &str, for_ms: u64) -> Deferred {
        Deferred {
            run: self.run(),
            scope: self.scope,
            call: (!argument.is_empty()).then(|| self.call(argument)),
            failure: Failure::new(FailureClass::Model, "model_overloaded", "the model is overloaded"),
            attempt: 1,
            until_ms: self.at_ms + for_ms,
            usage: Usage::default(),
        }
    }

    /// What happens to a run besides its calls.
    fn course(&mut self, name: &str, argument: &str) -> Option<Event> {
        let run = self.run();
        let sandbox = Id::from_bytes([100; 16]);
        Some(match name {
            "parked" => Event::Parked(self.parked(argument)),
            "checkpointed" => {
                let turn = self.turns[usize::from(self.run)];
                Event::Checkpointed(Checkpointed { run, turn, snapshot: Some(snapshot()), reason: None })
            }
            "restored" => {
                let snapshot = Snapshot { checkpoint: Id::from_bytes([121; 16]), ..snapshot() };
                Event::WorkspaceRestored(WorkspaceRestored { run, snapshot, from: RestoredFrom::Checkpoint })
            }
            "lost" => Event::WorkspaceLost(WorkspaceLost { run, reason: "workspace_lost".into() }),
            "deferred" => Event::Deferred(self.deferred(argument, 20_000)),
            "deferred-soon" => Event::Deferred(self.deferred(argument, 1_000)),
            "nested" => Event::ScopeOpened(ScopeOpened {
                run,
                call: self.call(argument),
                agent: "ben".into(),
                closure: Digest([4; 32]),
                message: self.content("text/plain; charset=utf-8"),
                limits: Limits { turns: 2, tokens: 100, cost_micro_usd: None, ..LIMITS },
            }),
            "reserved" => Event::Reserved(Reserved {
                run,
                scope: self.scope.expect("a nested agent"),
                turn: self.inner_turn + 1,
                tokens: argument.parse().expect("tokens"),
                cost_micro_usd: None,
            }),
            "resumed" => {
                let attached = if argument.is_empty() { vec![] } else { vec![self.call(argument)] };
                Event::Resumed(Resumed { run, epoch: 7, attached })
            }
            "opened" | "made" => Event::SandboxOpened(SandboxOpened {
                run,
                sandbox,
                provider: "local".into(),
                walls: vec!["seccomp".into()],
                missing: vec![],
                landlock_version: 0,
                manifest: (argument != "again").then_some(Digest([2; 32])),
                generation: if name == "made" { 7 } else { 0 },
                restored: None,
                start: None,
            }),
            "closed" => Event::SandboxClosed(SandboxClosed { run, sandbox, reason: "run_ended".into() }),
            "changed" => {
                let files = self.content("application/json");
                Event::WorkspaceChanged(WorkspaceChanged { run, files, unlisted: 0 })
            }
            "finished" => Event::Finished(Finished {
                run,
                status: RunStatus::Completed,
                reply: None,
                failure: None,
                turns: 1,
                tool_calls: 0,
                usage: Usage::default(),
                cost: Cost::default(),
                used_sandbox: false,
            }),
            _ => return None,
        })
    }

    /// What happens to a call.
    fn of_call(&mut self, name: &str, argument: &str) -> Option<Event> {
        let run = self.run();
        Some(match name {
            "checks" => self.call_added(argument, Purpose::Precondition),
            "undoes" => self.call_added(argument, Purpose::Compensation),
            "replied" => self.replied(argument),
            "judged" => self.judged(argument, Verdict::Allow),
            "denied" => self.judged(argument, Verdict::Deny),
            "held" => self.held(argument, 1, Hold::Call),
            "held-batch" => self.held(argument, 1, Hold::Batch),
            "held-by-two" => self.held(argument, 2, Hold::Call),
            "began-back" => self.began(argument, AfterCrash::RollBack),
            "began" => self.began(argument, AfterCrash::Repeat),
            "began-inside" => self.began(argument, AfterCrash::Interrupted),
            "began-outside" => self.began(argument, AfterCrash::Resolve),
            "began-again" => match self.began(argument, AfterCrash::Repeat) {
                Event::Began(body) => Event::Began(Began { attempt: 2, ..body }),
                other => other,
            },
            "returned" => self.returned(argument, CallStatus::Ok, false),
            "returned-changed" => self.returned(argument, CallStatus::Ok, true),
            "failed" => self.returned(argument, CallStatus::Error, false),
            "answered" => self.returned(argument, CallStatus::Cancelled, false),
            "in_doubt" => Event::InDoubt(InDoubt { run, call: self.call(argument) }),
            _ => return None,
        })
    }

    /// `replied:N` has N calls; `replied:?` one of an unknown tool; `replied:dear` costs the whole budget; `replied:long` uses
    /// all tokens; both with one call; `replied:much` nearly all, with two. `replied:N/S` heard S messages that steer.
    fn replied(&mut self, argument: &str) -> Event {
        let turn = if self.scope.is_some() { &mut self.inner_turn } else { &mut self.turns[usize::from(self.run)] };
        *turn += 1;
        let turn = *turn;
        let (argument, steers) = argument.split_once('/').unwrap_or((argument, "0"));
        let calls: u32 = argument.parse().unwrap_or(if argument == "much" { 2 } else { 1 });
        let tool = (argument != "?").then(|| "look".to_owned());
        let head = |n: u32| CallHead { call: self.call(&n.to_string()), index: n - 1, tool: tool.clone() };
        let calls = (1..=calls).map(head).collect();
        let input_tokens = match argument {
            "long" => 1_000,
            "much" => 965,
            _ => 10,
        };
        let micro_usd = if argument == "dear" { 100 } else { 1 };
        Event::Replied(Replied {
            run: self.run(),
            turn,
            items: self.content("application/vnd.topside.items+json"),
            calls,
            model: "scripted".into(),
            usage: Usage { model_calls: 1, input_tokens, cached_tokens: 0, output_tokens: 5, reasoning_tokens: 0 },
            cost: if argument == "unlisted" { Cost::Unlisted { micro_usd: 0 } } else { Cost::Priced { micro_usd } },
            duration_ms: 20,
            scope: self.scope,
            steers: steers.parse().expect("a number of messages"),
        })
    }

    fn judged(&self, call: &str, verdict: Verdict) -> Event {
        let judgement = Judgement {
            verdict,
            policies: vec!["policies/a.cedar:1 look".into()],
            reason: "allowed".into(),
            pack: "dev@0".into(),
        };
        Event::Judged(Judged { run: self.run(), call: self.call(call), judgement, obligation: None, held: false })
    }

    fn held(&self, call: &str, quorum: u8, hold: Hold) -> Event {
        let Event::Judged(judged) = self.judged(call, Verdict::Hold) else { unreachable!("it was made so") };
        let obligation = Obligation { quorum, expires_ms: self.at_ms + 30_000, binding: BINDING, hold };
        Event::Judged(Judged { obligation: Some(obligation), ..judged })
    }

    fn voted(&self, call: &str, vote: Vote, binding: Digest) -> Event {
        Event::Voted(Voted { run: self.run(), call: self.call(call), vote, reason: None, binding })
    }

    fn resolved(&self, call: &str, resolution: Resolution) -> Event {
        Event::Resolved(Resolved { run: self.run(), call: self.call(call), resolution })
    }

    fn returned(&mut self, call: &str, status: CallStatus, changed_workspace: bool) -> Event {
        Event::Returned(Returned {
            run: self.run(),
            call: self.call(call),
            status,
            output: self.content("application/vnd.topside.parts+json"),
            whole: None,
            code: None,
            duration_ms: 3,
            changed_workspace,
            held: false,
        })
    }

    /// `checks.21`: call 2 is made for call 1.
    fn call_added(&mut self, numbers: &str, purpose: Purpose) -> Event {
        Event::CallAdded(CallAdded {
            run: self.run(),
            call: self.call(&numbers[..1]),
            serves: self.call(&numbers[1..]),
            purpose,
            tool: "look".into(),
            arguments: self.content("application/json"),
        })
    }

    fn parked(&self, waits_for: &str) -> Parked {
        let wait = Wait::ALL.iter().find(|wait| wait.name() == waits_for);
        let waits_for = *wait.unwrap_or_else(|| panic!("nothing waits for {waits_for}"));
        let until_ms = match waits_for {
            Wait::Approval => Some(self.at_ms + 30_000),
            Wait::Retry => Some(self.at_ms + 20_000),
            Wait::Budget | Wait::Resolution | Wait::Resume => None,
        };
        Parked { run: self.run(), waits_for, until_ms }
    }

    fn began(&self, call: &str, after_crash: AfterCrash) -> Event {
        let call = self.call(call);
        Event::Began(Began { run: self.run(), call, attempt: 1, epoch: 3, key: Some(call.to_string()), after_crash })
    }
}

fn when(word: &str) -> When {
    if word == "later" { When::AfterTurn } else { When::Now }
}

fn snapshot() -> Snapshot {
    let checkpoint = Id::from_bytes([110; 16]);
    let object = "checkpoints/default/one".into();
    Snapshot { checkpoint, form: "tar".into(), object, digest: Digest([5; 32]), bytes: 1_024, entries: 2 }
}

/// The records that words stand for, as their exact bytes.
pub fn bytes(words: &str) -> Vec<Vec<u8>> {
    let (mut teller, mut previous, mut all) = (Teller::new(), Digest::ZERO, Vec::new());
    for (stamp, event) in words.split_whitespace().filter_map(|word| teller.event(word)) {
        let head = Head {
            tenant: "default".into(),
            session: Id::from_bytes([50; 16]),
            position: all.len() as u64,
            previous,
            at_ms: stamp.at_ms,
            principal: stamp.principal,
        };
        let bytes = record::encode(&head, &event.encode());
        previous = record::hash(&bytes);
        all.push(bytes);
    }
    all
}

/// A fold in words: what is known and what is wanted at `now_ms`.
pub fn told(state: &Session, now_ms: u64) -> String {
    let run = state.run.as_ref().map_or("no run".to_owned(), |run| {
        format!(
            "{} {} turn={} calls={} tokens={} cost={} running_ms={}",
            run.id,
            run.status(),
            run.root().turn,
            run.root().tool_calls,
            run.root().usage.total_tokens(),
            run.root().cost.micro_usd(),
            run.running_ms_at(now_ms)
        )
    });
    format!(
        "position={}\nrun: {run}\nqueued={}\nhistory={}\nworkspace={} sandbox={}\nwanted: {}\n",
        state.position,
        state.queue.len(),
        state.history.len(),
        state.files != Files::None,
        state.sandbox.is_some(),
        wanted(state, now_ms)
    )
}

/// What is wanted, in words.
pub fn wanted(state: &Session, now_ms: u64) -> String {
    state.wanted(now_ms).iter().map(word).collect::<Vec<_>>().join(" ")
}

fn word(effect: &Effect) -> String {
    match effect {
        Effect::Resume { .. } => "resume".into(),
        Effect::Ask { scope: None, turn, interrupts: 0, .. } => format!("ask:{turn}"),
        Effect::Ask { scope: None, turn, .. } => format!("ask-anew:{turn}"),
        Effect::Ask { scope: Some(scope), turn, tokens, .. } => format!("ask.{}:{turn}/{tokens}", number(*scope)),
        Effect::Reserve { scope, turn, tokens, .. } => format!("reserve.{}:{turn}/{tokens}", number(*scope)),
        Effect::Judge { call } => format!("judge.{}", number(*call)),
        Effect::Begin { call, attempt, key } => {
            format!("begin.{}#{attempt}{}", number(*call), if key.is_some() { "+key" } else { "" })
        }
        Effect::Perform { call } => format!("perform.{}", number(*call)),
        Effect::Abort { call, .. } => format!("abort.{}", number(*call)),
        Effect::Answer { call, answer } => format!("answer.{}:{}", number(*call), answer_word(answer)),
        Effect::Doubt { call } => format!("doubt.{}", number(*call)),
        Effect::Compensate { call } => format!("compensate.{}", number(*call)),
        Effect::Checkpoint { turn } => format!("checkpoint:{turn}"),
        Effect::Park { waits_for, until_ms, .. } => {
            format!("park:{}{}", waits_for.name(), if until_ms.is_some() { "/until" } else { "" })
        }
        Effect::Finish { status, failure, .. } => {
            let code = failure.as_ref().map(|failure| format!("/{}", failure.code)).unwrap_or_default();
            format!("finish:{status}{code}")
        }
    }
}

fn answer_word(answer: &Answer) -> &'static str {
    match answer {
        Answer::UnknownTool => "UnknownTool",
        Answer::Denied => "Denied",
        Answer::Rejected { .. } => "Rejected",
        Answer::Expired => "Expired",
        Answer::Unmet { .. } => "Unmet",
        Answer::Interrupted { rolled_back: false } => "Interrupted",
        Answer::Interrupted { rolled_back: true } => "RolledBack",
        Answer::Happened { .. } => "Happened",
        Answer::DidNotHappen => "DidNotHappen",
        Answer::Compensated { .. } => "Compensated",
        Answer::Steered => "Steered",
        Answer::Nested { .. } => "Nested",
        Answer::NestedLimit { .. } => "NestedLimit",
    }
}

fn number(call: Id<id::Call>) -> u8 {
    call.as_bytes()[0] % 8
}

/// Folds records as they were written.
pub fn fold(records: &[Record]) -> Session {
    let mut state = Session::default();
    for record in records {
        let stamp = Stamp { at_ms: record.head.at_ms, principal: record.head.principal };
        state.apply(stamp, &record.event).unwrap_or_else(|refused| panic!("{refused}"));
    }
    state
}
