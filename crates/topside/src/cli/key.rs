//! `topside key`: makes API keys.

use super::Session;
use super::clean::clean;
use super::ending::Ending;
use api::Scope;
use stdx::Random;

/// The key goes to stderr, once; the lines for `keys.yaml`, which may be kept, to stdout.
pub(crate) fn new(session: &Session, name: &str, mut scopes: Vec<Scope>) -> Ending {
    if scopes.is_empty() {
        scopes = vec![Scope::RunsRead, Scope::RunsWrite];
    }
    let made = topside::new_key(name, &scopes, &Random::system());
    session.console.talk_line(&format!("key of {} (shown only now): {}", clean(name), made.key));
    session.console.data(&made.lines);
    Ending::Done
}
