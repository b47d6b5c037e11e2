//! What an answer that is no success says: a problem document of RFC 9457.

use crate::{error_page, schema};
use domain::{Id, id};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The media type of a problem.
pub const PROBLEM_MEDIA: &str = "application/problem+json";

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// Path of the page that explains the code.
    #[serde(rename = "type")]
    pub page: String,
    /// The code's meaning in a few words; the same for every problem with this code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong this time.
    pub detail: String,
    /// Stable code.
    pub code: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The run that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::run")]
    pub run_id: Option<Id<id::Run>>,
}

impl Problem {
    /// A problem of a code. `message` may end in `hint: …`, as the house's messages do.
    pub fn new(code: &str, status: u16, title: &str, message: &str) -> Self {
        let (detail, hint) = match message.split_once("hint: ") {
            Some((detail, hint)) => (detail.trim_end_matches([';', ' ', '\n']), Some(hint.to_owned())),
            None => (message, None),
        };
        Self {
            page: error_page(code),
            title: title.to_owned(),
            status,
            detail: detail.to_owned(),
            code: code.to_owned(),
            hint,
            run_id: None,
        }
    }

    /// The problem, about a run.
    #[must_use]
    pub fn about(mut self, run: Id<id::Run>) -> Self {
        self.run_id = Some(run);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_stands_apart_from_the_detail() {
        let problem = Problem::new("not_found", 404, "Not found", "no such path; hint: see /docs");
        assert_eq!((problem.detail.as_str(), problem.hint.as_deref()), ("no such path", Some("see /docs")));
        assert_eq!(problem.page, "/docs/errors/not_found");
        assert_eq!(Problem::new("a", 400, "A", "plain").hint, None);
    }
}
