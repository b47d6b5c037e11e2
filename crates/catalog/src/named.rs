//! What tools name: the tools that their preconditions look with, the tool that undoes a call, the agent that a tool is. All of it
//! becomes part of an agent's closure.

use crate::link::Linker;
use crate::problem::{Rule, did_you_mean, listed, shown};
use crate::project::Declared;
use crate::tools::Drafted;
use crate::yaml::Place;
use crate::{Closure, NESTED_DEPTH_MAX, Part, SwitchedOff};
use domain::agent::Caller;
use domain::contract::{Effect, Rollback};
use domain::{Agent, Tool, ToolRun};
use std::collections::BTreeMap;
use std::sync::Arc;

impl<'a> Linker<'a> {
    /// Holds what a tool names to what is declared.
    pub(crate) fn tool(&mut self, name: &str, declared: &'a Declared<Drafted>) {
        let Some(drafted) = &declared.value else { return };
        for look in &drafted.looks {
            if let Some(other) = self.other(&declared.file, look.at, &look.tool) {
                self.tells(&declared.file, look, other);
            }
        }
        if let Rollback::Compensate { with } = &drafted.tool.contract.rollback {
            let at = drafted.undo_at;
            if with == name {
                let message = format!("`{with}` can't undo itself; expected another tool");
                self.wrong(Rule::BadValue, &declared.file, at, message, None);
            } else if let Some(other) = self.other(&declared.file, at, with) {
                self.undoes(&declared.file, at, drafted, other);
            }
        }
        let agents = &self.draft.agents;
        if let ToolRun::Agent { agent } = &drafted.tool.run
            && !agents.contains_key(agent)
        {
            self.dangling(&declared.file, drafted.agent_at, "agent", agent, agents.keys());
        }
    }

