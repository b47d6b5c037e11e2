//! The client: one pool for hosts that the operator wrote, one for all others, and redirects followed under suspicion.

use crate::host::{self, Canonical};
use crate::lookup::{Refused, Resolver, SystemLookup, Unresolved, Vetting};
use crate::{Carrier, Error, Lookup, Origin, Request, Response, Settings, trust};
use bytes::Bytes;
use http::{HeaderMap, Method, header};
use hyper_util::client::proxy::matcher::Matcher;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use url::Url;

/// Headers that may follow a redirect to another origin; every other one could be a secret.
const HEADERS_CARRIED: [header::HeaderName; 4] =
    [header::ACCEPT, header::ACCEPT_LANGUAGE, header::CONTENT_TYPE, header::USER_AGENT];

/// What came of asking for another protocol.
pub enum Upgraded {
    /// The connection itself.
    Stream {
        /// The headers of the answer that switched.
        headers: HeaderMap,
        /// Bytes both ways.
        stream: Box<dyn Duplex>,
    },
    /// The other side did not switch.
    Answer(Box<Response>),
}

/// A stream of bytes in both directions.
pub trait Duplex: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Duplex for T {}

impl std::fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Stream { .. } => "Stream",
            Self::Answer(_) => "Answer",
        })
    }
}

/// The way out. Clones share their pools.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    settings: Settings,
    tls: rustls::ClientConfig,
    lookup: Arc<dyn Lookup>,
    vetting: Vetting,
    proxies: Arc<Matcher>,
    /// Takes hosts as written; uses the proxies.
    operator: reqwest::Client,
    /// Dials vetted addresses only; made when the first untrusted host is asked for.
    untrusted: OnceLock<reqwest::Client>,
    /// For connections that stop being HTTP, which only HTTP/1.1 has; made when the first one is wanted.
    upgrading: OnceLock<reqwest::Client>,
    /// Whoever carries requests in the place of sockets.
    carrier: Option<Arc<dyn Carrier>>,
}

