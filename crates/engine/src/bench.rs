//! What a call may use, and how the session's sandbox is had: made when the first call wants it, or woken.

use crate::driver::{Done, Driver};
use crate::engine::Inner;
use crate::facts::Fact;
use crate::lay::Laying;
use crate::live::LiveKind;
use crate::liveness::Pulse;
use crate::slot::{Answer, Listing, Origin, Resting, Slot, Source, Unrecorded, listing};
use crate::stages::Stages;
use crate::terms::Terms;
use async_trait::async_trait;
use catalog::Closure;
use domain::record::{SandboxClosed, SandboxOpened, Snapshot, Started, WorkspaceLost};
use domain::{Digest, Event, Id, id, template};
use futures::future::{BoxFuture, join_all};
use journal::{Content, SessionKey};
use machine::{Entry, Files};
use sandbox::manifest::Which;
use sandbox::{Provider, Sandbox, Spec, Start, Walls, Workspace};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use stdx::{Clock, Random};
use tools::{Bench, Progress, Terminals};

/// A sandbox that was made, with what was laid into it.
pub(crate) struct Opened {
    sandbox: Arc<dyn Sandbox>,
    origin: Box<Origin>,
    before: Listing,
    start: Started,
}

impl Opened {
    pub(crate) fn sandbox(&self) -> Arc<dyn Sandbox> {
        self.sandbox.clone()
    }

    /// Its files came from a checkpoint.
    fn restored(mut self, snapshot: &Snapshot) -> Self {
        self.origin.unrecorded.iter_mut().for_each(|unrecorded| unrecorded.restored = Some(snapshot.checkpoint));
        self
    }
}

/// A sandbox that is to be had.
struct Opening {
    key: SessionKey,
    epoch: u64,
    source: Source,
    /// The agent that it is for, as it was pinned.
    pinned: Digest,
    closure: Arc<Closure>,
}

