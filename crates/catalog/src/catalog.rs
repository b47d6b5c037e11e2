//! What a project declares, read and linked. How it is read, `load` knows.

use crate::problem::nearest;
use crate::{Closure, Problems, Settings};
use domain::usage::Price;
use domain::{Digest, ModelDecl};
use indexmap::IndexMap;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A project that was read and found right.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// The project's folder, absolute.
    pub root: PathBuf,
    /// The agent that serves when none is named.
    pub default_agent: Option<String>,
    /// The agents that can run, by name.
    pub(crate) agents: IndexMap<String, Arc<Closure>>,
    /// The models that can be asked, by alias; for one that is switched off, what stands in for it.
    pub(crate) models: BTreeMap<String, ModelDecl>,
    /// The policies in force: the project's, or the built-in pack `dev`.
    pub pack: Arc<policy::Pack>,
    /// What models cost, by the name the vendor knows them by.
    pub prices: BTreeMap<String, Price>,
    /// What `topside.yaml` sets.
    pub settings: Settings,
    /// What is declared and does not run because a variable is not set.
    pub switched_off: Vec<SwitchedOff>,
    /// Names of the agents that are declared but switched off.
    pub(crate) agents_off: Vec<String>,
    /// SHA-256 over the names and bytes of all files that were read.
    pub digest: Digest,
}

/// A kind of declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// An agent.
    Agent,
    /// A model.
    Model,
    /// A tool.
    Tool,
    /// A manifest.
    Manifest,
    /// A part of `topside.yaml`.
    Setting,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::Model => "model",
            Self::Tool => "tool",
            Self::Manifest => "manifest",
            Self::Setting => "setting",
        })
    }
}

/// Something that does not run because a variable is not set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SwitchedOff {
    /// What kind of thing.
    pub part: Part,
    /// Its name.
    pub name: String,
    /// What it uses that is switched off; `None` when it needs the variable itself.
    pub through: Option<(Part, String)>,
    /// The variable of the environment.
    pub variable: String,
    /// The file that needs it, relative to the project.
    pub file: String,
    /// The line there, from 1.
    pub line: usize,
}

impl fmt::Display for SwitchedOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { part, name, through, variable, file, line } = self;
        write!(f, "{part} `{name}` is switched off: ")?;
        if let Some((part, name)) = through {
            write!(f, "its {part} `{name}` needs ")?;
        } else {
            f.write_str("it needs ")?;
        }
        write!(f, "the environment variable {variable}, which is not set ({file}:{line})")
    }
}

/// Why an agent can't be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAgent {
    /// None was named, and `topside.yaml` names none.
    #[error("no agent was named and the project has no default; expected one of {}; hint: set `default_agent` in topside.yaml", names(.known))]
    NoDefault {
        /// Those that can run.
        known: Vec<String>,
    },
    /// There is none of that name.
    #[error("there is no agent `{asked}`; expected one of {}{}", names(.known), .nearest.as_deref().map(|name| format!("; hint: did you mean `{name}`?")).unwrap_or_default())]
    Unknown {
        /// The name, cut to what a message can hold.
        asked: String,
        /// The nearest right name.
        nearest: Option<String>,
        /// Those that can run.
        known: Vec<String>,
    },
    /// It is declared, but something it needs is not set.
    #[error("{}; hint: set the variable and start again", because.first().map(ToString::to_string).unwrap_or_else(|| format!("agent `{asked}` is switched off")))]
    SwitchedOff {
        /// The name.
        asked: String,
        /// What it needs, in the order it was found.
        because: Vec<SwitchedOff>,
    },
}

impl NoAgent {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoDefault { .. } => "agent_no_default",
            Self::Unknown { .. } => "agent_unknown",
            Self::SwitchedOff { .. } => "agent_switched_off",
        }
    }
}

fn names(known: &[String]) -> String {
    if known.is_empty() { "none".to_owned() } else { crate::problem::listed(known.iter().map(String::as_str)) }
}

impl Catalog {
    /// Reads the project in `root`. `environment` gives the variables of `${env.NAME}`; an empty one counts as not set.
    /// Everything that is wrong is told at once; a variable that is not set switches off what needs it and is no problem,
    /// except in files that hold for the whole project.
    pub fn load(root: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, Problems> {
        crate::load::load(root, environment).result
    }

    /// The model of that alias, or what stands in for it while a variable that it needs is not set; see
    /// [`Closure::with_model`].
    pub fn model(&self, alias: &str) -> Option<&ModelDecl> {
        self.models.get(alias)
    }

    /// The agent of that name, or the default.
    pub fn agent(&self, name: Option<&str>) -> Result<Arc<Closure>, NoAgent> {
        let known = || self.agents.keys().cloned().collect::<Vec<_>>();
        let Some(asked) = name.or(self.default_agent.as_deref()) else {
            return Err(NoAgent::NoDefault { known: known() });
        };
        if let Some(closure) = self.agents.get(asked) {
            return Ok(closure.clone());
        }
        if self.agents_off.iter().any(|name| name == asked) {
            let about = |off: &&SwitchedOff| off.part == Part::Agent && off.name == asked;
            let because = self.switched_off.iter().filter(about).cloned().collect();
            return Err(NoAgent::SwitchedOff { asked: asked.to_owned(), because });
        }
        let nearest = nearest(asked, self.agents.keys().map(String::as_str)).map(str::to_owned);
        Err(NoAgent::Unknown { asked: crate::problem::shown(asked), nearest, known: known() })
    }

    /// The agents that can run, in the order of their names.
    pub fn agents(&self) -> impl Iterator<Item = &Arc<Closure>> {
        self.agents.values()
    }

    /// Names of agents that are declared but switched off.
    pub fn agents_off(&self) -> &[String] {
        &self.agents_off
    }
}
