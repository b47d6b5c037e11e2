//! Records as viewers see them: contents opened where they are needed, cut where they are long, named where they were erased.

use api::{CallView, EVENT_TEXT_BYTES_MAX, FileChange, Happened, Outcome, SandboxStage, SandboxStart, Text};
use domain::content::media;
use domain::record::{
    ArtifactSaved, CallAdded, Checkpointed, Deferred, Finished, Forked, Judged, Replied, Reserved, Resolution,
    Resolved, Returned, SandboxOpened, ScopeOpened, StageTook, Started, Submitted, Voted, WorkspaceChanged,
};
use domain::{ContentRef, Event, Item, Part, Record};
use journal::{Content, Error, Journal, SessionKey};

/// Contents above this are not opened for a viewer, only named.
const CONTENT_BYTES_MAX: u64 = 4 << 20;

/// A record with its contents, as viewers see it; also for a program that reads a journal nobody serves.
///
/// # Errors
/// When a content item can't be read or is not what its record says.
pub async fn record(journal: &Journal, key: &SessionKey, record: Record) -> Result<api::Record, Error> {
    let Record { head, event } = record;
    let run_id = event.run();
    let happened = Reader { journal, key }.happened(event).await?;
    Ok(api::Record { position: head.position, at_ms: head.at_ms, run_id, principal: head.principal, happened })
}

struct Reader<'a> {
    journal: &'a Journal,
    key: &'a SessionKey,
}

/// What became of a content item.
enum Opened {
    Bytes(Vec<u8>),
    Erased,
    TooLong,
}

