//! From method and path to a row of `api`'s table. The table is the router: what is not in it is not served.

use crate::problem::No;
use api::{BASE, ENDPOINTS, Endpoint, Method, Refusal};
use percent_encoding::percent_decode_str;

/// Where a request goes.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) endpoint: &'static Endpoint,
    /// Its place in the table.
    pub(crate) index: usize,
    /// What stands for the parameters of its path, decoded, in order.
    parameters: Vec<String>,
}

impl Route {
    /// What stands for the first parameter of its path; empty when it has none.
    pub(crate) fn parameter(&self) -> &str {
        self.at(0)
    }

    /// What stands for the second one.
    pub(crate) fn second(&self) -> &str {
        self.at(1)
    }

    fn at(&self, index: usize) -> &str {
        self.parameters.get(index).map_or("", String::as_str)
    }
}

/// Finds the endpoint of a request.
pub(crate) fn find(method: &http::Method, path: &str) -> Result<Route, No> {
    // The prefix ends at a slash, so that `/api/v1x` is another path.
    let within = path.strip_prefix(BASE).filter(|rest| rest.starts_with('/')).unwrap_or(path);
    let mut known: Vec<Method> = Vec::new();
    for (index, endpoint) in ENDPOINTS.iter().enumerate() {
        let Some(parameters) = matches(endpoint.path, within) else { continue };
        let wanted = match endpoint.method {
            Method::Get => method == http::Method::GET || method == http::Method::HEAD,
            Method::Post => method == http::Method::POST,
            Method::Delete => method == http::Method::DELETE,
            Method::Any => true,
        };
        if wanted {
            let decoded = |text: &&str| percent_decode_str(text).decode_utf8_lossy().into_owned();
            return Ok(Route { endpoint, index, parameters: parameters.iter().map(decoded).collect() });
        }
        known.push(endpoint.method);
    }
    if known.is_empty() {
        return Err(No::refused(Refusal::PathUnknown, "there is no such path; hint: /docs lists those that there are"));
    }
    let has = |method| known.contains(&method);
    let allow = match (has(Method::Get), has(Method::Post), has(Method::Delete)) {
        (true, true, true) => "GET, HEAD, POST, DELETE",
        (true, true, false) => "GET, HEAD, POST",
        (true, false, true) => "GET, HEAD, DELETE",
        (true, false, false) => "GET, HEAD",
        (false, true, true) => "POST, DELETE",
        (false, true, false) => "POST",
        (false, false, _) => "DELETE",
    };
    let message = format!("this path does not know {method}; expected one of {allow}");
    Err(No::refused(Refusal::MethodNotAllowed, &message).allow(allow))
}

/// What stands for the parameters of a pattern in a path that fits it.
fn matches<'path>(pattern: &str, path: &'path str) -> Option<Vec<&'path str>> {
    let mut parameters = Vec::new();
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(parameters),
            // All that follows is read by whom it is for, as it was written.
            (Some(wanted), _) if wanted.starts_with("{*") => return Some(parameters),
            (Some(wanted), Some(given)) if wanted.starts_with('{') => {
                if given.is_empty() {
                    return None;
                }
                parameters.push(given);
            }
            (Some(wanted), Some(given)) if wanted == given => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, path: &str, expected: &str) {
        let got = match find(&method.parse().unwrap(), path) {
            Ok(route) => format!("{} {}", route.endpoint.id, route.parameters.join(" ")),
            Err(no) => format!("{} {}", no.problem.status, no.allow.unwrap_or_default()),
        };
        assert_eq!(got.trim(), expected, "{method} {path}");
    }

    #[test]
    fn a_request_finds_its_row_or_learns_what_there_is() {
        check("GET", "/health", "getHealth");
        check("HEAD", "/health", "getHealth");
        check("GET", "/api/v1/health", "getHealth");
        check("POST", "/runs", "postRun");
        check("GET", "/runs", "listRuns");
        check("GET", "/runs/run_1", "getRun run_1");
        check("GET", "/api/v1/runs/run_1/events", "getRunEvents run_1");
        check("GET", "/sessions/a%2Fb", "getSession a/b");
        check("PATCH", "/ports/T", "port T");
        check("GET", "/ports/T/", "port T");
        check("GET", "/api/v1/ports/T/a//b", "port T");
        check("GET", "/ports/", "404");
        check("GET", "/sandboxes/sbx_1/exec", "execSandbox sbx_1");
        check("DELETE", "/runs", "405 GET, HEAD, POST");
        check("DELETE", "/sessions/a", "purgeSession a");
        check("GET", "/runs/run_1/diff/run_2", "diffRuns run_1 run_2");
        check("PUT", "/sessions/a", "405 GET, HEAD, DELETE");
        check("PUT", "/approvals/call_1", "405 GET, HEAD, POST");
        check("PUT", "/runs/run_1/cancel", "405 POST");
        check("POST", "/health", "405 GET, HEAD");
        for path in ["", "/", "/run", "/runs/", "/runs//events", "/api/v1", "/api/v1x/health", "/health/", "//health"] {
            check("GET", path, "404");
        }
    }
}
