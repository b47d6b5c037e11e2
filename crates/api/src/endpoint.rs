//! What the table says of an endpoint. Router, authorisation, OpenAPI, the `/docs` page and their tests all read this.

use crate::{Refusal, Scope};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use std::fmt;

/// What an endpoint does; the server answers each of these, the client asks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is explained by its row in the table")]
pub enum Operation {
    Health,
    Live,
    Ready,
    PostRun,
    ListRuns,
    GetRun,
    RunEvents,
    RunArtifacts,
    GetArtifact,
    RunDeliveries,
    CancelRun,
    PauseRun,
    ResumeRun,
    SteerRun,
    RaiseRun,
    ResolveCall,
    ListApprovals,
    GetApproval,
    PostApproval,
    ReplayRun,
    ListSessions,
    GetSession,
    SessionEvents,
    ListCheckpoints,
    ForkSession,
    DiffRuns,
    QuarantineSession,
    ReleaseSession,
    PurgeSession,
    GetWorkspace,
    DiffWorkspace,
    RestoreWorkspace,
    PutWorkspace,
    ListSandboxes,
    GetSandbox,
    ExecSandbox,
    LinkPort,
    Port,
    EndSandbox,
    Metrics,
    OpenApi,
    Docs,
    ErrorPage,
}

/// A method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reads; `HEAD` is taken too.
    Get,
    /// Changes something.
    Post,
    /// Takes something away.
    Delete,
    /// Whatever somebody else understands by it; shown as what a browser asks with.
    Any,
}

impl Method {
    /// The name in a request.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get | Self::Any => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Open,
    /// Everybody who has the link: it is signed and ends.
    Link,
    /// Who has a key with this scope.
    Scope(Scope),
}

/// A parameter in query or headers.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub description: &'static str,
    /// Its JSON Schema type.
    pub kind: &'static str,
}

/// Makes a schema.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// The schema of a type, as a reference where it has a name.
pub(crate) fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// The body of a request or an answer.
#[derive(Clone, Copy)]
pub struct Body {
    /// Its media type.
    pub media: &'static str,
    /// Its form; `None` for text and bytes.
    pub schema: Option<SchemaOf>,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.media)
    }
}

/// What a request brings along.
#[derive(Clone, Copy, Debug)]
pub enum Request {
    /// Nothing.
    Empty,
    /// A body, or nothing: every field has its default.
    Optional(Body),
    /// A body.
    Required(Body),
}

impl Request {
    /// Its body, if it has one.
    pub const fn body(self) -> Option<Body> {
        match self {
            Self::Empty => None,
            Self::Optional(body) | Self::Required(body) => Some(body),
        }
    }
}

/// An answer that is no problem.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// When it is given.
    pub description: &'static str,
    /// Its bodies, one for each media type it can be had in.
    pub bodies: &'static [Body],
}

/// An endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    /// What it does.
    pub operation: Operation,
    /// Its name in OpenAPI.
    pub id: &'static str,
    /// Its method.
    pub method: Method,
    /// Its path; a segment in braces is a parameter, one with a star is all that follows, or nothing.
    pub path: &'static str,
    /// Who may ask.
    pub access: Access,
    /// One line.
    pub summary: &'static str,
    /// More, in plain text.
    pub description: &'static str,
    /// Query parameters; others are refused.
    pub query: &'static [Parameter],
    /// Headers that mean something here.
    pub headers: &'static [Parameter],
    /// What the request brings along.
    pub request: Request,
    /// Answers that are no problem.
    pub answers: &'static [Answer],
    /// Reasons of the door, besides those that any request can meet.
    pub refusals: &'static [Refusal],
    /// Status and code of what the engine may say no with.
    pub errors: &'static [(u16, &'static str)],
    /// Shell commands that show it; `{base}` is the service's address, `{auth}` the option that brings the key.
    pub example: &'static str,
}

impl Endpoint {
    /// Reasons that any request to this endpoint can meet at the door.
    pub fn common_refusals(&self) -> &'static [Refusal] {
        const OPEN: &[Refusal] =
            &[Refusal::OriginRefused, Refusal::HostRefused, Refusal::TooManyRequests, Refusal::Internal];
        const KEYED: &[Refusal] = &[
            Refusal::NotAuthenticated,
            Refusal::ScopeMissing,
            Refusal::OriginRefused,
            Refusal::HostRefused,
            Refusal::RateLimited,
            Refusal::TooManyRequests,
            Refusal::Internal,
        ];
        match self.access {
            Access::Open | Access::Link => OPEN,
            Access::Scope(_) => KEYED,
        }
    }

    /// The names of the parameters in its path, in order.
    pub fn path_parameters(&self) -> impl Iterator<Item = &'static str> + use<> {
        let names = self.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
        names.map(|name| name.strip_prefix('*').unwrap_or(name))
    }
}
