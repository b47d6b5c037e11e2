//! Takes a checkpoint of a live workspace: a copy of its image that shares its blocks, made while PID 1 holds the programs
//! still; and reads one, in a sandbox of its own, since an archive is made of hostile names.

use crate::door::Keep;
use crate::export::Exporting;
use crate::ext4;
use crate::gate::Gate;
use crate::harbour::Harbour;
use crate::ids;
use crate::live::{Live, Running};
use crate::pool::{Clones, Home, Place};
use crate::provider::{self, Stood};
use crate::quota::Room;
use crate::raw;
use crate::workspaces::{blocking, broken, failed, image};
use async_trait::async_trait;
use bytes::Bytes;
use domain::{Id, id};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sandbox::wire::Work;
use sandbox::{
    ArchiveLimits, Checkpoint, Chunk, Error, Export, Limits, Process as _, RelPath, Spec, Stream, Totals, Workspace,
};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use stdx::Random;
use tokio::time::Instant;

/// Checkpoints that are kept of one workspace; of more the oldest go.
const CHECKPOINTS_MAX: usize = 16;
/// Beside a checkpoint: the paths that are no part of it, which its image holds all the same.
const LEFT_OUT: &str = "user.topside.left_out";
/// Bytes of that list at most: what every file system here keeps beside a file.
const LEFT_OUT_BYTES_MAX: usize = 2 << 10;
/// How long programs are held still at most.
const HOLD_MS_MAX: u64 = 2_000;
/// How often it is tried to find a moment at which nobody writes.
const ATTEMPTS_MAX: u32 = 3;
/// How long PID 1 may take to let go, after which its own clock does.
const LET_GO_WAIT_MAX: Duration = Duration::from_secs(10);

/// Where a live workspace is kept, and what it was asked for with.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) place: Arc<Place>,
    pub(crate) home: Home,
    /// Its part of what all may take, while it is open.
    pub(crate) room: Mutex<Option<Room>>,
    pub(crate) reader: Reader,
}

impl Stored {
    /// The sandbox is closed, however long somebody still holds it.
    pub(crate) fn let_go(&self) {
        drop(self.room.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// What a sandbox that reads a checkpoint is made with.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    harbour: Harbour,
    spec: Spec,
    random: Random,
}

impl Reader {
    /// As `spec` says, but with nothing of the session's in it. What is read is nobody's but the harness's own.
    pub(crate) fn new(harbour: Harbour, spec: &Spec, random: Random) -> Self {
        let limits = Limits { io_bytes_per_second_max: 0, io_operations_per_second_max: 0, ..spec.limits };
        let spec = Spec {
            workspace: Workspace::Scratch,
            environment: Vec::new(),
            root: sandbox::Root::default(),
            binds: Vec::new(),
            mounts: Vec::new(),
            limits,
            ..spec.clone()
        };
        Self { harbour, spec, random }
    }
}

/// A checkpoint that was taken.
#[derive(Debug)]
struct Taken {
    id: Id<id::Checkpoint>,
    paused: Duration,
    place: Arc<Place>,
    image: PathBuf,
    reader: Reader,
}

/// What an attempt came to.
enum Attempt {
    Taken(Duration),
    /// Somebody wrote meanwhile, or did not stand still.
    Stirred,
    /// The image shares no blocks with files of that place.
    Unshared,
}

/// Takes a checkpoint; `None`: not here, or not now.
pub(crate) async fn take(
    live: &Live,
    stored: &Stored,
    checkpoint: Id<id::Checkpoint>,
) -> Result<Option<Arc<dyn Checkpoint>>, Error> {
    if stored.place.clones == Clones::Never {
        return Ok(None);
    }
    let _shut = live.gate.shut().await?;
    // One from before there was a pool stands elsewhere and shares nothing with it.
    let Some(image) = image(&stored.home).filter(|image| image.starts_with(&stored.home.images)) else {
        return Ok(None);
    };
    let left_out = serde_json::to_vec(&live.left_out).unwrap_or_default();
    if left_out.len() > LEFT_OUT_BYTES_MAX {
        return Ok(None);
    }
    // What was written until now goes out before anybody stands still for it, and counts from then on.
    perform(live, Work::Sync).await?;
    let flushed = image.clone();
    blocking(move || raw::flush(File::open(&flushed).map_err(broken(&flushed))?.as_fd()).map_err(refused)).await?;
    if !make_room(stored, &image).await? {
        return Ok(None);
    }
    let kept = stored.home.checkpoint(checkpoint);
    for _ in 0..ATTEMPTS_MAX {
        match attempt(live, &image, &kept, &left_out).await? {
            Attempt::Taken(paused) => {
                let (place, reader) = (Arc::clone(&stored.place), stored.reader.clone());
                return Ok(Some(Arc::new(Taken { id: checkpoint, paused, place, image: kept, reader })));
            }
            Attempt::Stirred => {}
            Attempt::Unshared => return Ok(None),
        }
    }
    Ok(None)
}

fn refused(errno: Errno) -> Error {
    failed(format!("the workspace's image: {errno}"))
}

async fn perform(live: &Live, work: Work) -> Result<(), Error> {
    let mut running = live.run(live.epoch.load(Ordering::Acquire), work).await?;
    // Whatever it says: what it was to do shows in the attempt.
    while !matches!(running.next().await?, Chunk::Exit(_)) {}
    Ok(())
}

/// Removes what is too old to be kept, and looks whether there is room to write everything anew that a copy shares.
async fn make_room(stored: &Stored, image: &Path) -> Result<bool, Error> {
    let (place, images, image) = (Arc::clone(&stored.place), stored.home.images.clone(), image.to_owned());
    blocking(move || {
        let image_bytes = fs::metadata(&image).map_err(broken(&image))?.len();
        let mut kept: Vec<(SystemTime, PathBuf)> = checkpoints(&images)
            .filter_map(|path| Some((fs::symlink_metadata(&path).ok()?.modified().ok()?, path)))
            .collect();
        kept.sort_unstable();
        let surplus = (kept.len() + 1).saturating_sub(CHECKPOINTS_MAX);
        for (_, path) in kept.iter().take(surplus) {
            fs::remove_file(path).map_err(broken(path))?;
        }
        place.has_room_beside(image_bytes)
    })
    .await
}

/// The images of checkpoints in a session's directory, unfinished ones, too.
pub(crate) fn checkpoints(images: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(images).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"chk_")).map(|entry| entry.path())
}