    /// A tool that the harness is to call by itself.
    fn other(&mut self, file: &str, at: Place, name: &str) -> Option<&'a Drafted> {
        let tools = &self.draft.tools;
        let Some(declared) = tools.get(name) else {
            self.dangling(file, at, "tool", name, tools.keys());
            return None;
        };
        let other = declared.value.as_ref()?;
        if matches!(other.tool.run, ToolRun::Agent { .. }) {
            let message =
                format!("`{name}` is an agent, which is not asked by the harness itself; expected another tool");
            self.wrong(Rule::BadValue, file, at, message, None);
            return None;
        }
        Some(other)
    }

    /// A tool that tells of a precondition changes nothing and is given what it needs.
    fn tells(&mut self, file: &str, look: &crate::contracts::Look, other: &Drafted) {
        let name = &other.tool.name;
        if other.tool.contract.effect != Effect::Read {
            let effect = other.tool.contract.effect.name();
            let message = format!("the effect of `{name}` is `{effect}`; expected a tool that changes nothing");
            self.wrong(Rule::BadValue, file, look.at, message, None);
        }
        for (argument, at) in look.given.iter().filter(|(argument, _)| !other.arguments.contains(argument)) {
            let known = || other.arguments.iter().map(String::as_str);
            let expected = match other.arguments.len() {
                0 => "no argument".to_owned(),
                _ => format!("one of {}", listed(known())),
            };
            let message = format!("`{name}` has no argument `{}`; expected {expected}", shown(argument));
            self.wrong(Rule::BadValue, file, *at, message, did_you_mean(argument, known()));
        }
        let is_given = |needed: &&String| !look.given.iter().any(|(argument, _)| argument == *needed);
        for needed in other.required.iter().filter(is_given) {
            let message = format!("`{name}` needs the argument `{}`, which it is not given", shown(needed));
            self.wrong(Rule::MissingKey, file, look.at, message, None);
        }
    }

    /// A tool that undoes calls takes what they were made with.
    fn undoes(&mut self, file: &str, at: Place, drafted: &Drafted, other: &Drafted) {
        let name = &other.tool.name;
        if other.tool.contract.effect == Effect::Read {
            let message = format!("the effect of `{name}` is `read`; expected a tool that undoes");
            self.wrong(Rule::BadValue, file, at, message, None);
        }
        let unknown = drafted.arguments.iter().find(|argument| !other.arguments.contains(argument));
        let ungiven = other.required.iter().find(|needed| !drafted.required.contains(needed));
        let message = match (unknown, ungiven) {
            (Some(argument), _) => format!("`{name}` has no argument `{}`", shown(argument)),
            (None, Some(needed)) => format!("`{name}` needs the argument `{}`, which a call may lack", shown(needed)),
            (None, None) => return,
        };
        let message = format!("{message}; expected a tool with the same arguments");
        self.wrong(Rule::BadSchema, file, at, message, None);
    }

    /// The tools of an agent: those it names, then those that only the harness calls because a contract names them.
    pub(crate) fn tools_of(&mut self, agent: &Agent) -> Option<Vec<Tool>> {
        let draft = self.draft;
        let mut tools = Vec::new();
        let mut wanted: Vec<&str> = agent.tools.iter().map(String::as_str).collect();
        let (mut at, mut is_whole) = (0, true);
        while let Some(name) = wanted.get(at).copied() {
            let by_model = at < agent.tools.len();
            at += 1;
            let declared = draft.tools.get(name);
            if let Some(declared) = declared.filter(|declared| !by_model && !declared.missing.is_empty()) {
                self.off_through(&agent.name, Part::Tool, name, &declared.file, &declared.missing);
                is_whole = false;
            }
            let Some(drafted) = declared.and_then(|declared| declared.value.as_ref()) else {
                is_whole = false;
                continue;
            };
            let undo = match &drafted.tool.contract.rollback {
                Rollback::Compensate { with } => Some(with.as_str()),
                Rollback::None | Rollback::Checkpoint => None,
            };
            let named = drafted.looks.iter().map(|look| look.tool.as_str()).chain(undo);
            for name in named {
                if !wanted.contains(&name) {
                    wanted.push(name);
                }
            }
            let caller = if by_model { Caller::Model } else { Caller::Harness };
            tools.push(Tool { caller, ..drafted.tool.clone() });
        }
        is_whole.then_some(tools)
    }

    /// The closure of an agent, made once.
    pub(crate) fn closure(&mut self, name: &'a str) -> Option<Arc<Closure>> {
        if let Some(built) = self.built.get(name) {
            return built.clone();
        }
        let declared = self.draft.agents.get(name)?;
        self.path.push(name);
        let built = self.agent(name, declared).map(Arc::new);
        self.path.pop();
        self.built.insert(name.to_owned(), built.clone());
        built
    }

    /// The closures of the agents that an agent's tools are.
    pub(crate) fn nested_of(&mut self, agent: &Agent) -> Option<BTreeMap<String, Arc<Closure>>> {
        let draft = self.draft;
        let (mut nested, mut is_whole) = (BTreeMap::new(), true);
        for declared in agent.tools.iter().filter_map(|name| draft.tools.get(name)) {
            let Some(drafted) = &declared.value else { continue };
            let ToolRun::Agent { agent: name } = &drafted.tool.run else { continue };
            let (file, at) = (&declared.file, drafted.agent_at);
            if let Some(from) = self.path.iter().position(|above| above == name) {
                let circle = chain(self.path[from..].iter().copied().chain([name.as_str()]));
                self.wrong(Rule::BadValue, file, at, format!("the agents lead in a circle: {circle}"), None);
                is_whole = false;
                continue;
            }
            if self.path.len() > NESTED_DEPTH_MAX {
                let path = chain(self.path.iter().copied().chain([name.as_str()]));
                self.too_deep(file, at, &path);
                is_whole = false;
                continue;
            }
            match self.closure(name) {
                Some(closure) if closure.deepest().len() > NESTED_DEPTH_MAX => {
                    let path = chain([agent.name.as_str()].into_iter().chain(closure.deepest()));
                    self.too_deep(file, at, &path);
                    is_whole = false;
                }
                Some(closure) => _ = nested.insert(name.clone(), closure),
                None => {
                    self.off_through_agent(&agent.name, name);
                    is_whole = false;
                }
            }
        }
        is_whole.then_some(nested)
    }

    fn too_deep(&mut self, file: &str, at: Place, path: &str) {
        let message = format!("the agents stand more than {NESTED_DEPTH_MAX} deep in one another: {path}");
        self.wrong(Rule::BadValue, file, at, message, None);
    }

    /// An agent is off because one that its tool is, is.
    fn off_through_agent(&mut self, agent: &str, nested: &str) {
        let because = self.off.iter().filter(|off| off.part == Part::Agent && off.name == nested);
        let through = because.map(|off| SwitchedOff {
            name: agent.to_owned(),
            through: Some((Part::Agent, nested.to_owned())),
            ..off.clone()
        });
        let through: Vec<_> = through.collect();
        self.off.extend(through);
    }
}

/// Names as a path.
fn chain<'b>(names: impl Iterator<Item = &'b str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" → ")
}
