//! Tools of kind `http`: one request to a service. The dial itself, and which addresses it may reach, are `net`'s.

use super::Job;
use super::url::{Built, Template};
use crate::Outcome;
use crate::output::{self, Capture, WHOLE_BYTES_MAX};
use crate::project::Values;
use crate::reason::Reason;
use crate::schema::Schema;
use bytes::Bytes;
use domain::CallStatus;
use net::{HeaderMap, HeaderName, HeaderValue, Method, Origin, Request, Timeouts, Url};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Bytes of an answer that are read at most; of them, what is kept is bounded too.
const RESPONSE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Redirects followed for requests that only read.
const REDIRECTS_MAX: u32 = 5;
/// Silence in the middle of an answer.
const IDLE_MS_MAX: u64 = 30_000;
/// So much later than the contract's limit the network gives up by itself.
const GRACE_MS: u64 = 1_000;
/// Answers of a service that is too busy, or of one in front of it that can't reach it.
const PASSING: [u16; 4] = [429, 502, 503, 504];
const KEY: &str = "idempotency-key";

/// A declared request.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    method: Method,
    url: Template,
    /// Values unexpanded.
    headers: Vec<(HeaderName, String)>,
    /// Arguments sent as a JSON body.
    body: Vec<String>,
}

impl Service {
    /// Reads the declaration; an error names its key.
    pub(crate) fn new(
        method: &str,
        url: &str,
        headers: &BTreeMap<String, String>,
        body: &[String],
    ) -> Result<Self, (&'static str, String)> {
        let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes())
            .map_err(|_| ("http.method", format!("`{method}` is no method")))?;
        let url = Template::new(url).map_err(|detail| ("http.url", detail))?;
        let mut named = Vec::new();
        for (name, value) in headers {
            let name =
                HeaderName::try_from(name).map_err(|_| ("http.headers", format!("`{name}` is no header name")))?;
            named.push((name, value.clone()));
        }
        Ok(Self { method, url, headers: named, body: body.to_vec() })
    }

    /// An argument that the request uses and the schema does not name.
    pub(crate) fn unknown_argument(&self, schema: &Schema) -> Option<String> {
        self.url
            .arguments()
            .chain(self.body.iter().map(String::as_str))
            .find(|name| !schema.names(name))
            .map(str::to_owned)
    }

    fn request(&self, job: &Job<'_>, values: &mut Values<'_>) -> Result<Request, Box<Outcome>> {
        let name = &job.call.tool;
        let not_configured = |error: &dyn std::fmt::Display| {
            Box::new(Outcome::error(Reason::ToolNotConfigured.code(), format!("`{name}` is not configured: {error}")))
        };
        let Built { url, operator } = self.url.build(&job.arguments, &mut |text| values.expand(text)).map_err(|refusal| match refusal {
            super::url::Refusal::Configuration(error) => not_configured(&error),
            super::url::Refusal::Argument { name: argument, expected } => {
                let text = format!("Invalid tool arguments for {argument}. Check the tool schema and try again.\n- {argument}: {expected}");
                Box::new(Outcome::text(text).failed(CallStatus::Invalid, Reason::ArgumentsInvalid.code()))
            }
        })?;
        // The text may hold a secret, so it is not repeated.
        let url = Url::parse(&url).map_err(|error| not_configured(&format!("its URL is malformed: {error}")))?;
        let origin = if operator { Origin::Operator } else { Origin::Untrusted };
        let mut request = Request::new(self.method.clone(), url, origin);
        request.headers = self.headers(job, values).map_err(|text| not_configured(&text))?;
        if !self.body.is_empty() {
            let body: Map<String, Value> =
                self.body.iter().filter_map(|name| Some((name.clone(), job.arguments.get(name)?.clone()))).collect();
            request.body = Bytes::from(Value::Object(body).to_string());
            let json = HeaderValue::from_static("application/json");
            request.headers.entry("content-type").or_insert(json);
        }
        let limit_ms = job.contract.timeout_ms.saturating_add(GRACE_MS);
        request.timeouts = Timeouts { first_byte_ms: limit_ms, idle_ms: IDLE_MS_MAX, total_ms: limit_ms };
        request.response_bytes_max = RESPONSE_BYTES_MAX.saturating_mul(2);
        let reads = [Method::GET, Method::HEAD].contains(&self.method);
        request.redirects_max = if reads { REDIRECTS_MAX } else { 0 };
        Ok(request)
    }

    fn headers(&self, job: &Job<'_>, values: &mut Values<'_>) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let value = values.expand(value).map_err(|error| error.to_string())?;
            let mut header =
                HeaderValue::try_from(&value).map_err(|_| format!("the value of header {name} is malformed"))?;
            header.set_sensitive(values.is_secret(&value));
            headers.insert(name.clone(), header);
        }
        if let Some(key) = job.bench.idempotency_key() {
            let key = HeaderValue::try_from(key).map_err(|_| "the idempotency key is no header value".to_owned())?;
            headers.insert(HeaderName::from_static(KEY), key);
        }
        Ok(headers)
    }
}