impl Client {
    /// A client that resolves names as the operating system does.
    ///
    /// # Errors
    /// [`Error::Settings`] when a proxy or the CA file is malformed.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        Self::with_lookup(settings, Arc::new(SystemLookup))
    }

    /// A client with a resolver of the caller's choice.
    ///
    /// # Errors
    /// [`Error::Settings`] when a proxy or the CA file is malformed.
    pub fn with_lookup(settings: Settings, lookup: Arc<dyn Lookup>) -> Result<Self, Error> {
        let tls = trust::configuration(settings.ca_pem.as_deref())?;
        let vetting = Vetting::new(&settings.untrusted_networks_allowed);
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let proxies = Matcher::builder()
            .http(text(&settings.http_proxy))
            .https(text(&settings.https_proxy))
            .no(text(&settings.no_proxy))
            .build();
        let proxies = Arc::new(proxies);
        let resolver = Resolver { lookup: lookup.clone(), vetting: None };
        let mut builder = builder(&settings, &tls, resolver);
        for proxy in proxies_of(&settings)? {
            builder = builder.proxy(proxy);
        }
        let operator = builder.build().map_err(|error| Error::Settings { reason: chain(&error) })?;
        let (untrusted, upgrading, carrier) = (OnceLock::new(), OnceLock::new(), None);
        Ok(Self(Arc::new(Inner { settings, tls, lookup, vetting, proxies, operator, untrusted, upgrading, carrier })))
    }

    /// The same client over a network of the caller's own: it opens no socket.
    #[must_use]
    pub fn over(&self, carrier: Arc<dyn Carrier>) -> Self {
        Self(Arc::new(Inner { carrier: Some(carrier), ..(*self.0).clone() }))
    }

    /// Sends a request and waits until the answer's headers are there. Dropping the future cancels it.
    ///
    /// # Errors
    /// Every [`Error`] but [`Error::Settings`].
    pub async fn send(&self, mut request: Request) -> Result<Response, Error> {
        let now = Instant::now();
        let first_byte_by = now + Duration::from_millis(request.timeouts.first_byte_ms);
        let total_by = now + Duration::from_millis(request.timeouts.total_ms);
        let mut redirects_left = request.redirects_max;
        loop {
            let host = canonical(&mut request.url, request.origin)?;
            let hop = self.hop(&request, &host);
            let inner = match timeout_at(first_byte_by.min(total_by), hop).await {
                Ok(inner) => inner?,
                Err(_) if total_by <= first_byte_by => {
                    return Err(Error::TimeoutTotal { host: host.to_string(), ms: request.timeouts.total_ms });
                }
                Err(_) => {
                    return Err(Error::TimeoutFirstByte { host: host.to_string(), ms: request.timeouts.first_byte_ms });
                }
            };
            match redirect(&inner, &request) {
                Some(location) if request.redirects_max > 0 => {
                    let status = inner.status().as_u16();
                    let refused = |reason: String| Error::RedirectRefused { host: host.to_string(), reason };
                    redirects_left = redirects_left
                        .checked_sub(1)
                        .ok_or_else(|| refused(format!("more than {} redirects", request.redirects_max)))?;
                    request = redirected(request, status, location).map_err(refused)?;
                }
                _ => {
                    return Ok(Response {
                        inner,
                        host: host.to_string(),
                        timeouts: request.timeouts,
                        first_byte_by,
                        total_by,
                        bytes_max: request.response_bytes_max,
                        bytes_left: request.response_bytes_max,
                        begun: false,
                    });
                }
            }
        }
    }

    /// Sends a request of the operator's own to a host, and gives the connection itself once the other side switches protocols;
    /// any other answer as it is. A client over a carrier has no connection to give.
    ///
    /// # Errors
    /// Every [`Error`].
    pub async fn upgrade(&self, mut request: Request) -> Result<Upgraded, Error> {
        let host = canonical(&mut request.url, request.origin)?.to_string();
        if self.0.carrier.is_some() || request.origin != Origin::Operator {
            return Err(Error::BadUrl { reason: "nothing there can be switched to another protocol".into() });
        }
        let client = match self.0.upgrading.get() {
            Some(client) => client,
            None => {
                let client = self.plain_http()?;
                self.0.upgrading.get_or_init(|| client)
            }
        };
        let ms = request.timeouts.first_byte_ms;
        let asked = client.request(request.method, request.url).headers(request.headers).send();
        let failed = |error| failed(error, &host, self.0.settings.connect_ms);
        let first_byte_by = Instant::now() + Duration::from_millis(ms);
        let late = |_| Error::TimeoutFirstByte { host: host.clone(), ms };
        let inner = timeout_at(first_byte_by, asked).await.map_err(late)?.map_err(failed)?;
        if inner.status() == reqwest::StatusCode::SWITCHING_PROTOCOLS {
            let headers = inner.headers().clone();
            let stream = timeout_at(first_byte_by, inner.upgrade()).await.map_err(late)?.map_err(failed)?;
            return Ok(Upgraded::Stream { headers, stream: Box::new(stream) });
        }
        let (timeouts, bytes_max) = (request.timeouts, request.response_bytes_max);
        let total_by = Instant::now() + Duration::from_millis(timeouts.total_ms);
        let (bytes_left, begun) = (bytes_max, false);
        let response = Response { inner, host, timeouts, first_byte_by, total_by, bytes_max, bytes_left, begun };
        Ok(Upgraded::Answer(Box::new(response)))
    }

    /// A client that never speaks anything newer than HTTP/1.1.
    fn plain_http(&self) -> Result<reqwest::Client, Error> {
        let resolver = Resolver { lookup: self.0.lookup.clone(), vetting: None };
        let mut tls = self.0.tls.clone();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut builder = builder(&self.0.settings, &tls, resolver).http1_only();
        for proxy in proxies_of(&self.0.settings)? {
            builder = builder.proxy(proxy);
        }
        builder.build().map_err(|error| Error::Settings { reason: chain(&error) })
    }

    async fn hop(&self, request: &Request, host: &Canonical) -> Result<reqwest::Response, Error> {
        if let Some(carrier) = &self.0.carrier {
            return Ok(carrier.carry(request.clone()).await?.into_response());
        }
        let client = match request.origin {
            Origin::Operator => &self.0.operator,
            Origin::Untrusted => self.vetted(&request.url, host).await?,
        };
        let mut builder = client.request(request.method.clone(), request.url.clone()).headers(request.headers.clone());
        if !request.body.is_empty() {
            builder = builder.body(request.body.clone());
        }
        builder.send().await.map_err(|error| failed(error, &host.to_string(), self.0.settings.connect_ms))
    }

    /// The client for an untrusted host. Without a proxy the dial itself is vetted. With one, the proxy dials: the host is
    /// vetted here first, and from there on the proxy's rules are the wall.
    async fn vetted(&self, url: &Url, host: &Canonical) -> Result<&reqwest::Client, Error> {
        let inner = &*self.0;
        let proxied = url.as_str().parse().is_ok_and(|uri| inner.proxies.intercept(&uri).is_some());
        match host {
            // The HTTP library asks no resolver for an address, so it is judged here.
            Canonical::Address(address) => {
                inner.vetting.judge(&host.to_string(), &[*address]).map_err(refused)?;
            }
            Canonical::Name(name) if proxied => {
                Resolver::addresses(&*inner.lookup, Some(&inner.vetting), name)
                    .await
                    .map_err(|error| vetting_error(&*error).unwrap_or_else(|| unresolved(name, &error.to_string())))?;
            }
            Canonical::Name(_) => {}
        }
        if proxied {
            return Ok(&inner.operator);
        }
        if let Some(client) = inner.untrusted.get() {
            return Ok(client);
        }
        let resolver = Resolver { lookup: inner.lookup.clone(), vetting: Some(inner.vetting.clone()) };
        let client = builder(&inner.settings, &inner.tls, resolver)
            .build()
            .map_err(|error| Error::Settings { reason: chain(&error) })?;
        Ok(inner.untrusted.get_or_init(|| client))
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one door outward")]
fn builder(settings: &Settings, tls: &rustls::ClientConfig, resolver: Resolver) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .dns_resolver(Arc::new(resolver))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_millis(settings.connect_ms))
        .pool_max_idle_per_host(settings.pool_idle_per_host_max)
        .pool_idle_timeout(Duration::from_millis(settings.pool_idle_ms))
}

