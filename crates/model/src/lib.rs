//! Models: one wire each for Responses and Chat Completions, transcripts that are played, and their recorder. Vendor JSON lives
//! here and nowhere else; what a reply leads to is decided elsewhere.

mod endpoint;
mod failure;
mod open;
mod prompt;
mod record;
pub mod script;
mod wire;

pub use endpoint::Options;
pub use failure::{Failure, Kind, Stage};
pub use open::{Error, Expand, open, open_with};
pub use prompt::{Delta, Deltas, Finish, Prompt, Reply};
pub use record::Recorder;

use async_trait::async_trait;

/// A model that replies to prompts.
#[async_trait]
pub trait Model: Send + Sync + std::fmt::Debug {
    /// The name its vendor knows; for a transcript its title. Prices are listed under it.
    fn name(&self) -> &str;

    /// One reply, retried as far as that is safe. Pieces of it go to `deltas` as they come, best effort. Dropping the future
    /// cancels the call.
    async fn reply(&self, prompt: &Prompt, deltas: &Deltas) -> Result<Reply, Failure>;
}
