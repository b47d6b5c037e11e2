//! Which headers pass between a client and a port in a sandbox. Inwards: what identifies nobody at this address. Outwards: a
//! list of what can do no harm to it; whatever is not on the list stays inside.

use crate::answer;
use crate::body::Body;
use crate::problem::No;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header};
use sandbox::Port;

/// What a page from inside may do: it is nobody's page, with no cookies, storage or service workers, and reads nothing here.
const SANDBOXED: &str = "sandbox allow-scripts allow-forms allow-modals allow-popups allow-downloads";

/// Headers of a request that stay here: they are of one connection, name somebody, or are told anew.
const INWARD_REFUSED: [&str; 24] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "content-length",
    "expect",
    "host",
    "authorization",
    "cookie",
    "x-api-key",
    "origin",
    "referer",
    "forwarded",
    "x-real-ip",
    "via",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-extensions",
];

/// Headers of an answer that pass as they are.
const OUTWARD_PASSED: [&str; 14] = [
    "content-type",
    "content-encoding",
    "content-language",
    "content-disposition",
    "content-range",
    "accept-ranges",
    "etag",
    "last-modified",
    "date",
    "age",
    "retry-after",
    "allow",
    "server-timing",
    "sourcemap",
];

/// Beginnings of headers of one's own (`x-…`) that others on the way would obey.
const OWN_REFUSED: [&str; 8] = [
    "x-accel-",
    "x-sendfile",
    "x-lighttpd-",
    "x-reproxy-",
    "x-litespeed-",
    "x-content-type-options",
    "x-dns-prefetch-control",
    "x-frame-options",
];

/// Where a port stands below this address.
#[derive(Debug)]
pub(crate) struct Place {
    /// The path up to the token, without a slash at its end.
    prefix: String,
    /// Path and query as the program inside gets them.
    rest: Option<String>,
    port: Port,
}

impl Place {
    pub(crate) fn of(uri: &Uri, port: Port) -> Result<Self, No> {
        let path = uri.path();
        let within = path.strip_prefix(api::BASE).filter(|rest| rest.starts_with("/ports/")).unwrap_or(path);
        let before = path.len() - within.len();
        let token = within.strip_prefix("/ports/").ok_or_else(|| No::invalid("the path leads to no port"))?;
        let end = token.find('/').unwrap_or(token.len());
        let (prefix, rest) = path.split_at(before + "/ports/".len() + end);
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let rest = (!rest.is_empty()).then(|| format!("{rest}{query}"));
        Ok(Self { prefix: prefix.to_owned(), rest, port })
    }

    /// Path and query inside; `None` without the slash that relative links need.
    pub(crate) fn rest(&self) -> Option<&str> {
        self.rest.as_deref()
    }

    /// Where a redirect leads: what means the program itself stays below the link.
    fn location(&self, location: &str) -> String {
        let own = |rest: &str| format!("{}{}", self.prefix, if rest.is_empty() { "/" } else { rest });
        if location.starts_with('/') && !location.starts_with("//") {
            return own(location);
        }
        let Ok(uri) = location.parse::<Uri>() else { return location.to_owned() };
        let is_loopback = matches!(uri.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
        let is_own = is_loopback && uri.port_u16().unwrap_or(80) == self.port.number();
        match uri.path_and_query() {
            Some(rest) if is_own => own(rest.as_str()),
            _ => location.to_owned(),
        }
    }
}

/// Whether a page asks if it may ask.
pub(crate) fn is_preflight(parts: &Parts) -> bool {
    parts.method == Method::OPTIONS && parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// A page that came through a link is nobody's, so even what it loads from its own link needs this word.
pub(crate) fn preflight(headers: &HeaderMap) -> Response<Body> {
    let mut response = answer::nothing();
    *response.status_mut() = StatusCode::NO_CONTENT;
    allow_nobodys(headers, response.headers_mut());
    for (asked, allowed) in [
        (header::ACCESS_CONTROL_REQUEST_METHOD, header::ACCESS_CONTROL_ALLOW_METHODS),
        (header::ACCESS_CONTROL_REQUEST_HEADERS, header::ACCESS_CONTROL_ALLOW_HEADERS),
    ] {
        if let Some(value) = headers.get(asked) {
            response.headers_mut().insert(allowed, value.clone());
        }
    }
    response
}

/// Lets a page that came through a link read the answer; nobody else's.
fn allow_nobodys(asked: &HeaderMap, headers: &mut HeaderMap) {
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    if asked.get(header::ORIGIN).is_some_and(|origin| origin == "null") {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("null"));
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
    }
}

/// The headers that a connection's two ends agreed on for themselves.
fn of_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let lists = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
}

