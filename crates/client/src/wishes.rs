//! One method for each thing that can be said of a run, a call or a session.

use crate::client::{json, json_headers, path_with, put_key};
use crate::{Client, Error};
use api::{
    Approval, ApprovalList, CancelRun, Checkpoint, CheckpointList, Delivery, DeliveryList, Diff, Fork, ForkSession,
    LimitChange, PostApproval, Purged, Quarantine, QuarantineSession, Replay, ResolveCall, Run, SteerRun,
};
use domain::record::When;
use domain::{Id, id};
use http::{HeaderMap, Method};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A request that changes something, once it is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Once<'a> {
    /// Makes the request safe to repeat.
    pub idempotency_key: Option<&'a str>,
}

impl Client {
    /// Asks for a run's end; gives the run as it stands.
    pub async fn cancel(&self, run: Id<id::Run>, when: When) -> Result<Run, Error> {
        self.post(&about(run, "cancel"), Some(&CancelRun { when }), Once::default()).await
    }

    /// Asks a run to begin nothing new.
    pub async fn pause(&self, run: Id<id::Run>) -> Result<Run, Error> {
        self.post(&about(run, "pause"), None::<&()>, Once::default()).await
    }

    /// Lets a run go on that was paused.
    pub async fn resume(&self, run: Id<id::Run>) -> Result<Run, Error> {
        self.post(&about(run, "resume"), None::<&()>, Once::default()).await
    }

    /// Tells the model something in the middle of a run.
    pub async fn steer(&self, run: Id<id::Run>, steer: &SteerRun, once: Once<'_>) -> Result<Run, Error> {
        self.post(&about(run, "steer"), Some(steer), once).await
    }

    /// Raises limits of a run.
    pub async fn raise(&self, run: Id<id::Run>, limits: &LimitChange, once: Once<'_>) -> Result<Run, Error> {
        self.post(&about(run, "raise"), Some(limits), once).await
    }

    /// Says what became of a call in doubt.
    pub async fn resolve(&self, run: Id<id::Run>, resolve: &ResolveCall, once: Once<'_>) -> Result<Run, Error> {
        self.post(&about(run, "resolve"), Some(resolve), once).await
    }

    /// Calls that wait for approval, oldest first.
    pub async fn approvals(&self, cursor: Option<&str>, limit: Option<usize>) -> Result<ApprovalList, Error> {
        let limit = limit.map(|limit| limit.to_string());
        self.get(&path_with("/approvals", &[("cursor", cursor), ("limit", limit.as_deref())])).await
    }

    /// A call that waits for approval.
    pub async fn approval(&self, call: Id<id::Call>) -> Result<Approval, Error> {
        self.get(&api::approval_path(call)).await
    }

    /// Votes on a call that waits for approval.
    pub async fn vote(&self, call: Id<id::Call>, vote: &PostApproval, once: Once<'_>) -> Result<Approval, Error> {
        self.post(&api::approval_path(call), Some(vote), once).await
    }

    /// Replays a run on its record.
    pub async fn replay(&self, run: Id<id::Run>) -> Result<Replay, Error> {
        self.get(&about(run, "replay")).await
    }

    /// How two runs differ.
    pub async fn diff(&self, run: Id<id::Run>, other: Id<id::Run>) -> Result<Diff, Error> {
        self.get(&format!("{}/{other}", about(run, "diff"))).await
    }

    /// What others were told of a run.
    pub async fn deliveries(&self, run: Id<id::Run>) -> Result<Vec<Delivery>, Error> {
        let list: DeliveryList = self.get(&about(run, "deliveries")).await?;
        Ok(list.deliveries)
    }

    /// The places from which a session can be forked.
    pub async fn checkpoints(&self, session: &str) -> Result<Vec<Checkpoint>, Error> {
        let list: CheckpointList = self.get(&format!("{}/checkpoints", api::session_path(session))).await?;
        Ok(list.checkpoints)
    }

    /// Goes on from a checkpoint in a new session.
    pub async fn fork(&self, session: &str, fork: &ForkSession, once: Once<'_>) -> Result<Fork, Error> {
        self.post(&format!("{}/fork", api::session_path(session)), Some(fork), once).await
    }

    /// Puts a session aside.
    pub async fn quarantine(&self, session: &str, reason: &str) -> Result<Quarantine, Error> {
        let path = format!("{}/quarantine", api::session_path(session));
        self.post(&path, Some(&QuarantineSession { reason: reason.to_owned() }), Once::default()).await
    }

    /// Takes a session out of quarantine.
    pub async fn release(&self, session: &str) -> Result<Quarantine, Error> {
        self.post(&format!("{}/release", api::session_path(session)), None::<&()>, Once::default()).await
    }

    /// Deletes a session wholly.
    pub async fn purge(&self, session: &str) -> Result<Purged, Error> {
        self.read(self.request(Method::DELETE, api::session_path(session), HeaderMap::new())).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Option<&impl Serialize>,
        once: Once<'_>,
    ) -> Result<T, Error> {
        let mut headers = if body.is_some() { json_headers() } else { HeaderMap::new() };
        put_key(&mut headers, once.idempotency_key)?;
        let mut request = self.request(Method::POST, path.to_owned(), headers);
        if let Some(body) = body {
            request.body = json(body)?;
        }
        self.read(request).await
    }
}

fn about(run: Id<id::Run>, what: &str) -> String {
    format!("{}/{what}", api::run_path(run))
}
