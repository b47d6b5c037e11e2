//! Inputs from outside: a message that starts a run.

use crate::dispatch::Seed;
use crate::engine::{Engine, Inner};
use crate::{Callback, Error, LimitChange};
use domain::content::media;
use domain::record::{Draft, Save, Submitted};
use domain::{Digest, Event, Id, id};
use journal::{Append, Appended, Fence, Idempotency, PreparedDraft, SessionKey};
use machine::Stamp;
use std::sync::Arc;

/// Bytes of a message at most.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// A run that somebody asks for.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The tenant.
    pub tenant: String,
    /// Who asks.
    pub principal: Id<id::Principal>,
    /// The session it belongs to.
    pub session: SessionName,
    /// The agent; `None`: the session's last, else the project's default.
    pub agent: Option<String>,
    /// What the user says.
    pub message: String,
    /// What to keep besides the record.
    pub save: Save,
    /// Lower limits than the agent's.
    pub limits: LimitChange,
    /// Where the client wants to be told of the run.
    pub callback: Option<Callback>,
    /// Key and body digest of an idempotent request.
    pub idempotency: Option<IdempotencyKey>,
}

/// An idempotent request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Digest of the client's key with tenant, principal and route.
    pub key: Digest,
    /// Digest of the body.
    pub body: Digest,
}

/// Which session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionName {
    /// A new one.
    New,
    /// The one with this id.
    Id(Id<id::Session>),
    /// The one that this name of the client's leads to; made when it is not there.
    Named(String),
}

impl SessionName {
    /// Bytes of a client's name at most.
    pub const NAME_BYTES_MAX: usize = 128;

    /// Reads what a client wrote: an id, or a name of its own of printable characters without space.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(id) = text.parse() {
            return Some(Self::Id(id));
        }
        let fine =
            !text.is_empty() && text.len() <= Self::NAME_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
        fine.then(|| Self::Named(text.to_owned()))
    }
}

/// A run that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The run.
    pub run: Id<id::Run>,
    /// Its session.
    pub session: Id<id::Session>,
    /// Whether the same request had been taken before.
    pub existing: bool,
}

/// How long an idempotency key is remembered.
pub(crate) const KEY_MS: u64 = 25 * 60 * 60 * 1_000;

impl Engine {
    /// Takes a run. When this returns, the run is durable and will be driven, whatever happens to this process.
    pub async fn submit(&self, submission: Submission) -> Result<Ticket, Error> {
        let inner = &self.0;
        check(inner, &submission)?;
        let Submission { tenant, principal, session, agent, message, save, limits, callback, idempotency } = submission;
        let callback = callback.map(|callback| inner.vetted(callback)).transpose()?;
        let (session, name, may_be_known) = match session {
            SessionName::New => (inner.id(), None, false),
            SessionName::Id(id) => (id, None, true),
            SessionName::Named(name) => (Id::from_name(&tenant, &name), Some(name), true),
        };
        let key = SessionKey::new(tenant.as_str(), session);
        let known = if may_be_known { inner.parts.journal.session(&key).await? } else { None };
        let agent = agent.as_deref().or(known.as_ref().map(|session| session.agent.as_str()));
        let mut closure = (inner.parts.catalog)().agent(agent)?;
        if known.is_some() {
            closure = inner.with_chosen(closure, &inner.chosen(&key).await?)?;
        }
        let limits = limits.lowered(closure.agent.limits)?;
        inner.ready(&closure).await?;
        let sealer = inner.parts.journal.sealer(&key).await?;
        let (message_ref, item) = sealer.seal(media::TEXT, message.as_bytes())?;
        let mut append = Append::new(key.clone(), Fence::Input(None)).content(item);
        let mut session_name = None;
        if let (Some(name), None) = (&name, &known) {
            let (name, item) = sealer.seal(media::TEXT, name.as_bytes())?;
            session_name = Some(name);
            append = append.content(item);
        }
        let has_callback = callback.is_some();
        let mut callback_ref = None;
        if let Some(callback) = callback {
            let (content, item) = sealer.seal(media::JSON, &callback)?;
            callback_ref = Some(content);
            append = append.content(item);
        }
        let run = inner.id();
        let at_ms = inner.parts.clock.wall_ms();
        if let Some(IdempotencyKey { key, body }) = idempotency {
            append.fence = Fence::Input(Some(Idempotency { key, body, run, expires_at_ms: at_ms + KEY_MS }));
        }
        let event = Event::Submitted(Submitted {
            run,
            agent: closure.agent.name.clone(),
            closure: closure.digest(),
            message: Some(message_ref.clone()),
            session_name,
            idempotency: idempotency.map(|idempotency| idempotency.key),
            limits,
            save,
            callback: callback_ref,
        });
        let draft = Draft { at_ms, principal, event };
        let prepared = PreparedDraft::new(&draft);
        // One with a callback is announced by its record.
        append.drafts.push(if has_callback { prepared } else { inner.announced(prepared, run, at_ms) });
        let stamp = Stamp { at_ms, principal };
        let seed = Box::new(Seed { stamp, event: draft.event, message: (message_ref, message) });
        finish(inner.clone().take(append, seed)).await
    }
}

impl Inner {
    /// Makes a run durable and has it driven.
    async fn take(self: Arc<Self>, append: Append, seed: Box<Seed>) -> Result<Ticket, Error> {
        let key = append.key.clone();
        let (run, session) = (seed.event.run(), key.session);
        stdx::points::reach("submit.before_append");
        match self.parts.journal.append(append).await {
            Ok(Appended::Existing(existing)) => {
                Ok(Ticket { run: existing.run, session: existing.session, existing: true })
            }
            Ok(Appended::Written(written)) => {
                stdx::points::reach("submit.after_append");
                self.tally.submitted();
                let seed = (written.first_position == 0).then_some(seed);
                self.clone().start(self.dispatch.grown(&key, false, seed));
                Ok(Ticket { run, session, existing: false })
            }
            Err(journal::Error::IdempotencyConflict { .. }) => Err(Error::IdempotencyConflict),
            Err(error) => Err(error.into()),
        }
    }
}

/// Runs what must not stop half-way when its caller goes away: an input that is durable but that nobody was told of would lie
/// until the next start.
pub(crate) async fn finish<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down.
            Err(_) => Err(Error::Draining),
        },
    }
}

fn check(inner: &Inner, submission: &Submission) -> Result<(), Error> {
    if inner.dispatch.is_draining() {
        return Err(Error::Draining);
    }
    let (_, waiting) = inner.dispatch.counts();
    if waiting >= inner.parts.limits.waiting_max {
        return Err(Error::Busy { waiting, retry_after_ms: 1_000 });
    }
    check_message(&submission.message)
}

/// Refuses a message that says nothing, or more than is taken.
pub(crate) fn check_message(message: &str) -> Result<(), Error> {
    let bytes = message.len();
    if message.trim().is_empty() {
        return Err(Error::MessageEmpty);
    }
    if bytes > MESSAGE_BYTES_MAX {
        return Err(Error::MessageTooLarge { bytes, bytes_max: MESSAGE_BYTES_MAX });
    }
    Ok(())
}
