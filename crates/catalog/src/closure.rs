//! An agent with everything it names, as one value with a digest: what a run pins. Policies, keys and prices are never
//! part of it. `${env}` in URLs, keys, headers and environments, and every `${secret}`, stand unexpanded.

use domain::{Agent, Digest, ModelDecl, Tool};
use sandbox::Manifest;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The form that [`Closure::bytes`] has; another one is refused.
const FORM: u32 = 1;
/// Bytes of a closure at most: what a pinned one may weigh before it is read.
pub const CLOSURE_BYTES_MAX: usize = 16 << 20;
/// How deep agents may stand in one another: an agent that asks another stands above one level.
pub const NESTED_DEPTH_MAX: usize = 4;

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
    /// The agents that its tools are, by name.
    nested: BTreeMap<String, Arc<Self>>,
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
    /// Each with exactly the bytes that it has by itself, so that its digest is the same.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    nested: BTreeMap<&'a str, &'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read<'a> {
    form: u32,
    agent: Agent,
    model: ModelDecl,
    tools: Vec<Tool>,
    manifest: Option<Manifest>,
    #[serde(borrow, default)]
    nested: BTreeMap<String, &'a RawValue>,
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
    /// Agents stand deeper in one another than [`NESTED_DEPTH_MAX`].
    #[error("the agents of the stored closure stand more than {NESTED_DEPTH_MAX} deep in one another")]
    TooDeep,
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
            Self::TooDeep => "closure_too_deep",
            Self::Unreadable { .. } => "closure_unreadable",
            Self::Form { .. } => "closure_form",
        }
    }
}

impl Closure {
    /// Puts a closure together. Its bytes depend on nothing but the arguments: fields come in the order of their types,
    /// maps are sorted. `tools` are those that the agent names, in that order, then those that only the harness calls.
    pub fn new(
        agent: Agent,
        model: ModelDecl,
        tools: Vec<Tool>,
        manifest: Option<Manifest>,
        nested: BTreeMap<String, Arc<Self>>,
    ) -> Result<Self, BadClosure> {
        let mut closure = Self { agent, model, tools, manifest, nested, bytes: Vec::new(), digest: Digest::ZERO };
        closure.bytes = closure.written().map_err(|error| BadClosure::Unreadable { detail: error.to_string() })?;
        if closure.bytes.len() > CLOSURE_BYTES_MAX {
            return Err(BadClosure::TooLarge { bytes: closure.bytes.len() });
        }
        if closure.deepest().len() > NESTED_DEPTH_MAX + 1 {
            return Err(BadClosure::TooDeep);
        }
        closure.digest = Digest::of(&closure.bytes);
        Ok(closure)
    }

    fn written(&self) -> Result<Vec<u8>, serde_json::Error> {
        let Self { agent, model, tools, manifest, nested, .. } = self;
        let raw = |closure: &'_ Self| serde_json::from_slice::<Box<RawValue>>(&closure.bytes);
        let raw: Vec<_> = nested.values().map(|closure| raw(closure)).collect::<Result<_, _>>()?;
        let nested = nested.keys().map(String::as_str).zip(raw.iter().map(|raw| &**raw)).collect();
        serde_json::to_vec(&Written { form: FORM, agent, model, tools, manifest: manifest.as_ref(), nested })
    }

    /// The same agent with another model.
    pub fn with_model(&self, model: ModelDecl) -> Result<Self, BadClosure> {
        let Self { agent, tools, manifest, nested, .. } = self.clone();
        Self::new(Agent { model: model.alias.clone(), ..agent }, model, tools, manifest, nested)
    }

    /// The same agent with another provider of sandboxes, also for the agents inside it; one that has no sandbox stays as it is.
    pub fn with_provider(&self, provider: &str) -> Result<Self, BadClosure> {
        let Self { mut agent, model, tools, manifest, nested, .. } = self.clone();
        let inside = |(name, closure): (String, Arc<Self>)| Ok((name, Arc::new(closure.with_provider(provider)?)));
        let nested = nested.into_iter().map(inside).collect::<Result<_, BadClosure>>()?;
        if let Some(sandbox) = &mut agent.sandbox {
            provider.clone_into(&mut sandbox.provider);
        }
        Self::new(agent, model, tools, manifest, nested)
    }

    /// The agent that a tool of this one is, by its name.
    pub fn nested(&self, agent: &str) -> Option<Arc<Self>> {
        self.nested.get(agent).cloned()
    }

    /// The names from this agent down to the one that stands deepest in it.
    pub fn deepest(&self) -> Vec<&str> {
        let below = self.nested.values().map(|closure| closure.deepest()).max_by_key(Vec::len);
        let mut path = vec![self.agent.name.as_str()];
        path.extend(below.unwrap_or_default());
        path
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
        Self::read(bytes, NESTED_DEPTH_MAX)
    }

    fn read(bytes: &[u8], depth_left: usize) -> Result<Self, BadClosure> {
        let unreadable = |error: serde_json::Error| BadClosure::Unreadable { detail: error.to_string() };
        let read: Read<'_> = serde_json::from_slice(bytes).map_err(unreadable)?;
        if read.form != FORM {
            return Err(BadClosure::Form { form: read.form });
        }
        let Read { agent, model, tools, manifest, nested, .. } = read;
        let mut closures = BTreeMap::new();
        for (name, raw) in nested {
            let depth_left = depth_left.checked_sub(1).ok_or(BadClosure::TooDeep)?;
            closures.insert(name, Arc::new(Self::read(raw.get().as_bytes(), depth_left)?));
        }
        let digest = Digest::of(bytes);
        Ok(Self { agent, model, tools, manifest, nested: closures, bytes: bytes.to_vec(), digest })
    }

    /// Whether another model than the one the agent names is in force, because a variable of that one is not set.
    pub fn model_stands_in(&self) -> bool {
        self.model.alias != self.agent.model
    }
}
