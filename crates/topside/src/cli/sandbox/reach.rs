//! Where a command finds sandboxes: at the service that has them; or, when none answers, at the launcher that keeps them for the
//! next one. A service of its own it never starts: that one would take them over.

use crate::cli::arguments::Target;
use crate::cli::ending::Trouble;
use crate::cli::{Console, Session};
use client::Client;
use jail::Visit;
use topside::{DATA_DIRECTORY, Data};

/// Where sandboxes are.
#[derive(Debug)]
pub(crate) enum Reach {
    /// At a service.
    Service(Client),
    /// At a launcher that no service has at the moment.
    Launcher(Visit),
    /// Nowhere: no service answers, and nothing was left.
    Nowhere,
}

impl Reach {
    /// Looks where they are.
    pub(crate) async fn find(session: Session, target: &Target) -> Result<(Console, Self), Trouble> {
        let Session { console, environment, .. } = session;
        let key = environment.get("TOPSIDE_KEY");
        let net = topside::network(&environment)?;
        if let Some(url) = &target.url {
            return Ok((console, Self::Service(Client::http(url, key, net)?)));
        }
        let place = &target.place;
        let data = Data::at(place.data.clone().unwrap_or_else(|| place.project.join(DATA_DIRECTORY)));
        if let Some(url) = data.announced() {
            let client = Client::http(&url, key, net)?;
            // A service that died has not taken its word back.
            match client.health().await {
                Ok(_) => return Ok((console, Self::Service(client))),
                Err(error) if error.is_passing() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let directory = data.path().to_owned();
        let visited = waiting(move || Visit::at(&directory)).await?;
        Ok((console, visited.map_or(Self::Nowhere, Self::Launcher)))
    }

    /// The service; an error when there is none.
    pub(crate) fn service(self) -> Result<Client, Trouble> {
        match self {
            Self::Service(client) => Ok(client),
            Self::Launcher(_) => Err(Trouble::NoService { left: true }),
            Self::Nowhere => Err(Trouble::NoService { left: false }),
        }
    }
}

/// Does what waits where it may.
pub(crate) async fn waiting<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, jail::Error> + Send + 'static,
) -> Result<T, Trouble> {
    let done = tokio::task::spawn_blocking(work).await;
    let broken = |error: tokio::task::JoinError| jail::Error::Fork { detail: error.to_string() };
    Ok(done.map_err(broken).and_then(std::convert::identity)?)
}