/// Programs that are held still. When the asker gives up they go on, the copy under way is none, and who comes next waits for
/// the end of this.
pub(crate) struct Hold {
    running: Option<Running>,
    gate: Arc<Gate>,
    holds: Arc<AtomicBool>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.holds.store(false, Ordering::Release);
        if let Some(mut running) = self.running.take() {
            running.begin_kill();
            self.gate.leave(running);
        }
    }
}

impl Hold {
    async fn begin(live: &Live, duration_ms_max: u64) -> Result<Self, Error> {
        let work = Work::Hold { duration_ms_max };
        let running = live.run(live.epoch.load(Ordering::Acquire), work).await?;
        Ok(Self { running: Some(running), gate: Arc::clone(&live.gate), holds: Arc::new(AtomicBool::new(true)) })
    }

    /// Waits until all stand still; `false`: they don't.
    async fn stands(&mut self) -> Result<bool, Error> {
        match &mut self.running {
            Some(running) => Ok(matches!(running.next().await?, Chunk::Output(Stream::Stdout, _))),
            None => Ok(false),
        }
    }

    /// Lets them go on, and waits until that is done.
    pub(crate) async fn let_go(mut self) {
        if let Some(running) = &mut self.running {
            // One that does not end is left to who comes next.
            if tokio::time::timeout(LET_GO_WAIT_MAX, running.kill()).await.is_ok() {
                self.running = None;
            }
        }
    }
}

/// Has the programs stand still until somebody begins something; `false`: they don't.
pub(crate) async fn pause(live: &Live, duration_ms_max: u64) -> Result<bool, Error> {
    let shut = live.gate.shut().await?;
    for _ in 0..ATTEMPTS_MAX {
        let mut hold = Hold::begin(live, duration_ms_max).await?;
        if hold.stands().await? {
            live.gate.rest(hold, shut);
            return Ok(true);
        }
        hold.let_go().await;
    }
    Ok(false)
}

async fn attempt(live: &Live, image: &Path, kept: &Path, left_out: &[u8]) -> Result<Attempt, Error> {
    let began = Instant::now();
    let mut hold = Hold::begin(live, HOLD_MS_MAX).await?;
    let copied = if hold.stands().await? {
        let (from, to, holds) = (image.to_owned(), kept.to_owned(), Arc::clone(&hold.holds));
        let still = move || {
            // PID 1 lets go by itself when that time is over, which it counts from a later moment.
            let in_time = began.elapsed() < Duration::from_millis(HOLD_MS_MAX);
            in_time && holds.load(Ordering::Acquire)
        };
        blocking(move || copy(&from, &to, still).map_err(broken(&to))).await
    } else {
        Ok(Copied::Stirred)
    };
    hold.let_go().await;
    let paused = began.elapsed();
    let to = kept.to_owned();
    match copied? {
        Copied::Stirred => Ok(Attempt::Stirred),
        Copied::Unshared => Ok(Attempt::Unshared),
        Copied::Whole(file) => {
            let left_out = left_out.to_vec();
            blocking(move || settle(&file, &to, &left_out).map_err(broken(&to))).await?;
            Ok(Attempt::Taken(paused))
        }
    }
}

