//! What a transcript says next, as a pure function of the conversation so far. Every earlier turn since the user's last message
//! is compared again: roles, tools and call ids exactly, outputs by pattern.

use super::pattern::{Captures, Pattern};
use super::transcript::{Says, Section, Step, Transcript, With};
use crate::failure::cut;
use crate::{Failure, Kind};
use domain::{Item, Part};
use std::fmt::Write;
use std::sync::Arc;

/// One reply of the model in the conversation and what came back for its calls.
#[derive(Default)]
struct Turn<'a> {
    said: Vec<&'a Item>,
    outputs: Vec<(&'a str, String)>,
}

/// The next reply.
pub(super) fn next(transcript: &Transcript, items: &[Arc<Item>]) -> Result<Vec<Item>, Failure> {
    let (section, message, since) = section(transcript, items)?;
    let mut captures = Captures::new();
    if let Some(pattern) = &section.user {
        pattern.find(&message, &mut captures);
    }
    let turns = turns(&items[since..])?;
    for (turn, step) in turns.iter().zip(&section.steps) {
        said_as_written(turn, step)?;
    }
    for (at, turn) in turns.iter().enumerate() {
        let Some(step) = section.steps.get(at + 1) else {
            let last = section.steps.last().map_or(0, |step| step.number);
            return Err(unmatched(format!(
                "the transcript has no step after step {last} for this message; what came: {}",
                cut(&outputs_line(turn))
            )));
        };
        outputs_as_expected(turn, step, &mut captures)?;
    }
    let Some(step) = section.steps.get(turns.len()) else {
        return Err(unmatched("the transcript has no step for this message".into()));
    };
    let reply = reply(step, &captures);
    let more = section.steps.get(turns.len() + 1);
    match more {
        Some(unused) if step.calls().next().is_none() => Err(Failure::new(
            Kind::ScriptUnused,
            format!(
                "step {} of the transcript ends the run, but step {} follows; hint: give step {} a call, or begin a \
                 new message with `expect: {{user: …}}`",
                step.number, unused.number, step.number
            ),
        )),
        _ => Ok(reply),
    }
}

/// The section that answers the user's last message, that message, and where the items after it begin. Messages are assigned in
/// order: each takes the first section after the one before it that expects it, else the first of all.
fn section<'a>(transcript: &'a Transcript, items: &[Arc<Item>]) -> Result<(&'a Section, String, usize), Failure> {
    let mut present = None;
    let mut after = 0;
    for (at, item) in items.iter().enumerate() {
        let Item::User { parts } = &**item else { continue };
        let message = text_of(parts);
        let expects = |section: &&(usize, &Section)| section.1.user.as_ref().is_none_or(|user| user.is_in(&message));
        let numbered: Vec<(usize, &Section)> = transcript.sections.iter().enumerate().collect();
        let (before, behind) = numbered.split_at(after.min(numbered.len()));
        let found = behind.iter().chain(before).find(expects).copied();
        if let Some((number, _)) = found {
            after = number + 1;
        }
        present = Some((found.map(|(_, section)| section), message, at + 1));
    }
    match present {
        Some((Some(section), message, since)) => Ok((section, message, since)),
        Some((None, message, _)) => {
            let mut expected = String::new();
            for section in &transcript.sections {
                let step = section.steps.first().map_or(0, |step| step.number);
                let _infallible =
                    write!(expected, " step {step}: `{}`;", section.user.as_ref().map_or("", Pattern::as_str));
            }
            let message = format!(
                "no step expects what the user said; expected one of:{} what came: {}",
                cut(&expected),
                cut(&message)
            );
            Err(unmatched(message))
        }
        None => Err(unmatched("the prompt holds no message of a user".into())),
    }
}