impl Driver {
    /// A future that makes the session's sandbox.
    pub(crate) fn open(&self) -> BoxFuture<'static, Done> {
        let (inner, key, epoch, slot) = (self.inner.clone(), self.key.clone(), self.epoch, self.slot.clone());
        let source = Source { files: self.state.files, snapshot: self.state.snapshot.clone() };
        let pinned = self.state.run.as_ref().map(|run| run.root().closure);
        // The workspace is the run's, whichever of its agents wants it.
        let agent = pinned.zip(self.ready_of(None).map(|ready| ready.closure.clone()));
        Box::pin(async move {
            let Some((pinned, closure)) = agent else {
                return Done::Opened(Err(sandbox::Error::Gone { detail: "the agent is not there".into() }));
            };
            let opening = Opening { key, epoch, source, pinned, closure };
            if let Some(woken) = woken(&inner, &slot, &opening).await {
                return Done::Opened(Ok(woken));
            }
            let retry = (inner.parts.catalog)().settings.retries.sandbox;
            let since_ms = inner.parts.clock.wall_ms();
            let (mut attempt, mut ways) = (1, 0);
            loop {
                let made = make(&inner, &opening).await;
                // What makes way is no attempt: that begins when there is room.
                if made.as_ref().is_err_and(needs_room) {
                    let gone = inner.idle.make_way(ways.max(1).min(WAYS_MAX - ways));
                    if !gone.is_empty() {
                        ways += gone.len();
                        join_all(gone.iter().map(|slot| slot.close())).await;
                        continue;
                    }
                }
                let now_ms = inner.parts.clock.wall_ms();
                let again = match &made {
                    Err(sandbox::Error::Start { .. }) => {
                        crate::retry::next(&retry, attempt, since_ms, now_ms, None, &inner.parts.random)
                    }
                    _ => None,
                };
                let Some(until_ms) = again else { return Done::Opened(made) };
                tracing::warn!(session_id = %opening.key.session, attempt, "the sandbox did not start; trying again");
                tokio::time::sleep(Duration::from_millis(until_ms.saturating_sub(now_ms))).await;
                attempt += 1;
            }
        })
    }

    /// Takes a sandbox that was made, or fails the run.
    pub(crate) fn opened(&mut self, opened: Result<Opened, sandbox::Error>) {
        let run = self.state.run.as_ref().filter(|run| run.parked.is_none()).map(|run| run.id);
        let waits = self.state.run.is_some() && run.is_none();
        match (opened, run) {
            (Ok(opened), Some(run)) => self.opened_for(run, opened),
            (Ok(Opened { sandbox, origin, .. }), None) if waits => self.slot.lay_aside(sandbox, origin),
            // Whoever needs it asks again, and is told then.
            (Err(error), _) if !self.slot.is_awaited() => {
                tracing::warn!(session_id = %self.key.session, code = error.code(), %error, "no sandbox was made ahead of need");
                self.slot.made(Err(error));
            }
            (Err(error), run) => {
                // What was there is not there any more: that is said, and nothing else is put in its place.
                let is_lost = matches!(error, sandbox::Error::WorkspaceLost | sandbox::Error::WorkspaceStale { .. });
                if let Some(run) = run.filter(|_| is_lost && self.state.files != Files::Lost) {
                    let event = Event::WorkspaceLost(WorkspaceLost { run, reason: error.code().to_owned() });
                    self.pending.push(Fact::bare(self.stamp(), event));
                }
                self.fail_sandbox(&error);
                self.slot.made(Err(error));
            }
            // A run that ended lets go of what was made before anybody needed it: dropping the sandbox closes it.
            (Ok(_), None) => {
                self.slot.made(Err(sandbox::Error::Gone { detail: "the run needs no sandbox now".into() }));
            }
        }
    }

    /// Gives a run the sandbox that was made, once that is on record.
    fn opened_for(&mut self, run: Id<id::Run>, opened: Opened) {
        let Opened { sandbox, mut origin, before, start } = opened;
        stdx::points::reach("sandbox.opened");
        *self.slot.before.lock() = before;
        let (manifest, restored) =
            origin.unrecorded.take().map_or((None, None), |unrecorded| (unrecorded.manifest, unrecorded.restored));
        if restored.is_some() && matches!(self.state.files, Files::Kept { .. }) {
            *self.slot.note.lock() = Some(RESTORED.to_owned());
        }
        let walls = sandbox.walls().clone();
        let event = Event::SandboxOpened(SandboxOpened {
            run,
            sandbox: sandbox.id(),
            provider: origin.provider.clone(),
            walls: walls.standing,
            missing: walls.missing,
            landlock_version: walls.landlock_version,
            manifest,
            generation: origin.generation,
            restored,
            start: Some(start),
        });
        *self.slot.origin.lock() = Some(origin);
        self.slot.made(Ok(sandbox));
        stdx::points::reach("sandbox.opened");
        self.pending.push(Fact::bare(self.stamp(), event));
    }

    /// The sandbox died in the middle of a call: its files are kept, or come from their checkpoint, for the next call.
    pub(crate) fn sandbox_gone(&mut self, run: Id<id::Run>) {
        self.slot.lost();
        if let Some(sandbox) = self.state.sandbox {
            let event = Event::SandboxClosed(SandboxClosed { run, sandbox, reason: "lost".into() });
            self.pending.push(Fact::bare(self.stamp(), event));
        }
    }
}

/// What the model is told when files came from a checkpoint that the run did not ask for.
const RESTORED: &str = "[The sandbox was lost. Its workspace was made anew from the checkpoint of an earlier turn: what was changed \
                        after that is gone. Look before you go on.]";

/// Sandboxes that make way for one start at most: one, and as long as that is not enough as many again as before, at once. One that
/// ends gives room for another of its size; a start for which these are not enough fails, and the rest of those that stand still
/// is left alone.
const WAYS_MAX: usize = 16;
/// The limits that a sandbox uses up for as long as it is there. Any other is the start's own, and no other's end helps it.
const SHARED_LIMITS: [&str; 2] = ["workspaces_bytes_max", "ids_parts_max"];
/// The limit that a launcher says no with when it has no place left.
const PLACES_LIMIT: &str = "sandboxes_max";

