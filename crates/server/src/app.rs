//! One request from door to answer: route, host and origin, caller, scope, limits, handler; then metrics and the access log.

use crate::auth::{Caller, Keys};
use crate::body::{Answered, Body};
use crate::config::Config;
use crate::door::{self, Rates};
use crate::feed::Feeds;
use crate::links::PortLinks;
use crate::listen::Entry;
use crate::metrics::Metrics;
use crate::pages::Pages;
use crate::problem::No;
use crate::route::Route;
use crate::{answer, handlers, route};
use api::{Access, Operation, Refusal};
use domain::{Id, id};
use engine::Engine;
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use std::sync::Arc;
use stdx::Clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::task::TaskTracker;

/// The service.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) engine: Engine,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    pub(crate) pages: Pages,
    /// What those who follow sessions share.
    pub(crate) feeds: Feeds,
    pub(crate) draining: watch::Receiver<bool>,
    /// Connections that stopped being HTTP.
    pub(crate) tunnels: TaskTracker,
    port_links: Option<PortLinks>,
    tunnel_places: Arc<Semaphore>,
    keys: Keys,
    rates: Rates,
    requests: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

/// A request that was let in.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) route: Route,
    pub(crate) caller: Caller,
    pub(crate) parts: Parts,
    pub(crate) entry: Entry,
}

/// What a handler answers, and the run that it was about, for the log.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) response: Response<Body>,
    pub(crate) run: Option<Id<id::Run>>,
}

impl From<Response<Body>> for Told {
    fn from(response: Response<Body>) -> Self {
        Self { response, run: None }
    }
}

impl Told {
    pub(crate) fn about(response: Response<Body>, run: Id<id::Run>) -> Self {
        Self { response, run: Some(run) }
    }
}

impl App {
    pub(crate) fn new(config: Config, engine: Engine, draining: watch::Receiver<bool>) -> Self {
        let clock = engine.clock().clone();
        let keys = Keys::new(&config);
        Self {
            rates: Rates::new(clock.clone(), config.limits.requests_per_second_max),
            requests: Arc::new(Semaphore::new(config.limits.requests_at_once_max)),
            streams: Arc::new(Semaphore::new(config.limits.streams_at_once_max)),
            tunnels: TaskTracker::new(),
            port_links: config.link_key.as_ref().map(|key| PortLinks::new(key, clock.clone())),
            tunnel_places: Arc::new(Semaphore::new(config.limits.tunnels_at_once_max)),
            metrics: Metrics::default(),
            pages: Pages::default(),
            feeds: Feeds::default(),
            keys,
            config,
            engine,
            clock,
            draining,
        }
    }

    /// Answers a request; a failure is an answer too.
    pub(crate) async fn answer(self: Arc<Self>, entry: Entry, request: Request<Incoming>) -> Answered {
        let started = self.clock.monotonic();
        let (parts, body) = request.into_parts();
        let method = parts.method.clone();
        let found = route::find(&method, parts.uri.path()).and_then(|route| {
            let has = self.config.surface.has(route.endpoint.operation);
            has.then_some(route).ok_or_else(|| No::refused(Refusal::PathUnknown, "a worker takes no requests for runs"))
        });
        let index = found.as_ref().ok().map(|route| route.index);
        let told = match found {
            Ok(route) => Box::pin(self.clone().admitted(entry, route, parts, body)).await,
            // Which paths there are is no secret; who may know more is told at the door all the same.
            Err(no) => door::check_origin(&self.config, entry, &parts.headers).and(Err(no)),
        };
        let (response, run) = match told {
            Ok(Told { response, run }) => (response, run),
            Err(no) => (answer::problem(&no), no.problem.run_id),
        };
        let status = response.status().as_u16();
        let took = self.clock.monotonic().saturating_sub(started);
        self.metrics.answered(index, status, took);
        let path = index.map_or("unknown", |index| api::ENDPOINTS[index].path);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        tracing::info!(
            target: "http",
            %method,
            path,
            status,
            micros,
            run_id = run.map(tracing::field::display),
            "answered"
        );
        Ok(response)
    }

    async fn admitted(self: Arc<Self>, entry: Entry, route: Route, parts: Parts, body: Incoming) -> Result<Told, No> {
        match route.endpoint.operation {
            Operation::Port => door::check_host_of_port(&self.config, entry, &parts.headers)?,
            _ => door::check_origin(&self.config, entry, &parts.headers)?,
        }
        let caller = self.caller(entry, &route, &parts.headers)?.clone();
        let _place = self.requests.clone().try_acquire_owned().map_err(|_| crowded("requests"))?;
        handlers::handle(self, Asked { route, caller, parts, entry }, body).await
    }

    /// Who asks, if they may ask this.
    fn caller(&self, entry: Entry, route: &Route, headers: &HeaderMap) -> Result<&Caller, No> {
        let scope = match route.endpoint.access {
            Access::Open | Access::Link => return Ok(self.keys.local()),
            Access::Scope(scope) => scope,
        };
        let caller = if entry == Entry::Memory || !self.keys.are_needed() {
            self.keys.local()
        } else {
            self.keys.caller(headers)?
        };
        caller.must_have(scope)?;
        self.rates.take(caller)?;
        Ok(caller)
    }

    /// Whether clients must bring a key.
    pub(crate) const fn wants_keys(&self) -> bool {
        self.keys.are_needed()
    }

    /// A place for an event stream, held as long as it lasts.
    pub(crate) fn stream_place(&self) -> Result<OwnedSemaphorePermit, No> {
        self.streams.clone().try_acquire_owned().map_err(|_| crowded("event streams"))
    }

    /// A place for a request to a port or a connection that is upgraded, held as long as it lasts.
    pub(crate) fn tunnel_place(&self) -> Result<OwnedSemaphorePermit, No> {
        self.tunnel_places.clone().try_acquire_owned().map_err(|_| crowded("connections to sandboxes"))
    }

    /// What signs links to ports.
    pub(crate) fn port_links(&self) -> Result<&PortLinks, No> {
        self.port_links.as_ref().ok_or_else(No::links_unsigned)
    }

    /// The service's address as the client sees it, without a slash at its end; empty within the process.
    pub(crate) fn base(&self, entry: Entry, headers: &HeaderMap) -> String {
        match (&self.config.public_url, door::host(headers)) {
            (Some(url), _) => url.trim_end_matches('/').to_owned(),
            (None, Some(host)) if entry != Entry::Memory => format!("http://{host}"),
            (None, _) => String::new(),
        }
    }
}

fn crowded(what: &str) -> No {
    let message = format!("as many {what} are under way as may be; hint: try again in a moment");
    No::refused(Refusal::TooManyRequests, &message).retry_after(1)
}
