//! The provider `local`: claims workspaces, asks the launcher for sandboxes, and hands them out; takes over what an earlier
//! harness left.

use crate::ahead::Ahead;
use crate::door::{self, Adopt, Create, Found, Keep, Label, Reply, Request, Took};
use crate::gate::Gate;
use crate::harbour::{Arrived, Harbour, Slot};
use crate::home::{self, Door};
use crate::ids;
use crate::live::{Live, Watch};
use crate::owners::Owners;
use crate::pool::{Place, Pool};
use crate::quota::Room;
use crate::rank::Rank;
use crate::roots::{Ready, Roots};
use crate::snapshot::{Reader, Stored};
use crate::stack::Wanted;
use crate::stock::{Stock, Taken};
use crate::warmth::{Warm, Warmth};
use crate::wire::Wire;
use crate::workspaces::{self, Claimed, Making, Stocked, Unfinished};
use crate::{Error as LaunchError, Launcher, outlives, shown};
use async_trait::async_trait;
use domain::{Id, id};
use sandbox::report::Way;
use sandbox::{About, Error, Finding, Living, Probe, RelPath, Report, Sandbox, Spec, Start, Walls, Workspace};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use stdx::Random;
use tokio::time::Instant;

/// What PID 1 gets to save a workspace that lives in memory.
pub(crate) const SAVE_GRACE_MS: u64 = 30_000;
/// How long a sandbox may take to tell of its commands.
const TELL_WAIT_MAX: Duration = Duration::from_secs(2);
/// Pages that are asked for to learn what lives; above the launcher's own bound.
const PAGES_MAX: usize = 1_024;

/// Makes sandboxes on this machine.
#[derive(Debug)]
pub struct Provider {
    harbour: Harbour,
    roots: Roots,
    owners: Owners,
    pub(crate) random: Random,
    pub(crate) root: bool,
    pool: Pool,
    network: mounts::Network,
    mount_limits: mounts::Limits,
    /// Workspaces that are nobody's yet, when some are to be kept.
    pub(crate) stock: Option<Stock>,
    /// What stands ready, and of which kind the last request was.
    pub(crate) warm: Mutex<Warmth>,
    /// What an earlier harness left, by tenant and session.
    left: Mutex<HashMap<(String, String), door::Lives>>,
    /// The sandboxes of this one, by slot.
    held: Mutex<HashMap<u64, Weak<Live>>>,
}

