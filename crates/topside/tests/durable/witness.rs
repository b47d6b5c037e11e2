//! A service outside that tools call: it counts what reached it, and lets a test hold an answer back.

use crate::outside::{self, Request, WAIT_MS_MAX, request};
use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// The service. Requests to a path below `/hold` are answered when the test says so, all others at once.
pub(crate) struct Witness {
    url: String,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    requests: Vec<String>,
    keys: Vec<Option<String>>,
    released: bool,
    /// Held requests whose caller went away before they were answered.
    abandoned: usize,
    /// Requests that were answered.
    answered: usize,
}

impl Witness {
    pub(crate) fn start() -> Self {
        let seen = Arc::<Seen>::default();
        let shared = seen.clone();
        let url = outside::listen(move |stream| shared.serve(stream));
        Self { url, seen }
    }

    /// The declaration of a tool that posts its argument `text` to a path here.
    pub(crate) fn tool(&self, path: &str, more: &str) -> String {
        outside::tool(&format!("{}{path}", self.url), more)
    }

    /// What came, in order: path and body.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.seen.state.lock().unwrap().requests.clone()
    }

    /// The idempotency keys under which they came.
    pub(crate) fn keys(&self) -> Vec<Option<String>> {
        self.seen.state.lock().unwrap().keys.clone()
    }

    /// Waits until so many requests came.
    pub(crate) fn until(&self, requests: usize) {
        self.seen.wait(|state| state.requests.len() >= requests);
    }

    /// Waits until the caller of a held request went away.
    pub(crate) fn until_abandoned(&self) {
        self.seen.wait(|state| state.abandoned > 0);
    }

    /// Waits until a request is answered.
    pub(crate) fn until_answered(&self) {
        self.seen.wait(|state| state.answered > 0);
    }

    /// Answers what is held, now and from now on.
    pub(crate) fn release(&self) {
        self.seen.state.lock().unwrap().released = true;
        self.seen.changed.notify_all();
    }
}

impl Seen {
    fn wait(&self, fits: impl Fn(&State) -> bool) {
        let state = self.state.lock().unwrap();
        let limit = Duration::from_millis(WAIT_MS_MAX);
        let (state, waited) = self.changed.wait_timeout_while(state, limit, |state| !fits(state)).unwrap();
        assert!(!waited.timed_out(), "the witness waited in vain; it saw {:?}", state.requests);
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some(Request { path, body, key }) = request(&mut reader) {
            let mut state = self.state.lock().unwrap();
            state.requests.push(format!("{path} {body}"));
            state.keys.push(key);
            drop(state);
            self.changed.notify_all();
            if path.starts_with("/hold") && !self.held(&stream) {
                return;
            }
            let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\ntold";
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
            self.state.lock().unwrap().answered += 1;
            self.changed.notify_all();
        }
    }

    /// Holds a request until it is released; `false`: its caller went away.
    fn held(&self, stream: &TcpStream) -> bool {
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let mut byte = [0];
        loop {
            if self.state.lock().unwrap().released {
                return true;
            }
            if matches!(stream.peek(&mut byte), Ok(0)) {
                self.state.lock().unwrap().abandoned += 1;
                self.changed.notify_all();
                return false;
            }
        }
    }
}
