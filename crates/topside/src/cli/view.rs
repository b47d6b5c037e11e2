//! A run as people watch it: turns events into lines. Pure; who prints them is `console`'s business. Records are the truth,
//! deltas only make it show sooner: whatever was lost between two records is shown when the record comes.

use super::call::{self, sign};
use super::clean::clean;
use super::console::Paint;
use api::{Delta, Event, Happened, Record};
use domain::record::Vote;
use domain::{CallStatus, Id, Verdict, Wait, id};
use std::collections::{BTreeMap, HashMap};

/// Lines of one call's output that are shown.
const OUTPUT_LINES_MAX: usize = 20;
/// Characters of one line of output that are shown.
const LINE_CHARACTERS_MAX: usize = 400;
/// Bytes of an unfinished line that are kept.
const PARTIAL_BYTES_MAX: usize = 8 << 10;

/// What is shown of a run.
#[derive(Debug)]
pub(crate) struct View {
    paint: Paint,
    /// Records before this position were seen by others: they are known, not shown.
    from: u64,
    calls: HashMap<Id<id::Call>, Call>,
    /// The call whose output is shown as it comes.
    active: Option<Id<id::Call>>,
    /// What was shown of the reply that comes in.
    streamed: String,
    /// Whether a reply is coming in.
    replying: bool,
    /// Whether the reply's last line is shown and not ended.
    open_line: bool,
    /// The models that answered.
    models: Vec<String>,
    /// What became of files, by path.
    files: BTreeMap<String, char>,
}

#[derive(Debug, Default)]
struct Call {
    tool: String,
    arguments: String,
    announced: bool,
    over: bool,
    /// Lines that wait until the call before has ended.
    waiting: Vec<String>,
    partial: String,
    shown_lines: usize,
    hidden_lines: usize,
}

impl View {
    pub(crate) fn new(paint: Paint, from: u64) -> Self {
        Self {
            paint,
            from,
            calls: HashMap::new(),
            active: None,
            streamed: String::new(),
            replying: false,
            open_line: false,
            models: Vec::new(),
            files: BTreeMap::new(),
        }
    }

    /// The models that answered, in order, each once.
    pub(crate) fn models(&self) -> &[String] {
        &self.models
    }

    /// The files that changed: `A`dded, `M`odified, `D`eleted.
    pub(crate) fn files(&self) -> &BTreeMap<String, char> {
        &self.files
    }

    /// What an event adds to the screen.
    pub(crate) fn event(&mut self, event: &Event) -> String {
        match event {
            Event::Record(record) => {
                let shown = self.record(record);
                if record.position < self.from || shown.is_empty() {
                    return String::new();
                }
                // What comes in the middle of a reply begins a line of its own; the reply's own end goes on where it was.
                let breaks = self.open_line && !matches!(record.happened, Happened::Replied { .. });
                self.open_line = false;
                if breaks { format!("\n{shown}") } else { shown }
            }
            Event::Delta(delta) => self.delta(delta),
            Event::Resync(_) => String::new(),
        }
    }

    fn delta(&mut self, delta: &Delta) -> String {
        match delta {
            Delta::Asking { .. } => {
                self.replying = true;
                self.streamed.clear();
                String::new()
            }
            Delta::Text { text, .. } if self.replying => {
                self.streamed.push_str(text);
                self.open_line = !text.ends_with('\n');
                clean(text).into_owned()
            }
            Delta::Performing { call, .. } => self.announce(*call, 1),
            Delta::Output { call, text, .. } => self.output(*call, text),
            Delta::Text { .. } | Delta::Reasoning { .. } => String::new(),
        }
    }

