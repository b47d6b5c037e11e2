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
    /// What stands for the parameter of its path, decoded; empty when it has none.
    pub(crate) parameter: String,
}

/// Finds the endpoint of a request.
pub(crate) fn find(method: &http::Method, path: &str) -> Result<Route, No> {
    // The prefix ends at a slash, so that `/api/v1x` is another path.
    let within = path.strip_prefix(BASE).filter(|rest| rest.starts_with('/')).unwrap_or(path);
    let mut known: Option<(bool, bool)> = None;
    for (index, endpoint) in ENDPOINTS.iter().enumerate() {
        let Some(parameter) = matches(endpoint.path, within) else { continue };
        let wanted = match endpoint.method {
            Method::Get => method == http::Method::GET || method == http::Method::HEAD,
            Method::Post => method == http::Method::POST,
        };
        if wanted {
            let parameter = percent_decode_str(parameter).decode_utf8_lossy().into_owned();
            return Ok(Route { endpoint, index, parameter });
        }
        let (get, post) = known.get_or_insert((false, false));
        match endpoint.method {
            Method::Get => *get = true,
            Method::Post => *post = true,
        }
    }
    let Some((get, post)) = known else {
        return Err(No::refused(Refusal::PathUnknown, "there is no such path; hint: /docs lists those that there are"));
    };
    let allow = match (get, post) {
        (true, true) => "GET, HEAD, POST",
        (true, false) => "GET, HEAD",
        (false, _) => "POST",
    };
    let message = format!("this path does not know {method}; expected one of {allow}");
    Err(No::refused(Refusal::MethodNotAllowed, &message).allow(allow))
}

/// The parameter of a path that fits a pattern; empty when the pattern has none.
fn matches<'path>(pattern: &str, path: &'path str) -> Option<&'path str> {
    let mut parameter = "";
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(parameter),
            (Some(wanted), Some(given)) if wanted.starts_with('{') => {
                if given.is_empty() {
                    return None;
                }
                parameter = given;
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
            Ok(route) => format!("{} {}", route.endpoint.id, route.parameter),
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
        check("DELETE", "/runs", "405 GET, HEAD, POST");
        check("PUT", "/runs/run_1/cancel", "405 POST");
        check("POST", "/health", "405 GET, HEAD");
        for path in ["", "/", "/run", "/runs/", "/runs//events", "/api/v1", "/api/v1x/health", "/health/", "//health"] {
            check("GET", path, "404");
        }
    }
}
