//! The file kinds of a project, as shapes: every key, what it means, what it may be. Nothing else knows the keys.

mod agent;
mod manifest;
mod model;
mod project;
mod tool;

use crate::shape::{Field, Need, Object, Secrets, Shape};
use Need::Optional;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `topside.yaml`.
    Project,
    /// The front matter of `agents/*.md`.
    Agent,
    /// `models/*.yaml`.
    Model,
    /// `tools/*.yaml`.
    Tool,
    /// `manifests/*.yaml`.
    Manifest,
    /// `prices.yaml`.
    Prices,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] = [Self::Project, Self::Agent, Self::Model, Self::Tool, Self::Manifest, Self::Prices];

    /// The word the command line uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::Agent => "agent",
            Self::Model => "model",
            Self::Tool => "tool",
            Self::Manifest => "manifest",
            Self::Prices => "prices",
        }
    }

    /// The kind with that [`Kind::name`].
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Where such files stand in a project.
    pub const fn place(self) -> &'static str {
        match self {
            Self::Project => "topside.yaml",
            Self::Agent => "agents/*.md",
            Self::Model => "models/*.yaml",
            Self::Tool => "tools/*.yaml",
            Self::Manifest => "manifests/*.yaml",
            Self::Prices => "prices.yaml",
        }
    }

    pub(crate) const fn about(self) -> &'static str {
        match self {
            Self::Project => "What holds for the whole project. The file makes a folder a project; it may be empty.",
            Self::Agent => {
                "An agent: YAML front matter between two lines of `---`, then its instructions. A front matter in \
                 braces may stand on the lines of the `---`. The file's name is the agent's."
            }
            Self::Model => "Models by the names agents use. A project may spread them over several files.",
            Self::Tool => "A tool that agents may use. The file's name is the tool's.",
            Self::Manifest => {
                "What a fresh workspace holds and what every command in it finds in its environment. The file's name is \
                 the manifest's."
            }
            Self::Prices => {
                "What models cost, by the name the vendor knows them by, in pico-dollars per token: one dollar for a \
                 million tokens is 1000000. A run of a model that is not listed has no cost, and says so."
            }
        }
    }

    pub(crate) const fn shape(self) -> &'static Shape {
        match self {
            Self::Project => &project::PROJECT,
            Self::Agent => &agent::AGENT,
            Self::Model => &model::MODELS,
            Self::Tool => &tool::TOOL,
            Self::Manifest => &manifest::MANIFEST,
            Self::Prices => &model::PRICES,
        }
    }
}

const fn field(key: &'static str, need: Need, shape: Shape, about: &'static str) -> Field {
    Field { key, about, shape, need }
}

const fn count(max: i64) -> Shape {
    Shape::Integer { min: 1, max }
}

const VALUE: Shape = Shape::Template { secrets: Secrets::Allowed };
static VALUES: Shape = VALUE;
static NAME: Shape = Shape::Name;
static PATH: Shape = Shape::Path;

/// Seconds with three decimals at most.
const SECONDS: Shape = Shape::Milli { min: 1, max: 86_400_000 };

static RETRY: Object = Object {
    name: "retry",
    about: "How often, and how long, something that failed for a passing reason is tried again. The wait before each attempt is drawn \
            between half of it and the whole. A key that is left out keeps the value it has without this map.",
    fields: &[
        field("attempts", Optional("as without this map"), count(100), "Attempts in all, the first included."),
        field(
            "backoff_seconds",
            Optional("as without this map"),
            SECONDS,
            "Wait in seconds before the second attempt; doubled with each.",
        ),
        field("backoff_seconds_max", Optional("as without this map"), SECONDS, "The longest wait in seconds."),
        field(
            "total_seconds",
            Optional("as without this map"),
            SECONDS,
            "Seconds from the first attempt after which nothing is tried any more.",
        ),
    ],
};
