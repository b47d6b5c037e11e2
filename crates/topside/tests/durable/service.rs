//! `topside serve` as a process of its own, asked over HTTP as a stranger would ask.

use crate::kit::Project;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// How long a test waits for something that must come. A stream that has nothing to say still shows that it lives within it.
const WAIT_MS_MAX: u64 = 60_000;
/// Signs of life in a row after which a stream is said to bring nothing more.
const SIGNS_MAX: usize = 12;
/// How often something is asked for that comes by itself.
const ASKED_MAX: usize = 20_000;

/// A service that runs. Killed when the test ends.
pub(crate) struct Service {
    child: Child,
    pub(crate) url: String,
    key: Option<String>,
    log: Arc<Logged>,
}

/// What the service has logged so far.
#[derive(Default)]
struct Logged {
    text: Mutex<String>,
    grown: Condvar,
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body, when the answer is one of these.
    #[track_caller]
    pub(crate) fn was(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.json()
    }

    /// Status and code of a refusal.
    #[track_caller]
    pub(crate) fn refusal(&self) -> String {
        format!("{} {}", self.status, text(&self.json(), "code"))
    }
}

/// A member as text.
#[track_caller]
pub(crate) fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("no `{name}` in {value}")).to_owned()
}

impl Service {
    pub(crate) fn start(project: &Project) -> Self {
        Self::of(project.command(&["serve", "--listen", "127.0.0.1:0"]))
    }

    /// Starts what comes to be a service.
    pub(crate) fn of(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::<Logged>::default();
        let (stderr, shared) = (BufReader::new(child.stderr.take().unwrap()), log.clone());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut text = shared.text.lock().unwrap();
                *text += &line;
                text.push('\n');
                shared.grown.notify_all();
            }
        });
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let url = url.trim_end().to_owned();
        let service = Self { child, url, key: None, log };
        assert!(service.url.starts_with("http://"), "it did not start:\n{}", service.logged());
        service
    }

    /// Asks with this key from now on.
    pub(crate) fn with_key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// All that was logged.
    pub(crate) fn logged(&self) -> String {
        self.log.text.lock().unwrap().clone()
    }

    /// Waits until something is logged for the `times`th time.
    pub(crate) fn until_logged(&self, what: &str, times: usize) {
        let text = self.log.text.lock().unwrap();
        let limit = Duration::from_millis(WAIT_MS_MAX);
        let missing = |text: &mut String| text.matches(what).count() < times;
        let (text, waited) = self.log.grown.wait_timeout_while(text, limit, missing).unwrap();
        assert!(!waited.timed_out(), "`{what}` was never logged:\n{text}");
    }

    /// Waits until the project's files as they are now are in force, for the `times`th time.
    pub(crate) fn until_in_force(&self, times: usize) {
        self.until_logged("the project changed and is in force", times);
    }

    /// SIGTERM, and the end it leads to.
    pub(crate) fn stop(self) {
        self.signal("-TERM");
        self.ended();
    }

    /// The end, which must be a good one.
    pub(crate) fn ended(mut self) {
        let ended = self.child.wait().unwrap();
        assert!(ended.success(), "{ended}:\n{}", self.logged());
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) -> ExitStatus {
        self.child.kill().unwrap();
        self.child.wait().unwrap()
    }

    /// `kill -9` of its launcher, while it lives itself.
    pub(crate) fn kill_launcher(&self) {
        let process = self.process().to_string();
        let killed = Command::new("pkill").args(["-KILL", "-x", "-P", &process, "topside-launch"]).status().unwrap();
        assert!(killed.success());
    }

    /// Sends a signal, such as `-TERM`.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.process().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "")
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        self.ask("POST", path, &[], body)
    }

    /// Asks with somebody's key.
    pub(crate) fn post_as(&self, key: &str, path: &str, body: &str) -> Answer {
        self.ask("POST", path, &[&format!("Authorization: Bearer {key}")], body)
    }

    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        let mut reader = self.send(method, path, headers, body);
        let (status, _) = head(&mut reader);
        let mut body = String::new();
        reader.read_to_string(&mut body).unwrap();
        Answer { status, body }
    }

    #[expect(clippy::disallowed_methods, reason = "the service is asked as a stranger would")]
    fn send(&self, method: &str, path: &str, headers: &[&str], body: &str) -> BufReader<TcpStream> {
        let address = self.url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(2 * WAIT_MS_MAX))).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
        for header in headers {
            head += &format!("{header}\r\n");
        }
        let is_keyed = headers.iter().any(|header| header.starts_with("Authorization"));
        if let Some(key) = self.key.as_ref().filter(|_| !is_keyed) {
            head += &format!("Authorization: Bearer {key}\r\n");
        }
        if !body.is_empty() {
            head += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        }
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
        BufReader::new(stream)
    }

    /// Asks for a run and does not wait for it; gives its id.
    #[track_caller]
    pub(crate) fn begin(&self, session: &str, message: &str) -> String {
        let body = serde_json::json!({"session": session, "message": message}).to_string();
        let answer = self.ask("POST", "/runs", &["Prefer: respond-async"], &body);
        // One that has next to nothing to do may have ended by then.
        let status = if answer.status == 200 { 200 } else { 202 };
        text(&answer.was(status), "run_id")
    }

    pub(crate) fn run(&self, run: &str) -> Value {
        self.get(&format!("/runs/{run}")).was(200)
    }

    /// Waits until a run stands so; gives it.
    pub(crate) fn standing(&self, run: &str, status: &str) -> Value {
        let mut stream = self.follow(&format!("/runs/{run}/events"), None);
        while let Some(event) = stream.next() {
            if matches!(event.name.as_str(), "parked" | "in_doubt" | "finished") {
                let run = self.run(run);
                if run["status"] == status {
                    return run;
                }
            }
        }
        panic!("it never was {status}: {}\n{}", self.run(run), self.logged());
    }

    /// Waits for a record of a run; gives it.
    pub(crate) fn record(&self, run: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let mut stream = self.follow(&format!("/runs/{run}/events"), None);
        while let Some(event) = stream.next() {
            if event.id.is_some() && fits(&event.data) {
                return event.data;
            }
        }
        panic!("the record never came: {}", self.run(run));
    }

    /// The records of a run so far.
    pub(crate) fn records(&self, run: &str) -> Vec<Value> {
        let page = self.get(&format!("/runs/{run}/events?limit=200")).was(200);
        assert!(page["next"].is_null(), "a longer log than this test expects");
        page["records"].as_array().unwrap().clone()
    }

    /// Asks until the answer fits.
    pub(crate) fn until(&self, path: &str, fits: impl Fn(&Answer) -> bool) -> Answer {
        let mut last = self.get(path);
        for _ in 0..ASKED_MAX {
            if fits(&last) {
                return last;
            }
            last = self.get(path);
        }
        panic!("{path} never fitted: {last:?}\n{}", self.logged());
    }

    /// Follows a stream of events, from after a position on.
    pub(crate) fn follow(&self, path: &str, after: Option<u64>) -> Stream {
        let mut headers = vec!["Accept: text/event-stream".to_owned()];
        headers.extend(after.map(|after| format!("Last-Event-ID: {after}")));
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let mut reader = self.send("GET", path, &headers, "");
        let (status, is_chunked) = head(&mut reader);
        assert!(status == 204 || (status == 200 && is_chunked), "{path}: {status}");
        Stream { reader, rest: String::new(), ended: status == 204 }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a status line and headers; whether the body comes in chunks.
fn head(reader: &mut BufReader<TcpStream>) -> (u16, bool) {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status: {line}"));
    let mut is_chunked = false;
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        is_chunked |= line.to_ascii_lowercase().starts_with("transfer-encoding: chunked");
        if line.trim_end().is_empty() {
            return (status, is_chunked);
        }
    }
}