impl Reader<'_> {
    async fn happened(&self, event: Event) -> Result<Happened, Error> {
        Ok(match event {
            Event::Submitted(body) => self.submitted(body).await?,
            Event::Forked(body) => self.forked(body).await?,
            Event::CancelRequested(body) => Happened::CancelRequested { when: body.when },
            Event::PauseRequested(_) => Happened::PauseRequested {},
            Event::ResumeRequested(_) => Happened::ResumeRequested {},
            Event::Steered(body) => Happened::Steered { message: self.text(&body.message).await?, when: body.when },
            Event::Voted(body) => self.voted(body).await?,
            Event::Resolved(body) => self.resolved(body).await?,
            Event::Raised(body) => Happened::Raised { limits: body.limits.into() },
            Event::WorkspaceRestored(body) => Happened::WorkspaceRestored {
                checkpoint: body.snapshot.checkpoint,
                from: body.from,
                bytes: body.snapshot.bytes,
                entries: body.snapshot.entries,
            },
            Event::Operated(body) => Happened::Operated {
                sandbox: body.sandbox,
                deed: body.deed,
                detail: self.optional(body.detail.as_ref()).await?,
            },
            Event::Parked(body) => Happened::Parked { waits_for: body.waits_for, until_ms: body.until_ms },
            Event::Resumed(body) => Happened::Resumed { epoch: body.epoch, attached: body.attached },
            Event::SandboxOpened(body) => sandbox_opened(body),
            Event::SandboxClosed(body) => Happened::SandboxClosed { sandbox: body.sandbox, reason: body.reason },
            Event::WorkspaceLost(body) => Happened::WorkspaceLost { reason: body.reason },
            Event::Replied(body) => self.replied(body).await?,
            Event::Deferred(body) => deferred(body),
            Event::ScopeOpened(body) => self.scope_opened(body).await?,
            Event::Reserved(body) => reserved(body),
            Event::CallAdded(body) => self.call_added(body).await?,
            Event::Judged(body) => judged(body),
            Event::Began(body) => Happened::Began { call: body.call, attempt: body.attempt },
            Event::Returned(body) => self.returned(body).await?,
            Event::InDoubt(body) => Happened::InDoubt { call: body.call },
            Event::Checkpointed(body) => checkpointed(body),
            Event::WorkspaceChanged(body) => self.changed(body).await?,
            Event::ArtifactSaved(body) => self.artifact_saved(body).await?,
            Event::Finished(body) => self.finished(body).await?,
        })
    }

    async fn submitted(&self, body: Submitted) -> Result<Happened, Error> {
        Ok(Happened::Submitted {
            agent: body.agent,
            message: self.optional(body.message.as_ref()).await?,
            session_name: self.optional(body.session_name.as_ref()).await?,
        })
    }

    async fn voted(&self, body: Voted) -> Result<Happened, Error> {
        Ok(Happened::Voted {
            call: body.call,
            vote: body.vote,
            reason: self.optional(body.reason.as_ref()).await?,
            binding: body.binding,
        })
    }

    async fn scope_opened(&self, body: ScopeOpened) -> Result<Happened, Error> {
        Ok(Happened::ScopeOpened {
            call: body.call,
            agent: body.agent,
            message: self.text(&body.message).await?,
            limits: body.limits.into(),
        })
    }

    async fn call_added(&self, body: CallAdded) -> Result<Happened, Error> {
        Ok(Happened::CallAdded {
            call: body.call,
            serves: body.serves,
            purpose: body.purpose,
            tool: body.tool,
            arguments: self.text(&body.arguments).await?,
        })
    }

    async fn returned(&self, body: Returned) -> Result<Happened, Error> {
        Ok(Happened::Returned {
            call: body.call,
            status: body.status,
            output: self.text(&body.output).await?,
            code: body.code,
            duration_ms: body.duration_ms,
        })
    }

    async fn artifact_saved(&self, body: ArtifactSaved) -> Result<Happened, Error> {
        Ok(Happened::ArtifactSaved {
            artifact: body.artifact,
            name: self.text(&body.name).await?,
            media: body.media,
            bytes: body.bytes,
        })
    }

    async fn finished(&self, body: Finished) -> Result<Happened, Error> {
        Ok(Happened::Finished {
            status: body.status,
            reply: self.optional(body.reply.as_ref()).await?,
            error: body.failure.map(Into::into),
            turns: body.turns,
            tool_calls: body.tool_calls,
            usage: body.usage.into(),
            cost: body.cost.into(),
            used_sandbox: body.used_sandbox,
        })
    }

    async fn forked(&self, body: Forked) -> Result<Happened, Error> {
        Ok(Happened::Forked {
            session: body.session,
            at: body.position,
            head: body.head,
            agent: body.agent,
            checkpoint: body.checkpoint.map(|snapshot| snapshot.checkpoint),
            session_name: self.optional(body.session_name.as_ref()).await?,
            model: body.model,
            provider: body.provider,
        })
    }

    async fn resolved(&self, body: Resolved) -> Result<Happened, Error> {
        let (outcome, output) = match &body.resolution {
            Resolution::Happened { output } => (Outcome::Happened, Some(output)),
            Resolution::DidNotHappen => (Outcome::DidNotHappen, None),
            Resolution::Compensate => (Outcome::Compensate, None),
        };
        Ok(Happened::Resolved { call: body.call, outcome, output: self.optional(output).await? })
    }

    async fn changed(&self, body: WorkspaceChanged) -> Result<Happened, Error> {
        let opened = self.open(&body.files).await?;
        let files: Vec<domain::record::FileChange> = match &opened {
            Opened::Bytes(bytes) => serde_json::from_slice(bytes).unwrap_or_default(),
            Opened::Erased | Opened::TooLong => Vec::new(),
        };
        let view = |file: domain::record::FileChange| {
            let domain::record::FileChange { path, change, bytes } = file;
            FileChange { path, change, bytes }
        };
        Ok(Happened::WorkspaceChanged {
            files: files.into_iter().map(view).collect(),
            unlisted: body.unlisted,
            erased: matches!(opened, Opened::Erased),
        })
    }

    async fn replied(&self, body: Replied) -> Result<Happened, Error> {
        let opened = self.open(&body.items).await?;
        let items: Vec<Item> = match &opened {
            Opened::Bytes(bytes) => serde_json::from_slice(bytes).unwrap_or_default(),
            Opened::Erased | Opened::TooLong => Vec::new(),
        };
        let missing = |text: Text| match &opened {
            Opened::Bytes(_) => text,
            Opened::Erased => Text { text: None, erased: true, ..text },
            Opened::TooLong => Text { text: None, cut: true, ..text },
        };
        let call = |head: domain::record::CallHead| {
            let item = usize::try_from(head.index).ok().and_then(|index| items.get(index));
            let (tool, arguments) = match item {
                Some(Item::Call { name, arguments, .. }) => (Some(name.clone()), arguments.as_str()),
                _ => (None, ""),
            };
            CallView {
                call: head.call,
                tool: tool.or(head.tool).unwrap_or_default(),
                arguments: missing(cut(arguments)),
            }
        };
        let summaries: Vec<&str> = items.iter().filter_map(summary).collect();
        Ok(Happened::Replied {
            turn: body.turn,
            model: body.model,
            text: missing(cut(&said(&items))),
            reasoning: (!summaries.is_empty()).then(|| cut(&summaries.join("\n"))),
            calls: body.calls.into_iter().map(call).collect(),
            usage: body.usage.into(),
            cost: body.cost.into(),
            duration_ms: body.duration_ms,
            scope: body.scope,
        })
    }

    async fn optional(&self, content: Option<&ContentRef>) -> Result<Option<Text>, Error> {
        match content {
            Some(content) => self.text(content).await.map(Some),
            None => Ok(None),
        }
    }

    async fn text(&self, content: &ContentRef) -> Result<Text, Error> {
        let bytes = content.bytes;
        Ok(match self.open(content).await? {
            Opened::Erased => Text { bytes, erased: true, ..Text::default() },
            Opened::TooLong => Text { bytes, cut: true, ..Text::default() },
            Opened::Bytes(plain) => match content.media.as_str() {
                media::ITEMS => cut(&said(&serde_json::from_slice::<Vec<Item>>(&plain).unwrap_or_default())),
                media::PARTS => cut(&shown(&serde_json::from_slice::<Vec<Part>>(&plain).unwrap_or_default())),
                _ => cut(&String::from_utf8_lossy(&plain)),
            },
        })
    }

    async fn open(&self, content: &ContentRef) -> Result<Opened, Error> {
        if content.bytes > CONTENT_BYTES_MAX {
            return Ok(Opened::TooLong);
        }
        Ok(match self.journal.content(self.key, content).await? {
            Content::Bytes(bytes) => Opened::Bytes(bytes),
            Content::Erased => Opened::Erased,
        })
    }
}

