//! The sandboxes of a launcher: who has each, how it is handed over, how it ends. No door, no waiting for requests.

use crate::cgroup::{Group, Groups};
use crate::door::{self, Adopt, Failure, Label, Reply, Stage};
use crate::launcher::{now_ms, timespec};
use crate::mounting::Helpers;
use crate::raw;
use crate::stem::is_readable;
use rustix::event::{PollFd, PollFlags, epoll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg, socketpair,
};
use sandbox::{Limits, Walls};
use std::collections::BTreeMap;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};

/// Sandboxes alive at once.
const SANDBOXES_MAX: usize = 4_096;
/// Ends that are seen to in one turn.
const ENDS_MAX: usize = 64;
/// Sandboxes told of in one message.
const PAGE_MAX: usize = 64;
/// What PID 1 gets to save the files of a sandbox that nobody closes in order.
const SAVE_MS: u64 = 30_000;

/// A sandbox that was made and not yet closed.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) group: Group,
    /// The hold on PID 1, which ends when this is dropped.
    pub(crate) control: Option<OwnedFd>,
    pub(crate) walls: Walls,
    /// Whether PID 1 saves files when it ends.
    pub(crate) saves: bool,
    pub(crate) label: Label,
    pub(crate) shape: String,
    pub(crate) epoch: u64,
    pub(crate) since_ms: u64,
    pub(crate) limits: Limits,
    /// Whether the present harness has it.
    pub(crate) held: bool,
    /// Kills by the memory limit that a harness was told of.
    pub(crate) kills_told: u64,
    pub(crate) ended: bool,
    /// The request to answer and the time to kill.
    pub(crate) closing: Option<(u64, u64)>,
    /// Who serves its mounts.
    pub(crate) helpers: Helpers,
    /// Of which kind it is, as long as it is nobody's: made ahead of need.
    pub(crate) ahead: Option<String>,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Lives {
    all: BTreeMap<u64, Live>,
    /// Where the end of any first process is heard, however many there are: an epoll instance.
    ends: OwnedFd,
}