/// The conversation since the user's last message, reply by reply.
fn turns(items: &[Arc<Item>]) -> Result<Vec<Turn<'_>>, Failure> {
    let mut turns: Vec<Turn<'_>> = Vec::new();
    for item in items {
        match &**item {
            Item::Assistant { .. } | Item::Call { .. } | Item::Reasoning { .. } => match turns.last_mut() {
                Some(turn) if turn.outputs.is_empty() => turn.said.push(item),
                _ => turns.push(Turn { said: vec![item], outputs: Vec::new() }),
            },
            Item::Output { call_id, parts, .. } => match turns.last_mut() {
                Some(turn) => turn.outputs.push((call_id, text_of(parts))),
                None => return Err(unmatched(format!("an output of `{}` came before any call", cut(call_id)))),
            },
            Item::User { .. } => {}
        }
    }
    Ok(turns)
}

/// Compares a reply in the conversation with the step that gave it.
fn said_as_written(turn: &Turn<'_>, step: &Step) -> Result<(), Failure> {
    let written: Vec<String> = step
        .says
        .iter()
        .map(|says| match says {
            Says::Text(_) => "text".to_owned(),
            Says::Call { id, tool, .. } => format!("call {id} of {tool}"),
        })
        .collect();
    let said: Vec<String> = turn
        .said
        .iter()
        .filter_map(|item| match item {
            Item::Assistant { .. } => Some("text".to_owned()),
            Item::Call { call_id, name, .. } => Some(format!("call {call_id} of {name}")),
            Item::Reasoning { .. } | Item::User { .. } | Item::Output { .. } => None,
        })
        .collect();
    if said == written {
        return Ok(());
    }
    Err(unmatched(format!(
        "the conversation does not follow step {}; expected: {}; what came: {}",
        step.number,
        cut(&written.join(", ")),
        cut(&said.join(", "))
    )))
}

/// Compares the outputs of a turn with what the step after it expects.
fn outputs_as_expected(turn: &Turn<'_>, step: &Step, captures: &mut Captures) -> Result<(), Failure> {
    for item in &turn.said {
        let Item::Call { call_id, .. } = item else { continue };
        if !turn.outputs.iter().any(|(id, _)| id == call_id) {
            return Err(unmatched(format!("before step {}: call `{call_id}` has no output", step.number)));
        }
    }
    for (id, _) in &turn.outputs {
        if !turn.said.iter().any(|item| matches!(item, Item::Call { call_id, .. } if call_id == id)) {
            return Err(unmatched(format!(
                "before step {}: an output of `{}`, which was not called",
                step.number,
                cut(id)
            )));
        }
    }
    for (id, pattern) in &step.outputs {
        let Some((_, output)) = turn.outputs.iter().find(|(call, _)| call == id) else { continue };
        if !pattern.find(output, captures) {
            return Err(unmatched(format!(
                "step {} of the transcript expects the output of `{id}` to match `{}`; what came: {}",
                step.number,
                cut(pattern.as_str()),
                cut(output)
            )));
        }
    }
    Ok(())
}

fn reply(step: &Step, captures: &Captures) -> Vec<Item> {
    let item = |says: &Says| match says {
        Says::Text(text) => Item::Assistant { text: text.fill(captures), id: None },
        Says::Call { id, tool, with } => {
            let (arguments, custom) = match with {
                With::Arguments(tree) => (tree.fill(captures).to_string(), false),
                With::Input(text) => (text.fill(captures), true),
            };
            Item::Call { call_id: id.clone(), name: tool.clone(), arguments, custom, id: None }
        }
    };
    step.says.iter().map(item).collect()
}

fn text_of(parts: &[Part]) -> String {
    let text = |part: &Part| match part {
        Part::Text { text } => text.clone(),
        Part::Image { media, .. } => format!("[image {media}]"),
    };
    parts.iter().map(text).collect::<Vec<_>>().join("\n")
}

fn outputs_line(turn: &Turn<'_>) -> String {
    turn.outputs.iter().map(|(id, output)| format!("{id}: {output}")).collect::<Vec<_>>().join("; ")
}

fn unmatched(message: String) -> Failure {
    Failure::new(Kind::ScriptUnmatched, message)
}
