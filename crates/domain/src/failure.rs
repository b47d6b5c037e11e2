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
}

impl Failure {
    /// A failure of `class` with its code and message.
    pub fn new(class: FailureClass, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { class, code: code.into(), message: message.into() }
    }
}