/// Whether another sandbox that ends makes this one possible.
fn needs_room(error: &sandbox::Error) -> bool {
    match error {
        sandbox::Error::Limit { limit } => SHARED_LIMITS.iter().any(|shared| limit.starts_with(shared)),
        sandbox::Error::Start { stage: "claim", detail } => detail.starts_with(PLACES_LIMIT),
        _ => false,
    }
}

/// Whether a sandbox has the walls that are asked for now.
fn is_walled(inner: &Inner, walls: &Walls) -> bool {
    let catalog = (inner.parts.catalog)();
    let settings = &catalog.settings.sandbox;
    walls.missing.iter().all(|wall| settings.walls_optional.contains(wall))
        && walls.landlock_version >= settings.landlock_version_min
}

/// The sandbox that waited while the session had nothing to do, going on; `None`: there is none, or it is not what the log knows,
/// and is closed.
async fn woken(inner: &Inner, slot: &Slot, opening: &Opening) -> Option<Opened> {
    let Resting { sandbox, origin, .. } = slot.resting.lock().take()?;
    let stages = Stages::begin(inner.parts.clock.clone(), inner.parts.limits, inner.pulses.of(&opening.key));
    let is_it = origin.has(&opening.source)
        && origin.closure == opening.pinned
        && is_walled(inner, sandbox.walls())
        && Terms::of(inner, &opening.closure).is_ok_and(|terms| terms == origin.terms);
    if is_it && stages.run("wake", sandbox.resume()).await.is_ok() {
        let (start, before) = (stages.woken(), listing(sandbox.as_ref()).await);
        return Some(Opened { sandbox, origin, before, start });
    }
    slot.terminals.close().await;
    sandbox.close().await;
    None
}

async fn make(inner: &Inner, opening: &Opening) -> Result<Opened, sandbox::Error> {
    let Opening { key, epoch, source, closure, .. } = opening;
    let provider = provider_of(inner, closure)?;
    let catalog = (inner.parts.catalog)();
    let manifest = closure.manifest.clone().unwrap_or_default();
    let terms = Terms::of(inner, closure)?;
    let user = closure.agent.sandbox.as_ref().and_then(|sandbox| sandbox.user.clone());
    let laying = Laying::prepare(manifest, terms.mounts.clone(), user, provider.as_ref()).await?;
    let settings = &catalog.settings.sandbox;
    let spec = |start| Spec {
        id: inner.id(),
        workspace: Workspace::Session { tenant: key.tenant.to_string(), session: key.session, start },
        environment: terms.environment.clone(),
        root: terms.root.clone(),
        binds: Vec::new(),
        mounts: laying.mounts.clone(),
        accounts: laying.accounts.clone(),
        left_out: laying.left_out.clone(),
        limits: terms.limits,
        walls_optional: settings.walls_optional.clone(),
        landlock_version_min: settings.landlock_version_min,
        epoch: *epoch,
    };
    let stages = Arc::new(Stages::begin(inner.parts.clock.clone(), inner.parts.limits, inner.pulses.of(key)));
    let project = catalog.root.clone();
    let making =
        Making { inner, opening, terms: &terms, laying: &laying, project, provider: provider.as_ref(), stages };
    let error = match source.files {
        Files::None => return making.opened(spec(Start::Fresh), Which::All).await,
        Files::Kept { generation } => match making.opened(spec(Start::Kept { generation }), Which::Ephemeral).await {
            Err(error @ (sandbox::Error::WorkspaceLost | sandbox::Error::WorkspaceStale { .. })) => error,
            made => return made,
        },
        Files::InSnapshot | Files::Lost => sandbox::Error::WorkspaceLost,
    };
    let Some(snapshot) = source.snapshot.as_ref().filter(|_| source.files != Files::Lost) else { return Err(error) };
    // Where the checkpoint itself is still kept, its copy is there in a moment.
    for session in crate::fork::lineage(inner, key).await? {
        let start = Start::Forked { session, checkpoint: snapshot.checkpoint };
        match making.opened(spec(start), Which::Ephemeral).await {
            Ok(opened) => {
                inner.tally.forked();
                return Ok(opened.restored(snapshot));
            }
            // Nobody here keeps it.
            Err(sandbox::Error::WorkspaceLost) => {}
            Err(error) => return Err(error),
        }
    }
    let opened = making.restored(key, spec(Start::Restored), snapshot).await?;
    inner.tally.restored();
    Ok(opened)
}