    fn record(&mut self, record: &Record) -> String {
        match &record.happened {
            Happened::Submitted { .. } => String::new(),
            Happened::CancelRequested { .. }
            | Happened::PauseRequested {}
            | Happened::ResumeRequested {}
            | Happened::Steered { .. }
            | Happened::Voted { .. }
            | Happened::Resolved { .. }
            | Happened::Raised { .. }
            | Happened::Operated { .. }
            | Happened::WorkspaceRestored { .. } => self.wished(&record.happened),
            Happened::Parked { waits_for, .. } => self.parked(*waits_for),
            Happened::Resumed { .. } => self.aside("taken up again"),
            Happened::WorkspaceLost { reason } => self.problem(&format!("its files are gone: {}", clean(reason))),
            Happened::Deferred { call, error, attempt, .. } => {
                let what = call.map_or_else(|| "asking the model".to_owned(), |call| self.named(call));
                self.problem(&format!("{what} failed ({}), attempt {attempt}; tried again soon", clean(&error.code)))
            }
            Happened::ScopeOpened { agent, .. } => self.aside(&format!("agent {} begins", clean(agent))),
            Happened::CallAdded { call, tool, arguments, .. } => {
                let arguments = arguments.text.clone().unwrap_or_default();
                self.calls.insert(*call, Call { tool: tool.clone(), arguments, ..Call::default() });
                String::new()
            }
            Happened::Checkpointed { checkpoint: None, .. } => self.problem("its files could not be kept"),
            Happened::Forked { .. } | Happened::Reserved { .. } | Happened::Checkpointed { .. } => String::new(),
            Happened::SandboxOpened { provider, walls, missing, .. } => self.sandbox(provider, walls, missing),
            Happened::SandboxClosed { reason, .. } if reason == "run_ended" || reason == "idle" => String::new(),
            Happened::SandboxClosed { reason, .. } => self.aside(&format!("the sandbox is gone: {}", clean(reason))),
            Happened::Replied { model, text, calls, .. } => {
                if !self.models.contains(model) {
                    self.models.push(model.clone());
                }
                for view in calls {
                    let call = self.calls.entry(view.call).or_default();
                    view.tool.clone_into(&mut call.tool);
                    call.arguments = view.arguments.text.clone().unwrap_or_default();
                }
                self.replied(text.text.as_deref().unwrap_or_default())
            }
            Happened::Judged { call, verdict: Verdict::Deny, reason, .. } => {
                let begun = self.announce(*call, 1);
                begun + &self.problem(&format!("denied: {}", clean(reason)))
            }
            Happened::Judged { call, verdict: Verdict::Hold, .. } => {
                let begun = self.announce(*call, 1);
                begun + &self.problem("held: somebody must approve")
            }
            Happened::Judged { .. } => String::new(),
            Happened::Began { call, attempt } => self.announce(*call, *attempt),
            Happened::Returned { call, status, output, .. } => {
                self.returned(*call, *status, output.text.as_deref().unwrap_or_default())
            }
            Happened::InDoubt { call } => {
                let text = format!("nobody knows whether {} took effect; somebody must look", self.named(*call));
                self.problem(&text)
            }
            Happened::WorkspaceChanged { files, .. } => {
                let changes = files.iter().map(|file| (clean(&file.path).into_owned(), sign(file.change)));
                self.files.extend(changes);
                String::new()
            }
            Happened::ArtifactSaved { name, bytes, .. } => {
                let name = name.text.as_deref().unwrap_or("a file");
                self.aside(&format!("kept {} ({bytes} bytes)", clean(name)))
            }
            Happened::Finished { .. } => self.flush(),
        }
    }

    /// What somebody said of the run.
    fn wished(&self, happened: &Happened) -> String {
        match happened {
            Happened::CancelRequested { .. } => self.aside("asked to end"),
            Happened::PauseRequested {} => self.aside("asked to pause"),
            Happened::ResumeRequested {} => self.aside("asked to go on"),
            Happened::Steered { message, .. } => {
                self.aside(&format!("told: {}", clean(message.text.as_deref().unwrap_or_default())))
            }
            Happened::Voted { call, vote, .. } => {
                let what = match vote {
                    Vote::Approve => "approved",
                    Vote::Reject => "rejected",
                };
                self.aside(&format!("{what}: {}", self.named(*call)))
            }
            Happened::Resolved { call, .. } => {
                self.aside(&format!("somebody said what became of {}", self.named(*call)))
            }
            Happened::Raised { .. } => self.aside("its limits were raised"),
            Happened::WorkspaceRestored { from, .. } => {
                self.aside(&format!("its files were put back from {}", from.name()))
            }
            Happened::Operated { deed, .. } => self.aside(&format!("an operator is at its sandbox: {}", deed.name())),
            _ => String::new(),
        }
    }

    /// A call by its tool.
    fn named(&self, call: Id<id::Call>) -> String {
        self.calls.get(&call).map_or_else(|| "a call".to_owned(), |call| format!("`{}`", clean(&call.tool)))
    }

