//! `topside session`: what is done to whole sessions.

use super::Session;
use super::arguments::{OfSession, SessionCommand};
use super::clean::clean;
use super::console::Console;
use super::ending::{Ending, Trouble};
use super::service::{Purpose, Service};
use client::Client;
use domain::{Id, TENANT_DEFAULT};
use engine::SessionName;
use journal::{Backend, SessionKey, Verified};
use topside::App;

pub(crate) async fn sessions(session: Session, command: SessionCommand) -> Result<Ending, Trouble> {
    let (target, name, deed) = match command {
        SessionCommand::Purge(OfSession { session, target }) => (target, session, Deed::Purge),
        SessionCommand::Quarantine { reason, of: OfSession { session, target } } => {
            (target, session, Deed::Quarantine { reason })
        }
        SessionCommand::Release(OfSession { session, target }) => (target, session, Deed::Release),
        SessionCommand::Repair(OfSession { session, target }) => (target, session, Deed::Repair),
    };
    let (console, service) = Service::reach(session, &target, Purpose::Look).await?;
    let done = match (&deed, &service) {
        (Deed::Repair, Service::Here(app)) => repair(&console, app, &name).await,
        (Deed::Repair, Service::There(_)) => Err(Trouble::NotAFile { what: "`topside session repair`" }),
        (deed, service) => asked(&console, service.client(), &name, deed).await,
    };
    service.end(done).await
}

/// What is done.
#[derive(Debug)]
enum Deed {
    Purge,
    Quarantine { reason: String },
    Release,
    Repair,
}

async fn asked(console: &Console, client: &Client, name: &str, deed: &Deed) -> Result<Ending, Trouble> {
    let shown = clean(name);
    match deed {
        Deed::Purge => {
            let purged = client.purge(name).await?;
            let api::Purged { session_id, records, head, .. } = purged;
            console.data_line(&format!("{session_id} is deleted: {records} records, the last had hash {head}"));
        }
        Deed::Quarantine { reason } => {
            client.quarantine(name, reason).await?;
            console.data_line(&format!("{shown} is in quarantine"));
        }
        Deed::Release => {
            client.release(name).await?;
            console.data_line(&format!("{shown} is in no quarantine"));
        }
        Deed::Repair => return Err(Trouble::NotAFile { what: "`topside session repair`" }),
    }
    Ok(Ending::Done)
}

/// Verifies the session's chain. A whole one may need nothing but its lists; a broken one is put aside, so that nothing is built
/// on what can't be trusted.
async fn repair(console: &Console, app: &App, name: &str) -> Result<Ending, Trouble> {
    let journal = app.engine().journal();
    if journal.backend() != Backend::Sqlite {
        return Err(Trouble::NotAFile { what: "`topside session repair`" });
    }
    let missing = || Trouble::SessionMissing { session: name.to_owned(), data: app.data().path().to_owned() };
    let session = match SessionName::parse(name).ok_or_else(missing)? {
        SessionName::Id(id) => id,
        SessionName::Named(name) => Id::from_name(TENANT_DEFAULT, &name),
        SessionName::New => return Err(missing()),
    };
    let key = SessionKey::new(TENANT_DEFAULT, session);
    if journal.head(&key).await?.position == 0 {
        return Err(missing());
    }
    match journal.verify(&key).await? {
        Verified::Intact { records, .. } => {
            journal.rebuild_index().await?;
            console.data_line(&format!("chain of {records} records verifies; the lists were made anew"));
            if let Some(quarantine) = journal.quarantined(&key).await? {
                let reason = clean(&quarantine.reason).into_owned();
                console.talk_line(&format!(
                    "it is in quarantine: {reason}; hint: topside session release {}",
                    clean(name)
                ));
            }
            Ok(Ending::Done)
        }
        Verified::Broken { position, reason } => {
            client_quarantine(app, name, position, &reason).await?;
            console.data_line(&format!("chain is broken at position {position}: {}", clean(&reason)));
            console.talk_line("it is in quarantine now; `topside repair` saves what can be read of a damaged journal");
            Ok(Ending::Failed)
        }
    }
}

async fn client_quarantine(app: &App, name: &str, position: u64, reason: &str) -> Result<(), Trouble> {
    let reason = format!("its chain is broken at position {position}: {reason}");
    app.client().quarantine(name, &reason).await?;
    Ok(())
}