/// A request's headers as the program inside gets them.
pub(crate) fn inward(headers: &HeaderMap, port: Port, wants_websocket: bool) -> HeaderMap {
    let private = of_connection(headers);
    let is_refused = |name: &HeaderName| {
        INWARD_REFUSED.contains(&name.as_str())
            || private.contains(name)
            || ["x-forwarded-", "sec-fetch-", "access-control-"].iter().any(|start| name.as_str().starts_with(start))
    };
    let mut passed = HeaderMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| !is_refused(name)) {
        passed.append(name.clone(), value.clone());
    }
    let text = |text: String| HeaderValue::from_str(&text).ok();
    passed.extend(text(format!("localhost:{port}")).map(|host| (header::HOST, host)));
    if headers.contains_key(header::ORIGIN) {
        passed.extend(text(format!("http://localhost:{port}")).map(|origin| (header::ORIGIN, origin)));
    }
    if wants_websocket {
        for name in [header::SEC_WEBSOCKET_KEY, header::SEC_WEBSOCKET_VERSION, header::SEC_WEBSOCKET_EXTENSIONS] {
            passed.extend(headers.get(&name).map(|value| (name, value.clone())));
        }
        passed.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        passed.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    } else {
        passed.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    passed
}

/// The headers of an answer that makes a connection a WebSocket.
pub(crate) fn switching(inside: &HeaderMap) -> HeaderMap {
    let names = [header::SEC_WEBSOCKET_ACCEPT, header::SEC_WEBSOCKET_PROTOCOL, header::SEC_WEBSOCKET_EXTENSIONS];
    let mut headers: HeaderMap =
        names.into_iter().filter_map(|name| inside.get(&name).map(|value| (name, value.clone()))).collect();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers
}

