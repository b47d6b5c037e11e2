//! The files of a session as they were kept, for those who look at them from outside: given out as an archive, compared. An archive
//! passes through here unread; what has to look into one happens in a sandbox.

use crate::engine::{Engine, Inner};
use crate::fold::{Steps, catch_up, fold_one};
use crate::inputs::Wish;
use crate::submit::finish;
use crate::{Error, keep};
use domain::record::{RestoredFrom, Snapshot, WorkspaceRestored};
use domain::{Event, Id, id};
use futures::stream::BoxStream;
use journal::SessionKey;
use machine::Session;
use sandbox::archive::{Archive, ArchiveLimits};
use sandbox::files::{Comparison, Difference};
use sandbox::{Change, FileKind, Limits, Provider, RelPath, Root, Sandbox, Spec, Start, Stat, Workspace};
use similar::TextDiff;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Paths that a comparison tells of at most.
pub const FILES_DIFFERING_MAX: usize = 5_000;
/// Bytes of a text, before and after, whose lines are compared.
pub const PATCHED_BYTES_MAX: u64 = 256 << 10;
/// Bytes of all patches of one comparison.
pub const PATCHES_BYTES_MAX: usize = 4 << 20;
/// How long the lines of one text are compared before what is found is taken as it is.
const PATCH_MS_MAX: u64 = 200;
/// Room in the sandbox of a comparison beside what two archives hold.
const ROOM_BYTES: u64 = 64 << 20;
const ROOM_INODES: u64 = 10_000;
const ROOM_MEMORY_BYTES: u64 = 256 << 20;

/// A workspace on its way out.
pub struct WorkspaceArchive {
    /// Which checkpoint it is.
    pub checkpoint: Id<id::Checkpoint>,
    /// Its length.
    pub bytes: u64,
    /// The archive: a tar, whole only when the stream ends without an error.
    pub pieces: BoxStream<'static, io::Result<bytes::Bytes>>,
}

impl std::fmt::Debug for WorkspaceArchive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkspaceArchive").field("checkpoint", &self.checkpoint).field("bytes", &self.bytes).finish()
    }
}

/// Whether a comparison tells how the lines of texts differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patches {
    /// It does.
    Wanted,
    /// Only what differs, not how.
    Unwanted,
}

/// How the files of two checkpoints differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkspaceDiff {
    /// The earlier one.
    pub from: Id<id::Checkpoint>,
    /// The other.
    pub to: Id<id::Checkpoint>,
    /// What differs, by path.
    pub files: Vec<FileDiff>,
    /// How many paths more differ.
    pub unlisted: u64,
}

/// A path at which two checkpoints differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDiff {
    /// The path.
    pub path: String,
    /// What stood there; `None`: nothing.
    pub before: Option<Stat>,
    /// What stands there.
    pub after: Option<Stat>,
    /// How its lines differ, as a unified diff. `None`: it is no text, too large, or nobody asked.
    pub patch: Option<String>,
}

impl Engine {
    /// A session's files as they were kept last, or at another checkpoint. Every byte of it is verified before it comes.
    pub async fn workspace(
        &self,
        tenant: &str,
        session: Id<id::Session>,
        checkpoint: Option<Id<id::Checkpoint>>,
    ) -> Result<WorkspaceArchive, Error> {
        let key = SessionKey::new(tenant, session);
        let snapshot = self.0.kept(&key).await?.named(checkpoint)?;
        let pieces = keep::archive(&self.0, &key, &snapshot).await?;
        Ok(WorkspaceArchive { checkpoint: snapshot.checkpoint, bytes: snapshot.bytes, pieces })
    }

    /// How the files of a session differ between two of its checkpoints: from the first to the last, unless it is said.
    pub async fn workspace_diff(
        &self,
        tenant: &str,
        session: Id<id::Session>,
        [from, to]: [Option<Id<id::Checkpoint>>; 2],
        patches: Patches,
    ) -> Result<WorkspaceDiff, Error> {
        let key = SessionKey::new(tenant, session);
        let kept = self.0.kept(&key).await?;
        let before = match from {
            Some(from) => kept.named(Some(from))?,
            None => kept.first()?,
        };
        let after = kept.named(to)?;
        let inner = self.0.clone();
        // What is made for it is to be taken away again, also when nobody waits for it any more.
        finish(async move {
            let _turn = inner.readers.acquire().await;
            inner.compared(&key, &before, &after, patches).await
        })
        .await
    }
}

