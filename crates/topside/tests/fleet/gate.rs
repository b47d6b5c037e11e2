//! A service outside that tools and models ask: it notes what comes, counts how much is there at once, and answers nobody before the
//! test says so.

use crate::outside::{self, Request, WAIT_MS_MAX, request};
use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// What a model answers that is asked over Chat Completions.
const REPLY: &str = r#"{"id":"c1","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Said."},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;

/// The service.
pub(crate) struct Gate {
    pub(crate) url: String,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    came: Vec<Came>,
    /// How many may be answered, in the order in which they came.
    let_through: usize,
    /// Those that are there now and the most that ever were, by path.
    now: BTreeMap<String, (usize, usize)>,
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Came {
    pub(crate) path: String,
    pub(crate) body: String,
}

impl Gate {
    pub(crate) fn closed() -> Self {
        let seen = Arc::<Seen>::default();
        let shared = seen.clone();
        let url = outside::listen(move |stream| _ = shared.serve(stream));
        Self { url, seen }
    }

    /// The declaration of a tool that posts its argument `text` to a path here.
    pub(crate) fn tool(&self, path: &str, more: &str) -> String {
        outside::tool(&format!("{}{path}", self.url), more)
    }

    /// All that came so far, in order.
    pub(crate) fn came(&self) -> Vec<Came> {
        self.seen.state.lock().unwrap().came.clone()
    }

    /// Waits until so many came; gives them.
    pub(crate) fn until(&self, count: usize) -> Vec<Came> {
        let state = self.seen.state.lock().unwrap();
        let limit = Duration::from_millis(WAIT_MS_MAX);
        let (state, waited) =
            self.seen.changed.wait_timeout_while(state, limit, |state| state.came.len() < count).unwrap();
        assert!(!waited.timed_out(), "{count} should have come: {:?}", state.came);
        state.came.clone()
    }

    /// Answers the next `count`.
    pub(crate) fn let_through(&self, count: usize) {
        let mut state = self.seen.state.lock().unwrap();
        state.let_through = state.let_through.saturating_add(count);
        drop(state);
        self.seen.changed.notify_all();
    }

    /// Answers whatever comes.
    pub(crate) fn open(&self) {
        self.let_through(usize::MAX);
    }

    /// The most that were at a path at once.
    pub(crate) fn most(&self, path: &str) -> usize {
        self.seen.state.lock().unwrap().now.get(path).map_or(0, |(_, most)| *most)
    }
}

impl Seen {
    fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut writer = stream.try_clone().ok()?;
        let mut reader = BufReader::new(stream);
        loop {
            let Request { path, body, .. } = request(&mut reader)?;
            let came = Came { path: path.clone(), body };
            let mut state = self.state.lock().unwrap();
            let turn = state.came.len();
            state.came.push(came);
            let (now, most) = state.now.entry(path.clone()).or_default();
            *now += 1;
            *most = (*most).max(*now);
            self.changed.notify_all();
            let mut state = self.changed.wait_while(state, |state| state.let_through <= turn).unwrap();
            if let Some((now, _)) = state.now.get_mut(&path) {
                *now -= 1;
            }
            drop(state);
            let (media, body) =
                if path.ends_with("/chat/completions") { ("application/json", REPLY) } else { ("text/plain", "told") };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {media}\r\nContent-Length: {}\r\n\r\n", body.len());
            writer.write_all(format!("{head}{body}").as_bytes()).ok()?;
        }
    }
}
