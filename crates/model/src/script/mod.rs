//! Transcripts that are played as a model. Where a transcript stands is read off the prompt alone: nothing is kept in memory, so
//! a run goes on after the death of its process.

mod pattern;
mod play;
mod transcript;
mod yaml;

pub use transcript::Error;

use crate::{Delta, Deltas, Failure, Finish, Model, Prompt, Reply};
use async_trait::async_trait;
use domain::{Item, Part, Usage};
use transcript::Transcript;

/// Text is given out in at most so many pieces, so that a watcher with a channel of ordinary size sees all of it.
const DELTAS_MAX: usize = 64;

/// A transcript that is played.
#[derive(Debug)]
pub struct Script {
    transcript: Transcript,
}

impl Script {
    /// Reads a transcript; its form is told in `docs/reference/models.md`.
    ///
    /// # Errors
    /// When it is no transcript: the step, the field and what was expected.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Ok(Self { transcript: Transcript::parse(text)? })
    }
}

#[async_trait]
impl Model for Script {
    fn name(&self) -> &str {
        &self.transcript.title
    }

    async fn reply(&self, prompt: &Prompt, deltas: &Deltas) -> Result<Reply, Failure> {
        deltas.begin();
        let usage = Usage { model_calls: 1, input_tokens: prompt_tokens(prompt), ..Usage::default() };
        let items = play::next(&self.transcript, &prompt.items).map_err(|failure| failure.using(usage))?;
        for item in items.iter().filter(|_| deltas.watched()) {
            show(item, deltas).await;
        }
        let output_tokens = items.iter().map(item_characters).sum::<u64>().div_ceil(4);
        Ok(Reply {
            finish: Finish::of(&items),
            items,
            usage: Usage { output_tokens, ..usage },
            model: self.transcript.title.clone(),
            attempts: 1,
        })
    }
}

async fn show(item: &Item, deltas: &Deltas) {
    match item {
        Item::Assistant { text, .. } => {
            for piece in pieces(text) {
                deltas.offer(Delta::Text(piece.to_owned()));
                // Lets a watcher on the same thread read before the next piece.
                tokio::task::yield_now().await;
            }
        }
        Item::Call { name, arguments, .. } => {
            deltas.offer(Delta::CallStarted { name: name.clone() });
            deltas.offer(Delta::CallArguments(arguments.clone()));
        }
        Item::User { .. } | Item::Reasoning { .. } | Item::Output { .. } => {}
    }
}

/// The text in pieces of whole words.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let size = (text.len() / DELTAS_MAX).max(1);
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let from = rest.ceil_char_boundary(size.min(rest.len()));
        let end = rest[from..].find(' ').map_or(rest.len(), |at| from + at + 1);
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(piece)
    })
}

/// Tokens of a prompt, at four characters each: no tokenizer says so, but it is the same every time and grows with the prompt,
/// so that limits work.
fn prompt_tokens(prompt: &Prompt) -> u64 {
    let items: u64 = prompt.items.iter().map(|item| item_characters(item)).sum();
    (characters(&prompt.instructions) + items).div_ceil(4)
}

fn item_characters(item: &Item) -> u64 {
    match item {
        Item::Assistant { text, .. } => characters(text),
        Item::Call { name, arguments, .. } => characters(name) + characters(arguments),
        Item::User { parts } | Item::Output { parts, .. } => parts.iter().map(part_characters).sum(),
        Item::Reasoning { .. } => 0,
    }
}

fn part_characters(part: &Part) -> u64 {
    match part {
        Part::Text { text } => characters(text),
        // What vendors charge for a small image, near enough.
        Part::Image { .. } => 1_000,
    }
}

fn characters(text: &str) -> u64 {
    u64::try_from(text.chars().count()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_whole_and_few() {
        for text in ["", "one", "two words", "ü ä ö", &"word ".repeat(1_000), &"ü".repeat(500)] {
            let pieces: Vec<&str> = pieces(text).collect();
            assert_eq!(pieces.concat(), text);
            assert!(pieces.len() <= DELTAS_MAX, "{} pieces", pieces.len());
        }
    }
}