fn sandbox_opened(body: SandboxOpened) -> Happened {
    Happened::SandboxOpened {
        sandbox: body.sandbox,
        provider: body.provider,
        walls: body.walls,
        missing: body.missing,
        restored: body.restored,
        start: body.start.map(started),
    }
}

fn started(start: Started) -> SandboxStart {
    let stage = |took: StageTook| SandboxStage { stage: took.stage, duration_us: took.duration_us };
    SandboxStart {
        way: start.way.map(|way| way.name().to_owned()),
        stages: start.stages.into_iter().map(stage).collect(),
    }
}

fn deferred(body: Deferred) -> Happened {
    Happened::Deferred {
        call: body.call,
        scope: body.scope,
        error: body.failure.into(),
        attempt: body.attempt,
        until_ms: body.until_ms,
    }
}

fn reserved(body: Reserved) -> Happened {
    Happened::Reserved { scope: body.scope, turn: body.turn, tokens: body.tokens, cost_micro_usd: body.cost_micro_usd }
}

fn judged(body: Judged) -> Happened {
    Happened::Judged {
        call: body.call,
        verdict: body.judgement.verdict,
        reason: body.judgement.reason,
        policies: body.judgement.policies,
        pack: body.judgement.pack,
        obligation: body.obligation.map(Into::into),
    }
}

fn checkpointed(body: Checkpointed) -> Happened {
    Happened::Checkpointed {
        turn: body.turn,
        checkpoint: body.snapshot.as_ref().map(|snapshot| snapshot.checkpoint),
        bytes: body.snapshot.as_ref().map(|snapshot| snapshot.bytes),
        entries: body.snapshot.as_ref().map(|snapshot| snapshot.entries),
        reason: body.reason,
    }
}

/// A text, cut to what an event may hold.
pub(crate) fn cut(text: &str) -> Text {
    let mut end = text.len().min(EVENT_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Text { text: Some(text[..end].to_owned()), bytes: text.len() as u64, cut: end < text.len(), erased: false }
}

/// What a reply says.
fn said(items: &[Item]) -> String {
    let texts = items.iter().filter_map(|item| match item {
        Item::Assistant { text, .. } => Some(text.as_str()),
        Item::User { .. } | Item::Reasoning { .. } | Item::Call { .. } | Item::Output { .. } => None,
    });
    texts.collect::<Vec<_>>().join("\n")
}

fn summary(item: &Item) -> Option<&str> {
    match item {
        Item::Reasoning { summary, .. } => summary.as_deref(),
        Item::User { .. } | Item::Assistant { .. } | Item::Call { .. } | Item::Output { .. } => None,
    }
}

/// What a call gave, as text.
fn shown(parts: &[Part]) -> String {
    let texts = parts.iter().map(|part| match part {
        Part::Text { text } => text.clone(),
        Part::Image { media, base64 } => format!("[{media}, {} bytes]", base64.len() / 4 * 3),
    });
    texts.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("kurz"), Text { text: Some("kurz".into()), bytes: 4, cut: false, erased: false });
        let long = format!("a{}", "ü".repeat(EVENT_TEXT_BYTES_MAX));
        let text = cut(&long);
        assert!(text.cut && text.bytes == long.len() as u64);
        assert_eq!(text.text.unwrap().len(), EVENT_TEXT_BYTES_MAX - 1);
    }
}
