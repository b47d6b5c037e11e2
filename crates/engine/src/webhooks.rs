//! Tells others what happens to runs: the webhooks of the project, and a run's own callback. What is to be told is written with
//! the record that it tells of (the journal's outbox), so that no crash loses it. It is told at least once, under an id that
//! stays the same, signed, and tried again for a day.

use crate::Error;
use crate::engine::{Engine, Inner};
use catalog::WEBHOOK_EVENTS_DEFAULT;
use domain::{Digest, Event, Id, id};
use futures::StreamExt;
use journal::waiting::TOLD_KINDS;
use journal::{Change, OutboxRow, PreparedDraft, SessionKey, StoredRecord};
use net::{HeaderName, HeaderValue, Method, Origin, Request, Timeouts, Url};
use ring::hmac;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use stdx::Backoff;
use tokio::sync::watch;

/// How often it is looked whether there is something to tell.
const LOOK_MS: u64 = 1_000;
/// What is taken up at once, and how many are told at one time.
const PAGE_ROWS: usize = 64;
const AT_ONCE_MAX: usize = 8;
/// How long whoever has taken a telling up keeps it from others.
const CLAIM_MS: u64 = 60_000;
/// Waits between attempts, and how long it is tried in all.
const RETRY: Backoff = Backoff { first_ms: 1_000, wait_ms_max: 3_600_000, attempts_max: 40 };
const RETRY_TOTAL_MS: u64 = 24 * 60 * 60 * 1_000;
const TIMEOUTS: Timeouts = Timeouts { first_byte_ms: 10_000, idle_ms: 5_000, total_ms: 15_000 };
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
const URL_BYTES_MAX: usize = 2_048;
/// The secret that signs what is told to callbacks.
const CALLBACK_SECRET: &str = "${secret.CALLBACK_SECRET}";
/// The target of a run's own callback.
const CALLBACK: &str = "callback";

/// Where a client wants to be told of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Callback {
    /// The address.
    pub url: String,
    /// The kinds of records it wants to hear of, some of `submitted`, `parked`, `resumed`, `in_doubt`, `artifact_saved`,
    /// `finished`; none: `parked`, `in_doubt` and `finished`.
    pub events: Vec<String>,
}

/// Something that is told, or was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryView {
    /// Its id, the same for every attempt.
    pub delivery_id: String,
    /// The address, without its query.
    pub url: String,
    /// The kind of the record that it tells of.
    pub event: String,
    /// That record's position.
    pub position: u64,
    /// How it stands.
    pub status: DeliveryStatus,
    /// How often it was tried.
    pub attempts: u32,
    /// The HTTP status of the last answer.
    pub answered: Option<u16>,
    /// Stable code of what went wrong the last time.
    pub code: Option<String>,
    /// When it is tried next, in milliseconds since the Unix epoch.
    pub next_ms: Option<u64>,
}

/// How a delivery stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryStatus {
    /// It is tried, or tried again.
    #[default]
    Pending,
    /// The other side has it.
    Delivered,
    /// It was tried for as long as it may be, or can't be told.
    Failed,
}

/// The state of a row in the outbox.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct State {
    url: String,
    status: DeliveryStatus,
    attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answered: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<String>,
}

/// Whom something is told.
struct Target {
    name: String,
    url: Url,
    /// What it is signed with.
    secret: String,
    origin: Origin,
    events: Vec<String>,
}

impl Target {
    fn shown_url(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        url.into()
    }
}

/// What an attempt came to.
enum Told {
    Yes(u16),
    /// It may be taken another time.
    NotNow(Untold),
    /// It never will.
    Never(Untold),
}

/// Why something was not told.
enum Untold {
    /// The other side answered otherwise.
    Answered(u16),
    /// It could not be asked.
    Unreached(net::Error),
    /// It is not declared any more.
    Gone,
    /// What was to be told was deleted.
    Deleted,
}

