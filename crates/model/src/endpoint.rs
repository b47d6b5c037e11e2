//! One endpoint over HTTP: attempts, retries, time limits, and what an error answer means. How a prompt and a reply look on the
//! wire is `wire`'s.

use crate::failure::cut;
use crate::wire::{Dialect, Events, vendor};
use crate::{Deltas, Failure, Kind, Model, Prompt, Reply};
use async_trait::async_trait;
use bytes::Bytes;
use net::{HeaderMap, Method, Origin, Request, Response, Timeouts, Url};
use std::time::Duration;
use stdx::{Backoff, Clock, Random};

/// Bytes of an error answer that are read.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// Limits of one model call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// When and how often a failed attempt is repeated.
    pub backoff: Backoff,
    /// From sending to the first event of a streamed reply.
    pub first_token_ms: u64,
    /// Between two events of a streamed reply.
    pub idle_ms: u64,
    /// The wait for a reply that is not streamed.
    pub unstreamed_ms: u64,
    /// One attempt as a whole.
    pub total_ms: u64,
    /// Bytes of a reply at most.
    pub reply_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            backoff: Backoff { first_ms: 500, wait_ms_max: 30_000, attempts_max: 3 },
            first_token_ms: 120_000,
            // A reasoning model may think for minutes between two events.
            idle_ms: 300_000,
            unstreamed_ms: 600_000,
            total_ms: 1_800_000,
            reply_bytes_max: 32 * 1024 * 1024,
        }
    }
}

/// A model behind HTTP.
pub(crate) struct Endpoint {
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    /// What a vendor's error message must not echo.
    pub(crate) secrets: Vec<String>,
    pub(crate) dialect: Dialect,
    pub(crate) net: net::Client,
    pub(crate) random: Random,
    pub(crate) clock: Clock,
    pub(crate) options: Options,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither headers nor the URL's query: they may hold secrets.
        f.debug_struct("Endpoint")
            .field("host", &self.url.host_str())
            .field("dialect", &self.dialect)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Model for Endpoint {
    fn name(&self) -> &str {
        &self.dialect.model
    }

    async fn reply(&self, prompt: &Prompt, deltas: &Deltas) -> Result<Reply, Failure> {
        deltas.begin();
        let body = self.dialect.body(prompt)?;
        let mut usage = domain::Usage::default();
        let mut attempts = 0;
        loop {
            attempts += 1;
            deltas.count();
            usage.model_calls += 1;
            let mut failure = match self.attempt(prompt, body.clone(), deltas).await {
                Ok(mut reply) => {
                    self.name_calls(&mut reply);
                    reply.usage = reply.usage.plus(usage);
                    reply.attempts = attempts;
                    return Ok(reply);
                }
                Err(failure) => failure,
            };
            usage = usage.plus(failure.usage);
            failure.usage = usage;
            failure.emitted = deltas.emitted();
            failure.message = self.without_secrets(failure.message);
            let Some(wait) = self.wait(attempts, &failure) else { return Err(failure) };
            tracing::warn!(
                code = failure.code(),
                attempt = attempts,
                wait_ms = wait.as_millis(),
                "model call is tried again"
            );
            tokio::time::sleep(wait).await;
        }
    }
}

impl Endpoint {
    async fn attempt(&self, prompt: &Prompt, body: Bytes, deltas: &Deltas) -> Result<Reply, Failure> {
        let stream = self.dialect.stream;
        let first_byte_ms = if stream { self.options.first_token_ms } else { self.options.unstreamed_ms };
        let request = Request {
            headers: self.headers.clone(),
            body,
            timeouts: Timeouts { first_byte_ms, idle_ms: self.options.idle_ms, total_ms: self.options.total_ms },
            response_bytes_max: self.options.reply_bytes_max,
            ..Request::new(Method::POST, self.url.clone(), Origin::Operator)
        };
        let response = self.net.send(request).await?;
        if response.status() != 200 {
            return Err(self.refusal(response).await);
        }
        let is_stream = response.header("content-type").is_some_and(|media| media.starts_with("text/event-stream"));
        if stream && is_stream {
            let waits = (self.options.first_token_ms, self.options.idle_ms);
            return self.dialect.read_stream(prompt, Events::new(response, waits), deltas).await;
        }
        // An endpoint that does not stream although it was asked to is taken as it is.
        let body = response.bytes().await?;
        let reply = self.dialect.read_whole(prompt, &body)?;
        self.dialect.emit_whole(&reply, deltas);
        Ok(reply)
    }

    /// Gives an id to each call that came without one, as some endpoints' calls do.
    fn name_calls(&self, reply: &mut Reply) {
        for item in &mut reply.items {
            if let domain::Item::Call { call_id, .. } = item
                && call_id.is_empty()
            {
                *call_id = format!("call_{:032x}", u128::from_le_bytes(self.random.bytes()));
            }
        }
    }

    /// What an answer other than 200 means.
    async fn refusal(&self, response: Response) -> Failure {
        let status = response.status();
        let retry_after_ms = response.header("retry-after").and_then(|text| self.retry_after_ms(text));
        let body = response.beginning(ERROR_BYTES_MAX).await;
        let mut failure = vendor::failure(status, &body);
        failure.retry_after_ms = retry_after_ms;
        failure
    }

    /// `Retry-After` in milliseconds; it holds seconds or an HTTP date.
    fn retry_after_ms(&self, text: &str) -> Option<u64> {
        let text = text.trim();
        if let Ok(seconds) = text.parse::<u64>() {
            return Some(seconds.saturating_mul(1_000));
        }
        let at = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        let at_ms = u64::try_from(at.as_millis()).ok()?;
        Some(at_ms.saturating_sub(self.clock.wall_ms()))
    }

    /// How long to wait before the next attempt; `None` when there is to be none.
    fn wait(&self, attempts: u32, failure: &Failure) -> Option<Duration> {
        if !failure.retryable || failure.emitted {
            return None;
        }
        let asked = failure.retry_after_ms;
        // Coming back earlier than asked only makes it worse: a longer wait is the caller's to decide.
        if asked.is_some_and(|asked| asked > self.options.backoff.wait_ms_max) {
            return None;
        }
        self.options.backoff.after(attempts, asked.map(Duration::from_millis), &self.random)
    }

    fn without_secrets(&self, mut message: String) -> String {
        for secret in self.secrets.iter().filter(|secret| secret.len() >= 4) {
            if message.contains(secret.as_str()) {
                message = message.replace(secret.as_str(), "[redacted]");
            }
        }
        message
    }
}

/// The message of a body that is no reply.
pub(crate) fn malformed(what: &str, error: &serde_json::Error, body: &[u8]) -> Failure {
    let body = String::from_utf8_lossy(&body[..body.len().min(1_000)]);
    Failure::new(Kind::Malformed, format!("{what}: {error}; it begins: {}", cut(&body)))
}
