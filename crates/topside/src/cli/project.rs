//! `topside check` and `topside schema`: what a project says, and what it may say.

use super::Session;
use super::arguments::Place;
use super::clean::clean;
use super::ending::{Ending, Trouble};
use catalog::{Catalog, Kind};
use tools::{Functions, Toolbox};

pub(crate) fn check(session: &Session, place: &Place) -> Result<Ending, Trouble> {
    let variable = |name: &str| session.environment.get(name).map(str::to_owned);
    let catalog = Catalog::load(&place.project, &variable).map_err(topside::Error::from)?;
    session.console.data(&clean(&catalog.check_report()));
    for closure in catalog.agents() {
        let capabilities = closure.agent.sandbox.as_ref().map_or(&[][..], |sandbox| &sandbox.capabilities);
        match Toolbox::new(&closure.tools, capabilities, &Functions::new()) {
            Ok(_) => {}
            // A program that embeds the service brings its functions.
            Err(error @ tools::Error::Function { .. }) => {
                session.console.talk_line(&format!("warning: agent {}: {error}", clean(&closure.agent.name)));
            }
            Err(error) => {
                return Err(Trouble::Tools { agent: closure.agent.name.clone(), error });
            }
        }
    }
    Ok(Ending::Done)
}

pub(crate) fn schema(session: &Session, kind: Option<&str>) -> Ending {
    let value = match kind.and_then(Kind::of_name) {
        Some(kind) => catalog::schema(kind),
        None => Kind::ALL.iter().map(|kind| (kind.name().to_owned(), catalog::schema(*kind))).collect(),
    };
    session.console.data_line(&format!("{value:#}"));
    Ending::Done
}
