//! What a request brings along: its JSON body, read strictly, and its idempotency key.

use crate::app::Asked;
use crate::problem::No;
use crate::query::shown;
use api::{IDEMPOTENCY_KEY_BYTES_MAX, Refusal};
use domain::Digest;
use engine::IdempotencyKey;
use http::{HeaderMap, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A body that must be there.
pub(crate) fn required<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, No> {
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case("application/json") {
        let message = format!(
            "the body's type is `{}`; expected application/json; hint: send `Content-Type: application/json`",
            shown(media)
        );
        return Err(No::refused(Refusal::MediaTypeUnsupported, &message));
    }
    serde_json::from_slice(body).map_err(|error| No::invalid(&format!("the body: {error}")))
}

/// A body that need not be there.
pub(crate) fn optional<T: DeserializeOwned + Default>(headers: &HeaderMap, body: &[u8]) -> Result<T, No> {
    if body.is_empty() { Ok(T::default()) } else { required(headers, body) }
}

/// The digests of an idempotent request: of the key with tenant, principal, route and what it is about, and of what was asked,
/// however it was written.
pub(crate) fn idempotency(asked: &Asked, request: &impl Serialize) -> Result<Option<IdempotencyKey>, No> {
    let Some(key) = asked.parts.headers.get("idempotency-key") else { return Ok(None) };
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
        let message = format!("Idempotency-Key has {} bytes; expected 1 to {IDEMPOTENCY_KEY_BYTES_MAX}", key.len());
        return Err(No::invalid(&message));
    }
    let (tenant, principal) = (&asked.caller.tenant, asked.caller.principal);
    let key = Digest::of_parts(&[
        tenant.as_bytes(),
        &[0],
        principal.as_bytes(),
        asked.route.endpoint.path.as_bytes(),
        &[0],
        key.as_bytes(),
    ]);
    let body = serde_json::to_vec(request).map_err(|error| No::internal("internal", &error))?;
    // The same key for another run, call or session is another request.
    let body = Digest::of_parts(&[&body, asked.route.parameter().as_bytes()]);
    Ok(Some(IdempotencyKey { key, body }))
}