    fn parked(&mut self, waits_for: Wait) -> String {
        let what = match waits_for {
            Wait::Approval => "waits for approval",
            Wait::Retry => "waits to try again",
            Wait::Budget => "waits for a higher limit",
            Wait::Resolution => "waits for somebody's word",
            Wait::Resume => "is paused",
        };
        let shown = self.flush();
        shown + &self.aside(what)
    }

    fn sandbox(&self, provider: &str, walls: &[String], missing: &[String]) -> String {
        let opened = self.aside(&format!("sandbox {provider}, {} walls", walls.len()));
        if missing.is_empty() {
            return opened;
        }
        opened + &self.problem(&format!("without {}", missing.join(", ")))
    }

    /// A reply is whole: what was not shown of it is shown now.
    fn replied(&mut self, text: &str) -> String {
        let streamed = std::mem::take(&mut self.streamed);
        self.replying = false;
        let rest = match text.strip_prefix(streamed.as_str()) {
            Some(rest) => clean(rest).into_owned(),
            // Pieces were lost on the way.
            None => format!("\n{}", clean(text)),
        };
        if text.is_empty() && streamed.is_empty() {
            return rest;
        }
        let ended = if rest.is_empty() { !self.open_line } else { rest.ends_with('\n') };
        if ended { rest } else { rest + "\n" }
    }

    /// Shows what a call is about to do; once.
    fn announce(&mut self, id: Id<id::Call>, attempt: u32) -> String {
        let Some(call) = self.calls.get_mut(&id) else { return String::new() };
        let first = !std::mem::replace(&mut call.announced, true);
        if !first && attempt <= 1 {
            return String::new();
        }
        let mut text = call::told(&call.tool, &call.arguments, self.paint);
        if attempt > 1 {
            text += &self.aside(&format!("attempt {attempt}"));
        }
        if self.active.is_none() {
            self.active = Some(id);
            return text;
        }
        // Another call is being shown; this one follows it.
        if let Some(call) = self.calls.get_mut(&id) {
            call.waiting.insert(0, text);
        }
        String::new()
    }

    /// A piece of a call's output.
    fn output(&mut self, id: Id<id::Call>, text: &str) -> String {
        let active = self.active == Some(id);
        let paint = self.paint;
        let Some(call) = self.calls.get_mut(&id).filter(|call| !call.over) else { return String::new() };
        call.partial.push_str(text);
        let mut shown = String::new();
        while let Some(end) = call.partial.find('\n') {
            let line: String = call.partial.drain(..=end).collect();
            shown += &call.line(&line, paint);
        }
        if call.partial.len() > PARTIAL_BYTES_MAX {
            let line = std::mem::take(&mut call.partial);
            shown += &call.line(&line, paint);
        }
        if active {
            return shown;
        }
        if !shown.is_empty() {
            call.waiting.push(shown);
        }
        String::new()
    }

    /// A call has ended: what was not shown of its output is shown, within limits.
    fn returned(&mut self, id: Id<id::Call>, status: CallStatus, output: &str) -> String {
        let mut shown = self.announce(id, 1);
        let paint = self.paint;
        let Some(call) = self.calls.get_mut(&id) else { return shown };
        call.over = true;
        // A run may make many calls; what they were asked is not needed any more.
        call.arguments = String::new();
        let end = call::ended(&call.tool, output);
        let partial = std::mem::take(&mut call.partial);
        let mut rest = if partial.is_empty() { String::new() } else { call.line(&partial, paint) };
        if call.shown_lines == 0 && status != CallStatus::Denied {
            for line in end.body.lines() {
                rest += &call.line(line, paint);
            }
        }
        if call.hidden_lines > 0 {
            let lines = if call.hidden_lines == 1 { "line" } else { "lines" };
            rest += &format!("  {}\n", paint.dim(&format!("… {} more {lines}", call.hidden_lines)));
        }
        match (status, end.exit) {
            (CallStatus::Ok, Some(code)) if code != "0" => {
                rest += &format!("  {}\n", paint.yellow(&format!("exit {code}")))
            }
            (CallStatus::Ok | CallStatus::Denied, _) => {}
            (other, _) => rest += &format!("  {}\n", paint.red(other.name())),
        }
        self.files.extend(end.files);
        if self.active == Some(id) {
            shown += &rest;
            shown += &self.next();
            return shown;
        }
        call.waiting.push(rest);
        shown
    }

