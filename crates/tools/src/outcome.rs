//! What a call gave.

use crate::output::{self, Shown};
use bytes::Bytes;
use domain::{CallStatus, Id, Part, id};

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
}

impl Outcome {
    /// It went well and gave this text in full.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self { status: CallStatus::Ok, parts: vec![Part::text(text)], whole: None, code: None }
    }

    /// It could not; the text tells the model why.
    pub(crate) fn error(code: &'static str, text: impl Into<String>) -> Self {
        Self { status: CallStatus::Error, code: Some(code), ..Self::text(text) }
    }

    /// The sandbox said no.
    pub(crate) fn sandbox(what: &str, error: &sandbox::Error) -> Self {
        Self::error(error.code(), format!("{what}: {error}"))
    }

    /// It gave these bytes, of which the model is shown at most `bytes_max`.
    pub(crate) fn bytes(whole: Vec<u8>, bytes_max: u64, call: Id<id::Call>) -> Self {
        let Shown { text, cut, .. } = output::show(&whole, bytes_max, call);
        Self { whole: cut.then(|| whole.into()), ..Self::text(text) }
    }

    /// The same, ended otherwise.
    #[must_use]
    pub(crate) fn failed(self, status: CallStatus, code: &'static str) -> Self {
        Self { status, code: Some(code), ..self }
    }
}