/// What is put in the place of a session's files.
pub enum Restoration {
    /// One of its checkpoints.
    Checkpoint(Id<id::Checkpoint>),
    /// An archive, in the form of an export.
    Archive(Archive),
}

impl std::fmt::Debug for Restoration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Checkpoint(checkpoint) => f.debug_tuple("Checkpoint").field(checkpoint).finish(),
            Self::Archive(_) => f.write_str("Archive"),
        }
    }
}

/// Files that took the place of a session's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoredView {
    /// The checkpoint that they are.
    pub checkpoint: Id<id::Checkpoint>,
    /// Length of the archive.
    pub bytes: u64,
    /// Files and directories in it.
    pub entries: u64,
    /// How many records the session has now: it can be forked from there.
    pub at: u64,
}

impl Engine {
    /// Puts a checkpoint, or an archive, in the place of a session's files: what its next run begins with. Refused while a run
    /// is under way. An archive is unpacked in a sandbox of its own first, and stored as that gives it out again.
    pub async fn workspace_restore(
        &self,
        tenant: &str,
        session: Id<id::Session>,
        principal: Id<id::Principal>,
        restoration: Restoration,
    ) -> Result<RestoredView, Error> {
        let key = SessionKey::new(tenant, session);
        let inner = self.0.clone();
        if inner.dispatch.is_draining() {
            return Err(Error::Draining);
        }
        let run = self.session(tenant, session).await?.last_run;
        let kept = inner.kept(&key).await?;
        inner.must_rest(&key).await?;
        let (snapshot, from) = match restoration {
            Restoration::Checkpoint(checkpoint) => (kept.named(Some(checkpoint))?, RestoredFrom::Checkpoint),
            Restoration::Archive(archive) => {
                let base = kept.snapshots.last().cloned();
                let (inner, key) = (inner.clone(), key.clone());
                let taken = finish(async move {
                    let _turn = inner.readers.acquire().await;
                    inner.taken_in(&key, archive, base.as_ref()).await
                });
                (taken.await?, RestoredFrom::Archive)
            }
        };
        let Snapshot { checkpoint, bytes, entries, .. } = snapshot;
        let event = Event::WorkspaceRestored(WorkspaceRestored { run, snapshot, from });
        let written =
            inner.wish(key.clone(), Wish { principal, event, contents: Vec::new(), idempotency: None }).await?;
        // What stood still has the files that were there before.
        inner.idle.end(&key).await;
        let at = written.map_or(0, |written| written.last_position + 1);
        // A run that was asked for meanwhile came first, or not at all.
        let mut state = Session::default();
        let mut steps = Steps::new(&inner.parts.journal, &key, 0);
        while state.position + 1 < at {
            let Some(step) = steps.next().await? else { break };
            fold_one(&mut state, &step.record)?;
        }
        match state.run {
            None => Ok(RestoredView { checkpoint, bytes, entries, at }),
            Some(run) => Err(Error::RunUnderWay { run: run.id }),
        }
    }
}

/// The checkpoints of a session, in order.
pub(crate) struct Checkpoints {
    session: Id<id::Session>,
    snapshots: Vec<Snapshot>,
}

impl Checkpoints {
    fn first(&self) -> Result<Snapshot, Error> {
        self.snapshots.first().cloned().ok_or(Error::NoSuchCheckpoint { session: self.session, checkpoint: None })
    }

    /// One of them; the last, when none is named.
    fn named(&self, checkpoint: Option<Id<id::Checkpoint>>) -> Result<Snapshot, Error> {
        let named = match checkpoint {
            Some(named) => self.snapshots.iter().rfind(|snapshot| snapshot.checkpoint == named),
            None => self.snapshots.last(),
        };
        named.cloned().ok_or(Error::NoSuchCheckpoint { session: self.session, checkpoint })
    }
}