    /// The call that is shown has ended: those that ended behind it follow, and the next one is shown as it goes on.
    fn next(&mut self) -> String {
        self.active = None;
        let mut shown = String::new();
        let mut waiting: Vec<_> =
            self.calls.iter().filter(|(_, call)| !call.waiting.is_empty()).map(|(id, _)| *id).collect();
        // Those that are over first, so that the one that still runs stands last.
        waiting.sort_by_key(|id| (self.calls.get(id).is_some_and(|call| !call.over), *id));
        for id in waiting {
            let Some(call) = self.calls.get_mut(&id) else { continue };
            shown += &std::mem::take(&mut call.waiting).concat();
            if !call.over {
                self.active = Some(id);
                break;
            }
        }
        shown
    }

    fn flush(&mut self) -> String {
        let mut shown = String::new();
        if !std::mem::take(&mut self.streamed).is_empty() && std::mem::take(&mut self.open_line) {
            shown.push('\n');
        }
        for call in self.calls.values_mut() {
            shown += &std::mem::take(&mut call.waiting).concat();
        }
        shown
    }

    fn aside(&self, text: &str) -> String {
        format!("{}\n", self.paint.dim(&format!("· {text}")))
    }

    fn problem(&self, text: &str) -> String {
        format!("{}\n", self.paint.yellow(&format!("! {text}")))
    }
}

