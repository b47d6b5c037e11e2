//! A conversation as the model sees it, in no vendor's form.

use serde::{Deserialize, Serialize};

/// One item of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Item {
    /// What the user said.
    User {
        /// Its parts.
        parts: Vec<Part>,
    },
    /// What the model said.
    Assistant {
        /// The text.
        text: String,
        /// The vendor's id of the message, when it gave one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
    },
    /// The model's reasoning: opaque, handed back to the wire it came from and to no other.
    Reasoning {
        /// The wire that understands it (`responses`).
        wire: String,
        /// The vendor's item as it came.
        opaque: String,
        /// The summary the vendor shows, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        summary: Option<String>,
    },
    /// The model calls a tool.
    Call {
        /// The id under which the model expects the output.
        call_id: String,
        /// The tool's name.
        name: String,
        /// JSON text, or free text for a custom tool; as the model wrote it, possibly malformed.
        arguments: String,
        /// Whether `arguments` is free text.
        #[serde(default)]
        custom: bool,
        /// The vendor's id of the item, when it gave one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
    },
    /// What a call gave.
    Output {
        /// The call.
        call_id: String,
        /// Its parts.
        parts: Vec<Part>,
        /// Whether the call was of a custom tool.
        #[serde(default)]
        custom: bool,
    },
}

/// A part of a message or an output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Part {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// An image.
    Image {
        /// Media type, such as `image/png`.
        media: String,
        /// The bytes in base64.
        base64: String,
    },
}

impl Part {
    /// A text part.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }
}

/// A tool as it is offered to a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolSpec {
    /// The name the model calls it by.
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// JSON Schema of the arguments, as JSON text.
    pub input_schema: String,
    /// A grammar for wires that know custom (free text) tools; others offer the function form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grammar: Option<Grammar>,
}

/// The grammar of a custom tool's input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grammar {
    /// `lark` or `regex`.
    pub syntax: String,
    /// The definition.
    pub definition: String,
}
