//! Where a command finds its runs: at a service that is asked over HTTP, or in a data directory that this process serves for as
//! long as the command takes.

use super::arguments::Target;
use super::ending::{Ending, Trouble};
use super::run::GRACE_MS;
use super::{Console, Session, start};
use client::Client;
use std::time::Duration;
use topside::{App, Drives};

/// Where the runs are.
#[derive(Debug)]
pub(crate) enum Service {
    /// In this process.
    Here(Box<App>),
    /// Elsewhere.
    There(Client),
}

/// What a command does with the runs of a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It lets them go on.
    Act,
    /// It looks at them.
    Look,
}

impl Service {
    /// Reaches the runs.
    pub(crate) async fn reach(session: Session, target: &Target, purpose: Purpose) -> Result<(Console, Self), Trouble> {
        let Session { console, environment, launcher } = session;
        if let Some(url) = &target.url {
            let net = topside::network(&environment)?;
            let client = Client::http(url, environment.get("TOPSIDE_KEY"), net)?;
            return Ok((console, Self::There(client)));
        }
        let drives = match purpose {
            // Where others drive, this process would only take from them what it soon gives back.
            Purpose::Act => Drives::UnlessShared,
            Purpose::Look => Drives::Nothing,
        };
        let app = start(&console, &environment, launcher, &target.place, drives).await?;
        if purpose == Purpose::Act {
            app.tend().await?;
        }
        Ok((console, Self::Here(Box::new(app))))
    }

    /// What asks.
    pub(crate) fn client(&self) -> &Client {
        match self {
            Self::Here(app) => app.client(),
            Self::There(client) => client,
        }
    }

    /// Ends what was begun for it. What was asked has come to `outcome`.
    pub(crate) async fn end(self, outcome: Result<Ending, Trouble>) -> Result<Ending, Trouble> {
        let closed = match self {
            Self::Here(app) => app.close(Duration::from_millis(GRACE_MS)).await,
            Self::There(_) => Ok(()),
        };
        let ending = outcome?;
        closed?;
        Ok(ending)
    }
}
