//! A run as people watch it: turns events into lines. Pure; who prints them is `console`'s business. Records are the truth,
//! deltas only make it show sooner: whatever was lost between two records is shown when the record comes.

use super::call;
use super::clean::clean;
use super::console::Paint;
use api::{Delta, Event, Happened, Record};
use domain::{CallStatus, Id, Verdict, id};
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
    /// The models that answered.
    models: Vec<String>,
    /// What patches did to files, by path.
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
            models: Vec::new(),
            files: BTreeMap::new(),
        }
    }

    /// The models that answered, in order, each once.
    pub(crate) fn models(&self) -> &[String] {
        &self.models
    }

    /// The files that patches changed: `A`dded, `M`odified, `D`eleted.
    pub(crate) fn files(&self) -> &BTreeMap<String, char> {
        &self.files
    }

    /// What an event adds to the screen.
    pub(crate) fn event(&mut self, event: &Event) -> String {
        match event {
            Event::Record(record) => {
                let shown = self.record(record);
                if record.position < self.from { String::new() } else { shown }
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
            Happened::CancelRequested {} => self.aside("asked to end"),
            Happened::Resumed { .. } => self.aside("taken up again"),
            Happened::SandboxOpened { provider, walls, missing, .. } => self.sandbox(provider, walls, missing),
            Happened::SandboxClosed { reason, .. } if reason == "run_ended" => String::new(),
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
            Happened::Judged { .. } => String::new(),
            Happened::Began { call, attempt } => self.announce(*call, *attempt),
            Happened::Returned { call, status, output, .. } => {
                self.returned(*call, *status, output.text.as_deref().unwrap_or_default())
            }
            Happened::InDoubt { call } => {
                let tool = self.calls.get(call).map_or("a call", |call| call.tool.as_str());
                let text = format!("nobody knows whether `{}` took effect; somebody must look", clean(tool));
                self.problem(&text)
            }
            Happened::ArtifactSaved { name, bytes, .. } => {
                let name = name.text.as_deref().unwrap_or("a file");
                self.aside(&format!("kept {} ({bytes} bytes)", clean(name)))
            }
            Happened::Finished { .. } => self.flush(),
        }
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
        let ended = if rest.is_empty() { streamed.ends_with('\n') } else { rest.ends_with('\n') };
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
        if !self.streamed.is_empty() {
            self.streamed.clear();
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
