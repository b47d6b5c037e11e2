//! Runs and sessions as they are shown outside.

use crate::engine::{Engine, Inner};
use crate::totals::Totals;
use crate::{Error, fold, prompt};
use domain::record::{Forked, Submitted};
use domain::{ContentRef, Cost, Event, Failure, Id, Item, RunStatus, Usage, Wait, id};
use journal::query::SessionCursor;
use journal::{Page, RunFilter, RunRow, SessionKey, SessionRow};
use std::sync::Arc;
use std::time::Duration;

/// A run.
#[derive(Clone, Debug)]
pub struct RunView {
    /// Its id.
    pub run: Id<id::Run>,
    /// Its session.
    pub session: Id<id::Session>,
    /// The name that the client gave the session.
    pub session_name: Option<String>,
    /// The agent.
    pub agent: String,
    /// Who asked.
    pub principal: Id<id::Principal>,
    /// How it stands.
    pub status: RunStatus,
    /// What it waits for.
    pub waits_for: Option<Wait>,
    /// When it goes on by itself, in milliseconds since the Unix epoch.
    pub waits_until_ms: Option<u64>,
    /// The calls that wait for approval, also those of nested agents; lists leave them out.
    pub approvals: Vec<Id<id::Call>>,
    /// The calls of which somebody must say what became; lists leave them out.
    pub in_doubt: Vec<Id<id::Call>>,
    /// The reply, once there is one; `None` too when it was erased.
    pub reply: Option<String>,
    /// Why it did not complete.
    pub failure: Option<Failure>,
    /// Whether a sandbox was used.
    pub used_sandbox: bool,
    /// Turns taken.
    pub turns: u32,
    /// Calls made.
    pub tool_calls: u32,
    /// Tokens used.
    pub usage: Usage,
    /// What they cost.
    pub cost: Cost,
    /// How often it was tried: once, and once more for each time that something in it failed for a passing reason, or that it was
    /// taken up after a process that was lost. Lists leave it out of runs that ended.
    pub attempts: Option<u32>,
    /// For how long it has made no progress, when it is driven by this process.
    pub no_progress_ms: Option<u64>,
    /// What it left behind.
    pub artifacts: Vec<ArtifactView>,
    /// When it was asked for, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When it ended.
    pub finished_ms: Option<u64>,
}

/// A kept file.
#[derive(Clone, Debug)]
pub struct ArtifactView {
    /// Its id.
    pub artifact: Id<id::Artifact>,
    /// Its file name; empty when it was erased.
    pub name: String,
    /// Its media type.
    pub media: String,
    /// Its length.
    pub bytes: u64,
    /// Its place among the objects.
    pub object: String,
}

/// A session.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// Its id.
    pub session: Id<id::Session>,
    /// The name that the client gave it.
    pub name: Option<String>,
    /// Its last run's agent.
    pub agent: String,
    /// How many runs it has had.
    pub runs: u64,
    /// Its last run.
    pub last_run: Id<id::Run>,
    /// When it began.
    pub created_ms: u64,
    /// When its last run was asked for.
    pub updated_ms: u64,
    /// The next position of its log.
    pub next_position: u64,
    /// For how long it has made no progress, when it is driven by this process.
    pub no_progress_ms: Option<u64>,
}

impl Engine {
    /// A run as it stands.
    pub async fn run(&self, tenant: &str, run: Id<id::Run>) -> Result<RunView, Error> {
        self.0.view(tenant, run).await
    }

    /// A run at its end, or when it waits for somebody, or as it stands after `at_most`.
    pub async fn wait(&self, tenant: &str, run: Id<id::Run>, at_most: Duration) -> Result<RunView, Error> {
        let mut end = self.0.ends.subscribe(run);
        let row = self.0.row(tenant, run).await?;
        self.0.ends.found(run, &SessionKey::new(tenant, row.session));
        if row.status.is_end() || self.0.rests(&row).await? {
            return self.0.view_of(row).await;
        }
        // What is waited for is let go before the next await, so that this future can move between threads.
        let ended = match tokio::time::timeout(at_most, end.wait_for(Option::is_some)).await {
            Ok(Ok(view)) => view.clone(),
            Ok(Err(_)) | Err(_) => None,
        };
        match ended {
            Some(view) => Ok(RunView::clone(&view)),
            None => self.0.view(tenant, run).await,
        }
    }

