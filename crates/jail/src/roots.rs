//! From a root as it is declared to what the launcher can mount: finds directories, has images unpacked into the cache, and
//! holds the layers that are used. Only names and bounded words of an image are looked at here.

use crate::door::{Reply, Request};
use crate::harbour::{Arrived, Harbour};
use crate::stack::{Base, Identity, OWNER_ID, OWNERS_FIRST, Wanted};
use crate::worker::TASK_SECONDS_MAX;
use ::image::{Done, Held, Image, Key, Layer, Limits, Meta, Owners, Stage, Store, Task};
use domain::Digest;
use rustix::fs::{Mode, OFlags};
use sandbox::{Error, Root};
use std::collections::HashMap;
use std::fmt;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Bytes of unpacked layers that are kept, beyond what is in use.
const CACHE_BYTES_MAX: u64 = 20 << 30;
/// Images whose declarations are remembered.
const IMAGES_MAX: usize = 64;
/// Bytes of what a worker says.
const RESULT_BYTES_MAX: u64 = 1 << 20;
/// Bytes of an account file that is completed with the sandbox's own user; a larger one stays as it is.
const ACCOUNTS_BYTES_MAX: u64 = 12 << 10;

/// Prepares roots.
#[derive(Debug)]
pub(crate) struct Roots {
    harbour: Harbour,
    root: bool,
    directory: PathBuf,
    store: OnceLock<Arc<Store>>,
    known: Mutex<HashMap<Seen, Image>>,
    /// One image is unpacked at a time, and nobody unpacks what another does.
    unpacking: tokio::sync::Mutex<()>,
}

/// A root that can be mounted.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    pub(crate) wanted: Wanted,
    /// Variables that its programs expect.
    pub(crate) environment: Vec<(String, String)>,
    /// Where steps over it begin; absolute, or empty.
    pub(crate) workdir: String,
    /// What it is made of, by content; none when it can't be told.
    pub(crate) digests: Vec<Digest>,
}

/// What an image file looked like from outside.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Seen {
    path: PathBuf,
    numbers: [i64; 6],
}

pub(crate) fn failed(detail: impl fmt::Display) -> Error {
    Error::Start { stage: "root", detail: detail.to_string() }
}

fn of_image(path: &Path) -> impl Fn(::image::Error) -> Error {
    move |error| failed(format!("{}: {}: {error}", path.display(), error.code()))
}