impl Call {
    /// A line of output, as far as there is room for it.
    fn line(&mut self, line: &str, paint: Paint) -> String {
        let line = line.trim_end_matches(['\n', '\r']);
        if line.is_empty() && self.shown_lines == 0 {
            return String::new();
        }
        if self.shown_lines == OUTPUT_LINES_MAX {
            self.hidden_lines += 1;
            return String::new();
        }
        self.shown_lines += 1;
        let mut text: String = clean(line).chars().take(LINE_CHARACTERS_MAX).collect();
        if line.chars().count() > LINE_CHARACTERS_MAX {
            text.push('…');
        }
        format!("  {}\n", paint.dim(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{CallView, Text};

    fn text(text: &str) -> Text {
        Text { text: Some(text.into()), bytes: text.len() as u64, ..Text::default() }
    }

    fn call(number: u8) -> Id<id::Call> {
        Id::from_bytes([number; 16])
    }

    fn run() -> Id<id::Run> {
        Id::from_bytes([9; 16])
    }

    fn record(position: u64, happened: Happened) -> Event {
        let principal = Id::from_bytes([8; 16]);
        Event::Record(Box::new(Record { position, at_ms: 0, run_id: run(), principal, happened }))
    }

    fn replied(position: u64, said: &str, calls: &[(u8, &str)]) -> Event {
        let view = |(number, command): &(u8, &str)| CallView {
            call: call(*number),
            tool: "exec_command".into(),
            arguments: text(&serde_json::json!({ "cmd": command }).to_string()),
        };
        record(
            position,
            Happened::Replied {
                turn: 1,
                model: "m".into(),
                text: text(said),
                reasoning: None,
                calls: calls.iter().map(view).collect(),
                usage: api::Usage::default(),
                cost: domain::Cost::default().into(),
                duration_ms: 0,
                scope: None,
            },
        )
    }

    fn asking() -> Event {
        Event::Delta(Delta::Asking { run_id: run(), turn: 1 })
    }

    fn said(piece: &str) -> Event {
        Event::Delta(Delta::Text { run_id: run(), text: piece.into() })
    }

    fn began(position: u64, number: u8) -> Event {
        record(position, Happened::Began { call: call(number), attempt: 1 })
    }

    fn out(number: u8, piece: &str) -> Event {
        Event::Delta(Delta::Output { run_id: run(), call: call(number), text: piece.into() })
    }

    fn returned(position: u64, number: u8, code: u8, output: &str) -> Event {
        let output = text(&format!("Chunk ID: 0\nProcess exited with code {code}\nOutput:\n{output}"));
        let status = CallStatus::Ok;
        record(position, Happened::Returned { call: call(number), status, output, code: None, duration_ms: 0 })
    }

    fn check(name: &str, events: &[Event], expected: &str) {
        let mut view = View::new(Paint::Plain, 0);
        let shown: String = events.iter().map(|event| view.event(event)).collect();
        assert_eq!(shown, expected, "{name}");
    }

    #[test]
    fn a_reply_is_shown_once_whatever_was_lost() {
        check("no deltas", &[replied(1, "Good day.", &[])], "Good day.\n");
        check("all deltas", &[asking(), said("Good "), said("day."), replied(1, "Good day.", &[])], "Good day.\n");
        check("the end lost", &[asking(), said("Good "), replied(1, "Good day.", &[])], "Good day.\n");
        check(
            "the middle lost",
            &[asking(), said("Good "), said("!"), replied(1, "Good day!", &[])],
            "Good !\nGood day!\n",
        );
        check("deltas come late", &[asking(), replied(1, "Good day.", &[]), said("day.")], "Good day.\n");
        let sandbox = || {
            let opened = Happened::SandboxOpened {
                sandbox: Id::from_bytes([7; 16]),
                provider: "local".into(),
                walls: vec!["a".into()],
                missing: vec![],
                restored: None,
                start: None,
            };
            record(1, opened)
        };
        let aside = "· sandbox local, 1 walls\n";
        let ends = [asking(), said("Good day."), sandbox(), replied(2, "Good day.", &[])];
        check("something comes before its end", &ends, &format!("Good day.\n{aside}"));
        let middle = [asking(), said("Good "), sandbox(), said("day."), replied(2, "Good day.", &[])];
        check("something comes in its middle", &middle, &format!("Good \n{aside}day.\n"));
        check("nothing said", &[asking(), replied(1, "", &[])], "");
    }

    #[test]
    fn a_call_is_shown_once_whatever_was_lost() {
        let expected = "$ ls\n  a\n  b\n";
        let ask = || replied(1, "", &[(1, "ls")]);
        check("no deltas", &[ask(), began(2, 1), returned(3, 1, 0, "a\nb\n")], expected);
        check("all deltas", &[ask(), began(2, 1), out(1, "a\n"), out(1, "b"), returned(3, 1, 0, "a\nb")], expected);
        check("deltas come late", &[ask(), began(2, 1), returned(3, 1, 0, "a\nb"), out(1, "a\n")], expected);
        check("it failed", &[ask(), began(2, 1), returned(3, 1, 2, "")], "$ ls\n  exit 2\n");
        check(
            "control characters",
            &[ask(), began(2, 1), returned(3, 1, 0, "\x1b]0;x\x07\n")],
            "$ ls\n  \u{241b}]0;x\u{2407}\n",
        );
    }

    #[test]
    fn long_output_is_cut_and_counted() {
        let lines: String = (0..140).map(|line| format!("{line}\n")).collect();
        let shown: String = (0..20).map(|line| format!("  {line}\n")).collect();
        let events = [replied(1, "", &[(1, "seq")]), began(2, 1), returned(3, 1, 0, &lines)];
        check("many lines", &events, &format!("$ seq\n{shown}  … 120 more lines\n"));
    }

    #[test]
    fn calls_side_by_side_are_shown_one_after_the_other() {
        let ask = || replied(1, "", &[(1, "one"), (2, "two")]);
        let begun = [ask(), began(2, 1), began(3, 2)];
        let live = [out(2, "2\n"), out(1, "1\n")];
        let first_ends_first = [returned(4, 1, 0, "1\n"), out(2, "2b\n"), returned(5, 2, 0, "2\n2b\n")];
        let events: Vec<Event> = begun.iter().chain(&live).chain(&first_ends_first).cloned().collect();
        check("in order", &events, "$ one\n  1\n$ two\n  2\n  2b\n");
        let second_ends_first = [returned(4, 2, 0, "2\n"), returned(5, 1, 0, "1\n")];
        let events: Vec<Event> = begun.iter().chain(&live).chain(&second_ends_first).cloned().collect();
        check("out of order", &events, "$ one\n  1\n$ two\n  2\n");
    }

    #[test]
    fn what_was_seen_before_is_known_and_not_shown() {
        let mut view = View::new(Paint::Plain, 3);
        let events = [replied(1, "Hello.", &[(1, "ls")]), began(2, 1), returned(3, 1, 0, "a\n")];
        let shown: String = events.iter().map(|event| view.event(event)).collect();
        assert_eq!(shown, "  a\n");
        assert_eq!(view.models(), ["m"]);
    }
}
