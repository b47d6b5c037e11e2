//! Words that only some rooms may say in a string: the service's own routes, and the models' vendors' JSON.

use super::{File, Found};
use crate::source::{Source, line_at};

/// A kind of word, how it is known, and the rooms that may say it. Tests are free.
struct Word {
    what: &'static str,
    is_it: fn(&str) -> bool,
    rooms: &'static [&'static str],
}

const WORDS: &[Word] = &[
    Word { what: "a route of the service", is_it: is_route, rooms: &["api", "client", "server"] },
    Word { what: "a word of a model vendor's JSON", is_it: is_vendors, rooms: &["model"] },
];

fn is_route(text: &str) -> bool {
    ["/runs", "/sessions", "/api/v1"]
        .iter()
        .any(|route| text.strip_prefix(route).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '{'])))
}

fn is_vendors(text: &str) -> bool {
    let words = [
        "chat.completion.chunk",
        "finish_reason",
        "function_call_arguments",
        "prompt_tokens",
        "completion_tokens",
        "previous_response_id",
        "response.completed",
        "response.output_item.done",
        "response.output_text.delta",
    ];
    words.contains(&text)
}

pub(super) fn check(sources: &[(&File, Source)]) -> Vec<Found> {
    let mut found = Vec::new();
    for (file, source) in sources {
        let Some((room, path)) = file.name.strip_prefix("crates/").and_then(|rest| rest.split_once('/')) else {
            continue;
        };
        if !path.starts_with("src/") {
            continue;
        }
        let tests = tests_from(&source.code);
        for word in WORDS.iter().filter(|word| !word.rooms.contains(&room)) {
            for (offset, text) in source.strings.iter().filter(|(offset, text)| *offset < tests && (word.is_it)(text)) {
                let message = format!("`{text}` is {}, which only {} may know", word.what, word.rooms.join(", "));
                found.push(Found::new("word", &file.name, line_at(&file.text, *offset), message));
            }
        }
    }
    found
}

/// Where the tests of a file begin; by habit they are its end.
fn tests_from(code: &str) -> usize {
    code.find("#[cfg(test)]").unwrap_or(code.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_word(name: &str, text: &str, expected: &[&str]) {
        let file = File { name: name.to_owned(), text: text.to_owned() };
        let told: Vec<String> = check(&[(&file, Source::of(text))]).into_iter().map(|found| found.message).collect();
        assert_eq!(told.len(), expected.len(), "{name}: {told:?}");
        for (message, part) in told.iter().zip(expected) {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn routes_stay_with_the_contract() {
        let text = "//! x\nconst A: &str = \"/runs/{id}\";\n";
        check_word(
            "crates/engine/src/a.rs",
            text,
            &["`/runs/{id}` is a route of the service, which only api, client, server"],
        );
        check_word("crates/api/src/a.rs", text, &[]);
        check_word("crates/engine/tests/a.rs", text, &[]);
        check_word("crates/engine/src/a.rs", "//! \"/runs\"\nconst A: &str = \"/running\";\n", &[]);
        check_word("crates/engine/src/a.rs", "//! x\n#[cfg(test)]\nmod tests { const A: &str = \"/runs\"; }\n", &[]);
    }

    #[test]
    fn a_vendors_json_stays_in_its_wire() {
        let text = "//! x\n#[serde(rename = \"finish_reason\")]\nstruct A;\n";
        check_word("crates/engine/src/a.rs", text, &["which only model may know"]);
        check_word("crates/model/src/wire/a.rs", text, &[]);
    }
}
