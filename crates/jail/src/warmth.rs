//! What stands ready before it is asked for: first processes with their roots in the launcher, for workspaces that exist already,
//! and whole sandboxes around empty workspaces in stock (see `ahead`), for sessions that begin. Both of one kind at a time.

use crate::ahead::Order;
use crate::door::{Keep, Reply, Request};
use crate::harbour::Arrived;
use crate::ids;
use crate::pool::Place;
use crate::provider::{Provider, asked, hold, unexpected};
use crate::roots::Ready;
use crate::stack::Wanted;
use sandbox::{Error, Limits, Spec, Workspace};
use std::sync::Arc;

/// How many sandboxes stand ready: always the least, up to the most as they are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Warm {
    /// At least.
    pub min: usize,
    /// At most; 0: none, ever.
    pub max: usize,
}

/// What stands ready, as this process asked for it.
#[derive(Debug, Default)]
pub(crate) struct Warmth {
    wanted: Warm,
    kind: Option<String>,
    /// Of the last request.
    last: Option<String>,
}

impl Warmth {
    /// So many, of whichever kind is asked for first.
    pub(crate) fn of(wanted: Warm) -> Self {
        Self { wanted, ..Self::default() }
    }
}

impl Provider {
    /// Keeps sandboxes ready that lack only what makes them somebody's, of the kind of `like`, and of another kind when that is
    /// asked for twice in a row: a root of the host's own tools, limits, and walls that it may do without. Gives how many
    /// stand ready now. A root of layers, views of the host and mounts can't be had ahead of need.
    ///
    /// # Errors
    /// [`Error::Gone`] when the launcher is; those of a root that can't be had.
    pub async fn keep_warm(&self, like: &Spec, warm: Warm) -> Result<usize, Error> {
        let Ready { wanted: mut root, .. } = self.ready(like).await?;
        root.accounts = ids::resolve(&like.accounts, &mut root, ids::below(self.root))?;
        let like = Spec {
            workspace: Workspace::Scratch,
            environment: Vec::new(),
            binds: Vec::new(),
            mounts: Vec::new(),
            ..like.clone()
        };
        self.fill_stock(&self.place().await?, like.limits);
        let like = Box::new(asked(&like, Keep::Nowhere, &root));
        let kind = like.kind();
        *hold(&self.warm) = Warmth { wanted: warm, kind: kind.clone(), last: kind };
        let stock = self.stock.as_ref().filter(|_| self.root);
        if let Some(stock) = stock {
            stock.order(Order::new(&like, warm.min, warm.max));
        }
        match self.harbour().ask(Request::Warm { like, min: warm.min, max: warm.max }, Vec::new()).await? {
            Arrived::Other(Reply::Warm { ready }) => Ok(stock.map_or(ready, |stock| ready.min(stock.ahead()))),
            _ => Err(unexpected()),
        }
    }

    pub(crate) fn fill_stock(&self, place: &Arc<Place>, limits: Limits) {
        if let Some(stock) = self.stock.as_ref().filter(|_| self.root) {
            stock.fill(place, self.harbour(), &self.random, limits);
        }
    }

    /// Of which kind a request is, where some stand ready.
    pub(crate) fn kind(&self, spec: &Spec, root: &Wanted) -> Option<String> {
        if hold(&self.warm).wanted.max == 0 { None } else { asked(spec, Keep::Nowhere, root).kind() }
    }

    /// Changes what stands ready to what is asked for twice in a row: the kind of this request, or of another.
    pub(crate) async fn follow_demand(&self, spec: &Spec, kind: Option<String>) {
        let wanted = {
            let mut warm = hold(&self.warm);
            let is_usual = warm.kind.is_none() || kind == warm.last;
            let is_new = kind.is_some() && kind != warm.kind && is_usual;
            warm.last = kind;
            is_new.then_some(warm.wanted)
        };
        if let Some(wanted) = wanted
            && let Err(error) = self.keep_warm(spec, wanted).await
        {
            tracing::debug!(%error, "no sandbox is kept ready");
        }
    }
}