pub(crate) fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Provider {
    /// A provider over a launcher that ends with this process. Workspaces live below `data`, which this process owns;
    /// `random` makes the identities of their file systems.
    ///
    /// # Errors
    /// [`LaunchError::Fork`] when the thread that listens to the launcher can't be started.
    pub fn new(launcher: Launcher, data: PathBuf, random: Random) -> Result<Self, LaunchError> {
        Self::behind(Door::homeless(launcher)?, data, random)
    }

    /// As [`Provider::new`], but the launcher outlives this process: one that lives in `data` from an earlier process is taken
    /// over with its sandboxes, and the fresh one ends; without one the fresh one is at home there from now on. When this
    /// process dies, the sandboxes live on for `owner_grace_ms`, waiting for the next; after [`sandbox::Provider::farewell`],
    /// or when the provider is dropped, nothing does. While another process has the launcher of `data`, this is as
    /// [`Provider::new`].
    ///
    /// # Errors
    /// [`LaunchError::Home`] when the directory below `data` can't be used; [`LaunchError::Fork`].
    pub async fn at_home(
        launcher: Launcher,
        data: PathBuf,
        random: Random,
        owner_grace_ms: u64,
    ) -> Result<Self, LaunchError> {
        let door = home::enter(launcher, &data, owner_grace_ms).await?;
        let lived = door.lived;
        let provider = Self::behind(door, data, random)?;
        if lived {
            provider.look_around().await;
        }
        Ok(provider)
    }

    /// Bounds what all workspaces kept here may take together, open ones with their whole size; 256 GiB unless it is said. As
    /// root it is also the size of a pool that is made here. Before the first sandbox.
    #[must_use]
    pub fn with_workspaces_bytes_max(mut self, bytes_max: u64) -> Self {
        self.pool.bound(bytes_max);
        self
    }

    /// How the helpers of mounts reach the network; directly, unless it is said. Before the first sandbox.
    #[must_use]
    pub fn with_network(mut self, network: mounts::Network) -> Self {
        self.network = network;
        self
    }

    /// What one mount may take, and how long one operation on it; [`mounts::Limits::default`], unless it is said. Before the
    /// first sandbox.
    #[must_use]
    pub const fn with_mount_limits(mut self, limits: mounts::Limits) -> Self {
        self.mount_limits = limits;
        self
    }

    /// Keeps a few empty workspaces formatted and mounted, of the size that was asked for last, where they are images, and
    /// `formatted` more that are only formatted: they take some disk and nothing else. Before the first sandbox.
    #[must_use]
    pub fn with_stock(mut self, formatted: usize) -> Self {
        self.stock = Some(Stock::new(formatted));
        self
    }

    /// How many empty workspaces are in stock that stand in no sandbox.
    #[must_use]
    pub fn in_stock(&self) -> usize {
        self.stock.as_ref().map_or(0, Stock::plain)
    }

    /// Keeps sandboxes ready, as [`Provider::keep_warm`], of the kind of the first one that is asked for. Before the first
    /// sandbox.
    #[must_use]
    pub fn with_warm(mut self, warm: Warm) -> Self {
        self.warm = Mutex::new(Warmth::of(warm));
        self
    }

    /// How workspaces are kept here, in words; finds or makes the place at first.
    ///
    /// # Errors
    /// [`Error::Start`] when it can't be had.
    pub async fn store(&self) -> Result<&'static str, Error> {
        Ok(self.place().await?.told(self.root))
    }

    fn behind(door: Door, data: PathBuf, random: Random) -> Result<Self, LaunchError> {
        let harbour = Harbour::new(door)?;
        let root = Rank::own().is_root();
        let roots = Roots::new(harbour.clone(), &data, root);
        let owners = Owners::new(harbour.clone());
        let pool = Pool::new(data, root);
        let (network, mount_limits) = (mounts::Network::default(), mounts::Limits::default());
        let (stock, warm) = (None, Mutex::default());
        let (left, held) = (Mutex::default(), Mutex::default());
        Ok(Self { harbour, roots, owners, random, root, pool, network, mount_limits, stock, warm, left, held })
    }

    /// Learns what an earlier harness left; what is nobody's workspace ends at once.
    async fn look_around(&self) {
        let lives = match self.list().await {
            Ok(lives) => lives,
            Err(error) => return tracing::warn!(%error, "what an earlier process left is not known; it ends by itself"),
        };
        for one in lives {
            match one.label.workspace.clone() {
                Some(workspace) => drop(hold(&self.left).insert(workspace, one)),
                None => self.let_end(one.slot, 0).await,
            }
        }
    }

    pub(crate) fn roots(&self) -> &Roots {
        &self.roots
    }

    pub(crate) fn harbour(&self) -> &Harbour {
        &self.harbour
    }

    async fn list(&self) -> Result<Vec<door::Lives>, Error> {
        let (mut lives, mut after) = (Vec::new(), 0);
        for _ in 0..PAGES_MAX {
            let arrived = self.harbour.ask(Request::List { after }, Vec::new()).await?;
            let Arrived::Other(Reply::Listed { sandboxes: page }) = arrived else { return Err(unexpected()) };
            let Some(last) = page.last() else { return Ok(lives) };
            after = last.slot;
            lives.extend(page);
        }
        Err(Error::Limit { limit: format!("pages_max = {PAGES_MAX}") })
    }

    /// A sandbox of this one, by its id.
    fn live_of(&self, id: Id<id::Sandbox>) -> Option<Arc<Live>> {
        hold(&self.held).values().filter_map(Weak::upgrade).find(|live| live.id == id)
    }

    /// What is known of a sandbox that the launcher told of.
    async fn told(&self, one: door::Lives) -> Option<Living> {
        let live = hold(&self.held).get(&one.slot).and_then(Weak::upgrade);
        let (commands, about) = match &live {
            Some(live) => {
                // One that is on its way out, or busy with something else, has none to tell of.
                let commands = tokio::time::timeout(TELL_WAIT_MAX, live.commands()).await;
                let store = live.stored.as_ref().map_or("memory, nobody's", |stored| stored.place.told(self.root));
                let about = About { store: store.to_owned(), ..live.about.clone() };
                (commands.ok().and_then(Result::ok), Some(about))
            }
            None => (None, None),
        };
        let is_paused = live.as_ref().is_some_and(|live| live.gate.is_still());
        Some(Living { is_held: live.is_some(), is_paused, about, commands, ..left_over(one)? })
    }

    /// Ends a sandbox that nobody holds.
    async fn let_end(&self, slot: u64, grace_ms: u64) {
        // A launcher that is gone has ended it.
        let _ = self.harbour.ask(Request::Close { slot, grace_ms }, Vec::new()).await;
    }

    /// The sandbox that an earlier harness left of this workspace.
    fn left(&self, workspace: &Workspace) -> Option<(String, String)> {
        let Workspace::Session { tenant, session, .. } = workspace else { return None };
        let key = (tenant.clone(), session.to_string());
        hold(&self.left).contains_key(&key).then_some(key)
    }

    /// Takes over the sandbox that was left of this workspace; `None`: it was not what is asked for, and has ended.
    async fn take_over(
        &self,
        spec: &Spec,
        root: &Wanted,
        key: &(String, String),
    ) -> Result<Option<Arc<dyn Sandbox>>, Error> {
        let Workspace::Session { start, .. } = spec.workspace else { return Ok(None) };
        let place = self.place().await?;
        let Some(home) = place.home(&spec.workspace)? else { return Ok(None) };
        // A lease that is stale ends nothing.
        let entered = workspaces::readmit(home.directory, start, spec.epoch).await?;
        let Some(left) = hold(&self.left).get(key).cloned() else { return Ok(None) };
        if matches!(start, Start::Kept { .. }) {
            match self.adopt(spec, root, &left, place).await {
                Ok(live) => {
                    hold(&self.left).remove(key);
                    entered.mark().await?;
                    return Ok(Some(live));
                }
                Err(error @ Error::StaleEpoch { .. }) => return Err(error),
                Err(error) => tracing::info!(sandbox = left.label.id, %error, "a sandbox is not taken over and ends"),
            }
        }
        self.let_end(left.slot, SAVE_GRACE_MS).await;
        hold(&self.left).remove(key);
        Ok(None)
    }

    async fn adopt(
        &self,
        spec: &Spec,
        root: &Wanted,
        left: &door::Lives,
        place: Arc<Place>,
    ) -> Result<Arc<Live>, Error> {
        // Root keeps workspaces in images, others in directories; what was kept otherwise has another shape.
        let keep = if self.root { Keep::Image } else { Keep::Layer };
        let shape = request(spec, keep, root).shape();
        let (slot, epoch, walls_optional) = (left.slot, spec.epoch, spec.walls_optional.clone());
        let landlock_version_min = spec.landlock_version_min;
        let adopt = Request::Adopt(Adopt { slot, epoch, shape, walls_optional, landlock_version_min });
        let (mut slot, walls, stream, saves, kills_told) = match self.harbour.ask(adopt, Vec::new()).await? {
            Arrived::Adopted { slot, walls, stream, saves, kills_told } => (slot, walls, stream, saves, kills_told),
            Arrived::Other(Reply::Failed(failure)) => return Err(failure.into()),
            _ => return Err(unexpected()),
        };
        slot.grace_ms = if saves { SAVE_GRACE_MS } else { 0 };
        let stood = Stood {
            id: left.label.id.parse().unwrap_or(spec.id),
            slot,
            walls,
            wire: wire(stream, spec)?,
            kills_told,
            doors: Vec::new(),
            report: Report { way: Some(Way::TakenOver), ..Report::none() },
        };
        // It runs already: that all of them take too much is no reason to end it.
        let stored = self.stored(spec, place, None)?;
        let live = self.live(spec, stood, None, stored)?;
        live.wire.greeted().await?;
        Ok(live)
    }

    /// Holds a sandbox that stands.
    fn live(
        &self,
        spec: &Spec,
        stood: Stood,
        unfinished: Option<Unfinished>,
        stored: Option<Stored>,
    ) -> Result<Arc<Live>, Error> {
        let number = stood.slot.number;
        let live = assemble(&self.harbour, spec, stood, unfinished, stored)?;
        let mut held = hold(&self.held);
        held.retain(|_, live| live.strong_count() > 0);
        held.insert(number, Arc::downgrade(&live));
        Ok(live)
    }

    /// Gives an ordinary user's sandbox ids for its users, and its workspace to them.
    async fn lend(
        &self,
        place: &Place,
        workspace: &Workspace,
        root: &mut Wanted,
        claimed: &Claimed,
    ) -> Result<(), Error> {
        if self.root {
            return Ok(());
        }
        let rather = place.home(workspace)?.as_ref().and_then(workspaces::owner);
        if let Some(lent) = ids::lend(root, rather)? {
            (root.lent, root.lock) = (Some(lent.part), Some(lent.lock));
        }
        match (&claimed.descriptor, claimed.keep) {
            (Some(files), Keep::Layer) => self.owners.settle(files, root.lent).await,
            _ => Ok(()),
        }
    }

    /// Makes a workspace in stock the session's while the sandbox is made or given, whichever fails: nothing has run. `None`: the
    /// sandbox around it has ended, and all is to be done without it.
    async fn make_of_stock(
        &self,
        place: &Arc<Place>,
        spec: &Spec,
        root: &Wanted,
        making: Making,
        taken: Taken,
    ) -> Result<Option<(Stood, Claimed)>, Error> {
        let claim =
            |stocked| workspaces::claim(place, &spec.workspace, spec.epoch, making, Some(stocked), &self.owners);
        match taken {
            Taken::Image(blank) => {
                let mut claimed = claim(Stocked::Image(blank)).await?;
                let descriptors = claimed.descriptor.take().into_iter().collect();
                let stood = raise(&self.harbour, spec, claimed.keep, root, descriptors).await?;
                Ok(Some((stood, claimed)))
            }
            Taken::Mounted(opened, mount) => {
                // Whoever claims is awake before the first process is, and does not push it from its processor.
                let claimed = claim(Stocked::Mounted(opened));
                let raised = raise(&self.harbour, spec, Keep::Mounted, root, vec![mount]);
                let (claimed, stood) = tokio::try_join!(claimed, raised)?;
                Ok(Some((stood, claimed)))
            }
            Taken::Sandbox(opened, ahead) => {
                // The claim goes to another thread at once, and the launcher does its part meanwhile.
                let claimed = claim(Stocked::Mounted(opened));
                let (claimed, given) = tokio::join!(biased; claimed, self.give(spec, root, ahead));
                let claimed = claimed?;
                let given = given.inspect_err(|error| tracing::info!(%error, "a sandbox that was made ahead is none"));
                Ok(given.ok().map(|stood| (stood, claimed)))
            }
        }
    }

    /// Makes a sandbox that was made ahead the session's.
    async fn give(&self, spec: &Spec, root: &Wanted, ahead: Ahead) -> Result<Stood, Error> {
        let began = Instant::now();
        let (slot, walls, wire) = ahead.give(&self.harbour, asked(spec, Keep::Mounted, root)).await?;
        let claim_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let report = Report { way: Some(Way::Warm), claim_us, ..Report::none() };
        Ok(Stood { id: spec.id, slot, walls, wire, kills_told: 0, doors: Vec::new(), report })
    }

    pub(crate) async fn place(&self) -> Result<Arc<Place>, Error> {
        self.pool.place(&self.harbour, self.random.bytes()).await
    }

    fn stored(&self, spec: &Spec, place: Arc<Place>, room: Option<Room>) -> Result<Option<Stored>, Error> {
        let home = place.home(&spec.workspace)?;
        let reader = Reader::new(self.harbour.clone(), spec, self.random.clone());
        Ok(home.map(|home| Stored { place, home, room: Mutex::new(room), reader }))
    }
}