/// A sandbox that is being made.
struct Making<'a> {
    inner: &'a Inner,
    opening: &'a Opening,
    terms: &'a Terms,
    laying: &'a Laying,
    project: std::path::PathBuf,
    provider: &'a dyn Provider,
    stages: Arc<Stages>,
}

impl Making<'_> {
    async fn create(&self, spec: Spec) -> Result<Arc<dyn Sandbox>, sandbox::Error> {
        let sandbox = self.stages.create(self.provider.create(spec)).await?;
        self.stages.reported(sandbox.started());
        Ok(sandbox)
    }

    /// Makes it, and lays what is to be laid.
    async fn opened(&self, spec: Spec, which: Which) -> Result<Opened, sandbox::Error> {
        let sandbox = self.create(spec).await?;
        self.laid(sandbox, which).await
    }

    /// Makes it, and fills it with what was kept.
    async fn restored(&self, key: &SessionKey, spec: Spec, snapshot: &Snapshot) -> Result<Opened, sandbox::Error> {
        let sandbox = self.create(spec).await?;
        let restore = crate::keep::restore(self.inner, key, sandbox.as_ref(), snapshot, self.stages.clone());
        if let Err(error) = self.stages.run_long("restore", Box::pin(restore)).await {
            sandbox.close().await;
            return Err(error);
        }
        Ok(self.laid(sandbox, Which::Ephemeral).await?.restored(snapshot))
    }

    /// Lays what is wanted of the manifest; a sandbox in which that fails is closed.
    async fn laid(&self, sandbox: Arc<dyn Sandbox>, which: Which) -> Result<Opened, sandbox::Error> {
        let told = |done: sandbox::manifest::Progress, whole: sandbox::manifest::Progress| {
            tracing::debug!(entries = done.entries, of = whole.entries, bytes = done.bytes, "laying the manifest");
            self.stages.moved();
        };
        let lay = Box::pin(self.laying.lay(self.inner, self.project.clone(), which, sandbox.as_ref(), &told));
        let laid = match self.laying.has_copies() {
            true => self.stages.run_long("manifest", lay).await,
            false => self.stages.run("manifest", lay).await,
        };
        let manifest = match laid {
            Ok(manifest) => manifest,
            Err(error) => {
                sandbox.close().await;
                return Err(error);
            }
        };
        let start = self.stages.started();
        let before = listing(sandbox.as_ref()).await;
        let unrecorded = Unrecorded { source: self.opening.source.clone(), manifest, restored: None };
        let origin = Box::new(Origin {
            provider: self.provider.name().to_owned(),
            terms: self.terms.clone(),
            generation: self.opening.epoch,
            closure: self.opening.pinned,
            unrecorded: Some(unrecorded),
        });
        Ok(Opened { sandbox, origin, before, start })
    }
}

/// The provider that an agent names.
fn provider_of<'a>(inner: &'a Inner, closure: &Closure) -> Result<&'a Arc<dyn sandbox::Provider>, sandbox::Error> {
    let wanted = closure.agent.sandbox.as_ref().map_or("local", |sandbox| sandbox.provider.as_str());
    let named = inner.parts.providers.iter().find(|provider| provider.name() == wanted);
    named.ok_or_else(|| sandbox::Error::Command {
        detail: format!("this process has no provider `{wanted}`; hint: see `topside doctor`"),
    })
}

