//! `topside sandbox link`: a link to a port in a sandbox.

use super::reach::Reach;
use crate::cli::Session;
use crate::cli::arguments::SandboxLink;
use crate::cli::ending::{Ending, Trouble};
use crate::cli::log::time;
use crate::cli::run::json_line;
use api::LinkPort;

pub(crate) async fn link(session: Session, arguments: SandboxLink) -> Result<Ending, Trouble> {
    let SandboxLink { sandbox, port, seconds, path, json, target } = arguments;
    let (console, reach) = Reach::find(session, &target).await?;
    let asked = LinkPort { expires_in_seconds: Some(seconds), path };
    let link = reach.service()?.link_port(sandbox, port, &asked).await?;
    if json {
        json_line(&console, &serde_json::json!({ "link": link }));
    } else {
        console.data_line(&link.url);
        console.talk_line(&format!("until {}; whoever has it reaches the port", time(link.expires_ms)));
    }
    Ok(Ending::Done)
}