/// What is known of a sandbox that nobody here holds.
pub(crate) fn left_over(one: door::Lives) -> Option<Living> {
    let workspace = one.label.workspace.and_then(|(tenant, session)| Some((tenant, session.parse().ok()?)));
    Some(Living {
        id: one.label.id.parse().ok()?,
        workspace,
        epoch: one.epoch,
        walls: one.walls,
        age_ms: one.age_ms,
        is_held: false,
        is_paused: false,
        usage: one.usage,
        limits: Some(one.limits),
        about: None,
        commands: None,
    })
}

/// Asks for a sandbox and waits until it stands.
pub(crate) async fn raise(
    harbour: &Harbour,
    spec: &Spec,
    keep: Keep,
    root: &Wanted,
    descriptors: Vec<OwnedFd>,
) -> Result<Stood, Error> {
    let request = Request::Create(Box::new(request(spec, keep, root)));
    let layers = root.opened.iter().map(|opened| rustix::io::fcntl_dupfd_cloexec(opened, 3));
    let mut sent = layers.collect::<Result<Vec<_>, _>>().map_err(crate::roots::failed)?;
    let lock = root.lock.as_ref().map(|lock| rustix::io::fcntl_dupfd_cloexec(lock, 3)).transpose();
    sent.extend(lock.map_err(crate::roots::failed)?);
    sent.extend(descriptors);
    let descriptors = sent;
    let (doors, told);
    let (mut slot, walls, stream) = match harbour.ask(request, descriptors).await? {
        Arrived::Created { slot, walls, stream, mounts, took } => {
            (doors, told) = (mounts, took);
            (slot, walls, stream)
        }
        Arrived::Other(Reply::Failed(failure)) => return Err(failure.into()),
        _ => return Err(unexpected()),
    };
    slot.grace_ms = if keep == Keep::Layer { SAVE_GRACE_MS } else { 0 };
    let wire = wire(stream, spec)?;
    Ok(Stood { id: spec.id, slot, walls, wire, kills_told: 0, doors, report: report(told) })
}

