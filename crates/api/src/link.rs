//! Paths that both ends build.

use domain::{Id, id};

/// The prefix under which every path stands a second time, for clients that pin the version.
pub const BASE: &str = "/api/v1";

/// The path of a run.
pub fn run_path(run: Id<id::Run>) -> String {
    format!("/runs/{run}")
}

/// The path of a session, by its id or by the client's name for it.
pub fn session_path(session: &str) -> String {
    let mut path = String::from("/sessions/");
    for byte in session.bytes() {
        // Unreserved characters of RFC 3986 §2.3 stand as they are.
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

/// The path of a call that waits for approval.
pub fn approval_path(call: Id<id::Call>) -> String {
    format!("/approvals/{call}")
}

/// The path of a sandbox.
pub fn sandbox_path(sandbox: Id<id::Sandbox>) -> String {
    format!("/sandboxes/{sandbox}")
}

/// The path of the page that explains a code.
pub fn error_page(code: &str) -> String {
    format!("/docs/errors/{code}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_the_clients_choosing_stays_one_segment() {
        assert_eq!(session_path("alice-1"), "/sessions/alice-1");
        assert_eq!(session_path("a/b?c#d%"), "/sessions/a%2Fb%3Fc%23d%25");
    }
}
