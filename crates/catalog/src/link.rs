//! What declarations say of each other: every name leads somewhere, what needs a variable that is not set is switched
//! off with everything that needs it, and the rest becomes closures.

use crate::folder::Folder;
use crate::load::Draft;
use crate::problem::{Problem, Problems, Rule, did_you_mean, listed, shown};
use crate::project::Declared;
use crate::shape::Missing;
use crate::yaml::Place;
use crate::{Catalog, Closure, Part, SwitchedOff, agents};
use domain::ModelDecl;
use domain::agent::ModelProvider;
use sandbox::Manifest;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Models that stand in for one another in a row, at most.
const FALLBACKS_MAX: usize = 8;

pub(crate) fn link(draft: Draft, folder: &Folder, problems: Vec<Problem>) -> Result<Catalog, Problems> {
    let mut linker = Linker { draft: &draft, problems, off: Vec::new(), built: BTreeMap::new(), path: Vec::new() };
    linker.declared_off();
    linker.fallbacks();
    linker.limited_models();
    linker.templates();
    for (name, declared) in &draft.tools {
        linker.tool(name, declared);
    }
    for name in draft.agents.keys() {
        linker.closure(name);
    }
    let default_agent = linker.default_agent();
    let pack = linker.pack();
    let models =
        draft.models.keys().filter_map(|alias| Some((alias.clone(), linker.in_force(alias)?.clone()))).collect();
    let Linker { problems, mut off, built, .. } = linker;
    off.extend(draft.project.switched_off.iter().cloned());
    off.sort();
    off.dedup();
    let agents_off = built.iter().filter(|(_, closure)| closure.is_none()).map(|(name, _)| name.clone()).collect();
    let agents = built.into_iter().filter_map(|(name, closure)| Some((name, closure?))).collect();
    match (Problems::of(problems), pack) {
        (None, Some(pack)) => Ok(Catalog {
            root: folder.root().to_owned(),
            default_agent,
            agents,
            models,
            pack: Arc::new(pack),
            prices: draft.prices.clone(),
            settings: draft.project.settings.clone(),
            switched_off: off,
            agents_off,
            digest: folder.digest(),
        }),
        (Some(problems), _) => Err(problems),
        (None, None) => Err(Problems::one(crate::folder::problem("policies", "no pack of policies".into(), None))),
    }
}

/// Links declarations, and collects what is wrong and what is switched off.
pub(crate) struct Linker<'a> {
    pub(crate) draft: &'a Draft,
    problems: Vec<Problem>,
    pub(crate) off: Vec<SwitchedOff>,
    /// The agents that were looked at; `None`: switched off, or wrong.
    pub(crate) built: BTreeMap<String, Option<Arc<Closure>>>,
    /// The agents that are being looked at, each a tool of the one before.
    pub(crate) path: Vec<&'a str>,
}

/// Something an agent names.
struct Named<'a> {
    part: Part,
    name: &'a str,
    at: Place,
}

impl<'a> Linker<'a> {
    pub(crate) fn wrong(&mut self, rule: Rule, file: &str, at: Place, message: String, hint: Option<String>) {
        self.problems.push(Problem { rule, file: file.to_owned(), line: at.line, column: at.column, message, hint });
    }

    /// What needs a variable itself.
    fn declared_off(&mut self) {
        let draft = self.draft;
        for (name, declared) in &draft.models {
            self.needs(Part::Model, name, declared);
        }
        for (name, declared) in &draft.tools {
            self.needs(Part::Tool, name, declared);
        }
        for (name, declared) in &draft.manifests {
            self.needs(Part::Manifest, name, declared);
        }
        for (name, declared) in &draft.agents {
            self.needs(Part::Agent, name, declared);
        }
    }

    fn needs<T>(&mut self, part: Part, name: &str, declared: &Declared<T>) {
        self.off.extend(declared.missing.iter().map(|missing| SwitchedOff {
            part,
            name: name.to_owned(),
            through: None,
            variable: missing.variable.clone(),
            file: declared.file.clone(),
            line: missing.at.line,
        }));
    }

    /// A limit on a model's runs names a model.
    fn limited_models(&mut self) {
        let draft = self.draft;
        for (alias, at) in &draft.project.models_limited {
            if !draft.models.contains_key(alias) {
                self.dangling("topside.yaml", *at, "model", alias, draft.models.keys());
            }
        }
    }