fn wire(stream: OwnedFd, spec: &Spec) -> Result<Arc<Wire>, Error> {
    Wire::new(stream, spec.limits.commands_max).map(Arc::new)
}

/// A sandbox that stands, as it is held.
pub(crate) fn assemble(
    harbour: &Harbour,
    spec: &Spec,
    stood: Stood,
    unfinished: Option<Unfinished>,
    stored: Option<Stored>,
) -> Result<Arc<Live>, Error> {
    let Stood { id, slot, walls, wire, kills_told, doors: _, report } = stood;
    let watch = Watch { harbour: harbour.clone(), slot: slot.number, seen: AtomicU64::new(kills_told) };
    Ok(Arc::new(Live {
        id,
        walls,
        report,
        epoch: AtomicU64::new(spec.epoch),
        memory_bytes_max: spec.limits.memory_bytes_max,
        left_out: spec.left_out.clone(),
        harbour: harbour.clone(),
        wire,
        watch: Arc::new(watch),
        slot: Mutex::new(Some(slot)),
        stored,
        gate: Arc::new(Gate::new(unfinished)),
        about: shown::about(spec),
    }))
}

/// What the launcher says of a start.
const fn report(took: Took) -> Report {
    let Took { stood_ready, claim_us, root_us, workspace_us, ready_us } = took;
    let way = Some(if stood_ready { Way::Warm } else { Way::Cold });
    Report { way, claim_us, root_us, workspace_us, ready_us, ..Report::none() }
}