/// An answer's headers as they go out.
pub(crate) fn outward(inside: &HeaderMap, asked: &HeaderMap, place: &Place, has_body: bool) -> HeaderMap {
    let private = of_connection(inside);
    let passes = |name: &HeaderName| {
        let name = name.as_str();
        let own = name.starts_with("x-") && !OWN_REFUSED.iter().any(|refused| name.starts_with(refused));
        OUTWARD_PASSED.contains(&name) || own
    };
    let mut headers = HeaderMap::new();
    for (name, value) in inside.iter().filter(|(name, _)| passes(name) && !private.contains(name)) {
        headers.append(name.clone(), value.clone());
    }
    let location = inside.get(header::LOCATION).and_then(|location| location.to_str().ok());
    let location = location.and_then(|location| HeaderValue::from_str(&place.location(location)).ok());
    headers.extend(location.map(|location| (header::LOCATION, location)));
    let mut lengths = inside.get_all(header::CONTENT_LENGTH).iter();
    if let (false, Some(length), None) = (has_body, lengths.next(), lengths.next()) {
        headers.insert(header::CONTENT_LENGTH, length.clone());
    }
    allow_nobodys(asked, &mut headers);
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, SANDBOXED),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("x-robots-tag", HeaderValue::from_static("noindex"));
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn port() -> Port {
        Port::new(8_000).unwrap()
    }

    #[test]
    fn nothing_that_names_somebody_goes_in() {
        let asked = map(&[
            "host: topside.example",
            "authorization: Bearer tsk_secret",
            "cookie: console=secret",
            "x-api-key: tsk_secret",
            "referer: https://topside.example/ports/token/",
            "origin: null",
            "x-forwarded-for: 10.0.0.1",
            "connection: close, x-private",
            "x-private: 1",
            "transfer-encoding: chunked",
            "content-length: 5",
            "accept: text/html",
            "x-own: 2",
        ]);
        let got = inward(&asked, port(), false);
        let mut names: Vec<String> =
            got.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        names.sort();
        assert_eq!(
            names,
            [
                "accept: text/html",
                "connection: close",
                "host: localhost:8000",
                "origin: http://localhost:8000",
                "x-own: 2"
            ]
        );
    }

    #[test]
    fn nothing_that_reaches_beyond_the_page_comes_out() {
        let inside = map(&[
            "content-type: text/html",
            "set-cookie: console=evil; Path=/",
            "clear-site-data: \"*\"",
            "service-worker-allowed: /",
            "strict-transport-security: max-age=1",
            "alt-svc: h3=\"evil.example:443\"",
            "report-to: {}",
            "nel: {}",
            "reporting-endpoints: a=\"/runs\"",
            "www-authenticate: Basic realm=\"Topside\"",
            "content-security-policy: default-src *",
            "access-control-allow-origin: *",
            "access-control-allow-credentials: true",
            "refresh: 0; url=/docs",
            "link: </runs>; rel=preload",
            "x-accel-redirect: /etc/passwd",
            "x-sendfile: /etc/passwd",
            "transfer-encoding: chunked",
            "connection: close, etag",
            "etag: 1",
            "x-total: 7",
            "referrer-policy: unsafe-url",
        ]);
        let place = Place::of(&"/ports/T/a".parse().unwrap(), port()).unwrap();
        let got = outward(&inside, &map(&["origin: null"]), &place, true);
        let mut names: Vec<String> =
            got.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        names.sort();
        let sandboxed = format!("content-security-policy: {SANDBOXED}");
        assert_eq!(
            names,
            [
                "access-control-allow-origin: null",
                "access-control-expose-headers: *",
                "cache-control: no-store",
                &sandboxed,
                "content-type: text/html",
                "referrer-policy: no-referrer",
                "vary: origin",
                "x-content-type-options: nosniff",
                "x-robots-tag: noindex",
                "x-total: 7"
            ]
        );
        assert!(!SANDBOXED.contains("allow-same-origin") && !SANDBOXED.contains("allow-top-navigation"));
    }

    #[test]
    fn a_place_keeps_what_is_the_programs_own_below_its_link() {
        for (uri, rest) in [
            ("/ports/T", None),
            ("/ports/T/", Some("/")),
            ("/ports/T?a=b", None),
            ("/ports/T/a%2Fb//c?d=/e", Some("/a%2Fb//c?d=/e")),
            ("/api/v1/ports/T/x", Some("/x")),
        ] {
            let place = Place::of(&uri.parse().unwrap(), port()).unwrap();
            assert_eq!(place.rest(), rest, "{uri}");
        }
        let place = Place::of(&"/api/v1/ports/T/a/b".parse().unwrap(), port()).unwrap();
        for (location, expected) in [
            ("/login?next=/", "/api/v1/ports/T/login?next=/"),
            ("next", "next"),
            ("../up", "../up"),
            ("http://localhost:8000/x?y", "/api/v1/ports/T/x?y"),
            ("http://127.0.0.1:8000", "/api/v1/ports/T/"),
            ("http://localhost:8001/x", "http://localhost:8001/x"),
            ("https://example.org/", "https://example.org/"),
            ("//example.org/", "//example.org/"),
        ] {
            assert_eq!(place.location(location), expected, "{location}");
        }
    }
}
