//! A transcript as written by people or by the recorder, checked when it is read: whatever can be wrong before it is played is
//! told before it is played.

use super::pattern::{Pattern, Template, Tree};
use super::yaml;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of a transcript at most.
const TRANSCRIPT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Why a text is no transcript.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is no YAML, or not of the form.
    #[error("the transcript can't be read: {reason}")]
    Form {
        /// What is wrong.
        reason: String,
    },
    /// A step is wrong.
    #[error("step {step} of the transcript: {reason}")]
    Step {
        /// The step, counted from 1.
        step: usize,
        /// What is wrong.
        reason: String,
    },
}

impl Error {
    /// The stable code, with a page under `docs/errors/`.
    pub const fn code(&self) -> &'static str {
        "script_malformed"
    }
}

/// A checked transcript.
#[derive(Debug)]
pub(super) struct Transcript {
    pub(super) title: String,
    pub(super) sections: Vec<Section>,
}

/// What follows one message of the user.
#[derive(Debug)]
pub(super) struct Section {
    /// `None`: any message.
    pub(super) user: Option<Pattern>,
    pub(super) steps: Vec<Step>,
}

/// One reply.
#[derive(Debug)]
pub(super) struct Step {
    /// Its place in the transcript, counted from 1.
    pub(super) number: usize,
    /// What the outputs of the calls before it must hold, by call id.
    pub(super) outputs: Vec<(String, Pattern)>,
    pub(super) says: Vec<Says>,
}

impl Step {
    pub(super) fn calls(&self) -> impl Iterator<Item = (&str, &str)> {
        self.says.iter().filter_map(|says| match says {
            Says::Call { id, tool, .. } => Some((&**id, &**tool)),
            Says::Text(_) => None,
        })
    }
}

/// A piece of a reply.
#[derive(Debug)]
pub(super) enum Says {
    Text(Template),
    Call { id: String, tool: String, with: With },
}