/// A sandbox that stands and that nobody holds yet.
#[derive(Debug)]
pub(crate) struct Stood {
    id: Id<id::Sandbox>,
    slot: Slot,
    walls: Walls,
    wire: Arc<Wire>,
    kills_told: u64,
    /// Where the helpers of its mounts wait to be told what to serve.
    doors: Vec<OwnedFd>,
    report: Report,
}

pub(crate) fn unexpected() -> Error {
    Error::Start { stage: "claim", detail: "the launcher answered something else".to_owned() }
}

/// What is asked of the launcher.
fn request(spec: &Spec, workspace: Keep, root: &Wanted) -> Create {
    let create = asked(spec, workspace, root);
    Create { shape: create.shape(), ..create }
}

/// The same without its shape, where the launcher finds it.
pub(crate) fn asked(spec: &Spec, workspace: Keep, root: &Wanted) -> Create {
    let of = match &spec.workspace {
        Workspace::Session { tenant, session, .. } => Some((tenant.clone(), session.to_string())),
        Workspace::Scratch => None,
    };
    Create {
        environment: spec.environment.clone(),
        binds: spec.binds.iter().map(|bind| (bind.host.clone(), bind.inside.clone())).collect(),
        limits: spec.limits,
        walls_optional: spec.walls_optional.clone(),
        landlock_version_min: spec.landlock_version_min,
        epoch: spec.epoch,
        workspace,
        mounts: spec.mounts.iter().map(shown::asked).collect(),
        label: Label { id: spec.id.to_string(), workspace: of },
        shape: String::new(),
        root: root.clone(),
        ahead: false,
    }
}

