//! `topside sandbox kill`: ends a sandbox.

use super::reach::{Reach, waiting};
use crate::cli::Session;
use crate::cli::arguments::OfSandbox;
use crate::cli::ending::{Ending, Trouble};
use crate::cli::run::json_line;
use api::{SandboxEnded, SandboxStatus};

pub(crate) async fn kill(session: Session, arguments: OfSandbox) -> Result<Ending, Trouble> {
    let OfSandbox { sandbox, json, target } = arguments;
    let (console, reach) = Reach::find(session, &target).await?;
    let ended = match reach {
        Reach::Service(client) => client.end_sandbox(sandbox).await?,
        Reach::Launcher(mut visit) => {
            if !waiting(move || visit.end(sandbox)).await? {
                return Err(Trouble::SandboxMissing { sandbox });
            }
            // No service, no log to write to: the next one records that its sandbox is gone.
            tracing::warn!(%sandbox, "ended by an operator while no service had it");
            SandboxEnded { sandbox_id: sandbox, status: SandboxStatus::Gone }
        }
        Reach::Nowhere => return Err(Trouble::SandboxMissing { sandbox }),
    };
    if json {
        json_line(&console, &serde_json::json!({ "ended": ended }));
    } else {
        console.data_line(&format!("{} is gone; its workspace stays", ended.sandbox_id));
    }
    Ok(Ending::Done)
}
