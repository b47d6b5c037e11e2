//! Roots that steps make: each step is a command in a sandbox over what the ones before left, with every wall and no network.
//! What they wrote becomes one layer of the cache, under the digest of base and steps, so it is made again only when one changed.

use crate::door::Keep;
use crate::live::Live;
use crate::provider::{self, Provider};
use crate::rank::Rank;
use crate::roots::{Ready, failed, files};
use crate::stack::{Base, Wanted};
use ::image::{Held, Key, Meta, Owners, Stage, Store};
use domain::Digest;
use domain::root::{STEPS_MAX, TEMPLATES_DEPTH_MAX, Template};
use sandbox::{Chunk, Command, Error, Exit, Limits, RelPath, Root, Sandbox as _, Spec, Workspace};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What the steps of one template may write.
const WRITTEN_BYTES_MAX: u64 = 4 << 30;
const WRITTEN_ENTRIES_MAX: u64 = 500_000;
/// How often it is looked at how much they wrote.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Wall time of one step.
const STEP_WAIT_MAX: Duration = Duration::from_secs(1_800);
/// Memory of all processes of a step.
const MEMORY_BYTES_MAX: u64 = 2 << 30;
/// Bytes of a failed step's output that are told.
const TOLD_BYTES_MAX: usize = 2 << 10;
/// Runs a step in a directory.
const IN_DIRECTORY: &str = "cd -- \"$0\" && exec /bin/sh -ec \"$1\"";

impl Provider {
    /// Makes a root ready, with all that it is made of.
    pub(crate) async fn ready(&self, spec: &Spec) -> Result<Ready, Error> {
        let mut templates: Vec<&Template> = Vec::new();
        let mut root = &spec.root;
        while let Root::Template(template) = root {
            if templates.len() >= TEMPLATES_DEPTH_MAX {
                return Err(failed(format!("templates_depth_max = {TEMPLATES_DEPTH_MAX}")));
            }
            templates.push(template);
            root = &template.base;
        }
        // What a template's steps write has one owner, and so has what is under it.
        let is_plain = templates.is_empty() && spec.accounts.are_declared() && Rank::own().is_root();
        let owners = if is_plain { Owners::Several } else { Owners::One };
        let mut ready = self.roots().ready(root, owners).await?;
        for template in templates.into_iter().rev() {
            ready = self.over(template, ready, spec).await?;
        }
        Ok(ready)
    }

    /// A template's root over its base, made when it is not kept.
    async fn over(&self, template: &Template, base: Ready, asked: &Spec) -> Result<Ready, Error> {
        if base.digests.is_empty() {
            let hint = "hint: begin with an image, whose content is known";
            return Err(failed(format!("the template `{}` has no base that can be built on; {hint}", template.name)));
        }
        if template.steps.len() > STEPS_MAX {
            return Err(failed(format!("the template `{}`: steps_max = {STEPS_MAX}", template.name)));
        }
        let digest = template.digest(&base.digests);
        let key = Key::template(digest);
        let held = match self.roots().hold(&key).await? {
            Some(held) => held,
            None => {
                let _alone = self.roots().alone().await;
                match self.roots().hold(&key).await? {
                    Some(held) => held,
                    None => self.make(template, &base, asked, &key).await?,
                }
            }
        };
        let path = self.roots().store()?.tree(&key);
        base.under(path, held.into_tree(), digest)
    }

    async fn make(&self, template: &Template, base: &Ready, asked: &Spec, key: &Key) -> Result<Held, Error> {
        let stage = self.roots().stage().await?;
        let (directory, opened) = stage.upper().map_err(|error| failed(format!("{}: {error}", error.code())))?;
        let wanted = base.written_to(directory.clone(), opened)?;
        let limits = Limits { memory_bytes_max: MEMORY_BYTES_MAX, ..Limits::default() };
        let mut environment = base.environment.clone();
        environment.push(("HOME".to_owned(), "/root".to_owned()));
        let (workspace, binds, mounts) = (Workspace::Scratch, Vec::new(), Vec::new());
        let spec = Spec { workspace, environment, binds, mounts, limits, root: Root::default(), ..asked.clone() };
        let stood = provider::raise(self.harbour(), &spec, Keep::Nowhere, &wanted, Vec::new()).await?;
        let live = provider::assemble(self.harbour(), &spec, stood, None, None)?;
        drop(wanted);
        let workdir = if base.workdir.is_empty() { "/" } else { base.workdir.as_str() };
        let ran = steps(live.as_ref(), template, workdir, spec.epoch, &directory).await;
        live.close().await;
        ran?;
        let store = self.roots().store()?;
        let key = key.clone();
        let kept = tokio::task::spawn_blocking(move || seal(&store, stage, &key));
        kept.await.map_err(failed)?
    }
}

