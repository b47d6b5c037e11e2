//! The door between harness and launcher: a closed, versioned list of requests, one bounded message each, descriptors beside
//! them. No request names a file of the host to write to.

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use sandbox::{Limits, Walls};
use serde::{Deserialize, Serialize};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Version of the list of requests.
pub(crate) const VERSION: u32 = 1;
/// Bytes of one message at most.
pub(crate) const MESSAGE_BYTES_MAX: usize = 96 << 10;
/// Descriptors beside one message at most.
const DESCRIPTORS_MAX: usize = 32;

/// A request with its number.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ask {
    pub(crate) version: u32,
    pub(crate) number: u64,
    pub(crate) request: Request,
}

/// All that a launcher does.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Makes a sandbox. The workspace's image or directory comes as a descriptor.
    Create(Box<Create>),
    /// Ends a sandbox and clears all that is left of it; PID 1 gets `grace_ms` to save first.
    Close { slot: u64, grace_ms: u64 },
    /// How often the memory limit killed something in a sandbox.
    Pressure { slot: u64 },
    /// Tries every wall in children that are thrown away.
    Probe,
}

/// A sandbox to make.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Create {
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) binds: Vec<(PathBuf, String)>,
    pub(crate) limits: Limits,
    pub(crate) walls_optional: Vec<String>,
    pub(crate) epoch: u64,
    pub(crate) workspace: Keep,
}

/// How the workspace is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Keep {
    /// In a file system image; its descriptor comes beside the message.
    Image,
    /// In memory, saved to a directory; its descriptor comes beside the message.
    Layer,
    /// In memory.
    Nowhere,
}

/// An answer to the request of the same number.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) number: u64,
    pub(crate) reply: Reply,
}

/// What came of a request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The guest's stream comes beside the message.
    Created { slot: u64, walls: Walls },
    /// Nothing of the sandbox is left.
    Closed,
    /// Kills by the memory limit so far.
    Pressure { kills: u64 },
    /// What was found.
    Probed { findings: Vec<Found> },
    /// It did not work.
    Failed(Failure),
}

/// One finding of a probe.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) wall: String,
    pub(crate) holds: bool,
    pub(crate) detail: String,
    pub(crate) fix: Option<String>,
}

/// Why a sandbox was not made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure {
    /// A wall does not stand.
    Wall { wall: String, detail: String, fix: Option<String> },
    /// A stage failed.
    Stage { stage: Stage, detail: String },
}

/// The stages of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    Claim,
    Root,
    Workspace,
    Ready,
}

impl Stage {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Root => "root",
            Self::Workspace => "workspace",
            Self::Ready => "ready",
        }
    }
}

impl Failure {
    pub(crate) fn stage(stage: Stage, detail: impl Into<String>) -> Self {
        Self::Stage { stage, detail: detail.into() }
    }

    pub(crate) fn wall(wall: &str, detail: impl Into<String>) -> Self {
        Self::Wall { wall: wall.to_owned(), detail: detail.into(), fix: crate::fix::of(wall) }
    }
}

impl From<Failure> for sandbox::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Wall { wall, detail, fix } => Self::Wall { wall, detail, fix },
            Failure::Stage { stage, detail } => Self::Start { stage: stage.name(), detail },
        }
    }
}

/// Sends one message.
pub(crate) fn send(
    socket: impl AsFd,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> Result<(), Errno> {
    let text = serde_json::to_vec(message).map_err(|_| Errno::INVAL)?;
    if text.len() > MESSAGE_BYTES_MAX {
        return Err(Errno::MSGSIZE);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::MSGSIZE);
    }
    loop {
        match sendmsg(&socket, &[IoSlice::new(&text)], &mut beside, flags | SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            sent => return sent.map(drop),
        }
    }
}

/// Waits for one message; `None` when the other side is gone.
pub(crate) fn receive<T: for<'de> Deserialize<'de>>(socket: impl AsFd) -> Result<Option<(T, Vec<OwnedFd>)>, Errno> {
    let mut text = vec![0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        match recvmsg(&socket, &mut [IoSliceMut::new(&mut text)], &mut beside, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            got => break got?,
        }
    };
    let mut fds = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if got.bytes == 0 {
        return Ok(None);
    }
    let message = serde_json::from_slice(&text[..got.bytes]).map_err(|_| Errno::BADMSG)?;
    Ok(Some((message, fds)))
}
