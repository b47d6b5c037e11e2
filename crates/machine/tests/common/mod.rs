//! Histories written in words: `submitted replied:2 judged.1 began.1 returned.1`. Calls are numbered from 1 in each turn; `+500` lets
//! half a second pass; `@2` turns to the second run.
#![allow(dead_code, unreachable_pub, reason = "shared by tests that each use a part")]

use domain::content::ContentRef;
use domain::record::{
    AfterCrash, Began, CallHead, CancelRequested, Finished, Head, InDoubt, Judged, Replied, Resumed, Returned,
    SandboxClosed, SandboxOpened, Save, Submitted, WorkspaceChanged,
};
use domain::{CallStatus, Cost, Digest, Event, Id, Judgement, Limits, Record, RunStatus, Usage, Verdict, id, record};
use machine::{Effect, Session, Stamp};

pub const LIMITS: Limits =
    Limits { turns: 3, tool_calls: 4, tokens: 1_000, running_seconds: 60, cost_micro_usd: Some(100) };

/// Writes events in words.
pub struct Teller {
    at_ms: u64,
    run: u8,
    turns: [u32; 4],
    contents: u8,
}

impl Teller {
    pub fn new() -> Self {
        Self { at_ms: 1_700_000_000_000, run: 1, turns: [0; 4], contents: 0 }
    }

    pub fn at_ms(&self) -> u64 {
        self.at_ms
    }

    fn run(&self) -> Id<id::Run> {
        Id::from_bytes([self.run; 16])
    }

    fn call(&self, number: &str) -> Id<id::Call> {
        let number: u8 = number.parse().expect("a call's number");
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
        let (name, argument) = word.split_once(['.', ':']).unwrap_or((word, ""));
        let event = self.named(name, argument);
        let stamp = Stamp { at_ms: self.at_ms, principal: Id::from_bytes([200; 16]) };
        Some((stamp, event))
    }

    fn named(&mut self, name: &str, argument: &str) -> Event {
        let run = self.run();
        let sandbox = Id::from_bytes([100; 16]);
        match name {
            "submitted" => Event::Submitted(Submitted {
                run,
                agent: "maya".into(),
                closure: Digest([1; 32]),
                message: self.content("text/plain; charset=utf-8"),
                session_name: None,
                idempotency: None,
                limits: LIMITS,
                save: Save::Declared,
            }),
            "cancel" => Event::CancelRequested(CancelRequested { run }),
            "resumed" => Event::Resumed(Resumed { run, epoch: 7 }),
            "opened" => Event::SandboxOpened(SandboxOpened {
                run,
                sandbox,
                provider: "local".into(),
                walls: vec!["seccomp".into()],
                missing: vec![],
                manifest: Some(Digest([2; 32])),
            }),
            "closed" => Event::SandboxClosed(SandboxClosed { run, sandbox, reason: "run_ended".into() }),
            "changed" => {
                let files = self.content("application/json");
                Event::WorkspaceChanged(WorkspaceChanged { run, files, unlisted: 0 })
            }
            "replied" => self.replied(argument),
            "judged" => self.judged(argument, Verdict::Allow),
            "denied" => self.judged(argument, Verdict::Deny),
            "began" => self.began(argument, AfterCrash::Repeat),
            "began-inside" => self.began(argument, AfterCrash::Interrupted),
            "began-outside" => self.began(argument, AfterCrash::Resolve),
            "began-again" => match self.began(argument, AfterCrash::Repeat) {
                Event::Began(body) => Event::Began(Began { attempt: 2, ..body }),
                other => other,
            },
            "returned" => Event::Returned(Returned {
                run,
                call: self.call(argument),
                status: CallStatus::Ok,
                output: self.content("application/vnd.topside.parts+json"),
                whole: None,
                code: None,
                duration_ms: 3,
            }),
            "in_doubt" => Event::InDoubt(InDoubt { run, call: self.call(argument) }),
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
            other => panic!("no event is called {other}"),
        }
    }

    /// `replied:N` has N calls; `replied:?` one of an unknown tool; `replied:dear` costs the whole budget; `replied:long` uses
    /// all tokens; both with one call.
    fn replied(&mut self, argument: &str) -> Event {
        let turn = &mut self.turns[usize::from(self.run)];
        *turn += 1;
        let turn = *turn;
        let calls: u32 = argument.parse().unwrap_or(1);
        let tool = (argument != "?").then(|| "look".to_owned());
        let head = |n: u32| CallHead { call: self.call(&n.to_string()), index: n - 1, tool: tool.clone() };
        let calls = (1..=calls).map(head).collect();
        let input_tokens = if argument == "long" { 1_000 } else { 10 };
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
        })
    }

    fn judged(&self, call: &str, verdict: Verdict) -> Event {
        let judgement = Judgement {
            verdict,
            policies: vec!["policies/a.cedar:1 look".into()],
            reason: "allowed".into(),
            pack: "dev@0".into(),
        };
        Event::Judged(Judged { run: self.run(), call: self.call(call), judgement })
    }

    fn began(&self, call: &str, after_crash: AfterCrash) -> Event {
        let call = self.call(call);
        Event::Began(Began { run: self.run(), call, attempt: 1, epoch: 3, key: Some(call.to_string()), after_crash })
    }
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
            run.turn,
            run.tool_calls,
            run.usage.total_tokens(),
            run.cost.micro_usd(),
            run.running_ms_at(now_ms)
        )
    });
    format!(
        "position={}\nrun: {run}\nqueued={}\nhistory={}\nworkspace={} sandbox={}\nwanted: {}\n",
        state.position,
        state.queue.len(),
        state.history.len(),
        state.workspace,
        state.sandbox.is_some(),
        wanted(state, now_ms)
    )
}

/// What is wanted, in words.
pub fn wanted(state: &Session, now_ms: u64) -> String {
    let word = |effect: &Effect| match effect {
        Effect::Ask { turn } => format!("ask:{turn}"),
        Effect::Judge { call } => format!("judge.{}", number(*call)),
        Effect::Begin { call, attempt, key } => {
            format!("begin.{}#{attempt}{}", number(*call), if key.is_some() { "+key" } else { "" })
        }
        Effect::Perform { call } => format!("perform.{}", number(*call)),
        Effect::Abort { call } => format!("abort.{}", number(*call)),
        Effect::Answer { call, answer } => format!("answer.{}:{answer:?}", number(*call)),
        Effect::Doubt { call } => format!("doubt.{}", number(*call)),
        Effect::Finish { status, failure, .. } => {
            format!(
                "finish:{status}{}",
                failure.as_ref().map(|failure| format!("/{}", failure.code)).unwrap_or_default()
            )
        }
    };
    state.wanted(now_ms).iter().map(word).collect::<Vec<_>>().join(" ")
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