/// Measures what was written and keeps it.
fn seal(store: &Store, stage: Stage, key: &Key) -> Result<Held, Error> {
    let mut meta = Meta::default();
    let (directory, tree) = stage.sealed().map_err(failed)?;
    measure(&directory, &mut meta)?;
    rustix::fs::syncfs(&tree).map_err(failed)?;
    store.keep(stage, key, meta).map_err(|error| failed(format!("{}: {error}", error.code())))
}

/// Counts what is there; no file is opened.
fn measure(directory: &Path, meta: &mut Meta) -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt as _;
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let metadata = entry.metadata().map_err(failed)?;
            meta.entries += 1;
            meta.bytes = meta.bytes.saturating_add(metadata.blocks().saturating_mul(512));
            if meta.entries > WRITTEN_ENTRIES_MAX || meta.bytes > WRITTEN_BYTES_MAX {
                return Err(too_much());
            }
            if metadata.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    Ok(())
}

fn too_much() -> Error {
    failed(format!(
        "template_written_bytes_max = {WRITTEN_BYTES_MAX}, template_written_entries_max = {WRITTEN_ENTRIES_MAX}"
    ))
}

/// Runs all steps, one after the other, as long as there is room.
async fn steps(live: &Live, template: &Template, begins_in: &str, epoch: u64, directory: &Path) -> Result<(), Error> {
    let room = free_bytes(directory);
    for (index, step) in template.steps.iter().enumerate() {
        let argv = ["/bin/sh", "-c", IN_DIRECTORY, begins_in, step].map(str::to_owned).to_vec();
        let (workdir, environment, name) = (RelPath::root(), Vec::new(), None);
        let command = Command { argv, workdir, environment, terminal: false, stdin: false, epoch, name, user: None };
        let stepped = tokio::time::timeout(STEP_WAIT_MAX, run(live, command, directory, room)).await;
        let why = match stepped {
            Err(_) => format!("took more than {} s", STEP_WAIT_MAX.as_secs()),
            Ok(ended) => match ended? {
                (Exit::Code(0), _) => continue,
                (Exit::Code(code), told) => format!("failed with exit code {code}: {told}"),
                (Exit::Signal(signal), told) => format!("was killed by signal {signal}: {told}"),
            },
        };
        let (number, count) = (index + 1, template.steps.len());
        return Err(failed(format!("the template `{}`: step {number} of {count} {why}", template.name)));
    }
    Ok(())
}

fn free_bytes(directory: &Path) -> u64 {
    rustix::fs::statvfs(directory).map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize))
}

/// Runs one step to its end; gives how it ended and the last of what it said.
async fn run(live: &Live, command: Command, directory: &Path, room: u64) -> Result<(Exit, String), Error> {
    let mut process = live.start(command).await?;
    let mut told: Vec<u8> = Vec::new();
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        let chunk = tokio::select! {
            chunk = process.next() => chunk?,
            _ = look.tick() => {
                if free_bytes(directory).saturating_add(WRITTEN_BYTES_MAX) < room {
                    return Err(too_much());
                }
                continue;
            }
        };
        match chunk {
            Chunk::Output(_, bytes) => {
                told.extend_from_slice(&bytes);
                let over = told.len().saturating_sub(TOLD_BYTES_MAX);
                told.drain(..over);
            }
            Chunk::Exit(exit) => {
                let text = String::from_utf8_lossy(&told);
                let text: String = text.trim().chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
                return Ok((exit, text));
            }
        }
    }
}

impl Ready {
    /// This root with a layer over it.
    fn under(self, path: PathBuf, tree: OwnedFd, digest: Digest) -> Result<Self, Error> {
        let mut opened = vec![tree];
        opened.extend(self.copies()?);
        let mut paths = vec![path];
        paths.extend(self.paths());
        let borrowed: Vec<_> = opened.iter().map(|opened| opened.as_fd()).collect();
        let (identity, files) = (self.wanted.identity, files(&borrowed, self.wanted.identity));
        let base = Base::Layers { paths, owned: true, upper: None };
        let descriptors = opened.len();
        let opened = Arc::new(opened);
        let wanted = Wanted { base, identity, files, descriptors, opened, ..Wanted::default() };
        Ok(Self { wanted, digests: vec![digest], ..self })
    }

    /// This root with everything that is written kept in `directory`.
    fn written_to(&self, directory: PathBuf, directory_opened: OwnedFd) -> Result<Wanted, Error> {
        let mut opened = self.copies()?;
        opened.push(directory_opened);
        let base = Base::Layers { paths: self.paths(), owned: true, upper: Some(directory) };
        Ok(Wanted { base, descriptors: opened.len(), opened: Arc::new(opened), ..self.wanted.clone() })
    }

    fn copies(&self) -> Result<Vec<OwnedFd>, Error> {
        let copies = self.wanted.opened.iter().map(|opened| rustix::io::fcntl_dupfd_cloexec(opened, 3));
        copies.collect::<Result<_, _>>().map_err(failed)
    }

    fn paths(&self) -> Vec<PathBuf> {
        match &self.wanted.base {
            Base::Host { .. } => Vec::new(),
            Base::Layers { paths, .. } => paths.clone(),
        }
    }
}
