//! A request that is not done: the problem and the headers that go with it.

use api::{Problem, Refusal};
use domain::{Id, id};

/// No, and why.
#[derive(Debug)]
pub(crate) struct No {
    pub(crate) problem: Box<Problem>,
    pub(crate) retry_after_seconds: Option<u64>,
    /// The methods that the path knows.
    pub(crate) allow: Option<&'static str>,
}

impl No {
    fn new(problem: Problem) -> Self {
        Self { problem: Box::new(problem), retry_after_seconds: None, allow: None }
    }

    /// The door says no. The message may end in `hint: …`.
    pub(crate) fn refused(refusal: Refusal, message: &str) -> Self {
        Self::new(Problem::new(refusal.code(), refusal.status(), refusal.title(), message))
    }

    /// A problem as it is told.
    pub(crate) fn told(problem: Problem) -> Self {
        Self::new(problem)
    }

    /// The request is not what the contract says.
    pub(crate) fn invalid(message: &str) -> Self {
        Self::refused(Refusal::RequestInvalid, message)
    }

    /// Something went wrong here; the log has it, the client learns only that.
    pub(crate) fn internal(code: &str, error: &dyn std::fmt::Display) -> Self {
        tracing::error!(code, %error, "a request failed");
        let message = "this is not your fault; hint: the service's log has the cause";
        Self::new(Problem::new(code, 500, Refusal::Internal.title(), message))
    }

    #[must_use]
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds.max(1));
        self
    }

    #[must_use]
    pub(crate) fn allow(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }

    #[must_use]
    pub(crate) fn about(mut self, run: Id<id::Run>) -> Self {
        self.problem.run_id = Some(run);
        self
    }

    /// There is no such run, so far as the caller may know.
    pub(crate) fn no_run(run: &str) -> Self {
        Self::new(Problem::new("run_not_found", 404, "No such run", &format!("there is no run {run}")))
    }

    /// There is no such call to approve, so far as the caller may know.
    pub(crate) fn no_approval(call: &str) -> Self {
        let message = format!("no call {call} waits for approval, or did");
        Self::new(Problem::new("approval_not_found", 404, "No such call", &message))
    }

    /// There is no such session, so far as the caller may know.
    pub(crate) fn no_session(session: &str) -> Self {
        let message = format!("there is no session {session}");
        Self::new(Problem::new("session_not_found", 404, "No such session", &message))
    }
}

/// Why the door to a sandbox is closed, beside what the sandbox itself says.
#[derive(Clone, Copy, Debug)]
enum Closed {
    Left,
    Upgrade,
    Unsigned,
    Worker,
    Answer,
    Timeout,
}

impl Closed {
    /// Stable code, with a page under `docs/errors/`.
    const fn code(self) -> &'static str {
        match self {
            Self::Left => "sandbox_left",
            Self::Upgrade => "upgrade_required",
            Self::Unsigned => "links_unsigned",
            Self::Worker => "port_service_worker",
            Self::Answer => "port_answer",
            Self::Timeout => "port_timeout",
        }
    }
}

/// What goes wrong with sandboxes and their ports.
impl No {
    /// There is no such sandbox, so far as the caller may know.
    pub(crate) fn no_sandbox(sandbox: &str) -> Self {
        let message = format!("no sandbox {sandbox} lives, and no recent session had it");
        Self::new(Problem::new("sandbox_not_found", 404, "No such sandbox", &message))
    }

    /// Nobody has taken it over from the service that left it.
    pub(crate) fn sandbox_left(sandbox: &str) -> Self {
        let message = format!(
            "sandbox {sandbox} was left by an earlier service and nobody has it yet; hint: it can be ended, or its run goes on soon"
        );
        Self::new(Problem::new(Closed::Left.code(), 409, "Nobody has the sandbox", &message))
    }

    pub(crate) fn sandbox_gone(detail: &str) -> Self {
        Self::new(Problem::new("sandbox_gone", 404, "The sandbox is gone", detail))
    }

    pub(crate) fn upgrade_required() -> Self {
        let message =
            "this is a WebSocket; hint: send Connection, Upgrade, Sec-WebSocket-Version: 13 and Sec-WebSocket-Key";
        Self::new(Problem::new(Closed::Upgrade.code(), 426, "A WebSocket is expected", message))
    }

    pub(crate) fn links_unsigned() -> Self {
        let message = "this service has no key to sign links to ports with";
        Self::new(Problem::new(Closed::Unsigned.code(), 503, "No links to ports here", message))
    }

    /// Scripts that outlive their page have no place in a link's page.
    pub(crate) fn service_worker() -> Self {
        let message = "a page from a sandbox can't install what outlives it at this address";
        Self::new(Problem::new(Closed::Worker.code(), 403, "No service workers from sandboxes", message))
    }

    pub(crate) fn port_answer(detail: &str) -> Self {
        let message = format!("what answers on the port does not speak HTTP as it should: {detail}");
        Self::new(Problem::new(Closed::Answer.code(), 502, "No proper answer from the sandbox", &message))
    }

    pub(crate) fn port_timeout(ms: u64) -> Self {
        let message = format!("the program in the sandbox did not answer within {ms} ms");
        Self::new(Problem::new(Closed::Timeout.code(), 504, "No answer from the sandbox in time", &message))
    }
}

