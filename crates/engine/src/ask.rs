//! Asks the model, and makes its reply a fact.

use crate::Error;
use crate::driver::{Done, Driver};
use crate::facts::Fact;
use crate::live::LiveKind;
use domain::content::media;
use domain::record::{CallHead, Replied};
use domain::{Cost, Event, Failure, FailureClass, Id, Item, Usage, id};
use futures::future::BoxFuture;
use model::{Delta, Deltas, Prompt, Reply};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Deltas of a reply that wait to be shown; more are dropped.
const DELTAS_MAX: usize = 256;

/// What asking came to.
pub(crate) struct Asked {
    turn: u32,
    reply: Result<Reply, (Failure, Usage)>,
    took: Duration,
}

impl Driver {
    /// A future that asks the model for a turn.
    pub(crate) async fn ask(&mut self, turn: u32) -> Result<BoxFuture<'static, Done>, Error> {
        let (Some(ready), Some(run)) = (self.ready.clone(), self.state.run.as_ref()) else {
            return Ok(Box::pin(std::future::pending()));
        };
        let run = run.id;
        let items = self.memory.items(&self.inner.parts.journal, &self.key, &self.state).await?;
        let prompt = Prompt {
            instructions: ready.instructions.clone(),
            items,
            tools: ready.toolbox.specs(),
            cache_key: Some(self.key.session.to_string()),
            output_tokens_max: None,
        };
        let (inner, key) = (self.inner.clone(), self.key.clone());
        Ok(Box::pin(async move {
            let started = inner.parts.clock.monotonic();
            inner.channels.tell(&key.tenant, key.session, run, || LiveKind::Asking { turn });
            let reply = match &ready.model {
                Err(failure) => Err((failure.clone(), Usage::default())),
                Ok(model) if inner.channels.is_watched(&key.tenant, key.session) => {
                    let (sender, receiver) = mpsc::channel(DELTAS_MAX);
                    let deltas = Deltas::to(sender);
                    let show = show(&inner, &key, run, receiver);
                    let reply = async {
                        let reply = model.reply(&prompt, &deltas).await;
                        drop(deltas);
                        reply
                    };
                    tokio::join!(reply, show).0.map_err(told)
                }
                Ok(model) => model.reply(&prompt, &Deltas::none()).await.map_err(told),
            };
            let took = inner.parts.clock.monotonic().saturating_sub(started);
            Done::Asked(Box::new(Asked { turn, reply, took }))
        }))
    }

    /// Takes a reply, or fails the run.
    pub(crate) fn asked(&mut self, asked: Asked) -> Result<(), Error> {
        let Asked { turn, reply, took } = asked;
        let (reply, run) = match (reply, self.state.run.as_ref()) {
            (_, None) => return Ok(()),
            (Err((failure, usage)), _) => {
                self.spent = self.spent.plus(usage);
                self.fail(failure);
                return Ok(());
            }
            (Ok(reply), Some(run)) => (reply, run.id),
        };
        let items = self.redacted(reply.items);
        let json = serde_json::to_vec(&items.iter().map(|item| &**item).collect::<Vec<_>>())
            .map_err(domain::record::Error::Form)?;
        let (content, item) = match self.sealer.seal(media::ITEMS, &json) {
            Ok(sealed) => sealed,
            Err(error @ journal::Error::TooLarge { .. }) => {
                self.fail(Failure::new(FailureClass::Model, error.code(), error.to_string()));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let heads = self.heads(run, &items);
        self.memory.reply(&content, &items);
        let cost = self.cost(&reply.model, &reply.usage);
        let event = Event::Replied(Replied {
            run,
            turn,
            items: content,
            calls: heads,
            model: reply.model,
            usage: reply.usage,
            cost,
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        });
        let stamp = self.stamp();
        self.pending.push(Fact { stamp, event, contents: vec![item], may_linger: false });
        Ok(())
    }

    /// The calls of a reply, each wire id once, and remembers them.
    fn heads(&mut self, run: Id<id::Run>, items: &[Arc<Item>]) -> Vec<CallHead> {
        self.calls.clear();
        let mut seen = HashSet::new();
        let mut heads = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let Item::Call { call_id, name, .. } = &**item else { continue };
            if !seen.insert(call_id.as_str()) {
                continue;
            }
            let call = self.inner.id();
            self.remember(run, call, item);
            let known = self.ready.as_ref().is_some_and(|ready| ready.toolbox.contract(name).is_some());
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            heads.push(CallHead { call, index, tool: known.then(|| name.clone()) });
        }
        heads
    }

    fn cost(&self, model: &str, usage: &domain::Usage) -> Cost {
        let catalog = (self.inner.parts.catalog)();
        let declared = self.ready.as_ref().map(|ready| self.inner.expanded(&ready.closure.model.name));
        let price = catalog.prices.get(model).or_else(|| catalog.prices.get(declared.as_deref()?));
        let played = self
            .ready
            .as_ref()
            .is_some_and(|ready| ready.closure.model.provider == domain::agent::ModelProvider::Script);
        match price {
            Some(price) => Cost::Priced { micro_usd: price.of(usage) },
            // Playing a transcript costs nothing.
            None if played => Cost::default(),
            None => Cost::Unlisted { micro_usd: 0 },
        }
    }

    /// The items without any leased secret in what the model says or asks for.
    fn redacted(&self, items: Vec<Item>) -> Vec<Arc<Item>> {
        let redactor = self.inner.parts.secrets.redactor();
        let clean = |text: String| redactor.text(&text).into_owned();
        let clean_item = |item| match item {
            Item::Assistant { text, id } => Item::Assistant { text: clean(text), id },
            Item::Call { call_id, name, arguments, custom, id } => {
                Item::Call { call_id, name, arguments: clean(arguments), custom, id }
            }
            other @ (Item::User { .. } | Item::Reasoning { .. } | Item::Output { .. }) => other,
        };
        items.into_iter().map(clean_item).map(Arc::new).collect()
    }
}

/// A failure for the record, with what the attempts used.
fn told(failure: model::Failure) -> (Failure, Usage) {
    (failure.to_domain(), failure.usage)
}

/// Shows a reply's pieces to those who watch, until it is whole.
async fn show(
    inner: &crate::engine::Inner,
    key: &journal::SessionKey,
    run: Id<id::Run>,
    mut deltas: mpsc::Receiver<Delta>,
) {
    while let Some(delta) = deltas.recv().await {
        let kind = match delta {
            Delta::Text(text) => LiveKind::Text(text),
            Delta::Reasoning(text) => LiveKind::Reasoning(text),
            Delta::CallStarted { .. } | Delta::CallArguments(_) => continue,
        };
        inner.channels.tell(&key.tenant, key.session, run, || kind);
    }
}
