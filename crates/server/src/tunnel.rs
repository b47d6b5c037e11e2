//! Connections that stop being HTTP: upgraded, owned by the service, and ended when it drains.

use crate::answer;
use crate::body::Body;
use crate::problem::No;
use base64::Engine as _;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::time::Duration;
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// How long a connection may take to be handed over once both sides have agreed.
const UPGRADE_MS_MAX: u64 = 10_000;
/// Bytes of the key that a WebSocket begins with (RFC 6455 §4.1).
const KEY_BYTES: usize = 16;

/// A connection that was HTTP.
pub(crate) type Tunnel = TokioIo<hyper::upgrade::Upgraded>;

/// Whether a header has this word in its list.
pub(crate) fn has_word(headers: &HeaderMap, name: &header::HeaderName, word: &str) -> bool {
    let lists = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|found| found.trim().eq_ignore_ascii_case(word))
}

/// Whether a request wants to become a WebSocket.
pub(crate) fn is_websocket(headers: &HeaderMap) -> bool {
    has_word(headers, &header::CONNECTION, "upgrade") && has_word(headers, &header::UPGRADE, "websocket")
}

/// What accepts a WebSocket's key; a request that does not want to become one is told so.
pub(crate) fn websocket_accept(headers: &HeaderMap) -> Result<String, No> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    let decoded = base64::engine::general_purpose::STANDARD.decode(key);
    let is_key = decoded.is_ok_and(|key| key.len() == KEY_BYTES);
    let has_version = headers.get(header::SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    if is_websocket(headers) && is_key && has_version {
        Ok(derive_accept_key(key))
    } else {
        Err(No::upgrade_required())
    }
}

/// The answer that makes a connection a WebSocket.
pub(crate) fn switching(accept: &str) -> Result<Response<Body>, No> {
    let mut response = answer::nothing();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept = HeaderValue::from_str(accept).map_err(|error| No::internal("internal", &error))?;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

/// The connection of a request, once it was answered so that it stops being HTTP.
pub(crate) fn upgrade(parts: &mut Parts) -> impl Future<Output = Result<Tunnel, No>> + Send + use<> {
    let mut request = http::Request::new(());
    // What hyper hands over stands among the request's extensions.
    std::mem::swap(request.extensions_mut(), &mut parts.extensions);
    handed_over(hyper::upgrade::on(request))
}

/// Waits until a connection is handed over.
pub(crate) async fn handed_over(upgrade: hyper::upgrade::OnUpgrade) -> Result<Tunnel, No> {
    match tokio::time::timeout(Duration::from_millis(UPGRADE_MS_MAX), upgrade).await {
        Ok(Ok(upgraded)) => Ok(TokioIo::new(upgraded)),
        Ok(Err(error)) => Err(No::internal("internal", &error)),
        Err(_) => Err(No::invalid("the connection was not handed over in time")),
    }
}

/// A WebSocket over a connection that has just become one.
pub(crate) async fn websocket(tunnel: Tunnel) -> WebSocketStream<Tunnel> {
    let bytes_max = Some(api::EXEC_MESSAGE_BYTES_MAX);
    let config = WebSocketConfig::default().max_message_size(bytes_max).max_frame_size(bytes_max);
    WebSocketStream::from_raw_socket(tunnel, Role::Server, Some(config)).await
}

/// Runs until it is done, or the service drains.
pub(crate) async fn until_drained(mut draining: watch::Receiver<bool>, work: impl Future<Output = ()> + Send) {
    tokio::select! {
        () = work => {}
        // An error means that the service is gone, which is the end too.
        _ = draining.wait_for(|draining| *draining) => {}
    }
}