enum Copied {
    Whole(File),
    Stirred,
    Unshared,
}

/// The name under which a copy is made.
fn new(kept: &Path) -> PathBuf {
    kept.with_extension("new")
}

/// Copies an image that nobody writes as long as `still` says so.
fn copy(from: &Path, to: &Path, still: impl Fn() -> bool) -> io::Result<Copied> {
    let from = File::open(from)?;
    // What the kernel writes to the image by itself, or for a program that could not be seen, changes its times.
    let times = |file: &File| file.metadata().map(|of| (of.ctime(), of.ctime_nsec(), of.mtime(), of.mtime_nsec()));
    let before = times(&from)?;
    let path = new(to);
    let file = File::options().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    let copied = match rustix::fs::ioctl_ficlone(&file, &from) {
        Ok(()) if still() && times(&from)? == before => return Ok(Copied::Whole(file)),
        Ok(()) => Ok(Copied::Stirred),
        Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOTTY) => Ok(Copied::Unshared),
        Err(errno) => Err(errno.into()),
    };
    fs::remove_file(&path)?;
    copied
}

/// Gives a copy its name, and says what is no part of it.
fn settle(file: &File, to: &Path, left_out: &[u8]) -> io::Result<()> {
    ext4::set_clean(file)?;
    rustix::fs::fsetxattr(file, LEFT_OUT, left_out, rustix::fs::XattrFlags::empty())?;
    fs::rename(new(to), to)
}

/// The paths that are no part of a checkpoint. One that does not say it can't be forked: what it holds beside its files is then
/// not known.
pub(crate) fn left_out(image: &Path) -> Result<Vec<RelPath>, Error> {
    let mut told = vec![0; LEFT_OUT_BYTES_MAX];
    match rustix::fs::getxattr(image, LEFT_OUT, &mut told) {
        Ok(length) => serde_json::from_slice(told.get(..length).unwrap_or_default()).map_err(|_| Error::WorkspaceLost),
        Err(Errno::NODATA | Errno::NOENT) => Err(Error::WorkspaceLost),
        Err(errno) => Err(broken(image)(errno.into())),
    }
}

#[async_trait]
impl Checkpoint for Taken {
    fn id(&self) -> Id<id::Checkpoint> {
        self.id
    }

    fn paused(&self) -> Duration {
        self.paused
    }

    async fn export(&self, limits: ArchiveLimits) -> Result<Box<dyn Export>, Error> {
        let (place, image) = (Arc::clone(&self.place), self.image.clone());
        // A copy without a name: what is mounted is written to, and it is gone with the sandbox, however that ends.
        let (file, room) = blocking(move || {
            let room = place.admit(0)?;
            let file = anonymous(&image).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Error::WorkspaceLost,
                _ => broken(&image)(error),
            })?;
            Ok((file, room))
        })
        .await?;
        let Reader { harbour, spec, random } = &self.reader;
        let id = Id::new(0, random.bytes());
        let spec = Spec { id, ..spec.clone() };
        let stood: Stood =
            provider::raise(harbour, &spec, Keep::Image, &ids::reading(&spec.accounts)?, vec![file.into()]).await?;
        let live = provider::assemble(harbour, &spec, stood, None, None)?;
        let inner = Exporting::begin(&live, limits).await?;
        Ok(Box::new(Reading { inner, _live: live, _room: room }))
    }
}

fn anonymous(image: &Path) -> io::Result<File> {
    let source = File::open(image)?;
    let above = image.parent().unwrap_or(Path::new("/"));
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(above, flags, Mode::from_raw_mode(0o600))?);
    rustix::fs::ioctl_ficlone(&file, &source)?;
    Ok(file)
}

/// An export from a sandbox that ends with it.
#[derive(Debug)]
struct Reading {
    inner: Exporting,
    _live: Arc<Live>,
    _room: Room,
}

#[async_trait]
impl Export for Reading {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        self.inner.next().await
    }

    fn totals(&self) -> Totals {
        self.inner.totals()
    }
}