    /// Runs, newest first; without their replies.
    pub async fn runs(
        &self,
        tenant: &str,
        filter: RunFilter,
        before: Option<Id<id::Run>>,
        rows_max: usize,
    ) -> Result<Page<RunView, Id<id::Run>>, Error> {
        let page = self.0.parts.journal.runs(&Arc::from(tenant), filter, before, rows_max).await?;
        let mut rows = Vec::with_capacity(page.rows.len());
        for row in &page.rows {
            let mut view = RunView::of(row);
            self.0.so_far(row, &mut view).await?;
            rows.push(view);
        }
        Ok(Page { rows, next: page.next })
    }

    /// A session.
    pub async fn session(&self, tenant: &str, session: Id<id::Session>) -> Result<SessionView, Error> {
        let key = SessionKey::new(tenant, session);
        let row = self.0.parts.journal.session(&key).await?.ok_or(Error::NoSuchSession { session })?;
        let name = self.0.session_name(&key).await?;
        Ok(SessionView { name, ..self.0.session_view(&row) })
    }

    /// Sessions, newest first; without their names.
    pub async fn sessions(
        &self,
        tenant: &str,
        before: Option<SessionCursor>,
        rows_max: usize,
    ) -> Result<Page<SessionView, SessionCursor>, Error> {
        let page = self.0.parts.journal.sessions(&Arc::from(tenant), before, rows_max).await?;
        Ok(Page { rows: page.rows.iter().map(|row| self.0.session_view(row)).collect(), next: page.next })
    }
}

impl Inner {
    pub(crate) async fn row(&self, tenant: &str, run: Id<id::Run>) -> Result<RunRow, Error> {
        self.parts.journal.run(&Arc::from(tenant), run).await?.ok_or(Error::NoSuchRun { run })
    }

    pub(crate) async fn view(&self, tenant: &str, run: Id<id::Run>) -> Result<RunView, Error> {
        let row = self.row(tenant, run).await?;
        self.view_of(row).await
    }

    async fn view_of(&self, row: RunRow) -> Result<RunView, Error> {
        let key = SessionKey::new(row.tenant.clone(), row.session);
        let mut view = RunView::of(&row);
        view.session_name = self.session_name(&key).await?;
        self.so_far(&row, &mut view).await?;
        if !row.status.is_end() {
            let held = self.parts.journal.held_of(&row.tenant, row.run).await?;
            view.approvals = held.into_iter().map(|held| held.call).collect();
        }
        if row.status == RunStatus::NeedsResolution {
            view.in_doubt = self.in_doubt(&key, row.run).await?;
        }
        if let Some(position) = row.finished_position {
            view.attempts = Some(self.attempts(&row).await?);
            let records = self.parts.journal.records(&key, position, 1).await?;
            let record = records.first().map(journal::StoredRecord::decode).transpose()?;
            if let Some(Event::Finished(body)) = record.map(|record| record.event) {
                view.failure = body.failure;
                if let Some(content) = &body.reply {
                    view.reply = self.reply_of(&key, content).await?;
                }
            }
            for artifact in self.parts.journal.artifacts(&row.tenant, row.run).await? {
                let name = self.text(&key, &artifact.name).await?.unwrap_or_default();
                view.artifacts.push(ArtifactView::of(&artifact, name));
            }
        }
        Ok(view)
    }

    /// Adds to a run that is under way what it has come to so far: the index tells that of runs that ended.
    async fn so_far(&self, row: &RunRow, view: &mut RunView) -> Result<(), Error> {
        if row.status.is_end() || row.status == RunStatus::Queued {
            return Ok(());
        }
        if let Some(totals) = self.totals(row).await? {
            let Totals { turns, tool_calls, usage, cost, used_sandbox, attempts, .. } = totals;
            (view.turns, view.tool_calls, view.usage, view.cost) = (turns, tool_calls, usage, cost);
            (view.used_sandbox, view.attempts) = (used_sandbox, attempts);
        }
        if row.status == RunStatus::Running {
            view.no_progress_ms = self.no_progress_ms(&SessionKey::new(row.tenant.clone(), row.session));
        }
        Ok(())
    }

