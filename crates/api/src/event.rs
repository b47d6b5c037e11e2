//! What an event stream carries: records of the log, and what happens between them. What a record says is in `happened`.

use crate::{Happened, Text, schema};
use domain::{Id, id};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One event of a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A record. Only these carry an SSE id, which is their position.
    Record(Box<Record>),
    /// Something between two records; not kept, and lost to those who look away.
    Delta(Delta),
    /// The reader was too slow and missed deltas; records go on without a gap.
    Resync(Resync),
}

impl Event {
    /// The SSE event name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Record(record) => record.happened.kind(),
            Self::Delta(delta) => delta.name(),
            Self::Resync(_) => Resync::NAME,
        }
    }

    /// Reads an SSE event; `None` for a name that this version does not know.
    ///
    /// # Errors
    /// When the data is not what the name says.
    pub fn parse(name: &str, data: &str) -> Result<Option<Self>, serde_json::Error> {
        if name == Resync::NAME {
            return serde_json::from_str(data).map(|resync| Some(Self::Resync(resync)));
        }
        if Delta::NAMES.contains(&name) {
            return serde_json::from_str(data).map(|delta| Some(Self::Delta(delta)));
        }
        if domain::Event::KINDS.contains(&name) {
            return serde_json::from_str(data).map(|record| Some(Self::Record(record)));
        }
        Ok(None)
    }
}

/// A record of a session's log, its contents resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    /// Where it stands in the log, from 0.
    pub position: u64,
    /// When it was written, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The run it belongs to.
    #[schemars(schema_with = "schema::run")]
    pub run_id: Id<id::Run>,
    /// On whose authority it was written.
    #[schemars(schema_with = "schema::principal")]
    pub principal: Id<id::Principal>,
    /// What happened.
    #[serde(flatten)]
    pub happened: Happened,
}

/// A page of records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RecordPage {
    /// The records, in order.
    pub records: Vec<Record>,
    /// The `after` of the next page; absent when there is no more for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// Something between two records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "delta", rename_all = "snake_case")]
pub enum Delta {
    /// The model is asked.
    Asking {
        /// The run.
        #[schemars(schema_with = "schema::run")]
        run_id: Id<id::Run>,
        /// The turn, from 1.
        turn: u32,
    },
    /// The model says something.
    Text {
        /// The run.
        #[schemars(schema_with = "schema::run")]
        run_id: Id<id::Run>,
        /// The next piece.
        text: String,
    },
    /// The model shows a summary of its reasoning.
    Reasoning {
        /// The run.
        #[schemars(schema_with = "schema::run")]
        run_id: Id<id::Run>,
        /// The next piece.
        text: String,
    },
    /// A call is performed.
    Performing {
        /// The run.
        #[schemars(schema_with = "schema::run")]
        run_id: Id<id::Run>,
        /// The call.
        #[schemars(schema_with = "schema::call")]
        call: Id<id::Call>,
        /// The tool.
        tool: String,
        /// Its arguments, as the model wrote them.
        arguments: Text,
    },
    /// A call's output so far.
    Output {
        /// The run.
        #[schemars(schema_with = "schema::run")]
        run_id: Id<id::Run>,
        /// The call.
        #[schemars(schema_with = "schema::call")]
        call: Id<id::Call>,
        /// The next piece; bytes that are no UTF-8 are replaced by U+FFFD.
        text: String,
    },
}

impl Delta {
    /// Every SSE event name of a delta.
    pub const NAMES: [&'static str; 5] =
        ["delta.asking", "delta.text", "delta.reasoning", "delta.performing", "delta.output"];

    /// The SSE event name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Asking { .. } => "delta.asking",
            Self::Text { .. } => "delta.text",
            Self::Reasoning { .. } => "delta.reasoning",
            Self::Performing { .. } => "delta.performing",
            Self::Output { .. } => "delta.output",
        }
    }
}

/// The reader was too slow and missed deltas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resync {
    /// The position of the next record in this stream.
    pub next_position: u64,
    /// How many deltas were dropped.
    pub dropped: u64,
}

impl Resync {
    /// The SSE event name.
    pub const NAME: &'static str = "resync";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_reads_back_by_its_name() {
        let run_id = Id::from_bytes([1; 16]);
        let record = Record {
            position: 3,
            at_ms: 5,
            run_id,
            principal: Id::from_bytes([2; 16]),
            happened: Happened::CancelRequested { when: domain::record::When::Now },
        };
        let events = [
            Event::Record(Box::new(record.clone())),
            Event::Delta(Delta::Text { run_id, text: "a".into() }),
            Event::Resync(Resync { next_position: 4, dropped: 2 }),
        ];
        for event in events {
            let data = match &event {
                Event::Record(record) => serde_json::to_string(record),
                Event::Delta(delta) => serde_json::to_string(delta),
                Event::Resync(resync) => serde_json::to_string(resync),
            }
            .unwrap();
            assert_eq!(Event::parse(event.name(), &data).unwrap(), Some(event), "{data}");
        }
        assert_eq!(Event::parse("later", "{}").unwrap(), None);
        assert!(Event::parse("finished", "{}").is_err());
        let json = serde_json::to_string(&record).unwrap();
        assert!(json.starts_with(r#"{"position":3,"at_ms":5,"run_id":"run_"#), "{json}");
        assert!(json.ends_with(r#""kind":"cancel_requested","body":{}}"#), "{json}");
    }
}
