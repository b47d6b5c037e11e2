//! Asks the model, and makes its reply a fact.

use crate::Error;
use crate::driver::{Done, Driver};
use crate::engine::Inner;
use crate::facts::Fact;
use crate::live::LiveKind;
use crate::ready::Ready;
use crate::retry::{self, breaker_open};
use crate::slot::Slot;
use domain::content::media;
use domain::contract::Retry;
use domain::record::{CallHead, Deferred, Replied};
use domain::{Cost, Event, Failure, FailureClass, Id, Item, Usage, id};
use futures::future::BoxFuture;
use journal::SessionKey;
use machine::ScopeId;
use model::{Delta, Deltas, Prompt, Reply};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::mpsc;

/// Deltas of a reply that wait to be shown; more are dropped.
const DELTAS_MAX: usize = 256;

/// What asking came to.
pub(crate) struct Asked {
    scope: ScopeId,
    turn: u32,
    /// How many of the messages that steer the run it was shown.
    steers: u32,
    reply: Result<Reply, Unanswered>,
    took: Duration,
}

/// Why there is no reply.
struct Unanswered {
    failure: Failure,
    usage: Usage,
    /// By whose retries it is asked again, if that may help.
    retry: Option<Retry>,
    /// The wait that the other side asked for.
    retry_after_ms: Option<u64>,
}

/// Below so many tokens a reply is asked to keep within what is left; above, the vendor's own limit is nearer.
const SCARCE_TOKENS: u64 = 65_536;

