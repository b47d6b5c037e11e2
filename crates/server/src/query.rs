//! Query strings and the few headers that carry values: parsed once, strictly.

use crate::problem::No;
use api::{Endpoint, LIST_ROWS_DEFAULT, LIST_ROWS_MAX};
use http::{HeaderMap, header};
use percent_encoding::percent_decode_str;
use std::str::FromStr;

/// The parameters of a query that the endpoint knows.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query; refuses a parameter that the endpoint does not know, and one that comes twice.
    pub(crate) fn parse(endpoint: &Endpoint, query: Option<&str>) -> Result<Self, No> {
        let mut found: Vec<(String, String)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            if !endpoint.query.iter().any(|parameter| parameter.name == name) {
                let known: Vec<_> = endpoint.query.iter().map(|parameter| parameter.name).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(No::invalid(&format!("unknown query parameter `{}`; expected {known}", shown(&name))));
            }
            if found.iter().any(|(other, _)| *other == name) {
                return Err(No::invalid(&format!("query parameter `{name}` stands twice")));
            }
            found.push((name, value));
        }
        Ok(Self(found))
    }

    /// The text of a parameter.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The value of a parameter.
    pub(crate) fn value<T: FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>, No> {
        let parse = |text: &str| {
            text.parse().map_err(|_| {
                No::invalid(&format!("query parameter `{name}` is `{}`; expected {expected}", shown(text)))
            })
        };
        self.text(name).map(parse).transpose()
    }

    /// `limit`, within its bounds.
    pub(crate) fn limit(&self) -> Result<usize, No> {
        let expected = format!("a number from 1 to {LIST_ROWS_MAX}");
        match self.value("limit", &expected)? {
            None => Ok(LIST_ROWS_DEFAULT),
            Some(limit) if (1..=LIST_ROWS_MAX).contains(&limit) => Ok(limit),
            Some(limit) => Err(No::invalid(&format!("query parameter `limit` is `{limit}`; expected {expected}"))),
        }
    }

    /// The position after which records are wanted: `Last-Event-ID`, else `after`.
    pub(crate) fn after(&self, headers: &HeaderMap) -> Result<Option<u64>, No> {
        let expected = "the position of a record";
        match headers.get("last-event-id") {
            // A browser sends the header empty when no event had an id.
            Some(value) if !value.is_empty() => value
                .to_str()
                .ok()
                .and_then(|text| text.parse().ok())
                .map(Some)
                .ok_or_else(|| No::invalid(&format!("Last-Event-ID is malformed; expected {expected}"))),
            _ => self.value("after", expected),
        }
    }
}

fn decoded(text: &str) -> Result<String, No> {
    let spaced = text.replace('+', " ");
    match percent_decode_str(&spaced).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(No::invalid("the query is no UTF-8")),
    }
}

/// What a message can hold of what a client wrote.
pub(crate) fn shown(text: &str) -> String {
    let cut: String = text.chars().filter(|character| !character.is_control()).take(64).collect();
    if cut.len() < text.len() { format!("{cut}…") } else { cut }
}

/// Whether the client wants an event stream.
pub(crate) fn wants_stream(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepts.flat_map(|value| value.split(',')).any(|media| {
        media.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("text/event-stream"))
    })
}

/// What `Prefer` (RFC 7240) says of waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prefer {
    pub(crate) respond_async: bool,
    pub(crate) wait_seconds: Option<u64>,
}

impl Prefer {
    /// Reads the preferences; unknown and malformed ones are ignored, as the RFC says.
    pub(crate) fn parse(headers: &HeaderMap) -> Self {
        let mut prefer = Self::default();
        let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        for preference in values.flat_map(|value| value.split(',')).map(str::trim) {
            let preference = preference.split(';').next().unwrap_or_default().trim();
            match preference.split_once('=') {
                None if preference.eq_ignore_ascii_case("respond-async") => prefer.respond_async = true,
                Some((name, seconds)) if name.trim().eq_ignore_ascii_case("wait") => {
                    prefer.wait_seconds = seconds.trim().trim_matches('"').parse().ok().or(prefer.wait_seconds);
                }
                _ => {}
            }
        }
        prefer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{ENDPOINTS, Operation};
    use http::HeaderValue;

    fn check(query: &str, expected: &str) {
        let endpoint = ENDPOINTS.iter().find(|endpoint| endpoint.operation == Operation::ListRuns).unwrap();
        let got = Query::parse(endpoint, Some(query))
            .and_then(|query| Ok(format!("{} {}", query.text("session").unwrap_or("-"), query.limit()?)));
        assert_eq!(got.unwrap_or_else(|no| no.problem.detail.clone()), expected, "{query}");
    }

    #[test]
    fn a_query_is_taken_strictly() {
        check("", "- 50");
        check("session=a%2Fb+c&limit=200", "a/b c 200");
        check("sesion=a", "unknown query parameter `sesion`; expected session, status, agent, cursor, limit");
        check("limit=0", "query parameter `limit` is `0`; expected a number from 1 to 200");
        check("limit=many", "query parameter `limit` is `many`; expected a number from 1 to 200");
        check("session=a&session=b", "query parameter `session` stands twice");
        check("session=%ff", "the query is no UTF-8");
    }

    #[test]
    fn preferences_are_read_and_strange_ones_ignored() {
        for (value, respond_async, wait_seconds) in [
            ("respond-async", true, None),
            ("wait=5", false, Some(5)),
            ("Respond-Async, wait=\"7\"", true, Some(7)),
            ("wait=soon, return=minimal", false, None),
        ] {
            let headers =
                HeaderMap::from_iter([(http::HeaderName::from_static("prefer"), HeaderValue::from_static(value))]);
            assert_eq!(Prefer::parse(&headers), Prefer { respond_async, wait_seconds }, "{value}");
        }
    }
}
