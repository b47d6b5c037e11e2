//! Ports in sandboxes: links to them, and HTTP and WebSocket carried through. Every request gets a connection of its own, so
//! that no two requests share one in which lengths could be argued about. What may pass, and why, stands in
//! `docs/decisions/ports.md`; which headers do, in `passing`.

use crate::answer;
use crate::app::{App, Asked, Told};
use crate::body::{self, Body, Cut};
use crate::exec;
use crate::links::Linked;
use crate::passing::{self, Place};
use crate::problem::No;
use crate::request::optional;
use crate::sandboxes;
use crate::tunnel;
use api::{LinkPort, PORT_LINK_SECONDS_DEFAULT, PORT_LINK_SECONDS_MAX, PortLink};
use domain::record::Deed;
use futures::StreamExt as _;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use sandbox::{Duplex, Port};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

/// Bytes of an answer's head from inside at most, and how many headers it may have.
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 100;
/// How long a program inside may take to answer, its request's body included.
const ANSWER_MS_MAX: u64 = 300_000;
/// Bytes of a link's path at most.
const PATH_BYTES_MAX: usize = 2_048;

/// `POST /sandboxes/{sandbox_id}/ports/{port}/links`.
pub(crate) async fn link(app: &App, asked: &Asked, body: Incoming) -> Result<Response<Body>, No> {
    let found = sandboxes::named(app, asked).await?;
    let port: Port = asked.route.second().parse().map_err(|_| No::invalid("the path: expected a port, 1 to 65535"))?;
    let bytes = body::read(body, &app.config.limits).await?;
    let LinkPort { expires_in_seconds, path } = optional(&asked.parts.headers, &bytes)?;
    let links = app.port_links()?;
    exec::held(&found).await?;
    let seconds = expires_in_seconds.unwrap_or(PORT_LINK_SECONDS_DEFAULT);
    if !(1..=PORT_LINK_SECONDS_MAX).contains(&seconds) {
        let message = format!("the body: `expires_in_seconds` is {seconds}; expected 1 to {PORT_LINK_SECONDS_MAX}");
        return Err(No::invalid(&message));
    }
    let path = path.unwrap_or_else(|| "/".to_owned());
    let is_path =
        path.starts_with('/') && path.len() <= PATH_BYTES_MAX && path.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_path || path.contains('#') {
        let message =
            format!("the body: `path` begins with `/` and has up to {PATH_BYTES_MAX} printable ASCII characters");
        return Err(No::invalid(&message));
    }
    let detail = format!("port {port} for {seconds} s");
    sandboxes::operated(app, asked, &found, Deed::Link, Some(&detail)).await?;
    let expires_ms = app.clock.wall_ms().saturating_add(seconds * 1_000);
    let token = links.sign(Linked { sandbox: found.living.id, port }, expires_ms);
    let base = app.base(asked.entry, &asked.parts.headers);
    answer::json(201, &PortLink { url: format!("{base}/ports/{token}{path}"), expires_ms })
}

