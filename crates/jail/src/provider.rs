//! The provider `local`: claims workspaces, asks the launcher for sandboxes, and hands them out.

use crate::door::{Create, Found, Keep, Reply, Request};
use crate::gate::Gate;
use crate::harbour::{Arrived, Harbour};
use crate::live::{Live, Watch};
use crate::rank::Rank;
use crate::wire::Wire;
use crate::workspaces::{self, Making};
use crate::{Error as LaunchError, Launcher};
use async_trait::async_trait;
use sandbox::{Error, Finding, Probe, Sandbox, Spec, Workspace};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use stdx::Random;

/// What PID 1 gets to save a workspace that lives in memory.
const SAVE_GRACE_MS: u64 = 30_000;

/// Makes sandboxes on this machine.
#[derive(Debug)]
pub struct Provider {
    harbour: Harbour,
    data: PathBuf,
    random: Random,
    root: bool,
}

impl Provider {
    /// A provider over a launcher. Workspaces live below `data`, which this process owns; `random` makes the identities of
    /// their file systems.
    ///
    /// # Errors
    /// [`LaunchError::Fork`] when the thread that listens to the launcher can't be started.
    pub fn new(launcher: Launcher, data: PathBuf, random: Random) -> Result<Self, LaunchError> {
        let root = Rank::own().is_root();
        Ok(Self { harbour: Harbour::new(launcher)?, data, random, root })
    }
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
        Probe { ready: !walls.is_empty() && walls.iter().all(|finding| finding.holds), walls }
    }

    async fn create(&self, spec: Spec) -> Result<Arc<dyn Sandbox>, Error> {
        check_binds(&spec)?;
        let making = Making { limits: spec.limits, root: self.root, seed: self.random.bytes() };
        let claimed = workspaces::claim(&self.data, &spec.workspace, spec.epoch, making).await?;
        let directory = workspaces::directory(&self.data, &spec.workspace)?;
        let grace_ms = if claimed.keep == Keep::Layer { SAVE_GRACE_MS } else { 0 };
        let request = Create {
            environment: spec.environment,
            binds: spec.binds.into_iter().map(|bind| (bind.host, bind.inside)).collect(),
            limits: spec.limits,
            walls_optional: spec.walls_optional,
            epoch: spec.epoch,
            workspace: claimed.keep,
        };
        let descriptors = claimed.descriptor.into_iter().collect();
        let arrived = self.harbour.ask(Request::Create(Box::new(request)), descriptors).await?;
        let (mut slot, walls, stream) = match arrived {
            Arrived::Created { slot, walls, stream } => (slot, walls, stream),
            Arrived::Other(Reply::Failed(failure)) => return Err(failure.into()),
            Arrived::Other(_) => {
                return Err(Error::Start { stage: "claim", detail: "the launcher answered something else".to_owned() });
            }
        };
        slot.grace_ms = grace_ms;
        if let Some(marking) = claimed.marking {
            marking.done().await?;
        }
        let wire = Wire::new(stream, spec.limits.commands_max)
            .map_err(|error| Error::Start { stage: "ready", detail: error.to_string() })?;
        let watch = Watch { harbour: self.harbour.clone(), slot: slot.number, seen: AtomicU64::new(0) };
        Ok(Arc::new(Live {
            id: spec.id,
            walls,
            epoch: AtomicU64::new(spec.epoch),
            memory_bytes_max: spec.limits.memory_bytes_max,
            harbour: self.harbour.clone(),
            wire: Arc::new(wire),
            watch: Arc::new(watch),
            slot: Mutex::new(Some(slot)),
            directory,
            gate: Arc::new(Gate::new(claimed.unfinished)),
        }))
    }

    async fn workspace_exists(&self, workspace: &Workspace) -> Result<bool, Error> {
        match workspaces::directory(&self.data, workspace)? {
            Some(directory) => workspaces::exists(directory).await,
            None => Ok(false),
        }
    }

    async fn workspace_remove(&self, workspace: &Workspace) -> Result<(), Error> {
        match workspaces::directory(&self.data, workspace)? {
            Some(directory) => workspaces::remove(directory).await,
            None => Ok(()),
        }
    }
}