impl Inner {
    /// The checkpoints of a session.
    async fn kept(&self, key: &SessionKey) -> Result<Checkpoints, Error> {
        let mut steps = Steps::new(&self.parts.journal, key, 0);
        let (mut snapshots, mut is_there) = (Vec::new(), false);
        while let Some(step) = steps.next().await? {
            is_there = true;
            match step.record.event {
                Event::Checkpointed(body) => snapshots.extend(body.snapshot),
                Event::Forked(body) => snapshots.extend(body.checkpoint),
                Event::WorkspaceRestored(body) => snapshots.push(body.snapshot),
                _ => {}
            }
            if snapshots.len() > crate::CHECKPOINTS_MAX {
                snapshots.remove(0);
            }
        }
        match is_there {
            true => Ok(Checkpoints { session: key.session, snapshots }),
            false => Err(Error::NoSuchSession { session: key.session }),
        }
    }

    /// Refuses while a run of the session is under way, or waits.
    async fn must_rest(&self, key: &SessionKey) -> Result<(), Error> {
        let mut state = Session::default();
        catch_up(&self.parts.journal, key, &mut state).await?;
        state.run.map_or(Ok(()), |run| Err(Error::RunUnderWay { run: run.id }))
    }

    /// Unpacks an archive in a sandbox of its own, of which nothing is left, and stores what that holds then.
    async fn taken_in(&self, key: &SessionKey, archive: Archive, base: Option<&Snapshot>) -> Result<Snapshot, Error> {
        let provider = self.local()?;
        let [_, session] = beside(key);
        let workspace = Workspace::Session { tenant: key.tenant.to_string(), session, start: Start::Restored };
        let sandbox = provider.create(self.plain(&workspace, (self.parts.catalog)().settings.sandbox.limits)).await?;
        let stored = async {
            sandbox.import(archive, ArchiveLimits::default()).await?;
            keep::put(self, key, sandbox.as_ref(), base).await
        };
        let stored = stored.await;
        sandbox.close().await;
        provider.workspace_remove(&workspace).await?;
        stored
    }

    fn local(&self) -> Result<&Arc<dyn Provider>, Error> {
        let local = self.parts.providers.iter().find(|provider| provider.name() == "local");
        Ok(local.ok_or_else(|| sandbox::Error::Unsupported {
            provider: "local".to_owned(),
            what: "work on archives",
            detail: "this process has no such provider; hint: see `topside doctor`".to_owned(),
        })?)
    }

    /// Compares two checkpoints in a sandbox of its own, of which nothing is left.
    async fn compared(
        &self,
        key: &SessionKey,
        before: &Snapshot,
        after: &Snapshot,
        patches: Patches,
    ) -> Result<WorkspaceDiff, Error> {
        let provider = self.local()?;
        // Two comparisons of one session wait for each other; what a process left that died over one goes with the next.
        let [session, _] = beside(key);
        let workspace = Workspace::Session { tenant: key.tenant.to_string(), session, start: Start::Fresh };
        let sandbox = provider.create(self.room_for(&workspace, before, after)).await?;
        let compared = self.compare_in(sandbox.as_ref(), key, before, after, patches).await;
        sandbox.close().await;
        provider.workspace_remove(&workspace).await?;
        let (files, unlisted) = compared?;
        Ok(WorkspaceDiff { from: before.checkpoint, to: after.checkpoint, files, unlisted })
    }

    /// What a sandbox that holds both is made with.
    fn room_for(&self, workspace: &Workspace, before: &Snapshot, after: &Snapshot) -> Spec {
        let settings = &(self.parts.catalog)().settings.sandbox;
        let workspace_bytes_max = before.bytes.saturating_add(after.bytes).saturating_add(ROOM_BYTES);
        let limits = Limits {
            workspace_bytes_max,
            workspace_inodes_max: before.entries.saturating_add(after.entries).saturating_add(ROOM_INODES),
            // Where workspaces live in memory, half of it is theirs.
            memory_bytes_max: workspace_bytes_max.saturating_mul(2).saturating_add(ROOM_MEMORY_BYTES),
            ..settings.limits
        };
        self.plain(workspace, limits)
    }