impl Untold {
    /// Stable code, with a page under `docs/errors/`.
    const fn code(&self) -> &'static str {
        match self {
            Self::Answered(_) => "http_status",
            Self::Unreached(error) => error.code(),
            Self::Gone => "webhook_gone",
            Self::Deleted => "session_not_found",
        }
    }

    const fn answered(&self) -> Option<u16> {
        match self {
            Self::Answered(status) => Some(*status),
            Self::Unreached(_) | Self::Gone | Self::Deleted => None,
        }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    at_ms: u64,
    tenant: &'a str,
    session_id: Id<id::Session>,
    run_id: Id<id::Run>,
    position: u64,
    /// The record's body: it holds no content.
    data: &'a serde_json::value::RawValue,
}

impl Engine {
    /// What was, or is to be, told of a run, in order.
    pub async fn deliveries(&self, tenant: &str, run: Id<id::Run>) -> Result<Vec<DeliveryView>, Error> {
        let row = self.0.row(tenant, run).await?;
        let rows = self.0.parts.journal.outbox_of(&row.tenant, run).await?;
        Ok(rows.iter().filter(|row| !row.target.is_empty()).map(view).collect())
    }
}

fn view(row: &OutboxRow) -> DeliveryView {
    let State { url, status, attempts, answered, code } = state_of(row);
    DeliveryView {
        delivery_id: delivery_id(row),
        url,
        event: row.kind.clone(),
        position: row.position,
        status,
        attempts,
        answered,
        code,
        next_ms: row.next_ms,
    }
}

fn state_of(row: &OutboxRow) -> State {
    serde_json::from_str(&row.state).unwrap_or_default()
}

fn delivery_id(row: &OutboxRow) -> String {
    let OutboxRow { key: SessionKey { tenant, session }, position, target, .. } = row;
    let parts = [tenant.as_bytes(), &[0], session.as_bytes(), &position.to_be_bytes(), target.as_bytes()];
    let digest = Digest::of_parts(&parts).to_string();
    format!("dlv_{}", &digest[..32])
}

/// Tells what there is to tell until it is stopped.
pub(crate) async fn tell(inner: Arc<Inner>, mut stopped: watch::Receiver<bool>) {
    loop {
        let more = match inner.tell_due().await {
            Ok(more) => more,
            Err(error) => {
                tracing::warn!(code = error.code(), %error, "what is to be told can't be read");
                false
            }
        };
        if more && !*stopped.borrow() {
            continue;
        }
        tokio::select! {
            biased;
            _ = stopped.changed() => return,
            () = tokio::time::sleep(Duration::from_millis(LOOK_MS)) => {}
        }
    }
}

impl Inner {
    /// Has others told of a run, when there is anybody.
    pub(crate) fn announced(&self, draft: PreparedDraft, run: Id<id::Run>, at_ms: u64) -> PreparedDraft {
        match (self.parts.catalog)().settings.webhooks.is_empty() {
            true => draft,
            false => draft.with(Change::Announced { run, at_ms }),
        }
    }

