//! Rust functions that tools of kind `function` run, known by name. They run in the harness's process: only code that
//! its operator compiled in gets here.

use domain::{Id, Part, id};
use futures::future::BoxFuture;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

/// What a function is told of its call besides the arguments.
#[derive(Clone, Debug)]
pub struct Context {
    /// The call.
    pub call: Id<id::Call>,
    /// Its run.
    pub run: Id<id::Run>,
    /// Its session.
    pub session: Id<id::Session>,
    /// Its tenant.
    pub tenant: String,
    /// The key under which a repetition of this call is known, when its contract has one.
    pub idempotency_key: Option<String>,
}

/// What a function answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply(pub(crate) Vec<Part>);

impl From<String> for Reply {
    fn from(text: String) -> Self {
        Self(vec![Part::Text { text }])
    }
}

impl From<&str> for Reply {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl From<Value> for Reply {
    /// A string as it is, anything else as JSON text.
    fn from(value: Value) -> Self {
        match value {
            Value::String(text) => Self::from(text),
            other => Self::from(other.to_string()),
        }
    }
}

impl From<Vec<Part>> for Reply {
    fn from(parts: Vec<Part>) -> Self {
        Self(parts)
    }
}

type Run = dyn Fn(Value, Context) -> BoxFuture<'static, Result<Reply, String>> + Send + Sync;

/// One registered function.
#[derive(Clone)]
pub(crate) struct Function(pub(crate) Arc<Run>);

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Function")
    }
}

/// The registered functions.
#[derive(Clone, Debug, Default)]
pub struct Functions(BTreeMap<String, Function>);

impl Functions {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers what the tool `name` of kind `function` runs; a second one of a name replaces the first. Its contract
    /// and schema are the tool's. Dropping the future must end what it does: that is how a call is cancelled.
    pub fn add<F, Answer, Good, Bad>(&mut self, name: impl Into<String>, function: F) -> &mut Self
    where
        F: Fn(Value, Context) -> Answer + Send + Sync + 'static,
        Answer: Future<Output = Result<Good, Bad>> + Send + 'static,
        Good: Into<Reply>,
        Bad: fmt::Display,
    {
        let run = move |arguments, context| -> BoxFuture<'static, Result<Reply, String>> {
            let answer = function(arguments, context);
            Box::pin(async move { answer.await.map(Into::into).map_err(|error| error.to_string()) })
        };
        self.0.insert(name.into(), Function(Arc::new(run)));
        self
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Function> {
        self.0.get(name)
    }

    /// The registered names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}
