//! An event stream that comes back by itself: after a cut it goes on behind the last record it gave.

use crate::sse::{Message, Parser};
use crate::transport::Body;
use crate::{Client, Error};
use api::{Event, Happened};
use domain::{Id, id};
use futures::Stream;
use std::collections::VecDeque;
use std::time::Duration;
use stdx::{Backoff, Random};

/// How often, and how soon, a stream is opened again before its reader is told.
const BACKOFF: Backoff = Backoff { first_ms: 100, wait_ms_max: 5_000, attempts_max: 8 };

/// What to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Follow {
    /// One run; the stream ends with it.
    Run(Id<id::Run>),
    /// A session, by its id or the client's name for it; the stream goes on.
    Session(String),
}

impl Follow {
    pub(crate) fn path(&self) -> String {
        let of = match self {
            Self::Run(run) => api::run_path(*run),
            Self::Session(session) => api::session_path(session),
        };
        format!("{of}/events")
    }
}

/// Events of a run or a session, in order. Records come without a gap and never twice; deltas may be lost.
#[derive(Debug)]
pub struct Events {
    client: Client,
    follow: Follow,
    after: Option<u64>,
    open: Option<(Body, Parser)>,
    ready: VecDeque<Message>,
    failures: u32,
    random: Random,
    ended: bool,
}

impl Events {
    pub(crate) fn new(client: Client, follow: Follow, after: Option<u64>) -> Self {
        let (open, ready) = (None, VecDeque::new());
        Self { client, follow, after, open, ready, failures: 0, random: Random::system(), ended: false }
    }

    /// The next event. `None` after a run's `finished`; an error ends the stream too, once trying again did not help.
    pub async fn next(&mut self) -> Option<Result<Event, Error>> {
        while !self.ended {
            let step = match self.ready.pop_front() {
                Some(message) => self.take(message),
                None => Box::pin(self.more()).await.map(|()| None),
            };
            match step {
                Ok(None) => {}
                Ok(Some(event)) => return Some(Ok(event)),
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }

    /// The events as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<Event, Error>> + Send {
        futures::stream::unfold(self, |mut events| async move {
            let next = events.next().await?;
            Some((next, events))
        })
    }

    fn take(&mut self, message: Message) -> Result<Option<Event>, Error> {
        let malformed = |detail: String| Error::Malformed { what: "an event", detail };
        let Some(event) = Event::parse(&message.name, &message.data).map_err(|error| malformed(error.to_string()))?
        else {
            return Ok(None);
        };
        if let Event::Record(record) = &event {
            if self.after.is_some_and(|after| record.position <= after) {
                return Ok(None);
            }
            self.after = Some(record.position);
            self.ended = matches!((&self.follow, &record.happened), (Follow::Run(_), Happened::Finished { .. }));
        }
        Ok(Some(event))
    }

    /// Reads on, or opens the stream again.
    async fn more(&mut self) -> Result<(), Error> {
        let cut = match &mut self.open {
            Some((body, parser)) => match body.chunk().await {
                Ok(Some(bytes)) => {
                    // What comes after the greeting, a heartbeat at least, shows that the service holds its streams open;
                    // one that dies after each greeting must not be asked for ever.
                    if parser.has_begun() {
                        self.failures = 0;
                    }
                    return parser.feed(&bytes, &mut self.ready);
                }
                Ok(None) => None,
                Err(error) => Some(error),
            },
            None => match self.client.open(&self.follow, self.after).await {
                // All was told: the run had ended before the last cut.
                Ok(answer) if answer.status == 204 => {
                    self.ended = true;
                    return Ok(());
                }
                Ok(answer) => {
                    self.open = Some((answer.body, Parser::default()));
                    return Ok(());
                }
                Err(error) => Some(error),
            },
        };
        self.open = None;
        self.failures += 1;
        let error = cut.unwrap_or(Error::Malformed { what: "the stream", detail: "it ends before its end".into() });
        let passing = error.is_passing() || matches!(error, Error::Malformed { what: "the stream", .. });
        match BACKOFF.after(self.failures, None, &self.random) {
            Some(wait) if passing => {
                tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
                Ok(())
            }
            _ => Err(error),
        }
    }
}
