//! What an operator does to a session's sandbox by hand: on record before it is done. What is done, and that it is allowed, is
//! the asker's.

use crate::Error;
use crate::engine::Engine;
use crate::inputs::Wish;
use domain::content::media;
use domain::record::{Deed, Operated};
use domain::{Event, Id, id};
use journal::SessionKey;
use std::sync::Arc;

/// Something that an operator is about to do.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    /// The tenant.
    pub tenant: &'a str,
    /// The session whose sandbox it is.
    pub session: Id<id::Session>,
    /// Who does it.
    pub principal: Id<id::Principal>,
    /// The sandbox.
    pub sandbox: Id<id::Sandbox>,
    /// What is done.
    pub deed: Deed,
    /// The particulars, as text; what they hold of a leased secret is taken out.
    pub detail: Option<&'a str>,
}

impl Engine {
    /// Records what an operator is about to do. Only when this has returned may it be done.
    ///
    /// # Errors
    /// [`Error::NoSuchSession`]; [`Error::Journal`] when it can't be recorded.
    pub async fn operated(&self, operation: Operation<'_>) -> Result<(), Error> {
        let Operation { tenant, session, principal, sandbox, deed, detail } = operation;
        let run = self.session(tenant, session).await?.last_run;
        let key = SessionKey::new(Arc::<str>::from(tenant), session);
        let sealed = match detail {
            Some(detail) => Some(self.0.seal_text(&key, media::TEXT, detail.as_bytes()).await?),
            None => None,
        };
        let (detail, item) = sealed.unzip();
        let event = Event::Operated(Operated { run, sandbox, deed, detail });
        let wish = Wish { principal, event, contents: item.into_iter().collect(), idempotency: None };
        self.0.wish(key, wish).await.map(drop)
    }
}
