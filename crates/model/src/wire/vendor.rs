//! What a vendor's error means, whether it came with a status code or in the middle of a stream.

use crate::failure::cut;
use crate::{Failure, Kind};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The error object of both wires, as far as endpoints agree on it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ErrorObject<'a> {
    #[serde(default, borrow)]
    message: Option<&'a RawValue>,
    #[serde(default, borrow)]
    code: Option<&'a RawValue>,
    #[serde(default, borrow, rename = "type")]
    kind: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
    #[serde(default, borrow)]
    message: Option<&'a RawValue>,
    #[serde(default, borrow)]
    detail: Option<&'a RawValue>,
}

/// An error answer.
pub(crate) fn failure(status: u16, body: &[u8]) -> Failure {
    let text = String::from_utf8_lossy(body);
    let parsed: Option<Body<'_>> = serde_json::from_str(&text).ok();
    let (message, code) = match &parsed {
        Some(Body { error: Some(error), .. }) => said(error),
        Some(Body { message: Some(message), .. } | Body { detail: Some(message), .. }) => {
            (plain(message), String::new())
        }
        Some(_) | None => (text.clone().into_owned(), String::new()),
    };
    let kind = match status {
        401 | 403 => Kind::Auth,
        402 => Kind::QuotaExhausted,
        408 | 409 => Kind::ServerError { status },
        413 => Kind::ContextTooLong,
        429 => Kind::RateLimited,
        503 | 529 => Kind::Overloaded,
        500..=599 => Kind::ServerError { status },
        _ => Kind::BadRequest,
    };
    let kind = by_code(&code, &message).unwrap_or(kind);
    let hint = hint(&kind, status);
    let said = if message.trim().is_empty() { "nothing".to_owned() } else { cut(&message).to_string() };
    Failure::new(kind, format!("the model's endpoint answered {status} and said: {said}{hint}"))
}

/// An error inside a stream or a reply.
pub(super) fn failure_in_reply(error: &RawValue) -> Failure {
    let (message, code) = said(error);
    let kind = by_code(&code, &message).unwrap_or(Kind::ServerError { status: 0 });
    Failure::new(kind, format!("the model's endpoint gave up in its reply and said: {}", cut(&message)))
}

/// Message and code of an error, which some endpoints give as plain text.
fn said(error: &RawValue) -> (String, String) {
    let Ok(ErrorObject { message, code, kind }) = serde_json::from_str(error.get()) else {
        return (plain(error), String::new());
    };
    let code = [code, kind].into_iter().flatten().map(plain).collect::<Vec<_>>().join(" ");
    (message.map_or_else(|| error.get().to_owned(), plain), code)
}

/// A JSON string's text; anything else as it stands.
pub(super) fn plain(value: &RawValue) -> String {
    serde_json::from_str::<String>(value.get()).unwrap_or_else(|_| value.get().to_owned())
}

/// Codes that say more than the status. Endpoints that give no code are understood by the words they are known to use.
fn by_code(code: &str, message: &str) -> Option<Kind> {
    let has = |words: &[&str]| words.iter().any(|word| code.contains(word));
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if has(&["context_length_exceeded"]) || says(&["maximum context length", "context window", "prompt is too long"]) {
        return Some(Kind::ContextTooLong);
    }
    if has(&["insufficient_quota", "billing"]) {
        return Some(Kind::QuotaExhausted);
    }
    if has(&["content_filter", "content_policy"]) {
        return Some(Kind::ContentFiltered);
    }
    if has(&["rate_limit"]) {
        return Some(Kind::RateLimited);
    }
    if has(&["overloaded", "slow_down"]) {
        return Some(Kind::Overloaded);
    }
    if has(&["invalid_api_key", "authentication_error"]) {
        return Some(Kind::Auth);
    }
    if has(&["invalid_prompt", "invalid_request"]) && !code.contains("server_error") {
        return Some(Kind::BadRequest);
    }
    None
}

fn hint(kind: &Kind, status: u16) -> &'static str {
    match (kind, status) {
        (Kind::Auth, _) => "; hint: check the model's `key`",
        (Kind::BadRequest, 404) => "; hint: check the model's `url` and `name`",
        (Kind::BadRequest, 301..=308) => "; hint: the `url` redirects; write the one it leads to",
        (Kind::ContextTooLong, _) => "; hint: start a new session, or let tools give less output",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart() {
        for (status, body, code, retryable) in [
            (429, r#"{"error":{"message":"slow","code":"rate_limit_exceeded"}}"#, "model_rate_limited", true),
            (429, r#"{"error":{"message":"pay","type":"insufficient_quota"}}"#, "model_quota_exhausted", false),
            (503, r#"{"error":{"message":"overloaded","code":"overloaded"}}"#, "model_overloaded", true),
            (529, "", "model_overloaded", true),
            (500, "<html>oops</html>", "model_server_error", true),
            (408, "", "model_server_error", true),
            (409, "", "model_server_error", true),
            (
                401,
                r#"{"error":{"message":"no","code":"invalid_api_key","type":"invalid_request_error"}}"#,
                "model_auth",
                false,
            ),
            (403, r#"{"detail":"no"}"#, "model_auth", false),
            (404, r#"{"error":"no such model"}"#, "model_bad_request", false),
            (
                400,
                r#"{"error":{"message":"m","code":null,"type":"invalid_request_error"}}"#,
                "model_bad_request",
                false,
            ),
            (400, r#"{"error":{"message":"m","code":"context_length_exceeded"}}"#, "model_context_too_long", false),
            (400, r#"{"message":"the maximum context length is 8 tokens"}"#, "model_context_too_long", false),
            (400, r#"{"error":{"message":"m","code":"content_filter"}}"#, "model_content_filtered", false),
            (302, "", "model_bad_request", false),
            (204, "", "model_bad_request", false),
        ] {
            let failure = failure(status, body.as_bytes());
            assert_eq!((failure.code(), failure.retryable), (code, retryable), "{status} {body}");
        }
        let long = failure(500, "x".repeat(9_000).as_bytes());
        assert!(long.message.len() < 600 && long.message.contains("bytes more"), "{}", long.message);
    }
}
