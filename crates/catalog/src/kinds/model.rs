//! `models/*.yaml` and `prices.yaml`.

use super::{VALUE, VALUES, count, field};
use crate::shape::Need::{Optional, Required};
use crate::shape::{Keys, Object, Secrets, Shape};

pub(super) static MODELS: Shape = Shape::Map { keys: Keys::Name, of: &MODEL, entries_max: 1_000 };

static MODEL: Shape = Shape::Object(&Object {
    name: "model",
    about: "A model.",
    fields: &[
        field(
            "provider",
            Required,
            Shape::OneOf(&[
                ("openai", "OpenAI itself"),
                ("openai-compatible", "an endpoint that speaks the same wire"),
                ("script", "a transcript that is played back; no key, no network"),
            ]),
            "Who serves it.",
        ),
        field(
            "name",
            Optional("required, except for a script, which has its transcript's title"),
            Shape::Text { bytes_max: 256 },
            "The name the vendor knows.",
        ),
        field(
            "wire",
            Optional("responses"),
            Shape::OneOf(&[("responses", "`POST /responses`"), ("chat", "`POST /chat/completions`")]),
            "Which wire is spoken.",
        ),
        field("stream", Optional("true"), Shape::Boolean, "Whether replies are streamed."),
        field(
            "url",
            Optional("https://api.openai.com/v1 for openai; required for openai-compatible"),
            Shape::Template {
                secrets: Secrets::Refused("a URL is logged; expected it in `key`, `headers` or `query`"),
            },
            "Base URL.",
        ),
        field("key", Optional("none; required for openai"), VALUE, "API key, sent as a bearer token."),
        field(
            "headers",
            Optional("none"),
            Shape::Map { keys: Keys::Header, of: &VALUES, entries_max: 32 },
            "Further headers of every request.",
        ),
        field(
            "query",
            Optional("none"),
            Shape::Map { keys: Keys::Text, of: &VALUES, entries_max: 32 },
            "Further query parameters of every request.",
        ),
        field(
            "transcript",
            Optional("none; required for script"),
            Shape::Path,
            "For script: the transcript, relative to the project.",
        ),
        field("temperature", Optional("the vendor's"), Shape::Milli { min: 0, max: 2_000 }, "Sampling temperature."),
        field("output_tokens_max", Optional("the vendor's"), count(10_000_000), "Tokens of one reply."),
        field(
            "reasoning_effort",
            Optional("the vendor's"),
            Shape::OneOf(&[
                ("none", "no reasoning"),
                ("minimal", "hardly any"),
                ("low", "little"),
                ("medium", "some"),
                ("high", "much"),
                ("xhigh", "as much as there is"),
            ]),
            "How much a reasoning model thinks, where it can be told.",
        ),
        field(
            "fallback",
            Optional("none: agents that use the model are switched off"),
            Shape::Name,
            "The model that stands in when a variable that this one needs is not set.",
        ),
    ],
});

pub(super) static PRICES: Shape = Shape::Map { keys: Keys::Text, of: &PRICE, entries_max: 10_000 };

static PRICE: Shape = Shape::Object(&Object {
    name: "price",
    about: "What a model costs, in pico-dollars per token.",
    fields: &[
        field(
            "input",
            Required,
            Shape::Integer { min: 0, max: 1_000_000_000_000 },
            "Per token in that was not cached.",
        ),
        field(
            "cached_input",
            Optional("as input"),
            Shape::Integer { min: 0, max: 1_000_000_000_000 },
            "Per token read from the vendor's cache.",
        ),
        field("output", Required, Shape::Integer { min: 0, max: 1_000_000_000_000 }, "Per token out."),
    ],
});
