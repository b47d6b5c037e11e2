//! A provider that remembers whether it can make sandboxes, so that the service's health can say so without trying again.

use async_trait::async_trait;
use domain::{Id, id};
use sandbox::{Error, Living, Probe, Provider, Sandbox, Spec, Workspace};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A provider and what is known of it. Nothing is known before the first probe or the first sandbox.
#[derive(Debug)]
pub(crate) struct Watched {
    inner: Arc<dyn Provider>,
    ready: AtomicBool,
}

impl Watched {
    pub(crate) const fn new(inner: Arc<dyn Provider>) -> Self {
        Self { inner, ready: AtomicBool::new(false) }
    }
}

#[async_trait]
impl Provider for Watched {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    async fn probe(&self) -> Probe {
        let probe = self.inner.probe().await;
        self.ready.store(probe.ready, Ordering::Relaxed);
        probe
    }

    async fn mounts_missing(&self) -> Option<String> {
        self.inner.mounts_missing().await
    }

    async fn create(&self, spec: Spec) -> Result<Arc<dyn Sandbox>, Error> {
        let created = self.inner.create(spec).await;
        match &created {
            Ok(_) => self.ready.store(true, Ordering::Relaxed),
            Err(Error::Wall { .. }) => self.ready.store(false, Ordering::Relaxed),
            // One sandbox that was not made says nothing of the next.
            Err(_) => {}
        }
        created
    }

    async fn living(&self) -> Result<Vec<Living>, Error> {
        self.inner.living().await
    }

    async fn find(&self, id: Id<id::Sandbox>) -> Option<Arc<dyn Sandbox>> {
        self.inner.find(id).await
    }

    async fn end(&self, id: Id<id::Sandbox>, why: &str) -> Result<(), Error> {
        self.inner.end(id, why).await
    }

    async fn farewell(&self) {
        self.inner.farewell().await;
    }

    async fn workspace_exists(&self, workspace: &Workspace) -> Result<bool, Error> {
        self.inner.workspace_exists(workspace).await
    }

    async fn workspace_remove(&self, workspace: &Workspace) -> Result<(), Error> {
        self.inner.workspace_remove(workspace).await
    }
}
