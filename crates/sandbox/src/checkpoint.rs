//! A workspace as it stood at one moment, kept beside the one that goes on: taken while the programs inside stand still for
//! some milliseconds, read at leisure. Where a provider has none, an [`crate::Export`] halts them for as long as it takes.

use crate::{ArchiveLimits, Error, Export};
use async_trait::async_trait;
use domain::{Id, id};
use std::fmt;
use std::time::Duration;

/// A workspace as it stood when [`crate::Sandbox::checkpoint`] took it. It does not need the sandbox any more, and stays for
/// [`crate::Start::Forked`] when this handle is dropped: until the workspace is removed, as many newer ones were taken as the
/// provider keeps, or their room is needed.
#[async_trait]
pub trait Checkpoint: Send + Sync + fmt::Debug {
    /// Its id, as it was asked for.
    fn id(&self) -> Id<id::Checkpoint>;

    /// How long the programs inside stood still for it.
    fn paused(&self) -> Duration;

    /// Begins an export of it, the same bytes as [`crate::Sandbox::export`] would have given at that moment. It is read in a
    /// sandbox of its own, and nothing stands still.
    ///
    /// # Errors
    /// [`Error::WorkspaceLost`] when it is not kept any more; those of a start.
    async fn export(&self, limits: ArchiveLimits) -> Result<Box<dyn Export>, Error>;
}
