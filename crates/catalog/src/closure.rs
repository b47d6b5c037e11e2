//! An agent with everything it names, as one value with a digest: what a run pins. Policies, keys and prices are never
//! part of it. `${env}` in URLs, keys, headers and environments, and every `${secret}`, stand unexpanded.

use domain::{Agent, Digest, ModelDecl, Tool};
use sandbox::Manifest;
use serde::{Deserialize, Serialize};

/// The form that [`Closure::bytes`] has; another one is refused.
const FORM: u32 = 1;
/// Bytes of a closure at most: what a pinned one may weigh before it is read.
pub const CLOSURE_BYTES_MAX: usize = 16 << 20;

/// An agent with its model, tools and manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closure {
    /// The agent.
    pub agent: Agent,
    /// The model in force: the one the agent names, or the first of its fallbacks whose variables are set.
    pub model: ModelDecl,
    /// Its declared tools, in the order the agent names them.
    pub tools: Vec<Tool>,
    /// What its workspace begins with, if it names a manifest.
    pub manifest: Option<Manifest>,
    bytes: Vec<u8>,
    digest: Digest,
}

#[derive(Serialize)]
struct Written<'a> {
    form: u32,
    agent: &'a Agent,
    model: &'a ModelDecl,
    tools: &'a [Tool],
    manifest: Option<&'a Manifest>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    form: u32,
    agent: Agent,
    model: ModelDecl,
    tools: Vec<Tool>,
    manifest: Option<Manifest>,
}

/// Why stored bytes are no closure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadClosure {
    /// More than [`CLOSURE_BYTES_MAX`].
    #[error("a closure of {bytes} bytes is too large; expected at most {CLOSURE_BYTES_MAX}")]
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// Not the JSON of a closure.
    #[error("the stored closure can't be read: {detail}")]
    Unreadable {
        /// What is wrong.
        detail: String,
    },
    /// Written in a form that this program does not know.
    #[error("the stored closure has form {form}; expected {FORM}; hint: a newer version of this program wrote it")]
    Form {
        /// Its form.
        form: u32,
    },
}

impl BadClosure {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "closure_too_large",
            Self::Unreadable { .. } => "closure_unreadable",
            Self::Form { .. } => "closure_form",
        }
    }
}

impl Closure {
    /// Puts a closure together. Its bytes depend on nothing but the arguments: fields come in the order of their types,
    /// maps are sorted.
    pub fn new(
        agent: Agent,
        model: ModelDecl,
        tools: Vec<Tool>,
        manifest: Option<Manifest>,
    ) -> Result<Self, BadClosure> {
        let written = Written { form: FORM, agent: &agent, model: &model, tools: &tools, manifest: manifest.as_ref() };
        let bytes =
            serde_json::to_vec(&written).map_err(|error| BadClosure::Unreadable { detail: error.to_string() })?;
        if bytes.len() > CLOSURE_BYTES_MAX {
            return Err(BadClosure::TooLarge { bytes: bytes.len() });
        }
        let digest = Digest::of(&bytes);
        Ok(Self { agent, model, tools, manifest, bytes, digest })
    }

    /// The canonical JSON.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of [`Closure::bytes`].
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Reads what [`Closure::bytes`] gave, perhaps years ago. The digest is that of the bytes given.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadClosure> {
        if bytes.len() > CLOSURE_BYTES_MAX {
            return Err(BadClosure::TooLarge { bytes: bytes.len() });
        }
        let unreadable = |error: serde_json::Error| BadClosure::Unreadable { detail: error.to_string() };
        let read: Read = serde_json::from_slice(bytes).map_err(unreadable)?;
        if read.form != FORM {
            return Err(BadClosure::Form { form: read.form });
        }
        let Read { agent, model, tools, manifest, .. } = read;
        Ok(Self { agent, model, tools, manifest, bytes: bytes.to_vec(), digest: Digest::of(bytes) })
    }

    /// Whether another model than the one the agent names is in force, because a variable of that one is not set.
    pub fn model_stands_in(&self) -> bool {
        self.model.alias != self.agent.model
    }
}