    fn fallbacks(&mut self) {
        let models = &self.draft.models;
        for (alias, declared) in models {
            let Some(drafted) = &declared.value else { continue };
            let Some(fallback) = &drafted.decl.fallback else { continue };
            let at = drafted.fallback_at;
            if !models.contains_key(fallback) {
                self.dangling(&declared.file, at, "model", fallback, models.keys());
                continue;
            }
            let mut steps = 0;
            let mut next = Some(fallback);
            while let Some(name) = next {
                steps += 1;
                if name == alias || steps > FALLBACKS_MAX {
                    let message =
                        format!("the fallbacks of `{alias}` lead in a circle or are more than {FALLBACKS_MAX}");
                    self.wrong(Rule::BadValue, &declared.file, at, message, None);
                    break;
                }
                next = models.get(name).and_then(|model| model.value.as_ref()?.decl.fallback.as_ref());
            }
        }
    }

    pub(crate) fn dangling<'b>(
        &mut self,
        file: &str,
        at: Place,
        what: &str,
        name: &str,
        known: impl Iterator<Item = &'b String> + Clone,
    ) {
        let names = known.map(String::as_str);
        let expected = if names.clone().next().is_none() {
            "none is declared".to_owned()
        } else {
            format!("expected one of {}", listed(names.clone()))
        };
        let message = format!("there is no {what} `{}`; {expected}", shown(name));
        self.wrong(Rule::Dangling, file, at, message, did_you_mean(name, names));
    }

    /// Puts together what an agent pins; `None` when it is switched off, or wrong.
    pub(crate) fn agent(&mut self, name: &str, declared: &'a Declared<agents::Drafted>) -> Option<Closure> {
        let draft = self.draft;
        let (drafted, file) = (declared.value.as_ref()?, &declared.file);
        let agent = &drafted.agent;
        let mut named = vec![Named { part: Part::Model, name: &agent.model, at: drafted.model_at }];
        named.extend(agent.tools.iter().zip(&drafted.tools_at).map(|(name, at)| Named {
            part: Part::Tool,
            name,
            at: *at,
        }));
        if let Some(manifest) = agent.sandbox.as_ref().and_then(|sandbox| sandbox.manifest.as_ref()) {
            named.push(Named { part: Part::Manifest, name: manifest, at: drafted.manifest_at });
        }
        let mut whole = declared.missing.is_empty();
        for one in named {
            whole &= self.is_on(name, file, &one);
        }
        let model = self.in_force(&agent.model);
        self.cost(file, drafted);
        let tools = self.tools_of(agent);
        let nested = self.nested_of(agent);
        let manifest = agent.sandbox.as_ref().and_then(|sandbox| sandbox.manifest.as_ref());
        let manifest: Option<Option<Manifest>> = match manifest {
            None => Some(None),
            Some(name) => draft.manifests.get(name).and_then(|declared| declared.value.clone()).map(Some),
        };
        let (true, Some(model), Some(tools), Some(manifest), Some(nested)) = (whole, model, tools, manifest, nested)
        else {
            return None;
        };
        let mut pinned = agent.clone();
        if let (Some(sandbox), Some(declared)) = (&mut pinned.sandbox, &agent.sandbox) {
            // The run pins what a template is made of, not its name.
            sandbox.root = self.root(&declared.root, file, drafted.root_at)?;
        }
        match Closure::new(pinned, model.clone(), tools, manifest, nested) {
            Ok(closure) => Some(closure),
            // Told with the path where it is found.
            Err(crate::BadClosure::TooDeep) => None,
            Err(error) => {
                self.wrong(Rule::BadValue, file, Place::START, error.to_string(), None);
                None
            }
        }
    }

    /// Whether what an agent names is there and on; says so when it is not.
    fn is_on(&mut self, agent: &str, file: &str, one: &Named<'_>) -> bool {
        let draft = self.draft;
        let (known, missing): (Vec<&String>, _) = match one.part {
            Part::Model => (draft.models.keys().collect(), draft.models.get(one.name).map(source)),
            Part::Tool => (draft.tools.keys().collect(), draft.tools.get(one.name).map(source)),
            Part::Manifest | Part::Agent | Part::Setting => {
                (draft.manifests.keys().collect(), draft.manifests.get(one.name).map(source))
            }
        };
        let Some((needed, missing)) = missing else {
            if one.part == Part::Tool && crate::tools::BUILT_IN.contains(&one.name) {
                let message = format!("`{}` is a tool of the harness; expected a declared tool", one.name);
                let hint = Some("leave it out; `sandbox` and its capabilities bring it".to_owned());
                self.wrong(Rule::Dangling, file, one.at, message, hint);
            } else {
                self.dangling(file, one.at, &one.part.to_string(), one.name, known.into_iter());
            }
            return false;
        };
        if missing.is_empty() || one.part == Part::Model && self.in_force(one.name).is_some() {
            return true;
        }
        self.off_through(agent, one.part, one.name, needed, missing);
        false
    }

    /// An agent is off through something that it uses.
    pub(crate) fn off_through(&mut self, agent: &str, part: Part, name: &str, file: &str, missing: &[Missing]) {
        self.off.extend(missing.iter().map(|missing| SwitchedOff {
            part: Part::Agent,
            name: agent.to_owned(),
            through: Some((part, name.to_owned())),
            variable: missing.variable.clone(),
            file: file.to_owned(),
            line: missing.at.line,
        }));
    }

    /// The model itself, or the first of its fallbacks whose variables are set.
    fn in_force(&self, alias: &str) -> Option<&'a ModelDecl> {
        let mut alias = alias;
        for _ in 0..=FALLBACKS_MAX {
            let declared = self.draft.models.get(alias)?;
            let drafted = declared.value.as_ref()?;
            if declared.missing.is_empty() {
                return Some(&drafted.decl);
            }
            alias = drafted.decl.fallback.as_deref()?;
        }
        None
    }

    /// A limit on cost holds only where costs are known.
    fn cost(&mut self, file: &str, drafted: &agents::Drafted) {
        let (Some(at), Some(model)) = (drafted.cost_at, self.in_force(&drafted.agent.model)) else { return };
        if model.provider == ModelProvider::Script || self.draft.prices.contains_key(&model.name) {
            return;
        }
        let name = shown(&model.name);
        let message = format!("a limit on cost needs the price of `{name}`, which is not listed");
        let hint = match did_you_mean(&model.name, self.draft.prices.keys().map(String::as_str)) {
            Some(near) => format!("{near} (prices.yaml)"),
            None => format!("list `{name}` in prices.yaml"),
        };
        self.wrong(Rule::Dangling, file, at, message, Some(hint));
    }

    fn default_agent(&mut self) -> Option<String> {
        let draft = self.draft;
        if draft.agents.is_empty() {
            let hint = "begin with agents/assistant.md".to_owned();
            let message = "the project has no agent; expected files `agents/*.md`".to_owned();
            self.wrong(Rule::Dangling, "topside.yaml", Place::START, message, Some(hint));
        }
        match &draft.project.default_agent {
            Some((name, at)) => {
                if !draft.agents.contains_key(name) && !draft.agents.is_empty() {
                    self.dangling("topside.yaml", *at, "agent", name, draft.agents.keys());
                }
                Some(name.clone())
            }
            None if draft.agents.len() == 1 => draft.agents.keys().next().cloned(),
            None => None,
        }
    }

    fn pack(&mut self) -> Option<policy::Pack> {
        let pack = if self.draft.policies.is_empty() {
            policy::Pack::dev()
        } else {
            policy::Pack::new("project", &self.draft.policies)
        };
        let (file, line, message, hint) = match pack {
            Ok(pack) => return Some(pack),
            Err(policy::Error::Policy { file, line, detail }) => (file, line, detail, None),
            Err(policy::Error::Duplicate { file, line, id, other }) => {
                let hint = Some("give each policy an @id of its own".to_owned());
                (file, line, format!("the id `{id}` is taken by {other}"), hint)
            }
            Err(error @ policy::Error::Schema { .. }) => ("policies".to_owned(), 1, error.to_string(), None),
        };
        self.wrong(Rule::Policy, &file, Place { line, column: 1 }, message, hint);
        None
    }
}

/// Where a declaration stands and what it misses.
fn source<T>(declared: &Declared<T>) -> (&str, &[Missing]) {
    (&declared.file, &declared.missing)
}