fn proxies_of(settings: &Settings) -> Result<Vec<reqwest::Proxy>, Error> {
    let mut proxies = Vec::new();
    let except = || settings.no_proxy.as_deref().and_then(reqwest::NoProxy::from_string);
    let bad = |name: &str| Error::Settings {
        reason: format!("{name} is no proxy url; expected one like http://proxy.example:3128"),
    };
    // The message leaves the value out: it may hold a password.
    if let Some(url) = settings.http_proxy.as_deref().filter(|url| !url.is_empty()) {
        proxies.push(reqwest::Proxy::http(url).map_err(|_| bad("http_proxy"))?.no_proxy(except()));
    }
    if let Some(url) = settings.https_proxy.as_deref().filter(|url| !url.is_empty()) {
        proxies.push(reqwest::Proxy::https(url).map_err(|_| bad("https_proxy"))?.no_proxy(except()));
    }
    Ok(proxies)
}

/// Brings the URL's host into its one spelling and says what it is.
fn canonical(url: &mut Url, origin: Origin) -> Result<Canonical, Error> {
    let bad = |reason: &str| Error::BadUrl { reason: reason.into() };
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("expected http:// or https://"));
    }
    if origin == Origin::Untrusted && !(url.username().is_empty() && url.password().is_none()) {
        return Err(bad("a user name or password is not taken from here"));
    }
    let host = host::of_url(url).ok_or_else(|| bad("it names no host"))?;
    if let Canonical::Name(name) = &host
        && url.host_str() != Some(name)
    {
        url.set_host(Some(name)).map_err(|_| bad("it names no host"))?;
    }
    Ok(host)
}

