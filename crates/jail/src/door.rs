//! The door between harness and launcher: a closed, versioned list of requests, one bounded message each, descriptors beside
//! them. No request names a file of the host to write to. What does not parse closes the door that it came through.

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use sandbox::{Limits, Usage, Walls};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Version of the list of requests. `Hello`, `Farewell`, `Welcome` and `Owned` are the same in all versions.
pub(crate) const VERSION: u32 = 5;
/// Bytes of one message at most.
pub(crate) const MESSAGE_BYTES_MAX: usize = 96 << 10;
/// Descriptors beside one message at most.
const DESCRIPTORS_MAX: usize = 240;

/// A request with its number.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ask {
    pub(crate) number: u64,
    pub(crate) request: Request,
}

/// All that a launcher does.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Comes first. Who speaks another version may only say farewell.
    Hello { version: u32 },
    /// The harness ends in order: everything is to be gone, and the launcher with it.
    Farewell,
    /// Gives the launcher a home: its directory, the lock on it and the socket to listen on come as descriptors. From now on
    /// the sandboxes of a harness that goes without farewell live on for so long.
    Settle { owner_grace_ms: u64 },
    /// What lives, from the slot after this one on, a page at a time.
    List { after: u64 },
    /// Hands over a sandbox that a harness has left.
    Adopt(Adopt),
    /// Makes a sandbox. The workspace's image or directory comes as a descriptor.
    Create(Box<Create>),
    /// Makes a sandbox that was made ahead somebody's: what is asked for now must be of the kind that it was made as.
    Take { slot: u64, by: Box<Create> },
    /// Ends a sandbox and clears all that is left of it; PID 1 gets `grace_ms` to save first.
    Close { slot: u64, grace_ms: u64 },
    /// How often the memory limit killed something in a sandbox.
    Pressure { slot: u64 },
    /// Tries every wall in children that are thrown away.
    Probe,
    /// Looks into an image, or unpacks one layer, in a process of its own: the image comes as a descriptor, then the directory
    /// to unpack into, when the task has one, then where the result goes.
    Work { task: ::image::Task },
    /// Gives a tree of an ordinary user's to other ids, or empties it, in a process of its own: the tree comes as a descriptor,
    /// then where the result goes.
    Own { task: crate::owners::Task },
    /// Ends such a process.
    Worked { worker: i32 },
    /// Keeps between `min` and `max` first processes ready for sandboxes like this one, whose workspace, names and environment
    /// do not count.
    Warm { like: Box<Create>, min: usize, max: usize },
    /// Mounts a workspace's image, whose descriptor comes beside the message, for a sandbox that is still to be asked for.
    Mount,
    /// Mounts the pool of workspaces' images, whose file comes as a descriptor; without one only what is mounted already.
    Pool,
    /// Mounts the pool that another launcher has, whose file comes as a descriptor, once more.
    PoolAgain,
}

/// A sandbox to make.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Create {
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) binds: Vec<(PathBuf, String)>,
    pub(crate) limits: Limits,
    pub(crate) walls_optional: Vec<String>,
    #[serde(default)]
    pub(crate) landlock_version_min: u32,
    pub(crate) epoch: u64,
    pub(crate) workspace: Keep,
    /// Where buckets are shown in the workspace, and which; not what opens them.
    #[serde(default)]
    pub(crate) mounts: Vec<(String, String)>,
    pub(crate) label: Label,
    /// What it is made of, as [`Create::shape`] says it; empty: it is not to be handed over.
    pub(crate) shape: String,
    /// What stands under its root; its descriptors come before all others.
    pub(crate) root: crate::stack::Wanted,
    /// Whether it is nobody's yet: it is told of to nobody, and ends with the harness that made it, until it is taken.
    #[serde(default)]
    pub(crate) ahead: bool,
}

/// Bytes of a shape at most; a sandbox with a longer one is not handed over.
const SHAPE_BYTES_MAX: usize = 16 << 10;

impl Create {
    /// All that a sandbox must have in common with this one to stand in for it.
    pub(crate) fn shape(&self) -> String {
        let (walls_optional, label, shape) = (Vec::new(), Label::default(), String::new());
        // Who mounted it, and when, does not show.
        let workspace = if self.workspace == Keep::Mounted { Keep::Image } else { self.workspace };
        // Nor which ids of several it got.
        let root = crate::stack::Wanted { lent: None, ..self.root.clone() };
        let (landlock_version_min, epoch, ahead) = (0, 0, false);
        let plain =
            Self { epoch, walls_optional, landlock_version_min, label, shape, workspace, root, ahead, ..self.clone() };
        let shape = serde_json::to_string(&plain);
        shape.ok().filter(|shape| shape.len() <= SHAPE_BYTES_MAX).unwrap_or_default()
    }
}

impl Create {
    /// All that a first process must know to build the root; `None`: it needs descriptors, and can't be built ahead.
    pub(crate) fn kind(&self) -> Option<String> {
        if !self.binds.is_empty() || !self.mounts.is_empty() || self.root.descriptors > 0 || self.root.lent.is_some() {
            return None;
        }
        serde_json::to_string(&(&self.root, &self.limits, &self.walls_optional, self.landlock_version_min)).ok()
    }
}

/// How long the launcher's part of a start took, by stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Took {
    /// Whether its root was built before it was asked for.
    #[serde(default)]
    pub(crate) stood_ready: bool,
    pub(crate) claim_us: u64,
    pub(crate) root_us: u64,
    pub(crate) workspace_us: u64,
    pub(crate) ready_us: u64,
}

