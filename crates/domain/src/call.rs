//! A tool call as it travels from a model's reply to a permit.

use crate::{Digest, Id, id};

/// A call that a model asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The call.
    pub id: Id<id::Call>,
    /// Its run.
    pub run: Id<id::Run>,
    /// Its session.
    pub session: Id<id::Session>,
    /// Its tenant.
    pub tenant: String,
    /// The declared tool it names.
    pub tool: String,
    /// As the model wrote them: JSON text, or free text of a custom tool.
    pub arguments: String,
    /// Whether `arguments` is free text.
    pub custom: bool,
}

impl Call {
    /// Digest of tool and arguments: what a permit or an approval is bound to.
    pub fn digest(&self) -> Digest {
        Digest::of_parts(&[self.tool.as_bytes(), &[0], self.arguments.as_bytes()])
    }
}