/// Where the answer sends the client, if it does.
fn redirect(response: &reqwest::Response, request: &Request) -> Option<Result<Url, String>> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = response.headers().get(header::LOCATION)?;
    let parsed = location.to_str().ok().and_then(|location| request.url.join(location).ok());
    Some(parsed.ok_or_else(|| "its Location is no url".to_owned()))
}

/// The next request. Within one origin all stays; to another origin goes neither a header that could be a secret nor a body.
fn redirected(mut request: Request, status: u16, location: Result<Url, String>) -> Result<Request, String> {
    let mut target = location?;
    target.set_fragment(None);
    let same_origin = target.origin() == request.url.origin();
    if request.url.scheme() == "https" && target.scheme() != "https" {
        return Err("it leads from https to a protocol without encryption".into());
    }
    let reads = request.method == Method::GET || request.method == Method::HEAD;
    if status == 303 || (matches!(status, 301 | 302) && request.method == Method::POST) {
        if !reads {
            request.method = Method::GET;
        }
        request.body = Bytes::new();
        request.headers.remove(header::CONTENT_TYPE);
        request.headers.remove(header::CONTENT_LENGTH);
    }
    if !same_origin {
        if !request.body.is_empty() {
            return Err("it would carry the body to another origin".into());
        }
        request.headers = carried(&request.headers);
        request.origin = Origin::Untrusted;
    }
    request.url = target;
    Ok(request)
}

fn carried(headers: &HeaderMap) -> HeaderMap {
    let kept = |name| headers.get(&name).filter(|value| !value.is_sensitive()).map(|value| (name, value.clone()));
    HEADERS_CARRIED.into_iter().filter_map(kept).collect()
}

/// What a failure of the HTTP library means.
pub(crate) fn failed(error: reqwest::Error, host: &str, connect_ms: u64) -> Error {
    let error = error.without_url();
    if let Some(vetting) = vetting_error(&error) {
        return vetting;
    }
    let host = host.to_owned();
    let message = chain(&error);
    if has_cause::<rustls::Error>(&error) {
        return Error::Tls { host, message };
    }
    if error.is_connect() && error.is_timeout() {
        return Error::TimeoutConnect { host, ms: connect_ms };
    }
    if error.is_connect() {
        return Error::Connect { host, message };
    }
    if error.is_builder() {
        return Error::BadUrl { reason: message };
    }
    Error::Broken { host, message }
}

fn refused(Refused { host, address, class }: Refused) -> Error {
    Error::AddressRefused { host, address, class }
}

fn unresolved(host: &str, message: &str) -> Error {
    Error::Resolve { host: host.to_owned(), message: message.to_owned() }
}

/// The judgement or the resolver's answer behind an error.
fn vetting_error(error: &(dyn std::error::Error + 'static)) -> Option<Error> {
    causes(error).find_map(|cause| {
        if let Some(Refused { host, address, class }) = cause.downcast_ref::<Refused>() {
            return Some(Error::AddressRefused { host: host.clone(), address: *address, class: *class });
        }
        cause.downcast_ref::<Unresolved>().map(|cause| unresolved(&cause.host, &cause.message))
    })
}

fn has_cause<T: std::error::Error + 'static>(error: &(dyn std::error::Error + 'static)) -> bool {
    causes(error).any(|cause| cause.is::<T>())
}

fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        // An IO error counts what it wraps as itself: its source is already the next but one.
        match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => (*error).source(),
        }
    })
}

/// The error and its causes in one line; a cause that only repeats its effect is left out.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = String::new();
    for cause in causes(error) {
        let text = cause.to_string();
        if !line.contains(&text) {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(&text);
        }
    }
    line
}
