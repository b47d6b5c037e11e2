//! What went wrong, in a form that fits a record: a class, a stable code, a message for people.

use serde::{Deserialize, Serialize};

/// Which part failed; decides who can mend it and whether trying again helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// A tool.
    Tool,
    /// The model or its endpoint.
    Model,
    /// A policy said no.
    Policy,
    /// A service that was configured and can't be reached.
    Dependency,
    /// The sandbox.
    Sandbox,
    /// A limit of the run was reached.
    Budget,
    /// The harness itself.
    Harness,
}

/// A failure that ends a run or a call. The message never holds content or a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Which part failed.
    pub class: FailureClass,
    /// Stable code, with a page under `docs/errors/`.
    pub code: String,
    /// For people; lower case, may end in a hint.
    pub message: String,
    /// What the operator is told besides: where to look, what to change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
}

impl Failure {
    /// A failure of `class` with its code and message.
    pub fn new(class: FailureClass, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { class, code: code.into(), message: message.into(), operator: None }
    }

    /// The same, with something for the operator alone.
    #[must_use]
    pub fn with_operator(self, operator: impl Into<String>) -> Self {
        Self { operator: Some(operator.into()), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A failure of before had no word for the operator, and its bytes are in logs that exist.
    #[test]
    fn a_failure_without_a_word_for_the_operator_keeps_its_bytes() {
        let failure = Failure::new(FailureClass::Budget, "limit_turns", "all turns are taken");
        let written = r#"{"class":"budget","code":"limit_turns","message":"all turns are taken"}"#;
        assert_eq!(serde_json::to_string(&failure).unwrap(), written);
        assert_eq!(serde_json::from_str::<Failure>(written).unwrap(), failure);
        let told = failure.with_operator("raise `limits.turns`");
        let written = serde_json::to_string(&told).unwrap();
        assert!(written.ends_with(r#","operator":"raise `limits.turns`"}"#), "{written}");
        assert_eq!(serde_json::from_str::<Failure>(&written).unwrap(), told);
    }
}
