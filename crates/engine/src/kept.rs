//! What this process keeps in memory for sessions, and how it lets go of it once they rest: a run that waits keeps nothing.

use crate::engine::{Engine, Inner};
use crate::tend::pause;
use std::sync::Arc;
use tokio::sync::watch;

/// How often what nobody used meanwhile is let go.
const LET_GO_MS: u64 = 10_000;

/// What an engine has in memory for sessions, by their number. All of it is zero once nobody drives, reads or watches any and
/// the engine was twice told to let go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Sessions that are driven or wait for it.
    pub driven: usize,
    /// Sessions that somebody watches.
    pub watched: usize,
    /// Runs whose end somebody waits for.
    pub awaited: usize,
    /// What the journal keeps.
    pub journal: journal::Kept,
}

impl Engine {
    /// What is kept now.
    pub fn kept(&self) -> Kept {
        let inner = &self.0;
        Kept {
            driven: inner.dispatch.known_count(),
            watched: inner.channels.count(),
            awaited: inner.ends.count(),
            journal: inner.parts.journal.kept(),
        }
    }

    /// Lets go of what nobody has used since it was last told so. [`Engine::tend`] does it every ten seconds.
    pub fn let_go(&self) {
        self.0.parts.journal.let_go();
    }
}

/// Lets go again and again.
pub(crate) async fn let_go(inner: Arc<Inner>, mut stopped: watch::Receiver<bool>) {
    let engine = Engine(inner);
    while pause(LET_GO_MS, &mut stopped).await {
        engine.let_go();
    }
}
