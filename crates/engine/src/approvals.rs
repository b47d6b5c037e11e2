//! Calls that wait for approval: shown, listed, voted on. Whether a vote counts is the fold's (`machine`); here it is asked
//! before the vote is recorded, and again at the very place where it came to stand, so that whoever raced and lost is told.

use crate::engine::{Engine, Inner};
use crate::fold::Steps;
use crate::inputs::Wish;
use crate::{Error, IdempotencyKey, fold};
use domain::content::media;
use domain::record::{Judged, Vote, Voted};
use domain::{ContentRef, Digest, Event, Hold, Id, Item, Record, id};
use journal::{HeldCursor, HeldRow, Page};
use machine::{CallState, Held, Run, Session, Unheard};
use std::sync::Arc;

/// A held call's whereabouts in the list of its tenant's, oldest first.
pub type ApprovalCursor = HeldCursor;

/// Bytes of a vote's reason at most.
pub const REASON_BYTES_MAX: usize = 16 * 1024;

/// A call that waits for approval, or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalView {
    /// The call.
    pub call: Id<id::Call>,
    /// Whether it still waits.
    pub status: ApprovalStatus,
    /// Its run.
    pub run: Id<id::Run>,
    /// Its session.
    pub session: Id<id::Session>,
    /// The agent that wants to make it.
    pub agent: String,
    /// The calls that opened the nested agents around it, outermost first.
    pub scope: Vec<Id<id::Call>>,
    /// The tool.
    pub tool: String,
    /// Its arguments, as the model wrote them; `None` when they were erased.
    pub arguments: Option<String>,
    /// On whose behalf it is made.
    pub requester: Id<id::Principal>,
    /// Since when it waits, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Until when it can be approved.
    pub expires_ms: u64,
    /// How many distinct principals must approve.
    pub quorum: u8,
    /// Who approved so far.
    pub approvals: Vec<Id<id::Principal>>,
    /// What an approval is bound to.
    pub binding: Digest,
    /// What waits with it.
    pub hold: Hold,
    /// Stable code of why it is held.
    pub reason: String,
    /// The policies that want it held.
    pub policies: Vec<String>,
    /// Name and digest of the pack that was asked.
    pub pack: String,
}

/// How a call stands that somebody must approve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApprovalStatus {
    /// It waits for votes.
    Waiting,
    /// Enough have approved.
    Approved,
    /// Somebody rejected it, or a policy forbids it by now.
    Rejected,
    /// The time for approving is over, or its run went on without it.
    Expired,
}

/// What somebody says of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ballot {
    /// Yes or no.
    pub vote: Vote,
    /// Why.
    pub reason: Option<String>,
    /// What the voter was shown, see [`ApprovalView::binding`]; `None`: the call as it stands.
    pub binding: Option<Digest>,
}

impl Engine {
    /// Calls of a tenant that wait for approval, oldest first, after `after`.
    pub async fn approvals(
        &self,
        tenant: &str,
        after: Option<ApprovalCursor>,
        rows_max: usize,
    ) -> Result<Page<ApprovalView, ApprovalCursor>, Error> {
        let page = self.0.parts.journal.held(&Arc::from(tenant), after, rows_max).await?;
        let mut views = Vec::with_capacity(page.rows.len());
        for row in page.rows {
            let seen = self.0.seen(row).await?;
            // It may have been decided since the list was read.
            if seen.over.is_none() {
                views.extend(self.0.show(&seen).await?);
            }
        }
        Ok(Page { rows: views, next: page.next })
    }

    /// A call that waits for approval, or did.
    pub async fn approval(&self, tenant: &str, call: Id<id::Call>) -> Result<ApprovalView, Error> {
        let row = self.0.held_call(tenant, call).await?;
        let seen = self.0.seen(row).await?;
        self.0.show(&seen).await?.ok_or(Error::NoSuchApproval { call })
    }

