//! The client, and one method for each thing that can be looked at. What can be said of a run or a session is in `wishes`.

use crate::transport::{Answer, Request, Stream, Transport};
use crate::{Error, Events, Follow};
use api::{
    Artifact, ArtifactList, Health, IDEMPOTENCY_KEY_BYTES_MAX, PostRun, Problem, RecordPage, Run, RunList, RunQuery,
    Session, SessionList,
};
use bytes::Bytes;
use domain::{Id, id};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::Future;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

/// How long an answer may take to begin, beyond what the service was asked to wait.
const ANSWER_MS_MAX: u64 = 60_000;
/// What the service waits for a run's end when it is not told.
const WAIT_SECONDS_DEFAULT: u64 = 120;
/// A stream's heartbeat comes every 15 s; after three that did not come the stream is dead.
const STREAM_IDLE_MS_MAX: u64 = 45_000;

/// The service, as seen from outside. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Transport,
    authorization: Option<HeaderValue>,
}

/// How long `POST /runs` waits for the run's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// As long as the service likes.
    #[default]
    Default,
    /// So many seconds.
    Seconds(u32),
    /// Not at all.
    No,
}

/// Options of `POST /runs`.
#[derive(Clone, Debug, Default)]
pub struct PostOptions {
    /// How long to wait.
    pub wait: Wait,
    /// Makes the request safe to repeat.
    pub idempotency_key: Option<String>,
}

impl Client {
    /// A client of a service in this process; `connect` opens a stream to it.
    pub fn memory<F, C, S>(connect: F) -> Self
    where
        F: Fn() -> C + Send + Sync + 'static,
        C: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let connect = move || -> futures::future::BoxFuture<'static, io::Result<Box<dyn Stream>>> {
            let connecting = connect();
            Box::pin(async move { Ok(Box::new(connecting.await?) as Box<dyn Stream>) })
        };
        Self { transport: Transport::Memory(Arc::new(connect)), authorization: None }
    }

    /// A client of the service at `base`, such as `http://127.0.0.1:8787`.
    ///
    /// # Errors
    /// When the address is no URL or the key can't stand in a header.
    pub fn http(base: &str, key: Option<&str>, net: net::Client) -> Result<Self, Error> {
        let base = base.trim_end_matches('/').to_owned();
        net::Url::parse(&base)
            .map_err(|error| Error::Settings { what: "the service's address", detail: error.to_string() })?;
        let authorization = key.map(authorization).transpose()?;
        Ok(Self { transport: Transport::Http { base, net }, authorization })
    }

    /// The client, with a key.
    ///
    /// # Errors
    /// When the key can't stand in a header.
    pub fn with_key(mut self, key: &str) -> Result<Self, Error> {
        self.authorization = Some(authorization(key)?);
        Ok(self)
    }

    /// How the service does.
    pub async fn health(&self) -> Result<Health, Error> {
        self.get("/health").await
    }

    /// Starts a run, and waits for its end as long as was said. The run may come back under way: its status says so.
    pub async fn post_run(&self, run: &PostRun, options: &PostOptions) -> Result<Run, Error> {
        let mut headers = json_headers();
        let wait_seconds = match options.wait {
            Wait::Default => WAIT_SECONDS_DEFAULT,
            Wait::Seconds(seconds) => {
                put(&mut headers, HeaderName::from_static("prefer"), &format!("wait={seconds}"))?;
                u64::from(seconds)
            }
            Wait::No => {
                put(&mut headers, HeaderName::from_static("prefer"), "respond-async")?;
                0
            }
        };
        put_key(&mut headers, options.idempotency_key.as_deref())?;
        let mut request = self.request(Method::POST, "/runs".to_owned(), headers);
        request.body = json(run)?;
        request.first_byte_ms += wait_seconds * 1_000;
        request.idle_ms = request.first_byte_ms;
        self.read(request).await
    }

    /// A run as it stands.
    pub async fn run(&self, run: Id<id::Run>) -> Result<Run, Error> {
        self.get(&api::run_path(run)).await
    }

    /// Runs, newest first.
    pub async fn runs(&self, query: &RunQuery) -> Result<RunList, Error> {
        let RunQuery { session, status, agent, cursor, limit } = query;
        let limit = limit.map(|limit| limit.to_string());
        self.get(&path_with(
            "/runs",
            &[
                ("session", session.as_deref()),
                ("status", status.map(domain::RunStatus::name)),
                ("agent", agent.as_deref()),
                ("cursor", cursor.as_deref()),
                ("limit", limit.as_deref()),
            ],
        ))
        .await
    }

    /// The files that a run left.
    pub async fn artifacts(&self, run: Id<id::Run>) -> Result<Vec<Artifact>, Error> {
        let list: ArtifactList = self.get(&format!("{}/artifacts", api::run_path(run))).await?;
        Ok(list.artifacts)
    }

    /// A file's bytes, through the service's own link. A link that leads elsewhere (a presigned one) is for others to
    /// follow.
    pub async fn artifact_bytes(&self, artifact: &Artifact) -> Result<Bytes, Error> {
        let own = artifact.url.rsplit_once("/artifacts/").filter(|(_, token)| !token.contains(['/', '?']));
        let path = own.map(|(_, token)| format!("/artifacts/{token}")).ok_or_else(|| Error::Malformed {
            what: "the artifact's link",
            detail: "it leads to another service".into(),
        })?;
        self.answer(self.request(Method::GET, path, HeaderMap::new())).await?.body.bytes().await
    }

    /// Sessions, newest first.
    pub async fn sessions(&self, cursor: Option<&str>, limit: Option<usize>) -> Result<SessionList, Error> {
        let limit = limit.map(|limit| limit.to_string());
        self.get(&path_with("/sessions", &[("cursor", cursor), ("limit", limit.as_deref())])).await
    }

    /// A session, by its id or the client's name for it.
    pub async fn session(&self, session: &str) -> Result<Session, Error> {
        self.get(&api::session_path(session)).await
    }

    /// A page of records.
    pub async fn records(&self, follow: &Follow, after: Option<u64>) -> Result<RecordPage, Error> {
        let after = after.map(|after| after.to_string());
        self.get(&path_with(&follow.path(), &[("after", after.as_deref())])).await
    }

    /// Follows a run or a session, from the beginning or after a position. Nothing is asked before the first event is.
    pub fn events(&self, follow: Follow, after: Option<u64>) -> Events {
        Events::new(self.clone(), follow, after)
    }

    /// Opens an event stream.
    pub(crate) async fn open(&self, follow: &Follow, after: Option<u64>) -> Result<Answer, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(after) = after {
            headers.insert(HeaderName::from_static("last-event-id"), HeaderValue::from(after));
        }
        let mut request = self.request(Method::GET, follow.path(), headers);
        request.endless = true;
        request.idle_ms = STREAM_IDLE_MS_MAX;
        self.answer(request).await
    }

    pub(crate) fn request(&self, method: Method, path: String, mut headers: HeaderMap) -> Request {
        if let Some(value) = &self.authorization {
            headers.insert(header::AUTHORIZATION, value.clone());
        }
        let (first_byte_ms, idle_ms) = (ANSWER_MS_MAX, ANSWER_MS_MAX);
        Request { method, path, headers, body: Bytes::new(), first_byte_ms, idle_ms, endless: false }
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.read(self.request(Method::GET, path.to_owned(), HeaderMap::new())).await
    }

    pub(crate) async fn read<T: DeserializeOwned>(&self, request: Request) -> Result<T, Error> {
        let body = self.answer(request).await?.body.bytes().await?;
        serde_json::from_slice(&body)
            .map_err(|error| Error::Malformed { what: "the answer", detail: error.to_string() })
    }

    /// Sends a request; an answer that is no success becomes an error.
    pub(crate) async fn answer(&self, request: Request) -> Result<Answer, Error> {
        let answer = Box::pin(self.transport.send(request)).await?;
        self.refused(answer).await
    }

    /// Asks for another protocol: the connection, or the answer of a service that does not switch.
    pub(crate) async fn switch(&self, request: Request) -> Result<Result<(HeaderMap, Box<dyn Stream>), Answer>, Error> {
        self.transport.switch(request).await
    }

    /// An answer, unless it is no success.
    pub(crate) async fn refused(&self, answer: Answer) -> Result<Answer, Error> {
        if (200..300).contains(&answer.status) {
            return Ok(answer);
        }
        let status = answer.status;
        let body = answer.body.bytes().await?;
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(Error::Problem(Box::new(problem))),
            Err(_) => {
                Err(Error::Malformed { what: "the answer", detail: format!("status {status} without a problem") })
            }
        }
    }
}

