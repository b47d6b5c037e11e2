//! Why there is no reply, in classes that say who can mend it and whether trying again helps. Messages hold what the vendor
//! said, cut, and never a key.

use domain::{FailureClass, Usage};
use std::fmt;

/// Bytes of a vendor's words, or of what came, kept in a message.
pub(crate) const SAID_BYTES_MAX: usize = 400;

/// Which wait ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Connecting.
    Connect,
    /// Waiting for the first event, or for the answer when it is not streamed.
    FirstToken,
    /// Waiting for the next event.
    Idle,
    /// The call as a whole.
    Total,
}

/// What kind of failure it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Too many requests or tokens per minute.
    RateLimited,
    /// The account has nothing left to spend.
    QuotaExhausted,
    /// The vendor has no capacity now.
    Overloaded,
    /// The vendor failed.
    ServerError {
        /// Its status code; 0 when it failed in the middle of a stream.
        status: u16,
    },
    /// A wait ran out.
    Timeout {
        /// Which.
        stage: Stage,
    },
    /// No connection, or it broke before the reply began.
    Connect,
    /// The key is missing, wrong or not allowed.
    Auth,
    /// The vendor does not take the request.
    BadRequest,
    /// The prompt is longer than the model reads.
    ContextTooLong,
    /// The vendor's filter stopped prompt or reply.
    ContentFiltered,
    /// The model refused.
    Refused,
    /// What came is no reply.
    Malformed,
    /// The reply ended before it was whole.
    Cut,
    /// The prompt is not what the transcript expects next.
    ScriptUnmatched,
    /// The transcript ended the run although further steps follow.
    ScriptUnused,
    /// Something that the declaration needs is not set.
    NotConfigured {
        /// Such as `env.OPENAI_API_KEY`.
        variable: String,
    },
}

impl Kind {
    /// The stable code, with a page under `docs/errors/`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::RateLimited => "model_rate_limited",
            Self::QuotaExhausted => "model_quota_exhausted",
            Self::Overloaded => "model_overloaded",
            Self::ServerError { .. } => "model_server_error",
            Self::Timeout { .. } => "model_timeout",
            Self::Connect => "model_connect",
            Self::Auth => "model_auth",
            Self::BadRequest => "model_bad_request",
            Self::ContextTooLong => "model_context_too_long",
            Self::ContentFiltered => "model_content_filtered",
            Self::Refused => "model_refused",
            Self::Malformed => "model_malformed",
            Self::Cut => "model_cut",
            Self::ScriptUnmatched => "script_unmatched",
            Self::ScriptUnused => "script_unused",
            Self::NotConfigured { .. } => "model_not_configured",
        }
    }

    /// Whether the same request may succeed when it is sent again.
    const fn passes(&self) -> bool {
        match self {
            Self::RateLimited
            | Self::Overloaded
            | Self::ServerError { .. }
            | Self::Timeout { .. }
            | Self::Connect
            | Self::Malformed
            | Self::Cut => true,
            Self::QuotaExhausted
            | Self::Auth
            | Self::BadRequest
            | Self::ContextTooLong
            | Self::ContentFiltered
            | Self::Refused
            | Self::ScriptUnmatched
            | Self::ScriptUnused
            | Self::NotConfigured { .. } => false,
        }
    }
}

/// Why there is no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure.
    pub kind: Kind,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// Whether pieces of a reply were given out before it failed.
    pub emitted: bool,
    /// The wait the vendor asked for before the next attempt.
    pub retry_after_ms: Option<u64>,
    /// For people: lower case, may end in a hint.
    pub message: String,
    /// What the attempts used, as far as it is known.
    pub usage: Usage,
}

impl Failure {
    /// A failure of this kind.
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        let retryable = kind.passes();
        Self { kind, retryable, emitted: false, retry_after_ms: None, message: message.into(), usage: Usage::default() }
    }

    /// The same, but trying again does not help.
    #[must_use]
    pub(crate) fn finally(mut self) -> Self {
        self.retryable = false;
        self
    }

    /// The same with what is known of its usage.
    #[must_use]
    pub(crate) fn using(mut self, usage: Usage) -> Self {
        self.usage = usage;
        self
    }

    /// The stable code, with a page under `docs/errors/`.
    pub const fn code(&self) -> &'static str {
        self.kind.code()
    }

    /// The form that fits a record.
    pub fn to_domain(&self) -> domain::Failure {
        domain::Failure::new(FailureClass::Model, self.code(), self.message.clone())
    }
}

impl From<net::Error> for Failure {
    fn from(error: net::Error) -> Self {
        let message = error.to_string();
        let timeout = |stage| Self::new(Kind::Timeout { stage }, message.clone());
        match error {
            net::Error::TimeoutConnect { .. } => timeout(Stage::Connect),
            net::Error::TimeoutFirstByte { .. } => timeout(Stage::FirstToken),
            net::Error::TimeoutIdle { .. } => timeout(Stage::Idle),
            net::Error::TimeoutTotal { .. } => timeout(Stage::Total).finally(),
            net::Error::Connect { .. } | net::Error::Resolve { .. } | net::Error::Broken { .. } => {
                Self::new(Kind::Connect, message)
            }
            net::Error::Tls { .. }
            | net::Error::AddressRefused { .. }
            | net::Error::RedirectRefused { .. }
            | net::Error::Settings { .. } => Self::new(Kind::Connect, message).finally(),
            net::Error::TooLarge { .. } => Self::new(Kind::Malformed, message).finally(),
            net::Error::BadUrl { .. } => Self::new(Kind::BadRequest, message),
        }
    }
}

/// `text` in at most [`SAID_BYTES_MAX`] bytes, with a mark where it was cut.
pub(crate) fn cut(text: &str) -> impl fmt::Display + '_ {
    struct Cut<'a>(&'a str);
    impl fmt::Display for Cut<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let text = self.0;
            if text.len() <= SAID_BYTES_MAX {
                return f.write_str(text);
            }
            let end = text.floor_char_boundary(SAID_BYTES_MAX);
            write!(f, "{}… ({} bytes more)", &text[..end], text.len() - end)
        }
    }
    Cut(text.trim())
}