    /// Approves of a call or rejects it. Gives the call as it stands after the vote. [`Error::Unheard`]: the vote does not count,
    /// also when another one was quicker.
    pub async fn vote(
        &self,
        tenant: &str,
        call: Id<id::Call>,
        principal: Id<id::Principal>,
        ballot: Ballot,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<ApprovalView, Error> {
        let inner = &self.0;
        let row = inner.held_call(tenant, call).await?;
        if inner.was_taken(&row.key.tenant, row.run, idempotency).await? {
            return self.approval(tenant, call).await;
        }
        let Ballot { vote, reason, binding } = ballot;
        if let Some(reason) = &reason
            && reason.len() > REASON_BYTES_MAX
        {
            return Err(Error::MessageTooLarge { bytes: reason.len(), bytes_max: REASON_BYTES_MAX });
        }
        let mut seen = inner.seen(row).await?;
        let shown = seen.held.as_ref().map(|held| held.obligation.binding).ok_or(Unheard::NotHeld)?;
        let binding = binding.unwrap_or(shown);
        seen.weigh(principal, vote, binding, inner.parts.clock.wall_ms())?;
        let (key, run) = (seen.row.key.clone(), seen.row.run);
        let (mut contents, mut reason_ref) = (Vec::new(), None);
        if let Some(reason) = reason.filter(|reason| !reason.trim().is_empty()) {
            let (content, item) = inner.seal_text(&key, media::TEXT, reason.as_bytes()).await?;
            contents.push(item);
            reason_ref = Some(content);
        }
        let event = Event::Voted(Voted { run, call, vote, reason: reason_ref, binding });
        let Some(written) = inner.wish(key, Wish { principal, event, contents, idempotency }).await? else {
            return self.approval(tenant, call).await;
        };
        // What stood right before the vote decides whether it counts.
        seen.catch_up(inner, written.first_position).await?;
        let before = seen.over;
        let at_ms = seen.step(inner, written.first_position).await?;
        if let Some(over) = before {
            return Err(over.unheard().into());
        }
        let Some(at_ms) = at_ms else { return Err(Unheard::NotHeld.into()) };
        if let Some(held) = seen.before.take() {
            held.weigh(principal, vote, binding, at_ms)?;
        }
        inner.show(&seen).await?.ok_or(Error::NoSuchApproval { call })
    }
}

impl ApprovalStatus {
    /// Why a vote on a call that stands so does not count.
    const fn unheard(self) -> Unheard {
        match self {
            Self::Waiting | Self::Rejected => Unheard::NotHeld,
            Self::Approved => Unheard::Decided,
            Self::Expired => Unheard::Expired,
        }
    }
}

/// Where a call's arguments are.
#[derive(Clone, Debug)]
enum Asked {
    /// In a model's reply.
    Reply { items: ContentRef, index: u32 },
    /// The harness makes it itself.
    Own { tool: String, arguments: ContentRef },
}

/// What a log says of a call that was held.
pub(crate) struct Seen {
    row: HeldRow,
    state: Session,
    asked: Option<Asked>,
    judged: Option<Judged>,
    agent: String,
    scope: Vec<Id<id::Call>>,
    /// As it stood last.
    held: Option<Held>,
    /// As it stood before the last record.
    before: Option<Held>,
    /// How it ended, once it did.
    over: Option<ApprovalStatus>,
}

impl Seen {
    /// Whether a vote counts that is cast now.
    fn weigh(&self, principal: Id<id::Principal>, vote: Vote, binding: Digest, now_ms: u64) -> Result<(), Error> {
        match (self.over, &self.held) {
            (Some(over), _) => Err(over.unheard().into()),
            (None, None) => Err(Unheard::NotHeld.into()),
            (None, Some(held)) => Ok(held.weigh(principal, vote, binding, now_ms)?),
        }
    }

    /// Folds the log on, up to a position.
    async fn catch_up(&mut self, inner: &Inner, until: u64) -> Result<(), Error> {
        let key = self.row.key.clone();
        let mut steps = Steps::new(&inner.parts.journal, &key, self.state.position);
        while self.state.position < until {
            let Some(step) = steps.next().await? else { return Ok(()) };
            self.see(&step.record)?;
        }
        Ok(())
    }

    /// Folds the record at a position; gives when it was written.
    async fn step(&mut self, inner: &Inner, position: u64) -> Result<Option<u64>, Error> {
        let key = self.row.key.clone();
        let mut steps = Steps::new(&inner.parts.journal, &key, position);
        let Some(step) = steps.next().await?.filter(|_| self.state.position == position) else { return Ok(None) };
        self.before = self.held.clone();
        self.see(&step.record)?;
        Ok(Some(step.record.head.at_ms))
    }