    /// For how long a session has made no progress, when it is driven here.
    fn no_progress_ms(&self, key: &SessionKey) -> Option<u64> {
        self.pulses.of(key).map(|pulse| pulse.silent_ms())
    }

    fn session_view(&self, row: &SessionRow) -> SessionView {
        let no_progress_ms = self.no_progress_ms(&SessionKey::new(row.tenant.clone(), row.session));
        SessionView { no_progress_ms, ..SessionView::of(row) }
    }

    /// Whether a run waits for somebody, and what it waits for has not come yet.
    async fn rests(&self, row: &RunRow) -> Result<bool, Error> {
        if !RunView::of(row).rests() {
            return Ok(false);
        }
        let mut state = machine::Session::default();
        let key = SessionKey::new(row.tenant.clone(), row.session);
        fold::catch_up(&self.parts.journal, &key, &mut state).await?;
        Ok(state.run.as_ref().is_some_and(|run| run.id == row.run)
            && state.wanted(self.parts.clock.wall_ms()).is_empty())
    }

    /// The calls of a run of which somebody must say what became.
    async fn in_doubt(&self, key: &SessionKey, run: Id<id::Run>) -> Result<Vec<Id<id::Call>>, Error> {
        let mut state = machine::Session::default();
        fold::catch_up(&self.parts.journal, key, &mut state).await?;
        let calls = state.run_of(run).into_iter().flat_map(|run| &run.calls);
        let in_doubt = |call: &machine::Call| matches!(call.state, machine::CallState::InDoubt { .. });
        Ok(calls.filter(|(_, call)| in_doubt(call)).map(|(id, _)| *id).collect())
    }

    /// The text of a reply; `None` when it was erased.
    pub(crate) async fn reply_of(&self, key: &SessionKey, content: &ContentRef) -> Result<Option<String>, Error> {
        let Some(bytes) = self.parts.journal.content(key, content).await?.into_bytes() else { return Ok(None) };
        let items: Vec<Arc<Item>> = serde_json::from_slice(&bytes).map_err(domain::record::Error::Form)?;
        Ok(Some(prompt::text_of(&items)))
    }

    pub(crate) async fn text(&self, key: &SessionKey, content: &ContentRef) -> Result<Option<String>, Error> {
        let bytes = self.parts.journal.content(key, content).await?.into_bytes();
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    async fn session_name(&self, key: &SessionKey) -> Result<Option<String>, Error> {
        let records = self.parts.journal.records(key, 0, 1).await?;
        let record = records.first().map(journal::StoredRecord::decode).transpose()?;
        match record.map(|record| record.event) {
            Some(
                Event::Submitted(Submitted { session_name: Some(name), .. })
                | Event::Forked(Forked { session_name: Some(name), .. }),
            ) => self.text(key, &name).await,
            _ => Ok(None),
        }
    }
}

impl RunView {
    fn of(row: &RunRow) -> Self {
        Self {
            run: row.run,
            session: row.session,
            session_name: None,
            agent: row.agent.clone(),
            principal: row.principal,
            status: row.status,
            waits_for: row.waits_for,
            waits_until_ms: row.waits_until_ms,
            approvals: Vec::new(),
            in_doubt: Vec::new(),
            reply: None,
            failure: None,
            used_sandbox: row.used_sandbox,
            turns: row.turns,
            tool_calls: row.tool_calls,
            usage: row.usage,
            cost: row.cost,
            attempts: None,
            no_progress_ms: None,
            artifacts: Vec::new(),
            created_ms: row.created_ms,
            finished_ms: row.finished_ms,
        }
    }
}

impl SessionView {
    fn of(row: &SessionRow) -> Self {
        Self {
            session: row.session,
            name: None,
            agent: row.agent.clone(),
            runs: row.runs,
            last_run: row.last_run,
            created_ms: row.created_ms,
            updated_ms: row.updated_ms,
            next_position: row.next_position,
            no_progress_ms: None,
        }
    }
}