pub(crate) async fn run(service: &Service, job: &Job<'_>) -> Outcome {
    let mut values = Values::new(job.bench);
    let request = match service.request(job, &mut values) {
        Ok(request) => request,
        Err(outcome) => return *outcome,
    };
    match send(request, job, &values).await {
        Ok(outcome) => outcome,
        Err(error) => {
            let text = values.scrub_text(format!("`{}` failed: {error}", job.call.tool));
            let outcome = Outcome::error(error.code(), text);
            if may_pass(&error) { outcome.passing() } else { outcome }
        }
    }
}

async fn send(request: Request, job: &Job<'_>, values: &Values<'_>) -> Result<Outcome, net::Error> {
    let mut response = job.bench.net().send(request).await?;
    let status = response.status();
    let media = response.header("content-type").unwrap_or_default().to_owned();
    let mut capture = Capture::new(WHOLE_BYTES_MAX);
    while let Some(piece) = response.chunk().await? {
        capture.push(&piece);
        if capture.total_bytes() > RESPONSE_BYTES_MAX {
            break;
        }
    }
    response.finish().await;
    let total = capture.total_bytes();
    let body = values.scrub(capture.take());
    let title = title(status);
    let bytes_max = job.contract.output_bytes_max;
    if !(200..300).contains(&status) {
        let text = if is_text(&media) { output::show(&body, bytes_max, job.call.id).text } else { String::new() };
        let text = format!("`{}` failed: {title}\n\n{text}", job.call.tool);
        let outcome = Outcome::error(Reason::HttpStatus.code(), text.trim_end());
        return Ok(if PASSING.contains(&status) { outcome.passing() } else { outcome });
    }
    if body.is_empty() {
        return Ok(Outcome::text(title));
    }
    if !is_text(&media) {
        let media = output::brief(&media, 100);
        return Ok(Outcome::text(format!("{title}: {total} bytes of {media}, which is no text and not shown")));
    }
    Ok(Outcome::bytes(body, bytes_max, job.call.id))
}

/// Whether what went wrong on the way may pass by itself.
const fn may_pass(error: &net::Error) -> bool {
    use net::Error;
    match error {
        Error::Resolve { .. }
        | Error::Connect { .. }
        | Error::TimeoutConnect { .. }
        | Error::TimeoutFirstByte { .. }
        | Error::TimeoutIdle { .. }
        | Error::TimeoutTotal { .. }
        | Error::Broken { .. } => true,
        Error::Settings { .. }
        | Error::BadUrl { .. }
        | Error::AddressRefused { .. }
        | Error::Tls { .. }
        | Error::TooLarge { .. }
        | Error::RedirectRefused { .. } => false,
    }
}

fn title(status: u16) -> String {
    let reason =
        http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default();
    format!("HTTP {status} {reason}").trim_end().to_owned()
}

/// Whether a media type is text; an answer that does not say is taken for it.
fn is_text(media: &str) -> bool {
    let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media.is_empty()
        || media.starts_with("text/")
        || ["json", "xml", "javascript", "yaml", "x-www-form-urlencoded", "csv", "x-ndjson"]
            .iter()
            .any(|part| media.ends_with(part))
}