    fn see(&mut self, record: &Record) -> Result<(), Error> {
        fold::fold_one(&mut self.state, record)?;
        let (call, run) = (self.row.call, self.row.run);
        if record.event.run() != run {
            return Ok(());
        }
        match &record.event {
            Event::Replied(body) => {
                if let Some(head) = body.calls.iter().find(|head| head.call == call) {
                    self.asked = Some(Asked::Reply { items: body.items.clone(), index: head.index });
                }
            }
            Event::CallAdded(body) if body.call == call => {
                self.asked = Some(Asked::Own { tool: body.tool.clone(), arguments: body.arguments.clone() });
            }
            Event::Judged(body) if body.call == call && body.obligation.is_some() => {
                self.judged = Some(body.clone());
            }
            _ => {}
        }
        let run = self.state.run_of(run);
        match run.and_then(|run| Some((run, &run.calls.get(&call)?.state))) {
            Some((run, CallState::Held(held))) => {
                self.scope = around(run, call);
                self.agent = agent_of(run, call);
                self.held = Some(held.clone());
                self.over = None;
            }
            _ if self.held.is_none() || self.over.is_some() => {}
            Some((_, CallState::Rejected { .. } | CallState::Denied)) => self.over = Some(ApprovalStatus::Rejected),
            Some((_, CallState::Returned { .. })) | None => self.over = Some(ApprovalStatus::Expired),
            Some(_) => self.over = Some(ApprovalStatus::Approved),
        }
        Ok(())
    }

    fn status(&self, held: &Held, now_ms: u64) -> ApprovalStatus {
        match self.over {
            Some(over) => over,
            None if held.is_approved() => ApprovalStatus::Approved,
            None if held.is_expired(now_ms) => ApprovalStatus::Expired,
            None => ApprovalStatus::Waiting,
        }
    }
}

fn agent_of(run: &Run, call: Id<id::Call>) -> String {
    let scope = run.calls.get(&call).and_then(|call| run.scopes.get(&call.scope));
    scope.map(|scope| scope.agent.clone()).unwrap_or_default()
}

/// The calls that opened the agents around a call, outermost first.
fn around(run: &Run, call: Id<id::Call>) -> Vec<Id<id::Call>> {
    let mut path = Vec::new();
    let mut at = run.calls.get(&call).and_then(|call| call.scope);
    while let Some(opened) = at {
        path.push(opened);
        at = run.calls.get(&opened).and_then(|call| call.scope);
    }
    path.reverse();
    path
}

impl Inner {
    async fn held_call(&self, tenant: &str, call: Id<id::Call>) -> Result<HeldRow, Error> {
        let row = self.parts.journal.held_call(&Arc::from(tenant), call).await?;
        row.ok_or(Error::NoSuchApproval { call })
    }

    /// What the log says of a call.
    async fn seen(&self, row: HeldRow) -> Result<Seen, Error> {
        let mut seen = Seen {
            row,
            state: Session::default(),
            asked: None,
            judged: None,
            agent: String::new(),
            scope: Vec::new(),
            held: None,
            before: None,
            over: None,
        };
        seen.catch_up(self, u64::MAX).await?;
        Ok(seen)
    }

    /// The call, for people; `None` when the log does not know it.
    async fn show(&self, seen: &Seen) -> Result<Option<ApprovalView>, Error> {
        let Some(((held, judged), asked)) = seen.held.as_ref().zip(seen.judged.as_ref()).zip(seen.asked.as_ref())
        else {
            return Ok(None);
        };
        let key = &seen.row.key;
        let (tool, arguments) = match asked {
            Asked::Own { tool, arguments } => (tool.clone(), self.text(key, arguments).await?),
            Asked::Reply { items, index } => {
                let bytes = self.parts.journal.content(key, items).await?.into_bytes();
                let items: Vec<Item> = match bytes {
                    Some(bytes) => serde_json::from_slice(&bytes).map_err(domain::record::Error::Form)?,
                    None => Vec::new(),
                };
                match items.into_iter().nth(*index as usize) {
                    Some(Item::Call { name, arguments, .. }) => (name, Some(arguments)),
                    _ => (String::new(), None),
                }
            }
        };
        let Held { obligation, since_ms, requester, approvals } = held.clone();
        Ok(Some(ApprovalView {
            call: seen.row.call,
            status: seen.status(held, self.parts.clock.wall_ms()),
            run: seen.row.run,
            session: key.session,
            agent: seen.agent.clone(),
            scope: seen.scope.clone(),
            tool,
            arguments,
            requester,
            since_ms,
            expires_ms: obligation.expires_ms,
            quorum: obligation.quorum,
            approvals,
            binding: obligation.binding,
            hold: obligation.hold,
            reason: judged.judgement.reason.clone(),
            policies: judged.judgement.policies.clone(),
            pack: judged.judgement.pack.clone(),
        }))
    }
}
