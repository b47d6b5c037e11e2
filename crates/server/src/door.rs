//! Who may come to the door at all: the host that was meant, the page that asks, how often and how many at once.

use crate::auth::Caller;
use crate::config::Config;
use crate::listen::Entry;
use crate::problem::No;
use api::Refusal;
use domain::{Id, id};
use http::{HeaderMap, header};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use stdx::Clock;

/// Refuses a request that was meant for another host (DNS rebinding) or that another site's page makes.
pub(crate) fn check_origin(config: &Config, entry: Entry, headers: &HeaderMap) -> Result<(), No> {
    if entry == Entry::Memory {
        return Ok(());
    }
    let host = host(headers);
    let allowed = |name: &str| config.hosts_allowed.iter().any(|host| host.eq_ignore_ascii_case(name));
    let name = host.map(name_of).unwrap_or_default();
    let fits = match entry {
        Entry::Loopback => is_loopback(name) || allowed(name),
        Entry::Public => config.hosts_allowed.is_empty() || is_loopback(name) || allowed(name),
        Entry::Memory => true,
    };
    if !fits {
        let message = "the request names a host that is not this service; hint: name it in `hosts_allowed` if it is";
        return Err(No::refused(Refusal::HostRefused, message));
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let own = origin
        .split_once("://")
        .is_some_and(|(_, authority)| host.is_some_and(|host| host.eq_ignore_ascii_case(authority)));
    if own || config.origins_allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) {
        return Ok(());
    }
    let message = "a page of another site makes this request; hint: name it in `origins_allowed` if it may";
    Err(No::refused(Refusal::OriginRefused, message))
}

/// As [`check_origin`], for what comes through a link to a port: its pages are nobody's and say so, and may ask their own link.
pub(crate) fn check_host_of_port(config: &Config, entry: Entry, headers: &HeaderMap) -> Result<(), No> {
    let mut headers = headers.clone();
    if headers.get(header::ORIGIN).is_some_and(|origin| origin == "null") {
        headers.remove(header::ORIGIN);
    }
    check_origin(config, entry, &headers)
}

/// The host that the request names, with its port.
pub(crate) fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST)?.to_str().ok()
}

/// The host without its port.
fn name_of(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map_or(host, |(name, _)| name);
    }
    host.split_once(':').map_or(host, |(name, _)| name)
}

fn is_loopback(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// How often each principal asks. Bounded by the keys that there are.
#[derive(Debug)]
pub(crate) struct Rates {
    clock: Clock,
    per_second_max: Option<u32>,
    buckets: Mutex<HashMap<Who, Bucket>>,
}

type Who = (Arc<str>, Id<id::Principal>);

#[derive(Debug)]
struct Bucket {
    /// Thousandths of a request.
    milli: u64,
    at_ms: u64,
}

impl Rates {
    pub(crate) fn new(clock: Clock, per_second_max: Option<u32>) -> Self {
        Self { clock, per_second_max, buckets: Mutex::default() }
    }

    /// Counts a request, or refuses it.
    pub(crate) fn take(&self, caller: &Caller) -> Result<(), No> {
        let Some(per_second_max) = self.per_second_max else { return Ok(()) };
        let full = u64::from(per_second_max) * 1_000;
        let now_ms = self.clock.monotonic_ms();
        let mut buckets = self.buckets.lock();
        let bucket =
            buckets.entry((caller.tenant.clone(), caller.principal)).or_insert(Bucket { milli: full, at_ms: now_ms });
        let gained = now_ms.saturating_sub(bucket.at_ms).saturating_mul(u64::from(per_second_max));
        bucket.milli = bucket.milli.saturating_add(gained).min(full);
        bucket.at_ms = now_ms;
        match bucket.milli.checked_sub(1_000) {
            Some(rest) => {
                bucket.milli = rest;
                Ok(())
            }
            None => {
                let message = format!("more than {per_second_max} requests in a second");
                Err(No::refused(Refusal::RateLimited, &message).retry_after(1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn check(entry: Entry, host: &'static str, origin: &'static str, expected: u16) {
        let mut headers = HeaderMap::new();
        for (name, value) in [(header::HOST, host), (header::ORIGIN, origin)] {
            if !value.is_empty() {
                headers.insert(name, HeaderValue::from_static(value));
            }
        }
        let config = Config {
            hosts_allowed: vec!["topside.example".into()],
            origins_allowed: vec!["https://console.example".into()],
            ..Config::default()
        };
        let got = check_origin(&config, entry, &headers).map_or_else(|no| no.problem.status, |()| 200);
        assert_eq!(got, expected, "{entry:?} host {host} origin {origin}");
    }

    #[test]
    fn foreign_hosts_and_pages_are_refused() {
        for host in ["localhost", "LOCALHOST:8787", "127.0.0.1:8787", "127.9.9.9", "[::1]:8787", "topside.example:80"] {
            check(Entry::Loopback, host, "", 200);
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8787",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "localhost.evil.example",
            "[::2]:1",
        ] {
            check(Entry::Loopback, host, "", 421);
            check(Entry::Memory, host, "", 200);
        }
        check(Entry::Public, "evil.example", "", 421);
        check(Entry::Public, "topside.example", "", 200);
        check(Entry::Loopback, "localhost:8787", "http://localhost:8787", 200);
        check(Entry::Loopback, "localhost:8787", "https://console.example", 200);
        for origin in
            ["http://evil.example", "null", "http://localhost", "http://localhost:8787.evil.example", "localhost:8787"]
        {
            check(Entry::Loopback, "localhost:8787", origin, 403);
        }
    }

    #[test]
    fn a_principal_is_slowed_down_and_comes_again() {
        let clock = Clock::manual(0);
        let rates = Rates::new(clock.clone(), Some(2));
        let keys = crate::auth::Keys::new(&Config::default());
        let took = |count: usize| (0..count).filter(|_| rates.take(keys.local()).is_ok()).count();
        assert_eq!(took(5), 2);
        clock.advance(std::time::Duration::from_millis(500));
        assert_eq!(took(5), 1);
        clock.advance(std::time::Duration::from_secs(60));
        assert_eq!(took(5), 2);
    }
}