/// Whose sandbox it is, in the harness's words. The launcher only keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Label {
    pub(crate) id: String,
    /// Tenant and session of its workspace.
    pub(crate) workspace: Option<(String, String)>,
}

impl Label {
    /// Refuses one that is too long to be kept.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        const LABEL_BYTES_MAX: usize = 128;
        let (tenant, session) =
            self.workspace.as_ref().map_or((0, 0), |(tenant, session)| (tenant.len(), session.len()));
        match [self.id.len(), tenant, session].iter().all(|length| *length <= LABEL_BYTES_MAX) {
            true => Ok(()),
            false => Err(Failure::stage(Stage::Claim, "the label is too long")),
        }
    }
}

/// A sandbox to hand over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Adopt {
    pub(crate) slot: u64,
    /// The asking lease; lower than one seen before is refused.
    pub(crate) epoch: u64,
    /// What would be made otherwise.
    pub(crate) shape: String,
    pub(crate) walls_optional: Vec<String>,
    #[serde(default)]
    pub(crate) landlock_version_min: u32,
}

/// How the workspace is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Keep {
    /// In a file system image; its descriptor comes beside the message.
    Image,
    /// In a file system image that was mounted before; its mount comes beside the message.
    Mounted,
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
    /// To `Hello`: the version spoken here.
    Welcome { version: u32 },
    /// To `Hello`: a living harness has this launcher. Nothing follows.
    Owned,
    /// The home is kept.
    Settled,
    /// A page of what lives; an empty one is the last.
    Listed { sandboxes: Vec<Lives> },
    /// The guest's new stream comes beside the message.
    Adopted { slot: u64, walls: Walls, saves: bool, kills_told: u64 },
    /// The guest's stream comes beside the message.
    Created { slot: u64, walls: Walls, took: Took },
    /// It is the asker's.
    Taken,
    /// Nothing of the sandbox is left.
    Closed,
    /// Kills by the memory limit so far.
    Pressure { kills: u64 },
    /// The mount comes beside the message.
    Mounted,
    /// So many first processes stand ready.
    Warm { ready: usize },
    /// A process of its own works on it.
    Working { worker: i32 },
    /// What was found.
    Probed { findings: Vec<Found> },
    /// It did not work.
    Failed(Failure),
}

/// A sandbox that lives.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Lives {
    pub(crate) slot: u64,
    pub(crate) label: Label,
    pub(crate) epoch: u64,
    pub(crate) walls: Walls,
    pub(crate) age_ms: u64,
    /// Whether the present harness has it.
    pub(crate) held: bool,
    /// What it uses.
    pub(crate) usage: Usage,
    /// What it may use at most.
    pub(crate) limits: Limits,
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
    /// A later lease has had it.
    Stale { epoch: u64, seen: u64 },
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

impl Failure {
    /// The same, with how long each stage took until then, the one that it failed in last.
    pub(crate) fn after(self, took: Took, (at, us): (Stage, u64)) -> Self {
        let Self::Stage { stage, mut detail } = self else { return self };
        let before = [("claim", took.claim_us), ("root", took.root_us), ("workspace", took.workspace_us)];
        let stages = before.into_iter().filter(|(_, us)| *us > 0).chain([(at.name(), us)]);
        let stages: Vec<_> =
            stages.map(|(name, us)| format!("{name} {}.{} ms", us / 1_000, us % 1_000 / 100)).collect();
        detail = format!("{detail}; {}", stages.join(", "));
        Self::Stage { stage, detail }
    }
}

impl From<Failure> for sandbox::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Wall { wall, detail, fix } => Self::Wall { wall, detail, fix },
            Failure::Stage { stage, detail } => Self::Start { stage: stage.name(), detail },
            Failure::Stale { epoch, seen } => Self::StaleEpoch { epoch, seen },
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
    MESSAGE.with_borrow_mut(|text| receive_into(text, socket))
}

thread_local! {
    /// What messages are read into, one after the other: a new one for each would be made of new pages for each.
    static MESSAGE: RefCell<Box<[u8]>> = RefCell::new(vec![0; MESSAGE_BYTES_MAX].into());
}

fn receive_into<T: for<'de> Deserialize<'de>>(
    text: &mut [u8],
    socket: impl AsFd,
) -> Result<Option<(T, Vec<OwnedFd>)>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        match recvmsg(&socket, &mut [IoSliceMut::new(text)], &mut beside, RecvFlags::CMSG_CLOEXEC) {
            // Told once when the other side ended with something unread; what it said before is still to come.
            Err(Errno::INTR | Errno::CONNRESET) => {}
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
    let message = serde_json::from_slice(&text[..got.bytes]).map_err(|_| Errno::BADMSG);
    // Those who are forked hereafter have no business with it.
    text[..got.bytes].fill(0);
    Ok(Some((message?, fds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_how_long_each_stage_took() {
        let took = Took { claim_us: 1_250, root_us: 300, ..Took::default() };
        let failed = Failure::stage(Stage::Workspace, "no room").after(took, (Stage::Workspace, 20_000_000));
        let told = sandbox::Error::from(failed).to_string();
        let expected = "the sandbox did not start: workspace: no room; claim 1.2 ms, root 0.3 ms, workspace 20000.0 ms";
        assert_eq!(told, expected);
        let [wall, other] = [(); 2].map(|()| Failure::wall("seccomp", "refused"));
        let told = sandbox::Error::from(wall.after(took, (Stage::Ready, 1))).to_string();
        assert_eq!(told, sandbox::Error::from(other).to_string(), "a wall has no stages");
    }
}