    /// A sandbox with nothing of the session's in it.
    fn plain(&self, workspace: &Workspace, limits: Limits) -> Spec {
        let settings = &(self.parts.catalog)().settings.sandbox;
        Spec {
            root: Root::Host { directories: settings.host_directories.clone() },
            walls_optional: settings.walls_optional.clone(),
            landlock_version_min: settings.landlock_version_min,
            epoch: self.parts.clock.wall_ms(),
            ..Spec::plain(self.id(), workspace.clone(), limits)
        }
    }

    async fn compare_in(
        &self,
        sandbox: &dyn Sandbox,
        key: &SessionKey,
        before: &Snapshot,
        after: &Snapshot,
        patches: Patches,
    ) -> Result<(Vec<FileDiff>, u64), Error> {
        let sides: [RelPath; 2] = ["before".parse()?, "after".parse()?];
        sandbox.apply(sides.iter().map(|path| Change::MakeDir { path: path.clone() }).collect()).await?;
        for (path, snapshot) in sides.iter().zip([before, after]) {
            let archive: Archive = keep::archive(self, key, snapshot).await?;
            sandbox.upload(path, archive, ArchiveLimits::default()).await?;
        }
        let [one, other] = &sides;
        let Comparison { differences, unlisted } = sandbox.compare(one, other, FILES_DIFFERING_MAX).await?;
        let (mut files, mut room) = (Vec::with_capacity(differences.len()), PATCHES_BYTES_MAX);
        for Difference { path, before, after } in differences {
            let mut patch = None;
            if patches == Patches::Wanted {
                patch = patched(sandbox, &sides, &path, [before, after]).await.filter(|patch| patch.len() <= room);
                room -= patch.as_ref().map_or(0, String::len);
            }
            files.push(FileDiff { path, before, after, patch });
        }
        Ok((files, unlisted))
    }
}

/// Under which names workspaces stand for a moment in which a session's checkpoints are compared, and archives taken in for it.
pub(crate) fn beside(key: &SessionKey) -> [Id<id::Session>; 2] {
    ["comparison", "restoration"].map(|what| Id::from_name(&key.tenant, &format!("{what} of {}", key.session)))
}

/// How the lines of a text differ; `None` for what is no text, and for what is too large.
async fn patched(sandbox: &dyn Sandbox, sides: &[RelPath; 2], path: &str, stats: [Option<Stat>; 2]) -> Option<String> {
    let mut texts = [String::new(), String::new()];
    for ((text, side), stat) in texts.iter_mut().zip(sides).zip(stats) {
        let Some(stat) = stat else { continue };
        if stat.kind != FileKind::File || stat.bytes > PATCHED_BYTES_MAX {
            return None;
        }
        // A name that is no text can't be asked for.
        let path = side.join(path).ok()?;
        let bytes = sandbox.read(&path, 0, PATCHED_BYTES_MAX).await.ok()?;
        *text = String::from_utf8(bytes.to_vec()).ok().filter(|text| !text.contains('\0'))?;
    }
    let names = ["a", "b"].map(|side| format!("{side}/{path}"));
    let [old, new] = stats;
    let [one, other] = [(old, &names[0]), (new, &names[1])]
        .map(|(stat, name)| if stat.is_some() { name.clone() } else { "/dev/null".to_owned() });
    // A moment of reckoning, at most.
    let diffed = tokio::task::spawn_blocking(move || {
        let [before, after] = &texts;
        let timeout = Duration::from_millis(PATCH_MS_MAX);
        let diff = TextDiff::configure().timeout(timeout).diff_lines(before.as_str(), after.as_str());
        diff.unified_diff().header(&one, &other).to_string()
    });
    diffed.await.ok().filter(|patch| !patch.is_empty())
}