fn of_cache(error: ::image::Error) -> Error {
    failed(format!("{}: {error}", error.code()))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

fn open(path: &Path) -> Result<OwnedFd, Error> {
    if !path.is_absolute() {
        return Err(failed(format!("{}: expected an absolute path", path.display())));
    }
    // A FIFO would block.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| failed(format!("{}: {errno}", path.display())))
}

impl Roots {
    /// Roots whose layers are kept below `data`.
    pub(crate) fn new(harbour: Harbour, data: &Path, root: bool) -> Self {
        let (store, known, unpacking) = (OnceLock::new(), Mutex::default(), tokio::sync::Mutex::default());
        Self { harbour, root, directory: data.join("roots"), store, known, unpacking }
    }

    /// Makes a root ready, unpacking what is not kept yet.
    pub(crate) async fn ready(&self, root: &Root, owners: Owners) -> Result<Ready, Error> {
        match root {
            Root::Host { directories } if directories.is_empty() => Ok(Ready::default()),
            Root::Host { directories } => {
                let base = Base::Host { directories: checked(directories)? };
                Ok(Ready { wanted: Wanted { base, ..Wanted::default() }, ..Ready::default() })
            }
            Root::Directory { path } => {
                let path = path.clone();
                blocking(move || of_directory(&path)).await
            }
            Root::Image { path } => self.image(path, owners).await,
            Root::Template(template) => Err(failed(format!("the template `{}` is not made yet", template.name))),
        }
    }

    pub(crate) fn store(&self) -> Result<Arc<Store>, Error> {
        if let Some(store) = self.store.get() {
            return Ok(Arc::clone(store));
        }
        let owner = self.root.then_some((OWNER_ID, OWNER_ID));
        let store = Store::open(self.directory.clone(), CACHE_BYTES_MAX, owner).map_err(of_cache)?;
        Ok(Arc::clone(self.store.get_or_init(|| Arc::new(store))))
    }

    async fn image(&self, path: &Path, owners: Owners) -> Result<Ready, Error> {
        let (image, source) = self.look(path).await?;
        let mut held = Vec::new();
        for layer in &image.layers {
            held.push(self.layer(path, &source, layer, owners).await?);
        }
        let store = self.store()?;
        let path = path.to_owned();
        blocking(move || of_layers(&path, image, held, &store, owners)).await
    }

    /// What an image declares; looked into again only when its file has changed.
    async fn look(&self, path: &Path) -> Result<(Image, OwnedFd), Error> {
        let owned = path.to_owned();
        let (source, seen) = blocking(move || Ok((open(&owned)?, seen(&owned)?))).await?;
        if let Some(image) = self.known().get(&seen) {
            return Ok((image.clone(), source));
        }
        let copy = rustix::io::fcntl_dupfd_cloexec(&source, 3).map_err(failed)?;
        let Done::Looked(image) = self.work(Task::Look, vec![copy]).await?.map_err(of_image(path))? else {
            return Err(failed("the worker answered something else"));
        };
        let mut known = self.known();
        if known.len() >= IMAGES_MAX {
            known.clear();
        }
        known.insert(seen, image.clone());
        Ok((image, source))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<Seen, Image>> {
        // No code panics while it holds this lock, and the map is whole at every moment.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One layer, from the cache or into it.
    async fn layer(&self, path: &Path, source: &OwnedFd, layer: &Layer, owners: Owners) -> Result<Held, Error> {
        let (store, key) = (self.store()?, key(layer, owners));
        if let Some(held) = hold(&store, &key).await? {
            return Ok(held);
        }
        let _alone = self.unpacking.lock().await;
        if let Some(held) = hold(&store, &key).await? {
            return Ok(held);
        }
        let stage = self.stage().await?;
        if owners == Owners::Several {
            stage.give((OWNERS_FIRST, OWNERS_FIRST)).map_err(of_cache)?;
        }
        let limits = Limits { bytes_max: Limits::default().bytes_max.min(CACHE_BYTES_MAX), ..Limits::default() };
        let source = rustix::io::fcntl_dupfd_cloexec(source, 3).map_err(failed)?;
        let task = Task::Unpack { layer: layer.clone(), limits, owners };
        let fds = vec![source, stage.tree().map_err(of_cache)?];
        // A stage that is dropped goes with all that is in it.
        let Done::Unpacked(told) = self.work(task, fds).await?.map_err(of_image(path))? else {
            return Err(failed("the worker answered something else"));
        };
        let meta = Meta { bytes: told.bytes, entries: told.entries, opaque: told.opaque };
        blocking(move || store.keep(stage, &key, meta).map_err(of_cache)).await
    }

    /// A kept layer.
    pub(crate) async fn hold(&self, key: &Key) -> Result<Option<Held>, Error> {
        hold(&self.store()?, key).await
    }

    /// Waits until nobody else makes a layer.
    pub(crate) async fn alone(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.unpacking.lock().await
    }

    pub(crate) async fn stage(&self) -> Result<Stage, Error> {
        let store = self.store()?;
        blocking(move || store.stage().map_err(of_cache)).await
    }

    /// Has a task done in a process of its own.
    async fn work(&self, task: Task, mut fds: Vec<OwnedFd>) -> Result<Result<Done, ::image::Error>, Error> {
        let (end, result) = UnixStream::pair().map_err(failed)?;
        fds.push(result.into());
        let worker = match self.harbour.ask(Request::Work { task }, fds).await? {
            Arrived::Other(Reply::Working { worker }) => worker,
            Arrived::Other(Reply::Failed(failure)) => return Err(failure.into()),
            _ => return Err(failed("the launcher answered something else")),
        };
        let heard = blocking(move || {
            let seconds = u64::from(TASK_SECONDS_MAX) + 5;
            end.set_read_timeout(Some(Duration::from_secs(seconds))).map_err(failed)?;
            let mut text = Vec::new();
            end.take(RESULT_BYTES_MAX).read_to_end(&mut text).map_err(failed)?;
            Ok(text)
        })
        .await;
        // Whatever it said, it is over.
        let _ = self.harbour.ask(Request::Worked { worker }, Vec::new()).await;
        let early = || ::image::Error::Unpack { detail: "its process ended early".to_owned() };
        Ok(serde_json::from_slice(&heard?).unwrap_or_else(|_| Err(early())))
    }
}

/// The name of a layer in the cache: with several owners it is kept apart.
fn key(layer: &Layer, owners: Owners) -> Key {
    match owners {
        Owners::One => Key::layer(layer.diff_id),
        Owners::Several => Key::owned(layer.diff_id),
    }
}

async fn hold(store: &Arc<Store>, key: &Key) -> Result<Option<Held>, Error> {
    let (store, key) = (Arc::clone(store), key.clone());
    blocking(move || store.hold(&key).map_err(of_cache)).await
}

fn seen(path: &Path) -> Result<Seen, Error> {
    let of = |path: &Path| std::fs::metadata(path).map_err(|error| failed(format!("{}: {error}", path.display())));
    let mut metadata = of(path)?;
    // A layout that is changed gets another index.
    if metadata.is_dir() {
        metadata = of(&path.join("index.json"))?;
    }
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let (device, inode, bytes) = (number(metadata.dev()), number(metadata.ino()), number(metadata.len()));
    let numbers = [device, inode, bytes, metadata.mtime(), metadata.mtime_nsec(), metadata.ctime_nsec()];
    Ok(Seen { path: path.to_owned(), numbers })
}

/// What of the host may never be shown, even when it is named.
const PRIVATE: [&str; 14] = [
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/media",
    "/mnt",
    "/proc",
    "/root",
    "/run",
    "/srv",
    "/sys",
    "/tmp",
    "/var",
    "/workspace",
];

fn checked(directories: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    for directory in directories {
        let plain = directory
            .components()
            .all(|component| matches!(component, std::path::Component::RootDir | std::path::Component::Normal(_)));
        let is_private = PRIVATE.iter().any(|private| directory.starts_with(private));
        if !directory.is_absolute() || !plain || directory == Path::new("/") || is_private {
            let hint = "hint: only directories with programs and libraries, such as /usr or /opt";
            return Err(failed(format!("{} of the host is never shown; {hint}", directory.display())));
        }
    }
    Ok(directories.to_vec())
}

fn of_directory(path: &Path) -> Result<Ready, Error> {
    let opened = open(path)?;
    let stat = rustix::fs::fstat(&opened).map_err(failed)?;
    if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
        return Err(failed(format!("{}: expected a directory with a whole system in it", path.display())));
    }
    let files = files(&[opened.as_fd()], Identity::default());
    let base = Base::Layers { paths: vec![path.to_owned()], owned: false, upper: None };
    let wanted = Wanted { base, files, descriptors: 1, opened: Arc::new(vec![opened]), ..Wanted::default() };
    Ok(Ready { wanted, ..Ready::default() })
}

/// A root of the layers of an image, which came lowest first.
fn of_layers(path: &Path, image: Image, held: Vec<Held>, store: &Store, owners: Owners) -> Result<Ready, Error> {
    // What lies under a layer that hides everything is not mounted.
    let first = held.iter().rposition(|held| held.meta.opaque).unwrap_or(0);
    let seen = image.layers.iter().zip(held).skip(first).rev();
    let (layers, opened): (Vec<PathBuf>, Vec<OwnedFd>) =
        seen.map(|(layer, held)| (store.tree(&key(layer, owners)), held.into_tree())).unzip();
    let borrowed: Vec<BorrowedFd<'_>> = opened.iter().map(|opened| opened.as_fd()).collect();
    let identity = ::image::identify(&image.config.user, &borrowed).map_err(of_image(path))?;
    let identity = identity.map_or_else(Identity::default, |found| Identity { user: found.user, group: found.group });
    let files = files(&borrowed, identity);
    let digests = image.layers.iter().map(|layer| layer.diff_id).collect();
    let base = Base::Layers { paths: layers, owned: true, upper: None };
    let descriptors = opened.len();
    let opened = Arc::new(opened);
    let wanted = Wanted { base, identity, files, owners, descriptors, opened, ..Wanted::default() };
    let mut environment = image.config.environment;
    let name = image.config.user.split(':').next().unwrap_or_default();
    if !name.is_empty() && !name.bytes().all(|byte| byte.is_ascii_digit()) {
        for variable in ["USER", "LOGNAME"] {
            if !environment.iter().any(|(known, _)| known == variable) {
                environment.push((variable.to_owned(), name.to_owned()));
            }
        }
    }
    Ok(Ready { wanted, environment, workdir: image.config.workdir, digests })
}

/// What stands over the layers: an account for who everything runs as, where they have none.
pub(crate) fn files(layers: &[BorrowedFd<'_>], identity: Identity) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let Identity { user, group } = identity;
    let name = guest::USER_NAME;
    let lines = [
        ("etc/passwd", user, format!("{name}:x:{user}:{group}::/workspace:/bin/sh\n")),
        ("etc/group", group, format!("{name}:x:{group}:\n")),
    ];
    for (path, id, line) in lines {
        let found = ::image::accounts(layers, path, ACCOUNTS_BYTES_MAX);
        let text = match found {
            ::image::Accounts::Missing => String::new(),
            ::image::Accounts::Text(text) => text,
            ::image::Accounts::TooLarge => continue,
        };
        let id = id.to_string();
        if !text.lines().any(|line| line.split(':').nth(2) == Some(id.as_str())) {
            let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            files.push((path.to_owned(), format!("{text}{end}{line}")));
        }
    }
    files
}