fn authorization(key: &str) -> Result<HeaderValue, Error> {
    let mut value = header_value(&format!("Bearer {key}"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The headers of a request with a JSON body.
pub(crate) fn json_headers() -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))])
}

/// The idempotency key, when there is one.
pub(crate) fn put_key(headers: &mut HeaderMap, key: Option<&str>) -> Result<(), Error> {
    match key {
        Some(key) if key.len() > IDEMPOTENCY_KEY_BYTES_MAX => {
            Err(Error::TooLarge { what: "the idempotency key", bytes_max: IDEMPOTENCY_KEY_BYTES_MAX })
        }
        Some(key) => put(headers, HeaderName::from_static("idempotency-key"), key),
        None => Ok(()),
    }
}

/// A body.
pub(crate) fn json(body: &impl Serialize) -> Result<Bytes, Error> {
    let bytes = serde_json::to_vec(body)
        .map_err(|error| Error::Malformed { what: "the request", detail: error.to_string() })?;
    Ok(bytes.into())
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) -> Result<(), Error> {
    headers.insert(name, header_value(value)?);
    Ok(())
}

fn header_value(value: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(value)
        .map_err(|_| Error::Settings { what: "a key", detail: "it has characters that no header takes".into() })
}

pub(crate) fn path_with(path: &str, query: &[(&str, Option<&str>)]) -> String {
    let mut out = path.to_owned();
    for (name, value) in query.iter().filter_map(|(name, value)| Some((name, (*value)?))) {
        out.push(if out.len() == path.len() { '?' } else { '&' });
        out.push_str(name);
        out.push('=');
        out.extend(net_form(value));
    }
    out
}

/// Percent-encodes all but unreserved characters (RFC 3986 §2.3).
fn net_form(value: &str) -> impl Iterator<Item = char> {
    value.bytes().flat_map(|byte| {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let text = if plain { char::from(byte).to_string() } else { format!("%{byte:02X}") };
        text.chars().collect::<Vec<_>>()
    })
}