impl Lives {
    /// None yet.
    pub(crate) fn new() -> Result<Self, Errno> {
        Ok(Self { all: BTreeMap::new(), ends: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The slots that are taken.
    pub(crate) fn slots(&self) -> impl Iterator<Item = u64> {
        self.all.keys().copied()
    }

    /// Whether there is room for one beside those on their way.
    pub(crate) fn check_room(&self, starting: usize) -> Result<(), Failure> {
        if self.all.len() + starting >= SANDBOXES_MAX {
            return Err(Failure::stage(Stage::Claim, format!("sandboxes_max = {SANDBOXES_MAX}")));
        }
        Ok(())
    }

    /// Takes one in. One whose end could not be heard is ended; nothing of it is left then.
    pub(crate) fn insert(&mut self, slot: u64, live: Live, groups: &Groups) -> Result<(), Failure> {
        let heard = epoll::add(&self.ends, &live.pidfd, epoll::EventData::new_u64(slot), epoll::EventFlags::IN);
        let heard = heard.map_err(|errno| Failure::stage(Stage::Ready, format!("awaiting its end: {errno}")));
        self.all.insert(slot, live);
        if heard.is_err()
            && let Some(live) = self.all.get_mut(&slot)
        {
            live.close(0, 0);
            guest::sys::kill(live.pid);
            raw::reap(live.pid);
            self.clear(slot, groups);
        }
        heard
    }

    /// Readable when a first process has ended.
    pub(crate) fn ends(&self) -> &OwnedFd {
        &self.ends
    }

    /// Some of those whose first process has ended; the others are heard the next time.
    pub(crate) fn who_ended(&self) -> Vec<u64> {
        let mut events = [MaybeUninit::uninit(); ENDS_MAX];
        let now = timespec(0);
        let heard = epoll::wait(&self.ends, &mut events, Some(&now));
        heard.map_or(Vec::new(), |(heard, _)| heard.iter().map(|event| event.data.u64()).collect())
    }

    pub(crate) fn next_kill_ms(&self) -> Option<u64> {
        let running = self.all.values().filter(|live| !live.ended);
        running.filter_map(|live| live.closing).map(|(_, kill_ms)| kill_ms).filter(|kill_ms| *kill_ms < u64::MAX).min()
    }

    pub(crate) fn kill_overdue(&mut self, now_ms: u64) {
        for live in self.all.values_mut().filter(|live| !live.ended) {
            if let Some((_, kill_ms)) = &mut live.closing
                && now_ms >= *kill_ms
            {
                guest::sys::kill(live.pid);
                // Once is enough; it ends when the kernel has let go of all that it was at.
                *kill_ms = u64::MAX;
            }
        }
    }

    /// How often the memory limit killed something in a sandbox.
    pub(crate) fn kills(&mut self, slot: u64) -> u64 {
        self.all.get_mut(&slot).map_or(0, |live| {
            live.kills_told = live.group.kills();
            live.kills_told
        })
    }

    /// What lives, from the slot after `after` on.
    pub(crate) fn page(&self, after: u64, now_ms: u64) -> Vec<door::Lives> {
        let is_somebodys = |live: &Live| live.is_alive() && live.ahead.is_none();
        let beyond = self.all.range(after.saturating_add(1)..).filter(|(_, live)| is_somebodys(live));
        let told = beyond.take(PAGE_MAX).map(|(slot, live)| door::Lives {
            slot: *slot,
            label: live.label.clone(),
            epoch: live.epoch,
            walls: live.walls.clone(),
            age_ms: now_ms.saturating_sub(live.since_ms),
            held: live.held,
            usage: live.group.usage(),
            limits: live.limits,
        });
        told.collect()
    }

    /// Makes one that was made ahead somebody's.
    pub(crate) fn take(&mut self, slot: u64, by: door::Create, now_ms: u64) -> Result<(), Failure> {
        let refused = |detail: &str| Failure::stage(Stage::Claim, detail);
        let live = self.all.get_mut(&slot).filter(|live| live.is_alive());
        // Its end may be about to be heard.
        let live = live.filter(|live| !is_readable(&live.pidfd));
        let live = live.ok_or_else(|| refused("there is no such sandbox"))?;
        if live.ahead.is_none() || live.ahead != by.kind() {
            return Err(refused("the sandbox was not made ahead for such a request"));
        }
        let control = live.control.as_ref().ok_or_else(|| refused("the sandbox ends"))?;
        let shape = by.shape();
        // It is heard before anything that comes over the stream hereafter.
        let claim = guest::control::Claim { epoch: by.epoch, environment: by.environment };
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        rustix::net::send(control, &claim.message(), flags)
            .map_err(|errno| refused(&format!("telling whose it is: {errno}")))?;
        live.ahead = None;
        (live.label, live.shape, live.epoch, live.since_ms) = (by.label, shape, by.epoch, now_ms);
        Ok(())
    }

    /// Gives a sandbox a new stream; the other end of it comes back.
    pub(crate) fn adopt(&mut self, ask: &Adopt) -> Result<(Reply, OwnedFd), Failure> {
        let refused = |detail: &str| Failure::stage(Stage::Claim, detail);
        let live = self.all.get_mut(&ask.slot).filter(|live| live.is_alive() && live.ahead.is_none());
        let live = live.ok_or_else(|| refused("there is no such sandbox"))?;
        if ask.epoch < live.epoch {
            return Err(Failure::Stale { epoch: ask.epoch, seen: live.epoch });
        }
        if live.shape.is_empty() || live.shape != ask.shape {
            return Err(refused("the sandbox that lives is another than the one asked for"));
        }
        if let Some(wall) = live.walls.missing.iter().find(|wall| !ask.walls_optional.contains(wall)) {
            return Err(Failure::wall(wall, "the sandbox that lives was made without it"));
        }
        crate::access::check_version(ask.landlock_version_min)?;
        if live.walls.landlock_version < ask.landlock_version_min {
            return Err(Failure::wall("landlock", "the sandbox that lives was made without it"));
        }
        let control = live.control.as_ref().ok_or_else(|| refused("the sandbox ends"))?;
        let stream = hand(control, ask.epoch).map_err(|errno| refused(&format!("a new stream: {errno}")))?;
        live.epoch = ask.epoch;
        live.held = true;
        let (slot, walls, saves, kills_told) = (ask.slot, live.walls.clone(), live.saves, live.kills_told);
        Ok((Reply::Adopted { slot, walls, saves, kills_told }, stream))
    }

    /// The harness is gone: nobody has any of them, and nobody waits for their end.
    pub(crate) fn leave(&mut self, groups: &Groups) {
        for live in self.all.values_mut() {
            live.held = false;
            live.closing = live.closing.map(|(_, kill_ms)| (0, kill_ms));
            if live.ahead.is_some() && live.closing.is_none() {
                live.close(0, 0);
            }
        }
        let ended: Vec<u64> = self.all.iter().filter(|(_, live)| live.ended).map(|(slot, _)| *slot).collect();
        for slot in ended {
            self.clear(slot, groups);
        }
    }

    /// Begins to end a sandbox; gives the number of the request when nothing of it is left already.
    pub(crate) fn close(&mut self, slot: u64, number: u64, kill_ms: u64, groups: &Groups) -> Option<u64> {
        let Some(live) = self.all.get_mut(&slot) else { return Some(number) };
        live.close(number, kill_ms);
        if live.ended { self.clear(slot, groups) } else { None }
    }

    /// Begins to end all that the present harness does not have.
    pub(crate) fn close_unheld(&mut self, now_ms: u64) {
        for live in self.all.values_mut().filter(|live| !live.held && live.closing.is_none()) {
            live.close(0, if live.saves { now_ms + SAVE_MS } else { 0 });
        }
        self.kill_overdue(now_ms);
    }

    /// PID 1 ended, and with it everything in its namespace; gives the request that waited for it.
    pub(crate) fn ended(&mut self, slot: u64, groups: &Groups) -> Option<u64> {
        let live = self.all.get_mut(&slot)?;
        raw::reap(live.pid);
        // A copy that a child still has open would be heard of again and again.
        let _ = epoll::delete(&self.ends, &live.pidfd);
        live.ended = true;
        // One that nobody has is asked for by nobody.
        if live.closing.is_some() || !live.held { self.clear(slot, groups) } else { None }
    }

    /// Removes the last traces of a sandbox that ended; gives the request that waited for it.
    fn clear(&mut self, slot: u64, groups: &Groups) -> Option<u64> {
        let live = self.all.remove(&slot)?;
        groups.discard(live.group);
        live.closing.map(|(number, _)| number)
    }

    /// Ends all and waits until they are gone; those that save files may finish.
    pub(crate) fn end_all(&mut self, groups: &Groups) {
        let last_ms = now_ms() + SAVE_MS;
        for live in self.all.values_mut() {
            live.close(0, if live.saves { last_ms } else { 0 });
        }
        self.kill_overdue(now_ms());
        let slots: Vec<u64> = self.all.keys().copied().collect();
        for slot in slots {
            let Some(live) = self.all.get(&slot) else { continue };
            if !live.ended {
                let timeout = timespec(last_ms.saturating_sub(now_ms()));
                let _ = rustix::event::poll(&mut [PollFd::new(&live.pidfd, PollFlags::IN)], Some(&timeout));
                guest::sys::kill(live.pid);
                raw::reap(live.pid);
            }
            self.clear(slot, groups);
        }
    }
}

impl Live {
    const fn is_alive(&self) -> bool {
        !self.ended && self.closing.is_none()
    }

    fn close(&mut self, number: u64, kill_ms: u64) {
        self.closing = Some((number, kill_ms));
        self.control = None;
        // A process that waits for a mount ends only when the mount is aborted.
        self.helpers.end();
        self.group.lift();
    }
}

/// Hands PID 1 one end of a new stream and gives the other.
fn hand(control: &OwnedFd, epoch: u64) -> Result<OwnedFd, Errno> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let stream = [theirs.as_fd()];
    if !beside.push(SendAncillaryMessage::ScmRights(&stream)) {
        return Err(Errno::MSGSIZE);
    }
    let message: [u8; guest::control::STREAM_BYTES] = epoch.to_le_bytes();
    // A PID 1 that does not read is not waited for.
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(control, &[IoSlice::new(&message)], &mut beside, flags).map(|_| ours)
}
