//! Answers as bytes and headers.

use crate::body::Body;
use crate::problem::No;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

/// Nothing that this service answers is to be guessed at, or kept by a cache that others read.
fn plain(status: u16, media: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// There is nothing, and nothing will come.
pub(crate) fn nothing() -> Response<Body> {
    let mut response = plain(204, "text/event-stream", Body::Whole(None));
    response.headers_mut().remove(header::CONTENT_TYPE);
    response
}

/// JSON.
pub(crate) fn json(status: u16, value: &impl Serialize) -> Result<Response<Body>, No> {
    let bytes = serde_json::to_vec(value).map_err(|error| No::internal("internal", &error))?;
    Ok(plain(status, "application/json", Bytes::from(bytes).into()))
}

/// Text of a media type, whole.
pub(crate) fn text(media: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    plain(200, media, text.into().into())
}

/// A page that loads nothing and runs nothing.
pub(crate) fn html(page: String) -> Response<Body> {
    let mut response = plain(200, "text/html; charset=utf-8", page.into());
    let policy =
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'";
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

/// A stream of any media type.
pub(crate) fn stream(media: &'static str, body: Body) -> Response<Body> {
    plain(200, media, body)
}

/// A problem.
pub(crate) fn problem(no: &No) -> Response<Body> {
    let bytes = serde_json::to_vec(&no.problem).unwrap_or_default();
    let mut response = plain(no.problem.status, api::PROBLEM_MEDIA, Bytes::from(bytes).into());
    let headers = response.headers_mut();
    if let Some(seconds) = no.retry_after_seconds {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(methods) = no.allow {
        headers.insert(header::ALLOW, HeaderValue::from_static(methods));
    }
    if no.problem.status == 401 {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"topside\""));
    }
    response
}
