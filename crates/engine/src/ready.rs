//! Agents that stand ready: their closures with model and tools opened.

use crate::Error;
use crate::engine::Inner;
use bytes::Bytes;
use catalog::Closure;
use domain::Digest;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tools::Toolbox;

/// Agents kept ready; when there are more, all are opened anew as they are needed.
const READY_MAX: usize = 64;

/// An agent that stands ready.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) closure: Arc<Closure>,
    pub(crate) toolbox: Toolbox,
    /// The model, or why a run that wants it fails.
    pub(crate) model: Result<Arc<dyn model::Model>, model::Failure>,
    pub(crate) instructions: Arc<str>,
}

/// The agents that stand ready, by the digest of their closures. A closure in here is among the objects.
#[derive(Debug, Default)]
pub(crate) struct Crew(Mutex<HashMap<Digest, Arc<Ready>>>);

impl Inner {
    /// Opens a closure and pins it among the objects, once.
    pub(crate) async fn ready(&self, closure: &Arc<Closure>) -> Result<Arc<Ready>, Error> {
        if let Some(ready) = self.crew.0.lock().get(&closure.digest()) {
            return Ok(ready.clone());
        }
        let bytes = Bytes::copy_from_slice(closure.bytes());
        self.parts.blobs.put(&object_of(closure.digest())?, bytes).await.map_err(objects)?;
        self.open(closure.clone())
    }

    /// The closure that a run pinned.
    pub(crate) async fn pinned(&self, digest: Digest) -> Result<Arc<Ready>, Error> {
        if let Some(ready) = self.crew.0.lock().get(&digest) {
            return Ok(ready.clone());
        }
        let unusable = |detail: String| Error::Closure { agent: digest.to_string(), detail };
        let bytes_max = catalog::CLOSURE_BYTES_MAX as u64;
        let bytes = self.parts.blobs.get(&object_of(digest)?, bytes_max).await.map_err(objects)?;
        let closure = Closure::from_bytes(&bytes).map_err(|error| unusable(error.to_string()))?;
        if closure.digest() != digest {
            return Err(unusable("its bytes were changed".into()));
        }
        self.open(Arc::new(closure))
    }

    /// An agent, with its model and tools opened.
    fn open(&self, closure: Arc<Closure>) -> Result<Arc<Ready>, Error> {
        if let Some(ready) = self.crew.0.lock().get(&closure.digest()) {
            return Ok(ready.clone());
        }
        let agent = &closure.agent;
        let capabilities = agent.sandbox.as_ref().map_or(&[][..], |sandbox| &sandbox.capabilities);
        let toolbox = Toolbox::new(&closure.tools, capabilities, &self.parts.functions)
            .map_err(|error| Error::Closure { agent: agent.name.clone(), detail: error.to_string() })?;
        let parts = &self.parts;
        let model = model::open(
            &closure.model,
            &|text| self.expand(text),
            parts.net.clone(),
            parts.random.clone(),
            parts.clock.clone(),
        )
        .map_err(|error| error.failure());
        let instructions = Arc::from(agent.instructions.as_str());
        let ready = Arc::new(Ready { toolbox, model, instructions, closure });
        let mut crew = self.crew.0.lock();
        if crew.len() >= READY_MAX {
            crew.clear();
        }
        crew.insert(ready.closure.digest(), ready.clone());
        Ok(ready)
    }
}

fn object_of(digest: Digest) -> Result<blob::Key, Error> {
    format!("closures/{digest}").parse().map_err(objects)
}

pub(crate) fn objects(error: blob::Error) -> Error {
    Error::Objects { code: error.code(), detail: error.to_string() }
}
