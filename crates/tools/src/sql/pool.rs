//! A few threads that do nothing but SQLite: it blocks, and the tasks of the harness must not.

use super::connection::{self, Connections};
use super::{Answer, Failure, Question, rows};
use crate::reason::Reason;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Threads at most; one is started when work comes and none is free.
const THREADS_MAX: usize = 4;
/// Statements that wait at most; further callers wait to be let in.
const QUEUE_MAX: usize = 1_024;

/// The threads of one toolbox. They end when it is dropped; what they still run is interrupted.
#[derive(Debug)]
pub(crate) struct Pool {
    queue: Arc<Queue>,
    places: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Work>,
    threads: usize,
    idle: usize,
    closed: bool,
}

#[derive(Debug)]
struct Work {
    question: Question,
    given_up: Arc<AtomicBool>,
    answer: oneshot::Sender<Result<Answer, Failure>>,
    _place: OwnedSemaphorePermit,
}

impl Default for Pool {
    fn default() -> Self {
        Self { queue: Arc::default(), places: Arc::new(Semaphore::new(QUEUE_MAX)) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        state.closed = true;
        state.waiting.clear();
        drop(state);
        self.queue.news.notify_all();
    }
}

/// Gives a statement up when the call that wants it is dropped.
struct GiveUp(Arc<AtomicBool>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Pool {
    /// Asks; dropping the future interrupts the statement, and what it changed is rolled back.
    pub(crate) async fn ask(&self, question: Question) -> Result<Answer, Failure> {
        let closed = || Failure::new(Reason::SqlFailed.code(), "the tools are being closed");
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| closed())?;
        let (sender, receiver) = oneshot::channel();
        let given_up = Arc::new(AtomicBool::new(false));
        let guard = GiveUp(Arc::clone(&given_up));
        let start = {
            let mut state = self.queue.state.lock();
            state.waiting.push_back(Work { question, given_up, answer: sender, _place: place });
            let start = state.idle < state.waiting.len() && state.threads < THREADS_MAX;
            state.threads += usize::from(start);
            start
        };
        self.queue.news.notify_one();
        if start {
            let queue = Arc::clone(&self.queue);
            if let Err(error) = std::thread::Builder::new().name("sql".into()).spawn(move || work(&queue)) {
                let mut state = self.queue.state.lock();
                state.threads -= 1;
                // Others may still serve; alone nobody would.
                if state.threads == 0 {
                    state.waiting.clear();
                    return Err(Failure::new(Reason::SqlFailed.code(), format!("no thread could be started: {error}")));
                }
            }
        }
        let answer = receiver.await.map_err(|_| closed())?;
        drop(guard);
        answer
    }
}

fn work(queue: &Queue) {
    let mut connections = Connections::default();
    loop {
        let work = {
            let mut state = queue.state.lock();
            loop {
                if state.closed {
                    return;
                }
                if let Some(work) = state.waiting.pop_front() {
                    break work;
                }
                state.idle += 1;
                queue.news.wait(&mut state);
                state.idle -= 1;
            }
        };
        if work.given_up.load(Ordering::Relaxed) {
            continue;
        }
        connection::work_for(Some(Arc::clone(&work.given_up)));
        let answer = rows::answer(&mut connections, &work.question);
        connection::work_for(None);
        // Who gave up does not listen.
        let _ = work.answer.send(answer);
    }
}