impl From<sandbox::Error> for No {
    fn from(error: sandbox::Error) -> Self {
        use sandbox::Error as E;
        let told = |status: u16, title: &str| Self::new(Problem::new(error.code(), status, title, &error.to_string()));
        match &error {
            E::Gone { .. } => Self::sandbox_gone(&error.to_string()),
            E::Port { .. } => told(502, "Nothing answers on the port"),
            E::Limit { .. } => told(503, "The sandbox does as much as it may").retry_after(1),
            E::Unsupported { .. } => told(501, "The provider can't do this"),
            E::Path { .. } => told(400, "No path in the workspace"),
            E::Command { .. } => told(422, "The command did not start"),
            E::NoProcess | E::OutputGone { .. } => told(409, "The command has ended"),
            E::WorkspaceLost | E::WorkspaceStale { .. } | E::StaleEpoch { .. } => {
                told(409, "Another has the workspace")
            }
            E::Wall { .. }
            | E::Start { .. }
            | E::File { .. }
            | E::Archive { .. }
            | E::Manifest { .. }
            | E::Mount { .. }
            | E::Protocol { .. } => told(502, "The sandbox went wrong"),
        }
    }
}

impl From<engine::Error> for No {
    fn from(error: engine::Error) -> Self {
        use engine::Error as E;
        let told = |status: u16, title: &str| Self::new(Problem::new(error.code(), status, title, &error.to_string()));
        match &error {
            E::NoSuchRun { run } => Self::no_run(&run.to_string()),
            E::NoSuchSession { session } => Self::no_session(&session.to_string()),
            E::Agent(catalog) => match catalog.code() {
                "agent_switched_off" => told(503, "The agent is switched off"),
                _ => told(422, "No such agent"),
            },
            E::MessageTooLarge { .. } => told(413, "The message is too long"),
            E::MessageEmpty => told(400, "The message is empty"),
            E::IdempotencyConflict => told(422, "The key was used for another request"),
            E::Busy { retry_after_ms, .. } => {
                told(503, "Too many runs are waiting").retry_after(retry_after_ms.div_ceil(1_000))
            }
            E::RunEnded { .. } => told(409, "The run has ended"),
            E::RunEnding { .. } => told(409, "The run is about to end"),
            E::RunNotPaused { .. } => told(409, "The run is not paused"),
            E::SteersMax { .. } => told(409, "Too many messages wait to be told"),
            E::RaiseTooLow { .. } => told(409, "The limit is too low"),
            E::LimitsHigher { .. } => told(422, "The limit is higher than the agent's"),
            E::NoSuchCall { .. } => told(404, "No such call"),
            E::NotInDoubt { .. } => told(409, "The call is not in doubt"),
            E::ResolveTooEarly { retry_after_ms, .. } => {
                told(409, "The call may still be under way").retry_after(retry_after_ms.div_ceil(1_000))
            }
            E::NoCompensation { .. } => told(409, "Nothing can undo the call"),
            E::NoSuchApproval { call } => Self::no_approval(&call.to_string()),
            E::Unheard(_) => told(409, "The vote does not count"),
            E::NotForkable { .. } => told(409, "No session can go on from there"),
            E::SessionExists { .. } => told(409, "The session is there already"),
            E::ModelUnknown { .. } => told(422, "No such model"),
            E::CheckpointDamaged => told(409, "The checkpoint is damaged"),
            E::NoSuchCheckpoint { .. } => told(404, "No such checkpoint"),
            E::RunUnderWay { .. } => told(409, "A run is under way"),
            E::Callback { .. } => told(422, "A client can't be called back there"),
            E::LeaseLost | E::Overtaken { .. } => told(503, "The session goes to another worker").retry_after(1),
            E::Draining => told(503, "The service is shutting down").retry_after(1),
            E::Journal(journal) => journal_error(journal),
            E::Objects { .. } => told(503, "The objects can't be reached").retry_after(1),
            E::Workspace(_) | E::Closure { .. } | E::History(_) | E::Record(_) => Self::internal(error.code(), &error),
        }
    }
}

fn journal_error(error: &journal::Error) -> No {
    use journal::Error as E;
    let told = |status: u16, title: &str| No::new(Problem::new(error.code(), status, title, &error.to_string()));
    match error {
        E::IdempotencyConflict { .. } => told(422, "The key was used for another request"),
        E::TooLarge { .. } => told(413, "More than the journal takes at once"),
        E::Full => told(503, "The disk is full"),
        E::Quarantined { .. } => told(409, "The session is in quarantine"),
        E::Unended => told(409, "A run of the session has not ended"),
        E::Unreachable { .. } => told(503, "The database can't be reached").retry_after(1),
        E::Held { .. } | E::WorkerLost => told(503, "Another worker has the session").retry_after(1),
        E::Closed => told(503, "The service is shutting down").retry_after(1),
        E::Io { .. } | E::Objects { .. } | E::Key { .. } => {
            tracing::error!(code = error.code(), %error, "the journal failed");
            let message = "the record can't be written or read at the moment; hint: the service's log has the cause";
            No::new(Problem::new(error.code(), 503, "The journal can't be reached", message)).retry_after(1)
        }
        E::Fenced { .. }
        | E::Moved { .. }
        | E::DataKeyChanged
        | E::Invalid { .. }
        | E::Corrupt { .. }
        | E::Locked { .. }
        | E::Unrepaired { .. }
        | E::Backup { .. }
        | E::Url { .. }
        | E::Unsafe { .. }
        | E::Newer { .. }
        | E::Record { .. } => No::internal(error.code(), error),
    }
}

impl From<journal::Error> for No {
    fn from(error: journal::Error) -> Self {
        journal_error(&error)
    }
}

impl From<blob::Error> for No {
    fn from(error: blob::Error) -> Self {
        let told = |status, title| Self::new(Problem::new(error.code(), status, title, &error.to_string()));
        match &error {
            blob::Error::LinkForged => told(403, "The link was not made here"),
            blob::Error::LinkExpired => told(410, "The link is over"),
            blob::Error::Missing { .. } => {
                Self::new(Problem::new(error.code(), 410, "The file is gone", "the file is no longer kept"))
            }
            _ => Self::internal(error.code(), &error),
        }
    }
}
