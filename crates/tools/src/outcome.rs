//! What a call gave, and what kind of failure it was when it did not end well.

use crate::output::{self, Shown};
use bytes::Bytes;
use domain::{CallStatus, Failure, FailureClass, Id, Part, id};

/// What a call gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub status: CallStatus,
    /// What the model is shown.
    pub parts: Vec<Part>,
    /// The whole output, at most [`crate::WHOLE_BYTES_MAX`], when the model was shown less; `read_output` pages through it.
    pub whole: Option<Bytes>,
    /// Why it did not end well: a stable code with a page under `docs/errors/`.
    pub code: Option<&'static str>,
    /// Which part failed, when it did not end well; holds no content.
    pub failure: Option<Failure>,
    /// Whether the same call may go well a little later: the other side was not reached, too slow or too busy.
    pub transient: bool,
}

impl Outcome {
    /// It went well and gave this text in full.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        let parts = vec![Part::text(text)];
        Self { status: CallStatus::Ok, parts, whole: None, code: None, failure: None, transient: false }
    }

    /// It could not; the text tells the model why.
    pub(crate) fn error(code: &'static str, text: impl Into<String>) -> Self {
        Self::text(text).failed(CallStatus::Error, code)
    }

    /// The sandbox said no.
    pub(crate) fn sandbox(what: &str, error: &sandbox::Error) -> Self {
        Self::error(error.code(), format!("{what}: {error}")).of_class(FailureClass::Sandbox)
    }

    /// It gave these bytes, of which the model is shown at most `bytes_max`.
    pub(crate) fn bytes(whole: Vec<u8>, bytes_max: u64, call: Id<id::Call>) -> Self {
        let Shown { text, cut, .. } = output::show(&whole, bytes_max, call);
        Self { whole: cut.then(|| whole.into()), ..Self::text(text) }
    }

    /// The same, ended otherwise; it is the tool that failed, and trying again does not help.
    #[must_use]
    pub(crate) fn failed(self, status: CallStatus, code: &'static str) -> Self {
        let failure = failure(FailureClass::Tool, code);
        Self { status, code: Some(code), failure: Some(failure), transient: false, ..self }
    }

    /// The same failure, of another part.
    #[must_use]
    pub(crate) fn of_class(self, class: FailureClass) -> Self {
        Self { failure: self.code.map(|code| failure(class, code)), ..self }
    }

    /// The same failure, of what the tool depends on; it may pass by itself.
    #[must_use]
    pub(crate) fn passing(self) -> Self {
        Self { transient: true, ..self.of_class(FailureClass::Dependency) }
    }
}

/// What the model is told may hold what a service answered; a record's failure never does.
fn failure(class: FailureClass, code: &'static str) -> Failure {
    Failure::new(class, code, format!("the call of a tool failed with `{code}`"))
}
