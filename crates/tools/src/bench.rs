//! What a call may use, as a contract that the engine fulfils. One bench serves one call.

use crate::Terminals;
use async_trait::async_trait;
use bytes::Bytes;
use domain::{Id, id, template};
use sandbox::{Provider, Sandbox, Stream};
use std::path::Path;
use std::sync::Arc;
use stdx::{Clock, Random};

/// What a call may use.
#[async_trait]
pub trait Bench: Send + Sync {
    /// The session's sandbox, made at first use.
    async fn sandbox(&self) -> Result<Arc<dyn Sandbox>, sandbox::Error>;

    /// Waits until a sandbox that stood still goes on; nothing where there is none. Before its processes are read or written.
    async fn awake(&self) {}

    /// The live processes of that sandbox; they survive turns and runs until it closes.
    fn terminals(&self) -> &Terminals;

    /// Whether an earlier driver began the call and its program outlived it: then it is gone on with, not started.
    fn is_attached(&self) -> bool {
        false
    }

    /// Takes live output: bounded, best effort, never blocking.
    fn progress(&self, chunk: Progress);

    /// Up to `bytes_max` of the stored whole output of an earlier call of this session from `offset`, and its total
    /// length. `None`: there is no such output, or it was erased.
    async fn whole(&self, call: Id<id::Call>, offset: u64, bytes_max: u64) -> Option<(Vec<u8>, u64)>;

    /// The project's directory.
    fn project(&self) -> &Path;

    /// A configuration value with its `${env.…}` and `${secret.…}` replaced.
    ///
    /// # Errors
    /// What the template names is not set, or it is no template.
    fn expand(&self, template: &str) -> Result<String, template::Error>;

    /// The way out.
    fn net(&self) -> &net::Client;

    /// Makes the jails that `command` tools run in; `None` where this machine gives none.
    fn helper(&self) -> Option<&Arc<dyn Provider>>;

    /// The clock that permits are judged by.
    fn clock(&self) -> &Clock;

    /// Randomness for session numbers and chunk ids.
    fn random(&self) -> &Random;

    /// The key under which the other side knows a repetition of this call, when its contract has one.
    fn idempotency_key(&self) -> Option<&str>;
}

/// A piece of live output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Where it came from.
    pub stream: Stream,
    /// What came, as it came; pieces may be missing when a reader was slow.
    pub bytes: Bytes,
}