    /// A callback that can be kept with its run; an error says why it can't.
    pub(crate) fn vetted(&self, callback: Callback) -> Result<Vec<u8>, Error> {
        let refused = |detail: &str| Error::Callback { detail: detail.to_owned() };
        if callback.url.len() > URL_BYTES_MAX {
            return Err(refused("its url is longer than 2048 bytes"));
        }
        let url = Url::parse(&callback.url).map_err(|_| refused("its url is none; expected https://…"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
            return Err(refused("its url must be https://… or http://…, without a user"));
        }
        if let Some(unknown) = callback.events.iter().find(|event| !TOLD_KINDS.contains(&event.as_str())) {
            let known = TOLD_KINDS.join(", ");
            return Err(Error::Callback { detail: format!("`{unknown}` is no event; expected some of {known}") });
        }
        if self.expand(CALLBACK_SECRET).is_err() {
            return Err(refused("nothing signs it; hint: set the secret CALLBACK_SECRET of this service"));
        }
        Ok(serde_json::to_vec(&callback).map_err(domain::record::Error::Form)?)
    }

    /// Takes up what is due; whether there may be more.
    async fn tell_due(&self) -> Result<bool, Error> {
        let rows = self.parts.journal.outbox(self.parts.clock.wall_ms(), PAGE_ROWS).await?;
        let is_full = rows.len() == PAGE_ROWS;
        let spread = rows.iter().any(|row| row.target.is_empty());
        // What could not be done now is there again at once: it is looked for after a while only.
        let is_stuck = AtomicBool::new(false);
        futures::stream::iter(rows)
            .for_each_concurrent(AT_ONCE_MAX, async |row| {
                let told =
                    if row.target.is_empty() { self.spread(&row).await } else { self.attempt(row.clone()).await };
                if let Err(error) = told {
                    let run_id = row.run;
                    tracing::warn!(%run_id, code = error.code(), %error, "others can't be told of a run");
                    is_stuck.store(true, Ordering::Relaxed);
                }
            })
            .await;
        Ok((is_full || spread) && !is_stuck.into_inner())
    }

    /// Works out whom a record is told.
    async fn spread(&self, row: &OutboxRow) -> Result<(), Error> {
        let targets = self.targets(row).await?;
        let wanted = targets.iter().filter(|target| target.events.contains(&row.kind));
        let now_ms = self.parts.clock.wall_ms();
        let rows = wanted.map(|target| {
            let state = State { url: target.shown_url(), ..State::default() };
            put(row, &target.name, &state, Some(now_ms))
        });
        self.parts.journal.outbox_put(row, rows.collect()).await?;
        Ok(())
    }

    /// Who is told of a run: the webhooks that are declared now, and its callback.
    async fn targets(&self, row: &OutboxRow) -> Result<Vec<Target>, Error> {
        let mut targets = Vec::new();
        for webhook in &(self.parts.catalog)().settings.webhooks {
            let expanded = self.expand(&webhook.url).ok().zip(self.expand(&webhook.secret).ok());
            let target = expanded.and_then(|(url, secret)| {
                let name = format!("hook_{}", &Digest::of(webhook.url.as_bytes()).to_string()[..16]);
                let (url, events) = (Url::parse(&url).ok()?, webhook.events.clone());
                Some(Target { name, url, secret, origin: Origin::Operator, events })
            });
            match target {
                Some(target) => targets.push(target),
                None => {
                    tracing::warn!(url = webhook.url, "a webhook can't be called: its url or its secret is not set")
                }
            }
        }
        if let Some((callback, secret)) = self.callback_of(row).await?.zip(self.expand(CALLBACK_SECRET).ok())
            && let Ok(url) = Url::parse(&callback.url)
        {
            let defaults = || WEBHOOK_EVENTS_DEFAULT.map(str::to_owned).to_vec();
            let events = if callback.events.is_empty() { defaults() } else { callback.events };
            targets.push(Target { name: CALLBACK.to_owned(), url, secret, origin: Origin::Untrusted, events });
        }
        Ok(targets)
    }

    async fn callback_of(&self, row: &OutboxRow) -> Result<Option<Callback>, Error> {
        let Some(run) = self.parts.journal.run(&row.key.tenant, row.run).await? else { return Ok(None) };
        let records = self.parts.journal.records(&row.key, run.submitted_position, 1).await?;
        let record = records.first().map(StoredRecord::decode).transpose()?;
        let Some(Event::Submitted(submitted)) = record.map(|record| record.event) else { return Ok(None) };
        let Some(content) = submitted.callback else { return Ok(None) };
        let bytes = self.parts.journal.content(&row.key, &content).await?.into_bytes();
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Tells one, once.
    async fn attempt(&self, row: OutboxRow) -> Result<(), Error> {
        let mut state = state_of(&row);
        state.attempts += 1;
        let now_ms = self.parts.clock.wall_ms();
        let claimed = put(&row, &row.target, &state, Some(now_ms + CLAIM_MS));
        if !self.parts.journal.outbox_put(&row, vec![claimed.clone()]).await? {
            // Another process has taken it up.
            return Ok(());
        }
        let claimed = OutboxRow { version: claimed.version + 1, ..claimed };
        let target = self.targets(&row).await?.into_iter().find(|target| target.name == row.target);
        let told = match target {
            Some(target) => self.send(&row, &target).await?,
            None => Told::Never(Untold::Gone),
        };
        let mut next_ms = None;
        match told {
            Told::Yes(answered) => {
                (state.status, state.answered, state.code) = (DeliveryStatus::Delivered, Some(answered), None);
            }
            Told::NotNow(untold) => {
                (state.answered, state.code) = (untold.answered(), Some(untold.code().to_owned()));
                let now_ms = self.parts.clock.wall_ms();
                let wait = RETRY.after(state.attempts, None, &self.parts.random);
                let wait_ms = wait.and_then(|wait| u64::try_from(wait.as_millis()).ok());
                next_ms = wait_ms.map(|wait_ms| now_ms + wait_ms);
                next_ms = next_ms.filter(|next_ms| *next_ms < row.at_ms.saturating_add(RETRY_TOTAL_MS));
                if next_ms.is_none() {
                    state.status = DeliveryStatus::Failed;
                }
            }
            Told::Never(untold) => {
                (state.answered, state.code) = (untold.answered(), Some(untold.code().to_owned()));
                state.status = DeliveryStatus::Failed;
            }
        }
        if state.status == DeliveryStatus::Failed {
            tracing::warn!(run_id = %row.run, url = state.url, code = state.code, "others were not told of a run");
        }
        self.parts.journal.outbox_put(&claimed, vec![put(&claimed, &row.target, &state, next_ms)]).await?;
        self.deliveries.send_modify(|count| *count += 1);
        Ok(())
    }

    async fn send(&self, row: &OutboxRow, target: &Target) -> Result<Told, Error> {
        let records = self.parts.journal.records(&row.key, row.position, 1).await?;
        let Some(record) = records.first().map(StoredRecord::decode).transpose()? else {
            return Ok(Told::Never(Untold::Deleted));
        };
        let data = record.event.body_json();
        let delivery_id = delivery_id(row);
        let body = Body {
            id: &delivery_id,
            kind: &row.kind,
            at_ms: row.at_ms,
            tenant: &row.key.tenant,
            session_id: row.key.session,
            run_id: row.run,
            position: row.position,
            data: serde_json::from_str(&data).map_err(domain::record::Error::Form)?,
        };
        let body = serde_json::to_vec(&body).map_err(domain::record::Error::Form)?;
        let mut request = Request::new(Method::POST, target.url.clone(), target.origin);
        let signature = signature(&target.secret, self.parts.clock.wall_ms() / 1_000, &body);
        for (name, value) in [
            ("content-type", "application/json"),
            ("topside-delivery", &delivery_id),
            ("topside-event", &row.kind),
            ("topside-signature", &signature),
        ] {
            if let Ok(value) = HeaderValue::from_str(value) {
                request.headers.insert(HeaderName::from_static(name), value);
            }
        }
        request.body = body.into();
        request.timeouts = TIMEOUTS;
        request.response_bytes_max = ANSWER_BYTES_MAX;
        Ok(match self.parts.net.send(request).await {
            Ok(response) => {
                let status = response.status();
                response.finish().await;
                match status {
                    200..=299 => Told::Yes(status),
                    // The other side says that it will never want it.
                    410 => Told::Never(Untold::Answered(status)),
                    _ => Told::NotNow(Untold::Answered(status)),
                }
            }
            Err(error @ (net::Error::AddressRefused { .. } | net::Error::BadUrl { .. })) => {
                Told::Never(Untold::Unreached(error))
            }
            Err(error) => Told::NotNow(Untold::Unreached(error)),
        })
    }
}

/// A row of the same record in the place of another.
fn put(row: &OutboxRow, target: &str, state: &State, next_ms: Option<u64>) -> OutboxRow {
    let state = serde_json::to_string(state).unwrap_or_default();
    OutboxRow { target: target.to_owned(), state, next_ms, ..row.clone() }
}

/// `t=<seconds>,v1=<hex of HMAC-SHA-256 over "seconds.body">`.
fn signature(secret: &str, at_seconds: u64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{at_seconds}.").as_bytes());
    context.update(body);
    let mut code = String::new();
    for byte in context.sign().as_ref() {
        code.push_str(&format!("{byte:02x}"));
    }
    format!("t={at_seconds},v1={code}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_covers_time_and_body() {
        // Worked out with `printf '1700000000.{}' | openssl dgst -sha256 -hmac key`.
        let expected = "t=1700000000,v1=9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae";
        assert_eq!(signature("key", 1_700_000_000, b"{}"), expected);
    }
}