/// What a tool is called with.
#[derive(Debug)]
pub(super) enum With {
    Arguments(Tree),
    /// Free text of a custom tool.
    Input(Template),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTranscript {
    title: String,
    steps: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    #[serde(default)]
    expect: RawExpect,
    reply: Vec<Value>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExpect {
    user: Option<String>,
    #[serde(default)]
    outputs: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawText {
    text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCallEntry {
    call: RawCall,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCall {
    id: String,
    tool: String,
    arguments: Option<Value>,
    input: Option<String>,
}

impl Transcript {
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let form = |reason: String| Error::Form { reason };
        if text.len() > TRANSCRIPT_BYTES_MAX {
            return Err(form(format!("it is longer than {TRANSCRIPT_BYTES_MAX} bytes")));
        }
        let value = yaml::read(text).map_err(form)?;
        let RawTranscript { title, steps } = serde_json::from_value(value).map_err(|error| form(error.to_string()))?;
        if steps.is_empty() {
            return Err(form("it has no steps".into()));
        }
        let mut reader = Reader { sections: Vec::new(), known: BTreeSet::new() };
        for (at, step) in steps.into_iter().enumerate() {
            reader.step(at + 1, step).map_err(|reason| Error::Step { step: at + 1, reason })?;
        }
        Ok(Self { title, sections: reader.sections })
    }
}

struct Reader {
    sections: Vec<Section>,
    /// What the present section has captured so far.
    known: BTreeSet<String>,
}

impl Reader {
    fn step(&mut self, number: usize, step: Value) -> Result<(), String> {
        let RawStep { expect, reply } = serde_json::from_value(step).map_err(|error| error.to_string())?;
        if expect.user.is_some() || self.sections.is_empty() {
            self.known.clear();
            let user = expect.user.as_deref().map(Pattern::parse).transpose()?;
            self.known.extend(user.iter().flat_map(Pattern::names));
            self.sections.push(Section { user, steps: Vec::new() });
        }
        let Some(section) = self.sections.last_mut() else { return Ok(()) };
        let before: BTreeSet<&str> = section.steps.last().into_iter().flat_map(Step::calls).map(|(id, _)| id).collect();
        let mut outputs = Vec::with_capacity(expect.outputs.len());
        for (id, pattern) in &expect.outputs {
            if !before.contains(&**id) {
                return Err(format!("`expect.outputs` names `{id}`, which the step before does not call"));
            }
            let pattern = Pattern::parse(pattern)?;
            self.known.extend(pattern.names());
            outputs.push((id.clone(), pattern));
        }
        if reply.is_empty() {
            return Err("`reply` is empty; expected `- text: …` or `- call: {id: …, tool: …, arguments: {…}}`".into());
        }
        let mut ids: BTreeSet<String> =
            section.steps.iter().flat_map(Step::calls).map(|(id, _)| id.to_owned()).collect();
        let mut says = Vec::with_capacity(reply.len());
        for entry in reply {
            let entry = says_of(entry, &self.known)?;
            if let Says::Call { id, .. } = &entry
                && !ids.insert(id.clone())
            {
                return Err(format!("the call id `{id}` is used before"));
            }
            says.push(entry);
        }
        section.steps.push(Step { number, outputs, says });
        Ok(())
    }
}

fn says_of(entry: Value, known: &BTreeSet<String>) -> Result<Says, String> {
    if entry.get("text").is_some() {
        let RawText { text } = serde_json::from_value(entry).map_err(|error| error.to_string())?;
        return Template::parse(&text, known).map(Says::Text);
    }
    let RawCallEntry { call: RawCall { id, tool, arguments, input } } = serde_json::from_value(entry)
        .map_err(|error| format!("{error}; expected `- text: …` or `- call: {{id: …, tool: …, arguments: {{…}}}}`"))?;
    let with = match (arguments, input) {
        (Some(arguments @ Value::Object(_)), None) => With::Arguments(Tree::parse(arguments, known)?),
        (None, None) => With::Arguments(Tree::Object(Vec::new())),
        (None, Some(input)) => With::Input(Template::parse(&input, known)?),
        (Some(_), Some(_)) => return Err(format!("call `{id}` has both `arguments` and `input`")),
        (Some(_), None) => return Err(format!("the `arguments` of call `{id}` must be a mapping")),
    };
    Ok(Says::Call { id, tool, with })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let error = Transcript::parse(text).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}\ngave: {error}");
    }

    #[test]
    fn what_is_wrong_is_told_before_it_is_played() {
        check("title: [", "line ");
        check("", "empty");
        check("title: x\nsteps: []", "no steps");
        check("title: x\nstep: []", "unknown field `step`");
        check("title: x\nsteps:\n- replies: []", "step 1 of the transcript: unknown field `replies`");
        check("title: x\nsteps:\n- reply: []", "`reply` is empty");
        check("title: x\nsteps:\n- reply:\n  - says: hello", "unknown field `says`");
        check("title: x\nsteps:\n- reply:\n  - call: {id: a}", "missing field `tool`");
        check("title: x\nsteps:\n- reply:\n  - call: {id: a, tool: t, arguments: [1]}", "must be a mapping");
        check("title: x\nsteps:\n- reply:\n  - call: {id: a, tool: t, arguments: {}, input: b}", "both");
        check("title: x\nsteps:\n- expect: {user: '('}\n  reply:\n  - text: x", "no regular expression");
        check("title: x\nsteps:\n- reply:\n  - text: '${rows}'", "nothing before captures `rows`");
        check(
            "title: x\nsteps:\n- reply:\n  - call: {id: a, tool: t}\n- expect: {outputs: {b: x}}\n  reply:\n  - text: y",
            "step 2 of the transcript: `expect.outputs` names `b`",
        );
        check(
            "title: x\nsteps:\n- reply:\n  - call: {id: a, tool: t}\n- reply:\n  - call: {id: a, tool: t}",
            "`a` is used before",
        );
    }

    #[test]
    fn a_step_that_expects_a_user_begins_a_section() {
        let text = "title: x\nsteps:\n- reply: [{call: {id: a, tool: t}}]\n- reply: [{text: b}]\n- expect: {user: c}\n  reply: [{text: d}]";
        let transcript = Transcript::parse(text).unwrap();
        let shape: Vec<usize> = transcript.sections.iter().map(|section| section.steps.len()).collect();
        assert_eq!(shape, [2, 1]);
    }
}