impl Driver {
    /// A future that asks the model for a scope's turn, within `tokens`.
    pub(crate) async fn ask(
        &mut self,
        scope: ScopeId,
        turn: u32,
        tokens: u64,
    ) -> Result<BoxFuture<'static, Done>, Error> {
        let (Some(ready), Some(run)) = (self.ready_of(scope), self.state.run.as_ref()) else {
            return Ok(Box::pin(std::future::pending()));
        };
        let id = run.id;
        let steers = if scope.is_none() { run.steers.iter().cloned().collect() } else { Vec::new() };
        let nested = run.scopes.get(&scope).filter(|_| scope.is_some());
        let history = nested.map_or(&self.state.history, |scope| &scope.history);
        let items = self.memory.conversation(&self.inner.parts.journal, &self.key, history, &steers).await?;
        let declared = ready.closure.model.output_tokens_max;
        let prompt = Prompt {
            instructions: ready.instructions.clone(),
            items,
            tools: ready.toolbox.specs(),
            cache_key: Some(self.key.session.to_string()),
            output_tokens_max: (tokens < SCARCE_TOKENS).then_some(declared.map_or(tokens, |most| most.min(tokens))),
        };
        let (inner, key, pulse, slot) = (self.inner.clone(), self.key.clone(), self.pulse.clone(), self.slot.clone());
        let steers = u32::try_from(steers.len()).unwrap_or(u32::MAX);
        Ok(Box::pin(async move {
            let alias = &ready.closure.model.alias;
            let most = (inner.parts.catalog)().settings.concurrency.per_model.get(alias).copied();
            let waits = pulse.excused();
            let _place = inner.model_places.take(alias, most).await;
            drop(waits);
            let started = inner.parts.clock.monotonic();
            inner.channels.tell(&key.tenant, key.session, id, || LiveKind::Asking { turn });
            let deltas = listening(&ready, slot, pulse.signs());
            let reply = reply(&inner, &key, id, &ready, &prompt, deltas).await;
            let took = inner.parts.clock.monotonic().saturating_sub(started);
            Done::Asked(Box::new(Asked { scope, turn, steers, reply, took }))
        }))
    }

    /// Takes a reply; or asks again later, or fails the run.
    pub(crate) fn asked(&mut self, asked: Asked) -> Result<(), Error> {
        let Asked { scope, turn, steers, reply, took } = asked;
        let Some(run) = self.state.run.as_ref() else { return Ok(()) };
        let run = run.id;
        let reply = match reply {
            Ok(reply) => reply,
            Err(unanswered) => {
                self.unanswered(scope, unanswered);
                return Ok(());
            }
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
        let heads = self.heads(scope, run, &items);
        self.memory.reply(&content, &items);
        let cost = self.cost(scope, &reply.model, &reply.usage);
        let event = Event::Replied(Replied {
            run,
            turn,
            items: content,
            calls: heads,
            model: reply.model,
            usage: reply.usage,
            cost,
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            scope,
            steers,
        });
        let stamp = self.stamp();
        self.pending.push(Fact { stamp, event, contents: vec![item], may_linger: false });
        Ok(())
    }

    /// Asking failed: the model is asked again later when that may help, else the run fails.
    fn unanswered(&mut self, scope: ScopeId, unanswered: Unanswered) {
        let Some(run) = self.state.run.as_ref() else { return };
        let Unanswered { failure, usage, retry, retry_after_ms } = unanswered;
        let before = run.scopes.get(&scope).and_then(|scope| scope.deferred);
        let now_ms = self.inner.parts.clock.wall_ms();
        let attempt = before.map_or(0, |retry| retry.attempt) + 1;
        let since_ms = before.map_or(now_ms, |retry| retry.since_ms);
        let random = &self.inner.parts.random;
        match retry.and_then(|retry| retry::next(&retry, attempt, since_ms, now_ms, retry_after_ms, random)) {
            Some(until_ms) => {
                let deferred = Deferred { run: run.id, scope, call: None, failure, attempt, until_ms, usage };
                let fact = Fact::bare(self.stamp(), Event::Deferred(deferred));
                self.pending.push(fact);
            }
            None => {
                self.spent = self.spent.plus(usage);
                self.fail(failure);
            }
        }
    }

    /// The calls of a reply, each wire id once, and remembers them.
    fn heads(&mut self, scope: ScopeId, run: Id<id::Run>, items: &[Arc<Item>]) -> Vec<CallHead> {
        let ready = self.ready_of(scope);
        let mut seen = HashSet::new();
        let mut heads = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let Item::Call { call_id, name, .. } = &**item else { continue };
            if !seen.insert(call_id.as_str()) {
                continue;
            }
            let call = self.inner.id();
            self.remember(run, call, item);
            let known = ready.as_ref().is_some_and(|ready| ready.toolbox.offers(name));
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            heads.push(CallHead { call, index, tool: known.then(|| name.clone()) });
        }
        heads
    }

    fn cost(&self, scope: ScopeId, model: &str, usage: &Usage) -> Cost {
        let catalog = (self.inner.parts.catalog)();
        let ready = self.ready_of(scope);
        let declared = ready.as_ref().map(|ready| self.inner.expanded(&ready.closure.model.name));
        let price = catalog.prices.get(model).or_else(|| catalog.prices.get(declared.as_deref()?));
        let played =
            ready.as_ref().is_some_and(|ready| ready.closure.model.provider == domain::agent::ModelProvider::Script);
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

/// What hears a reply come in: its signs of life, and the first call that needs the sandbox, which is then made while the model
/// says the rest. Nothing waits for it but that call.
fn listening(ready: &Arc<Ready>, slot: Arc<Slot>, signs: Arc<AtomicU64>) -> Deltas {
    let deltas = Deltas::none().counted(signs);
    if ready.closure.agent.sandbox.is_none() {
        return deltas;
    }
    let ready = ready.clone();
    deltas.heard(move |tool| {
        if ready.toolbox.takes_sandbox(tool) {
            slot.want();
        }
    })
}

/// Asks, unless the model's breaker is open; shows the pieces to those who watch.
async fn reply(
    inner: &Inner,
    key: &SessionKey,
    run: Id<id::Run>,
    ready: &Ready,
    prompt: &Prompt,
    deltas: Deltas,
) -> Result<Reply, Unanswered> {
    let catalog = (inner.parts.catalog)();
    let (retries, breaker) = (catalog.settings.retries, catalog.settings.breaker);
    drop(catalog);
    let told = |failure: model::Failure| Unanswered {
        failure: failure.to_domain(),
        usage: failure.usage,
        retry: failure.retryable.then_some(retries.model),
        retry_after_ms: failure.retry_after_ms,
    };
    let model = ready.model.as_ref().map_err(|failure| told(failure.clone()))?;
    let part = format!("model `{}`", ready.closure.model.alias);
    let now_ms = || inner.parts.clock.wall_ms();
    if let Err(until_ms) = inner.breakers.admit(&part, now_ms(), breaker) {
        let retry_after_ms = Some(until_ms.saturating_sub(now_ms()));
        let (failure, usage) = (breaker_open(&part), Usage::default());
        return Err(Unanswered { failure, usage, retry: Some(retries.dependency), retry_after_ms });
    }
    let reply = if inner.channels.is_watched(&key.tenant, key.session) {
        let (sender, receiver) = mpsc::channel(DELTAS_MAX);
        let deltas = deltas.sent(sender);
        let show = show(inner, key, run, receiver);
        let reply = async {
            let reply = model.reply(prompt, &deltas).await;
            drop(deltas);
            reply
        };
        tokio::join!(reply, show).0
    } else {
        model.reply(prompt, &deltas).await
    };
    // What would fail again says nothing of the endpoint's health.
    let is_well = reply.as_ref().err().is_none_or(|failure| !failure.retryable);
    inner.breakers.heard(&part, is_well, now_ms(), breaker);
    reply.map_err(told)
}

/// Shows a reply's pieces to those who watch, until it is whole.
async fn show(inner: &Inner, key: &SessionKey, run: Id<id::Run>, mut deltas: mpsc::Receiver<Delta>) {
    while let Some(delta) = deltas.recv().await {
        let kind = match delta {
            Delta::Text(text) => LiveKind::Text(text),
            Delta::Reasoning(text) => LiveKind::Reasoning(text),
            Delta::CallStarted { .. } | Delta::CallArguments(_) => continue,
        };
        inner.channels.tell(&key.tenant, key.session, run, || kind);
    }
}
