//! `topside record`: runs an agent against its live model, then writes what was said as a transcript. The transcript is made
//! from the run's own record, so secrets are out of it as they are out of the record.

use super::arguments::Record;
use super::clean::clean;
use super::ending::{Ending, Trouble};
use super::run::{Show, Shown, finish, watch};
use super::signals::Signals;
use super::{Console, Session, start};
use api::PostRun;
use async_trait::async_trait;
use client::{PostOptions, Wait};
use domain::agent::ModelProvider;
use domain::{Event, Id, Item, Part, TENANT_DEFAULT, id};
use journal::query::PAGE_ROWS_MAX;
use journal::{Journal, SessionKey};
use model::{Deltas, Failure, Model, Prompt, Recorder, Reply};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use topside::{App, Drives};

pub(crate) async fn record(session: Session, arguments: Record) -> Result<Ending, Trouble> {
    let Session { console, environment, launcher } = session;
    let mut signals = Signals::new()?;
    let app = start(&console, &environment, launcher, &arguments.place, Drives::All).await?;
    let shown = recorded(&console, &app, &arguments, &mut signals).await;
    finish(app, shown).await
}

async fn recorded(console: &Console, app: &App, arguments: &Record, signals: &mut Signals) -> Result<Shown, Trouble> {
    let closure = app
        .catalog()
        .agent(Some(&arguments.agent))
        .map_err(|error| topside::Error::from(engine::Error::from(error)))?;
    if closure.model.provider == ModelProvider::Script {
        return Err(Trouble::NoModel {
            agent: arguments.agent.clone(),
            title: closure.model.name.clone(),
            model: closure.agent.model.clone(),
        });
    }
    let body = PostRun { agent: Some(arguments.agent.clone()), message: arguments.task.clone(), ..PostRun::default() };
    let options = PostOptions { wait: Wait::No, ..PostOptions::default() };
    let run = app.client().post_run(&body, &options).await?;
    let shown = watch(console, app, run.run_id, 0, Show::People, signals).await?;
    if shown != Shown::Settled(Ending::Done) {
        console.talk_line("no transcript was written: the run did not complete");
        return Ok(shown);
    }
    let journal = app.engine().journal();
    let row = journal.run(&Arc::from(TENANT_DEFAULT), run.run_id).await?;
    let row = row.ok_or(engine::Error::NoSuchRun { run: run.run_id })?;
    let title = arguments.title.clone().unwrap_or_else(|| arguments.agent.clone());
    let text = transcript(journal, &SessionKey::new(TENANT_DEFAULT, row.session), run.run_id, title).await?;
    std::fs::write(&arguments.out, text).map_err(|error| Trouble::File { path: arguments.out.clone(), error })?;
    console.talk_line(&format!("transcript: {}", clean(&arguments.out.display().to_string())));
    Ok(shown)
}

/// The transcript of a run, from its record.
async fn transcript(journal: &Journal, key: &SessionKey, run: Id<id::Run>, title: String) -> Result<String, Trouble> {
    let turns = turns(journal, key, run).await?;
    let replies: VecDeque<Vec<Item>> = turns.iter().map(|turn| turn.reply.clone()).collect();
    let recorder = Recorder::new(Arc::new(Heard(Mutex::new(replies))), title);
    let mut items: Vec<Arc<Item>> = Vec::new();
    for turn in turns {
        items.extend(turn.before.into_iter().map(Arc::new));
        let prompt = Prompt {
            instructions: "".into(),
            items: items.clone(),
            tools: Arc::default(),
            cache_key: None,
            output_tokens_max: None,
        };
        let reply = recorder.reply(&prompt, &Deltas::none()).await?;
        items.extend(reply.items.into_iter().map(Arc::new));
    }
    Ok(recorder.transcript())
}

/// A reply and what was said right before it.
struct Turn {
    before: Vec<Item>,
    reply: Vec<Item>,
}

async fn turns(journal: &Journal, key: &SessionKey, run: Id<id::Run>) -> Result<Vec<Turn>, Trouble> {
    let mut turns: Vec<Turn> = Vec::new();
    let mut before: Vec<Item> = Vec::new();
    // The ids under which the model expects outputs, and the order it asked in.
    let mut wires: HashMap<Id<id::Call>, (usize, String, bool)> = HashMap::new();
    let mut outputs: Vec<(usize, Item)> = Vec::new();
    let mut steers = VecDeque::new();
    let mut from = 0;
    loop {
        let page = journal.records(key, from, PAGE_ROWS_MAX).await?;
        let Some(last) = page.last() else { return Ok(turns) };
        from = last.position + 1;
        for stored in &page {
            let event = stored.decode()?.event;
            if event.run() != run {
                continue;
            }
            match event {
                Event::Submitted(body) => {
                    if let Some(message) = &body.message {
                        before.push(said(&opened(journal, key, message).await?));
                    }
                }
                Event::Steered(body) => steers.push_back(said(&opened(journal, key, &body.message).await?)),
                // What a nested agent is told, and says, is its own.
                Event::Replied(body) if body.scope.is_some() => {}
                Event::Returned(body) => {
                    let parts: Vec<Part> = parsed(&opened(journal, key, &body.output).await?)?;
                    if let Some((index, call_id, custom)) = wires.get(&body.call) {
                        let item = Item::Output { call_id: call_id.clone(), parts, custom: *custom };
                        outputs.push((*index, item));
                    }
                }
                Event::Replied(body) => {
                    outputs.sort_by_key(|(index, _)| *index);
                    before.extend(outputs.drain(..).map(|(_, item)| item));
                    let told = usize::try_from(body.steers).unwrap_or(usize::MAX).min(steers.len());
                    before.extend(steers.drain(..told));
                    let reply: Vec<Item> = parsed(&opened(journal, key, &body.items).await?)?;
                    wires.clear();
                    for head in &body.calls {
                        let index = usize::try_from(head.index).unwrap_or(usize::MAX);
                        if let Some(Item::Call { call_id, custom, .. }) = reply.get(index) {
                            wires.insert(head.call, (index, call_id.clone(), *custom));
                        }
                    }
                    turns.push(Turn { before: std::mem::take(&mut before), reply });
                }
                // Nothing else is said to the model, or by it.
                _ => {}
            }
        }
    }
}

fn said(text: &[u8]) -> Item {
    Item::User { parts: vec![Part::text(String::from_utf8_lossy(text).into_owned())] }
}

async fn opened(journal: &Journal, key: &SessionKey, content: &domain::ContentRef) -> Result<Vec<u8>, Trouble> {
    let bytes = journal.content(key, content).await?.into_bytes();
    bytes.ok_or(Trouble::Erased { content: content.id })
}

fn parsed<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Trouble> {
    Ok(serde_json::from_slice(bytes).map_err(domain::record::Error::Form).map_err(engine::Error::from)?)
}

/// A model that says once more what the record holds.
#[derive(Debug)]
struct Heard(Mutex<VecDeque<Vec<Item>>>);

#[async_trait]
impl Model for Heard {
    fn name(&self) -> &str {
        "record"
    }

    async fn reply(&self, _prompt: &Prompt, _deltas: &Deltas) -> Result<Reply, Failure> {
        let items = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front().unwrap_or_default();
        Ok(Reply {
            items,
            usage: domain::Usage::default(),
            model: "record".to_owned(),
            finish: model::Finish::Stop,
            attempts: 1,
        })
    }
}
