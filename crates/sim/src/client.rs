//! Clients that ask at random: for runs, again for the same run, for its end, for how it stands, for its records as they come.
//! Some go away in the middle of a request.

use crate::TENANT;
use crate::ledger::{Ledger, Reading, Request};
use crate::power::Power;
use crate::project::{AGENTS, PLANS};
use crate::wishes::Operator;
use domain::record::Save;
use domain::{Digest, Id};
use engine::{Engine, Error, IdempotencyKey, LimitChange, SessionName, Submission};
use journal::SessionKey;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use stdx::Random;

/// Sessions that have names.
const NAMES: u64 = 4;
/// Bytes of a long message: more than a content item keeps in its row.
const LONG_BYTES: usize = 70_000;

/// A client.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) number: u64,
    pub(crate) engine: Engine,
    pub(crate) random: Random,
    pub(crate) power: Power,
    pub(crate) ledger: Ledger,
    /// Whether the disk fails in this life, so that a request may be answered with that.
    pub(crate) is_troubled: bool,
}

impl Client {
    /// Asks so many times.
    pub(crate) async fn live(self, requests: u64) {
        for _ in 0..requests {
            tokio::time::sleep(Duration::from_millis(self.random.below(400))).await;
            match self.random.below(14) {
                0..=5 => {
                    let request = self.request();
                    self.ledger.ask(request.clone());
                    self.submit(request).await;
                }
                6 | 7 => {
                    if let Some(request) = self.ledger.earlier(&self.random) {
                        self.submit(request).await;
                    }
                }
                8..=10 => self.operator().wish().await,
                11 => self.look().await,
                _ => self.follow().await,
            }
        }
    }

    fn request(&self) -> Request {
        let random = &self.random;
        let session = match random.below(3) {
            0 => SessionName::New,
            1 => SessionName::Named(format!("room-{}", random.below(NAMES))),
            _ => self.ledger.some(random).map_or(SessionName::New, |ticket| SessionName::Id(ticket.session)),
        };
        let padding = if random.below(20) == 0 { "x".repeat(LONG_BYTES) } else { String::new() };
        let message = format!("plan-{} {}{padding}", random.below(PLANS), random.below(1_000));
        let agent = usize::try_from(random.below(AGENTS.len() as u64 + 1)).unwrap_or(0);
        let agent = AGENTS.get(agent).map(|(name, _)| *name);
        let key = (random.below(10) < 7).then(|| Digest(random.bytes()));
        Request { client: self.number, message, session, agent, save_reply: random.below(5) == 0, key }
    }

    async fn submit(&self, request: Request) {
        let body = Digest::of_parts(&[request.message.as_bytes()]);
        let submission = Submission {
            tenant: TENANT.into(),
            principal: Id::from_name(TENANT, &format!("client-{}", request.client)),
            session: request.session.clone(),
            agent: request.agent.map(str::to_owned),
            message: request.message.clone(),
            save: if request.save_reply { Save::Reply } else { Save::Declared },
            limits: LimitChange::default(),
            callback: None,
            idempotency: request.key.map(|key| IdempotencyKey { key, body }),
        };
        let asked = self.engine.submit(submission);
        let answer = match self.random.below(6) {
            0 => give_up_after(self.random.below(6), asked).await,
            _ => Some(asked.await),
        };
        // An answer that comes when the power is off reaches nobody.
        if self.power.is_off() {
            return;
        }
        match answer {
            Some(Ok(ticket)) => self.ledger.answered(&request, ticket),
            Some(Err(error)) => self.refused("submit", &error),
            None => {}
        }
    }

    fn operator(&self) -> Operator {
        Operator {
            engine: self.engine.clone(),
            random: self.random.clone(),
            power: self.power.clone(),
            ledger: self.ledger.clone(),
            is_troubled: self.is_troubled,
        }
    }

    async fn look(&self) {
        let Some(ticket) = self.ledger.some(&self.random) else { return };
        let at_most = Duration::from_millis(self.random.below(3_000));
        let answer = self.engine.wait(TENANT, ticket.run, at_most).await;
        match answer {
            _ if self.power.is_off() => {}
            Ok(view) if view.session == ticket.session => {}
            Ok(view) => self.ledger.wrong(format!("{} is shown in {}", ticket.run, view.session)),
            Err(error) => self.refused("wait", &error),
        }
    }

    /// Follows a session's log from somewhere on, with interruptions.
    async fn follow(&self) {
        let Some(ticket) = self.ledger.some(&self.random) else { return };
        let key = SessionKey::new(TENANT, ticket.session);
        let from = self.random.below(4);
        let mut reading = Reading { session: ticket.session, from, hashes: Vec::new() };
        for _ in 0..=self.random.below(3) {
            // Subscribed first, read then: nothing is missed.
            let Some(mut hints) = self.engine.journal().subscribe(&key) else { break };
            let patience = Duration::from_millis(self.random.below(1_500));
            let read = tokio::time::timeout(patience, self.read_on(&key, &mut reading, &mut hints));
            // A reader that was interrupted goes on behind what it has.
            let _ = read.await;
        }
        if !self.power.is_off() {
            self.ledger.read(reading);
        }
    }

    async fn read_on(&self, key: &SessionKey, reading: &mut Reading, hints: &mut journal::Hints) {
        loop {
            let next = reading.from + reading.hashes.len() as u64;
            let rows_max = 1 + usize::try_from(self.random.below(4)).unwrap_or(0);
            let Ok(records) = self.engine.journal().records(key, next, rows_max).await else { return };
            for (record, position) in records.iter().zip(next..) {
                if record.position != position {
                    self.ledger
                        .wrong(format!("a reader wanted {position} of {} and got {}", key.session, record.position));
                }
                reading.hashes.push(record.hash);
            }
            if records.is_empty() && hints.next().await.is_none() {
                return;
            }
        }
    }

    fn refused(&self, what: &str, error: &Error) {
        let may_be = match error {
            Error::Busy { .. } | Error::Draining => true,
            Error::Journal(error) => self.is_troubled && !matches!(error, journal::Error::Corrupt { .. }),
            Error::Objects { .. } => self.is_troubled,
            _ => false,
        };
        if !may_be {
            self.ledger.wrong(format!("{what} was refused: {}: {error}", error.code()));
        }
    }
}

/// Goes away when the future was polled so many times and has no answer.
async fn give_up_after<F: Future>(polls: u64, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}