/// Everything below `/ports/{token}`.
pub(crate) async fn carry(app: Arc<App>, mut asked: Asked, body: Incoming) -> Result<Told, No> {
    let linked = app.port_links()?.open(asked.route.parameter())?;
    if asked.parts.headers.contains_key("service-worker") {
        return Err(No::service_worker());
    }
    let uri = asked.parts.uri.clone();
    let place = Place::of(&uri, linked.port)?;
    let Some(rest) = place.rest() else { return Ok(redirected(&uri)?.into()) };
    if passing::is_preflight(&asked.parts) {
        return Ok(passing::preflight(&asked.parts.headers).into());
    }
    let permit = app.tunnel_place()?;
    let stream = dial(&app, linked).await?;
    let mut inner = Request::new(body);
    *inner.method_mut() = asked.parts.method.clone();
    *inner.uri_mut() = rest.parse().map_err(|_| No::invalid("the path can't be passed on"))?;
    let wants_websocket = tunnel::is_websocket(&asked.parts.headers);
    *inner.headers_mut() = passing::inward(&asked.parts.headers, linked.port, wants_websocket);
    let (mut response, connection) = exchange(stream, inner).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        if !wants_websocket {
            return Err(No::port_answer("it switches protocols without being asked"));
        }
        let headers = passing::switching(response.headers());
        let (near, far) = (tunnel::upgrade(&mut asked.parts), hyper::upgrade::on(&mut response));
        app.tunnels.spawn(tunnel::until_drained(app.draining.clone(), async move {
            // Whichever side ends, the other is told by the end of its own.
            if let (Ok(mut near), Ok(mut far)) = tokio::join!(near, tunnel::handed_over(far)) {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
            drop((connection, permit));
        }));
        let mut switching = answer::nothing();
        *switching.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *switching.headers_mut() = headers;
        return Ok(switching.into());
    }
    Ok(outward(&asked, &place, response, Kept { connection, permit }).into())
}

/// A path without its last slash, in which relative links would lead elsewhere.
fn redirected(uri: &http::Uri) -> Result<Response<Body>, No> {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = HeaderValue::from_str(&format!("{}/{query}", uri.path()));
    let mut response = answer::nothing();
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    let location = location.map_err(|error| No::internal("internal", &error))?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

async fn dial(app: &App, linked: Linked) -> Result<Box<dyn Duplex>, No> {
    for provider in app.engine.providers() {
        if let Some(sandbox) = provider.find(linked.sandbox).await {
            return Ok(sandbox.dial(linked.port).await?);
        }
    }
    Err(No::sandbox_gone("it has ended; hint: ask for a link to the one that its session has now"))
}

/// Drives a connection; ended when its owner goes.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sends a request over a connection of its own, and waits for the head of the answer.
async fn exchange(stream: Box<dyn Duplex>, request: Request<Incoming>) -> Result<(Response<Incoming>, Connection), No> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
    let (mut sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(|error| No::port_answer(&error.to_string()))?;
    // Its failure is seen by the exchange itself.
    let connection = Connection(tokio::spawn(async move { drop(connection.with_upgrades().await) }));
    match tokio::time::timeout(Duration::from_millis(ANSWER_MS_MAX), sender.send_request(request)).await {
        Ok(Ok(response)) => Ok((response, connection)),
        Ok(Err(error)) => Err(No::port_answer(&told(&error))),
        Err(_) => Err(No::port_timeout(ANSWER_MS_MAX)),
    }
}

/// An error of the HTTP library with its causes.
fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// What lives as long as an answer's body.
struct Kept {
    #[expect(dead_code, reason = "dropping it ends the connection inside")]
    connection: Connection,
    #[expect(dead_code, reason = "dropping it makes place for another")]
    permit: OwnedSemaphorePermit,
}

/// The answer from inside as it goes out: its own status and body, and of its headers those that can do no harm.
fn outward(asked: &Asked, place: &Place, response: Response<Incoming>, kept: Kept) -> Response<Body> {
    let (parts, body) = response.into_parts();
    let has_body = asked.parts.method != Method::HEAD;
    let bytes = body.size_hint().exact();
    let pieces = futures::stream::unfold((body, kept), |(mut body, kept)| async move {
        loop {
            match body.frame().await? {
                Ok(frame) => match frame.into_data() {
                    Ok(bytes) => return Some((Ok(bytes), (body, kept))),
                    // Trailers stay here.
                    Err(_) => continue,
                },
                Err(error) => return Some((Err(Cut(told(&error))), (body, kept))),
            }
        }
    });
    let body = if has_body { Body::Pieces { pieces: pieces.boxed(), bytes } } else { Body::Whole(None) };
    let mut outward = Response::new(body);
    *outward.status_mut() = parts.status;
    *outward.headers_mut() = passing::outward(&parts.headers, &asked.parts.headers, place, has_body);
    outward
}