/// Removes from a fork what is no part of the checkpoint, but not what is mounted there again.
async fn drop_left_out(live: &Live, spec: &Spec, left_out: &[RelPath]) -> Result<(), Error> {
    for path in left_out.iter().filter(|path| !spec.mounts.iter().any(|mount| mount.path == **path)) {
        match live.remove(path, spec.limits.workspace_inodes_max).await {
            Ok(_) | Err(Error::File { missing: true, .. }) => {}
            Err(error) => {
                live.close().await;
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Refuses a view that would stand over what the sandbox itself needs.
fn check_binds(spec: &Spec) -> Result<(), Error> {
    for bind in &spec.binds {
        let bad = |reason| Err(Error::Path { path: bind.inside.clone(), reason });
        let Some(below) = bind.inside.strip_prefix('/') else { return bad("not_absolute") };
        let path: sandbox::RelPath = below.parse()?;
        let first = path.components().next().unwrap_or_default();
        if matches!(first, "" | "proc" | "dev" | "etc" | "usr" | "bin" | "sbin" | "lib" | "lib64" | "workspace" | "run")
        {
            return bad("reserved");
        }
    }
    Ok(())
}

#[async_trait]
impl sandbox::Provider for Provider {
    fn name(&self) -> &'static str {
        "local"
    }

    async fn mounts_missing(&self) -> Option<String> {
        shown::missing()
    }

    async fn accounts_missing(&self) -> Option<String> {
        let root = self.root;
        tokio::task::spawn_blocking(move || ids::missing(root)).await.ok().flatten()
    }

    async fn probe(&self) -> Probe {
        let finding =
            |found: Found| Finding { wall: found.wall, holds: found.holds, detail: found.detail, fix: found.fix };
        let walls: Vec<Finding> = match self.harbour.ask(Request::Probe, Vec::new()).await {
            Ok(Arrived::Other(Reply::Probed { findings })) => findings.into_iter().map(finding).collect(),
            Ok(_) => Vec::new(),
            Err(error) => {
                vec![Finding { wall: "launcher".to_owned(), holds: false, detail: error.to_string(), fix: None }]
            }
        };
        let outlives = tokio::task::spawn_blocking(outlives::finding).await.ok();
        // A wall that only some ask for.
        let (asked, walls): (Vec<_>, Vec<_>) = walls.into_iter().partition(|finding| finding.wall == "io_limit");
        let remarks = asked.into_iter().chain(outlives).chain([ids::finding(self.root)]).collect();
        Probe { ready: !walls.is_empty() && walls.iter().all(|finding| finding.holds), walls, remarks }
    }

    async fn create(&self, mut spec: Spec) -> Result<Arc<dyn Sandbox>, Error> {
        let began = Instant::now();
        check_binds(&spec)?;
        let Ready { wanted: mut root, environment, .. } = self.ready(&spec).await?;
        root.accounts = ids::resolve(&spec.accounts, &mut root, ids::below(self.root))?;
        spec.environment = environment.into_iter().chain(spec.environment).collect();
        if let Some(key) = self.left(&spec.workspace)
            && let Some(taken) = self.take_over(&spec, &root, &key).await?
        {
            return Ok(taken);
        }
        let making = Making { limits: spec.limits, root: self.root, seed: self.random.bytes() };
        let place = self.place().await?;
        let kind = self.kind(&spec, &root);
        let stocked = match spec.workspace {
            Workspace::Session { start: Start::Fresh | Start::Restored, .. } => {
                self.stock.as_ref().and_then(|stock| stock.take(&spec.limits, kind.as_deref()))
            }
            Workspace::Session { .. } | Workspace::Scratch => None,
        };
        let made = match stocked {
            Some(taken) => self.make_of_stock(&place, &spec, &root, making, taken).await?,
            None => None,
        };
        let (mut stood, claimed) = match made {
            Some(made) => made,
            None => {
                let mut claimed =
                    workspaces::claim(&place, &spec.workspace, spec.epoch, making, None, &self.owners).await?;
                self.lend(&place, &spec.workspace, &mut root, &claimed).await?;
                let descriptors = claimed.descriptor.take().into_iter().collect();
                (raise(&self.harbour, &spec, claimed.keep, &root, descriptors).await?, claimed)
            }
        };
        self.fill_stock(&place, spec.limits);
        let stored = self.stored(&spec, place, claimed.room)?;
        let doors = std::mem::take(&mut stood.doors);
        shown::begin(&spec, doors, &self.network, self.mount_limits, root.main()).await?;
        if let Some(marking) = claimed.marking {
            marking.done().await?;
        }
        self.follow_demand(&spec, kind).await;
        stood.report.whole_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        tracing::debug!(sandbox = %spec.id, report = ?stood.report, "a sandbox stands");
        let live = self.live(&spec, stood, claimed.unfinished, stored)?;
        drop_left_out(&live, &spec, &claimed.left_out).await?;
        Ok(live)
    }

    async fn workspace_exists(&self, workspace: &Workspace) -> Result<bool, Error> {
        match self.place().await?.home(workspace)? {
            Some(home) => workspaces::exists(home).await,
            None => Ok(false),
        }
    }

    async fn workspace_remove(&self, workspace: &Workspace) -> Result<(), Error> {
        if let Some(key) = self.left(workspace) {
            let left = hold(&self.left).remove(&key);
            if let Some(left) = left {
                self.let_end(left.slot, 0).await;
            }
        }
        match self.place().await?.home(workspace)? {
            Some(home) => workspaces::remove(home, &self.owners).await,
            None => Ok(()),
        }
    }

    async fn living(&self) -> Result<Vec<Living>, Error> {
        // All at once: one that does not say what runs in it holds up nobody else.
        let told = self.list().await?.into_iter().map(|one| self.told(one));
        Ok(futures::future::join_all(told).await.into_iter().flatten().collect())
    }

    async fn find(&self, id: Id<id::Sandbox>) -> Option<Arc<dyn Sandbox>> {
        let live = self.live_of(id)?;
        Some(live)
    }

    async fn end(&self, id: Id<id::Sandbox>, why: &str) -> Result<(), Error> {
        if let Some(live) = self.live_of(id) {
            live.end(why).await;
            return Ok(());
        }
        let gone = || Error::Gone { detail: "no such sandbox lives".to_owned() };
        let one = self.list().await?.into_iter().find(|one| one.label.id.parse().ok() == Some(id)).ok_or_else(gone)?;
        self.let_end(one.slot, SAVE_GRACE_MS).await;
        hold(&self.left).retain(|_, left| left.slot != one.slot);
        Ok(())
    }

    async fn farewell(&self) {
        // The answer is that the launcher is gone.
        self.harbour.farewell().await;
    }
}