/// What one call may use.
pub(crate) struct CallBench {
    pub(crate) inner: Arc<Inner>,
    pub(crate) key: SessionKey,
    pub(crate) run: Id<id::Run>,
    pub(crate) call: Id<id::Call>,
    pub(crate) slot: Arc<Slot>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) project: std::path::PathBuf,
    pub(crate) idempotency_key: Option<String>,
    /// Where whole outputs of earlier calls are.
    pub(crate) history: Vec<Arc<Entry>>,
    /// Whether the call asked for the sandbox.
    pub(crate) took_sandbox: AtomicBool,
    /// Whether its program runs already.
    pub(crate) is_attached: bool,
}

#[async_trait]
impl Bench for CallBench {
    async fn sandbox(&self) -> Answer {
        self.took_sandbox.store(true, Ordering::Relaxed);
        self.slot.get().await
    }

    async fn awake(&self) {
        // Whatever comes of it, the terminals say it, too.
        self.slot.awake().await;
    }

    fn is_attached(&self) -> bool {
        self.is_attached
    }

    fn terminals(&self) -> &Terminals {
        &self.slot.terminals
    }

    fn progress(&self, chunk: Progress) {
        self.pulse.sign();
        let (call, bytes) = (self.call, chunk.bytes);
        let channels = &self.inner.channels;
        channels.tell(&self.key.tenant, self.key.session, self.run, || LiveKind::Output { call, bytes });
    }

    async fn whole(&self, call: Id<id::Call>, offset: u64, bytes_max: u64) -> Option<(Vec<u8>, u64)> {
        let found = self.history.iter().rev().find_map(|entry| match &**entry {
            Entry::Output { call: of, whole, .. } if *of == call => whole.clone(),
            Entry::Output { .. } | Entry::Message { .. } | Entry::Reply { .. } | Entry::Inherited { .. } => None,
        })?;
        let content = self.inner.parts.journal.content(&self.key, &found).await;
        let Ok(Content::Bytes(bytes)) = content else { return None };
        let total = bytes.len() as u64;
        let from = usize::try_from(offset.min(total)).ok()?;
        let length = usize::try_from(bytes_max).unwrap_or(usize::MAX).min(bytes.len() - from);
        Some((bytes[from..from + length].to_vec(), total))
    }

    fn project(&self) -> &Path {
        &self.project
    }

    fn expand(&self, text: &str) -> Result<String, template::Error> {
        self.inner.expand(text)
    }

    fn net(&self) -> &net::Client {
        &self.inner.parts.net
    }

    fn helper(&self) -> Option<&Arc<dyn Provider>> {
        self.inner.parts.providers.iter().find(|provider| provider.name() == "local")
    }

    fn clock(&self) -> &Clock {
        &self.inner.parts.clock
    }

    fn random(&self) -> &Random {
        &self.inner.parts.random
    }

    fn idempotency_key(&self) -> Option<&str> {
        self.idempotency_key.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(limit: &str) -> sandbox::Error {
        sandbox::Error::Limit { limit: limit.into() }
    }

    fn start(stage: &'static str, detail: &str) -> sandbox::Error {
        sandbox::Error::Start { stage, detail: detail.into() }
    }

    #[test]
    fn only_what_another_sandbox_uses_up_is_made_room_for() {
        let rows = [
            (limit("workspaces_bytes_max = 1; 1 bytes are kept"), true),
            (limit("ids_parts_max = 1"), true),
            (start("claim", "sandboxes_max = 256; took create 1.0 ms"), true),
            (limit("disk_free_bytes_min = 1"), false),
            (limit("manifest_entries_max = 1"), false),
            (limit("mounts_max = 16"), false),
            (start("claim", "the label is too long"), false),
            (start("claim", "the launcher answered something else"), false),
            (start("workspace", "sandboxes_max = 256"), false),
            (sandbox::Error::WorkspaceLost, false),
        ];
        for (error, expected) in rows {
            assert_eq!(needs_room(&error), expected, "{error}");
        }
    }
}
