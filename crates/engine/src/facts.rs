//! What came of an effect, ready to be recorded: an event with its contents sealed.

use crate::Error;
use domain::content::media;
use domain::record::{Draft, Returned};
use domain::{CallStatus, ContentRef, Event, Failure, Id, Part, id};
use journal::{Append, SealedItem, Sealer};
use machine::Stamp;

/// Something that happened and is to be recorded.
#[derive(Clone, Debug)]
pub(crate) struct Fact {
    pub(crate) stamp: Stamp,
    pub(crate) event: Event,
    pub(crate) contents: Vec<SealedItem>,
    /// Whether it may wait a moment to be written with what follows: losing it costs at most a repetition that is safe.
    pub(crate) may_linger: bool,
}

impl Fact {
    /// An event without contents.
    pub(crate) fn bare(stamp: Stamp, event: Event) -> Self {
        Self { stamp, event, contents: Vec::new(), may_linger: false }
    }

    /// Adds the fact to an append.
    pub(crate) fn add_to(&self, append: &mut Append) {
        let Stamp { at_ms, principal } = self.stamp;
        append.drafts.push(journal::PreparedDraft::new(&Draft { at_ms, principal, event: self.event.clone() }));
        append.contents.extend(self.contents.iter().cloned());
    }
}

/// What a call gave, before it is sealed.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(crate) status: CallStatus,
    pub(crate) parts: Vec<Part>,
    pub(crate) whole: Option<Vec<u8>>,
    pub(crate) code: Option<String>,
    pub(crate) duration_ms: u64,
    pub(crate) may_linger: bool,
    /// Whether it may have changed the workspace.
    pub(crate) changed_workspace: bool,
    /// Whether the call was held until now.
    pub(crate) held: bool,
    /// What went wrong, when trying again may help.
    pub(crate) passes: Option<Failure>,
}

/// Why the engine itself ends a call, or does not begin it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The policy said no.
    Denied,
    /// Its run ends.
    Cancelled,
    /// Its process died.
    Interrupted,
    /// What was to be done can't be read any more.
    Erased,
    /// Somebody rejected it.
    Rejected,
    /// Nobody approved of it in time.
    ApprovalExpired,
    /// A precondition is not met.
    Unmet,
    /// Somebody says that it did not take effect.
    DidNotHappen,
    /// It was undone.
    Compensated,
    /// The nested agent reached a limit.
    NestedLimit,
    /// What the contract names to undo it can't be called.
    NoCompensation,
}

impl Reason {
    /// Stable code, with a page under `docs/errors/`.
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::Denied => "call_denied",
            Self::Cancelled => "call_cancelled",
            Self::Interrupted => "call_interrupted",
            Self::Erased => "call_erased",
            Self::Rejected => "approval_rejected",
            Self::ApprovalExpired => "approval_expired",
            Self::Unmet => "precondition_failed",
            Self::DidNotHappen => "call_did_not_happen",
            Self::Compensated => "call_compensated",
            Self::NestedLimit => "nested_limit",
            Self::NoCompensation => "no_compensation",
        }
    }

    const fn status(self) -> CallStatus {
        match self {
            Self::Denied => CallStatus::Denied,
            Self::Cancelled => CallStatus::Cancelled,
            Self::Interrupted => CallStatus::Interrupted,
            Self::Erased | Self::Unmet => CallStatus::Invalid,
            Self::Rejected | Self::ApprovalExpired => CallStatus::Rejected,
            Self::DidNotHappen | Self::NestedLimit | Self::NoCompensation => CallStatus::Error,
            Self::Compensated => CallStatus::Compensated,
        }
    }
}

impl Given {
    /// What the model is told of a call that the engine ended or did not begin.
    pub(crate) fn because(reason: Reason, text: impl Into<String>) -> Self {
        Self::told(reason.status(), reason.code(), text)
    }

    /// A call that was not performed, with what the model is told.
    pub(crate) fn told(status: CallStatus, code: &str, text: impl Into<String>) -> Self {
        let (parts, code) = (vec![Part::text(text)], Some(code.to_owned()));
        Self::of(status, parts, code)
    }

    /// A call that gave these parts without being performed.
    pub(crate) const fn of(status: CallStatus, parts: Vec<Part>, code: Option<String>) -> Self {
        Self {
            status,
            parts,
            whole: None,
            code,
            duration_ms: 0,
            may_linger: false,
            changed_workspace: false,
            held: false,
            passes: None,
        }
    }
}

/// Makes the `returned` of a call.
pub(crate) fn returned(
    stamp: Stamp,
    sealer: &Sealer,
    run: Id<id::Run>,
    call: Id<id::Call>,
    given: &Given,
) -> Result<(Fact, ContentRef), Error> {
    let json = serde_json::to_vec(&given.parts).map_err(domain::record::Error::Form)?;
    let (output, item) = sealer.seal(media::PARTS, &json)?;
    let mut contents = vec![item];
    let mut whole = None;
    if let Some(bytes) = &given.whole {
        let (content, item) = sealer.seal(media::BYTES, bytes)?;
        whole = Some(content);
        contents.push(item);
    }
    let (status, code, duration_ms) = (given.status, given.code.clone(), given.duration_ms);
    let (changed_workspace, held) = (given.changed_workspace, given.held);
    let output_ref = output.clone();
    let returned = Returned { run, call, status, output, whole, code, duration_ms, changed_workspace, held };
    let (event, output) = (Event::Returned(returned), output_ref);
    Ok((Fact { stamp, event, contents, may_linger: given.may_linger }, output))
}
