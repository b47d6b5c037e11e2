//! What the model is shown: the session's history with its contents.

use crate::Error;
use domain::content::media;
use domain::{ContentRef, Id, Item, Part, id};
use journal::{Content, Journal, SessionKey};
use machine::Entry;
use std::collections::HashMap;
use std::sync::Arc;

/// Stands in for content that was erased.
const ERASED: &str = "[erased]";
/// Stands in for the output of a call that was never performed, because its run ended first.
const NOT_PERFORMED: &str = "The run ended before this call was performed.";

/// What this driver has read or written, so that each content item is opened once.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    replies: HashMap<Id<id::Content>, Arc<[Arc<Item>]>>,
    parts: HashMap<Id<id::Content>, Arc<[Part]>>,
    is_whole: bool,
}

impl Memory {
    /// Remembers a reply that is about to be recorded.
    pub(crate) fn reply(&mut self, content: &ContentRef, items: &[Arc<Item>]) {
        self.replies.insert(content.id, items.into());
    }

    /// Remembers an output, or a message, that is about to be recorded.
    pub(crate) fn parts(&mut self, content: &ContentRef, parts: &[Part]) {
        self.parts.insert(content.id, parts.into());
    }

    /// Whether a conversation was made of it before, so that the next one needs nothing that is not here.
    pub(crate) const fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The items of a reply.
    pub(crate) async fn items_of(
        &mut self,
        journal: &Journal,
        key: &SessionKey,
        content: &ContentRef,
    ) -> Result<Arc<[Arc<Item>]>, Error> {
        if let Some(items) = self.replies.get(&content.id) {
            return Ok(items.clone());
        }
        let items: Vec<Item> = match journal.content(key, content).await? {
            Content::Bytes(bytes) => serde_json::from_slice(&bytes).map_err(domain::record::Error::Form)?,
            Content::Erased => vec![Item::Assistant { text: ERASED.into(), id: None }],
        };
        let items: Arc<[Arc<Item>]> = items.into_iter().map(Arc::new).collect();
        self.replies.insert(content.id, items.clone());
        Ok(items)
    }

    /// The parts of a message or an output.
    pub(crate) async fn parts_of(
        &mut self,
        journal: &Journal,
        key: &SessionKey,
        content: &ContentRef,
    ) -> Result<Arc<[Part]>, Error> {
        if let Some(parts) = self.parts.get(&content.id) {
            return Ok(parts.clone());
        }
        let parts: Arc<[Part]> = match journal.content(key, content).await? {
            Content::Erased => [Part::text(ERASED)].into(),
            Content::Bytes(bytes) if content.media == media::PARTS => {
                serde_json::from_slice::<Vec<Part>>(&bytes).map_err(domain::record::Error::Form)?.into()
            }
            Content::Bytes(bytes) => [Part::text(String::from_utf8_lossy(&bytes))].into(),
        };
        self.parts.insert(content.id, parts.clone());
        Ok(parts)
    }

    /// A conversation, outputs of one reply in the order of its calls, with messages that come last.
    pub(crate) async fn conversation(
        &mut self,
        journal: &Journal,
        key: &SessionKey,
        history: &[Arc<Entry>],
        steers: &[ContentRef],
    ) -> Result<Vec<Arc<Item>>, Error> {
        let mut outputs: HashMap<Id<id::Call>, &ContentRef> = HashMap::new();
        for entry in history {
            if let Entry::Output { call, content, .. } = &**entry {
                outputs.insert(*call, content);
            }
        }
        let mut items = Vec::with_capacity(history.len());
        for entry in history {
            match &**entry {
                Entry::Inherited { content } => {
                    items.extend(self.items_of(journal, key, content).await?.iter().cloned())
                }
                Entry::Message { content, .. } => items.push(self.message(journal, key, content).await?),
                Entry::Reply { content, calls, .. } => {
                    let reply = self.items_of(journal, key, content).await?;
                    items.extend(shown(&reply, calls));
                    for (call, index) in calls {
                        let parts = match outputs.get(call) {
                            Some(content) => self.parts_of(journal, key, content).await?.to_vec(),
                            None => vec![Part::text(NOT_PERFORMED)],
                        };
                        let Some(Item::Call { call_id, custom, .. }) = reply.get(*index as usize).map(|item| &**item)
                        else {
                            // The reply was erased, and with it the call.
                            continue;
                        };
                        items.push(Arc::new(Item::Output { call_id: call_id.clone(), parts, custom: *custom }));
                    }
                }
                Entry::Output { .. } => {}
            }
        }
        for steer in steers {
            items.push(self.message(journal, key, steer).await?);
        }
        self.is_whole = true;
        Ok(items)
    }

    async fn message(&mut self, journal: &Journal, key: &SessionKey, content: &ContentRef) -> Result<Arc<Item>, Error> {
        let parts = self.parts_of(journal, key, content).await?;
        Ok(Arc::new(Item::User { parts: parts.to_vec() }))
    }
}

/// The items of a reply that go back to the model: all but repetitions of a call that was made once.
fn shown<'a>(reply: &'a [Arc<Item>], calls: &'a [(Id<id::Call>, u32)]) -> impl Iterator<Item = Arc<Item>> + 'a {
    let made = |index: usize| calls.iter().any(|(_, at)| *at as usize == index);
    let keep = move |(index, item): &(usize, &Arc<Item>)| !matches!(***item, Item::Call { .. }) || made(*index);
    reply.iter().enumerate().filter(keep).map(|(_, item)| item.clone())
}

/// What the model said in a reply, in one text.
pub(crate) fn text_of(items: &[Arc<Item>]) -> String {
    let mut text = String::new();
    for item in items {
        if let Item::Assistant { text: more, .. } = &**item {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(more);
        }
    }
    text
}