/// A stream of events.
pub(crate) struct Stream {
    reader: BufReader<TcpStream>,
    rest: String,
    ended: bool,
}

/// An event of a stream; only records have an id.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) id: Option<u64>,
    pub(crate) name: String,
    pub(crate) data: Value,
}

impl Stream {
    /// The next event; `None` when the service ended the stream.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let mut signs = 0;
        loop {
            while let Some((block, rest)) = self.rest.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.rest = rest;
                if let Some(event) = parsed(&block) {
                    return Some(event);
                }
                signs += 1;
                assert!(signs < SIGNS_MAX, "the stream lives and brings nothing");
            }
            if self.ended {
                return None;
            }
            self.chunk();
        }
    }

    /// The next record.
    pub(crate) fn record(&mut self) -> Option<(u64, Value)> {
        loop {
            let event = self.next()?;
            if let Some(id) = event.id {
                return Some((id, event.data));
            }
        }
    }

    fn chunk(&mut self) {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        let length = usize::from_str_radix(line.trim_end(), 16).unwrap_or(0);
        let mut bytes = vec![0; length + 2];
        self.ended = length == 0;
        if !self.ended {
            self.reader.read_exact(&mut bytes).unwrap();
            self.rest += std::str::from_utf8(&bytes[..length]).unwrap();
        }
    }
}

/// An event as it is written; `None` for a comment.
fn parsed(block: &str) -> Option<Event> {
    let (mut id, mut name, mut data) = (None, None, String::new());
    for line in block.lines() {
        match line.split_once(':').map(|(field, value)| (field, value.trim_start())) {
            Some(("id", value)) => id = Some(value.parse().unwrap()),
            Some(("event", value)) => name = Some(value.to_owned()),
            Some(("data", value)) => data += value,
            _ => {}
        }
    }
    Some(Event { id, name: name?, data: serde_json::from_str(&data).unwrap() })
}

/// Makes a key for somebody and puts it where the next service finds it.
pub(crate) fn key(project: &Project, name: &str, scopes: &[&str]) -> String {
    let mut arguments = vec!["key", "new", name];
    for scope in scopes {
        arguments.extend(["--scope", scope]);
    }
    let made = project.topside(&arguments).ended(0);
    std::fs::create_dir_all(project.data()).unwrap();
    let mut file =
        std::fs::OpenOptions::new().create(true).append(true).open(project.data().join("keys.yaml")).unwrap();
    file.write_all(made.data.as_bytes()).unwrap();
    made.talk.split_whitespace().last().unwrap().to_owned()
}

/// The chain of a session's log holds; gives its kinds, in order. Nothing else may have the data directory.
pub(crate) fn verified(project: &Project, session: &str) -> Vec<Value> {
    let mut lines = project.topside(&["log", session, "--json", "--verify"]).ended(0).json();
    let verified = lines.pop().unwrap();
    assert_eq!(verified["verified"]["records"], lines.len(), "{verified}");
    lines.into_iter().map(|line| line["record"].clone()).collect()
}

/// Says that a test did not run; that is an error in CI.
pub(crate) fn skipped(test: &str, why: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{test} can't run: {why}");
    #[expect(clippy::print_stderr, reason = "a test that is left out is told by name")]
    {
        eprintln!("SKIPPED {test}: {why}");
    }
}
