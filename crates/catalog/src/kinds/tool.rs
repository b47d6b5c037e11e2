//! `tools/*.yaml`.

use super::{RETRY, VALUES, count, field};
use crate::shape::Need::{self, Optional, Required};
use crate::shape::{Field, Keys, Object, Secrets, Shape};

pub(super) static TOOL: Shape = Shape::Object(&Object {
    name: "tool",
    about: "A tool.",
    fields: &[
        field("description", Required, Shape::Text { bytes_max: 8_192 }, "What it does, for the model."),
        field(
            "input_schema",
            UNLESS_AGENT,
            Shape::JsonSchema,
            "JSON Schema of its arguments, `type: object`. References stay within it. An argument it does not allow never reaches the tool.",
        ),
        field(
            "effect",
            UNLESS_AGENT,
            Shape::OneOf(&[
                ("read", "changes nothing"),
                ("write", "changes its own sandbox or its declared store"),
                ("external", "reaches the outside world"),
                ("destructive", "reaches the outside world and can't be taken back"),
            ]),
            "How far a call's effects reach.",
        ),
        field(
            "idempotency",
            Optional("none"),
            Shape::Either { short: &IDEMPOTENCY, long: &IDEMPOTENCY_KEY },
            "Where the key comes from under which the other side knows a repeated call for the same one: a word, or a map with `key`.",
        ),
        field(
            "repeat",
            Optional("safe for effect read, otherwise once"),
            Shape::OneOf(&[("safe", "the call may be made again"), ("once", "the call must not be made twice")]),
            "What a crash in the middle of a call allows.",
        ),
        field(
            "preconditions",
            Optional("none"),
            Shape::List { of: &PRECONDITION, items_max: 16 },
            "What must hold before a call. What does not is told to the model, and the call is not made.",
        ),
        field(
            "rollback",
            Optional("none"),
            Shape::Either { short: &ROLLBACK, long: &COMPENSATE },
            "How a call is taken back whose end nobody saw: a word, or a map with `compensate`.",
        ),
        field(
            "approval",
            Optional("policy"),
            Shape::Either { short: &APPROVAL, long: &QUORUM },
            "Who must agree before the call: a word, or a map with `quorum`.",
        ),
        field(
            "retry",
            Optional(
                "3 attempts, 1 s doubled up to 10 s, within 60 s, for calls that may be repeated; otherwise 1 attempt",
            ),
            Shape::Object(&RETRY),
            "How often a call is made again that failed for a passing reason: a service that is not reached, too slow or too busy, a locked database.",
        ),
        field("timeout_seconds", Optional("60"), count(3_600), "Wall time in seconds after which the call is killed."),
        field(
            "output_bytes_max",
            Optional("32768"),
            Shape::Integer { min: 256, max: 1 << 20 },
            "Bytes of the output that the model is shown; the rest is kept and readable page by page.",
        ),
        field("run", Required, Shape::Choice(RUN), "How it is done: one of the kinds below."),
    ],
});

static RUN: &[Field] = &[
    field("sql", Required, Shape::Object(&SQL), "A statement on a SQLite file; read-only unless `effect` says more."),
    field(
        "command",
        Required,
        Shape::Object(&COMMAND),
        "A program on the service's side, in a jail of its own: arguments as JSON on stdin, JSON or text from stdout.",
    ),
    field("http", Required, Shape::Object(&HTTP), "A request to a service."),
    field("function", Required, Shape::Object(&FUNCTION), "A Rust function registered under the tool's name."),
    field(
        "agent",
        Required,
        Shape::Name,
        "Another agent, which works on the argument `message` and whose reply is the answer.",
    ),
];

/// What an agent has by itself: it takes one message, writes, and is asked once.
const UNLESS_AGENT: Need = Need::Unless { key: "run", choice: "agent" };

static APPROVAL: Shape = Shape::OneOf(&[
    ("policy", "nobody beyond what the policy says"),
    ("never", "nobody; a policy may still ask, or deny"),
    ("always", "one person"),
]);

static QUORUM: Object = Object {
    name: "quorum",
    about: "How many must agree; never the one on whose behalf the call is made.",
    fields: &[field("quorum", Required, count(policy::QUORUM_MAX as i64), "How many different people.")],
};

static ROLLBACK: Shape = Shape::OneOf(&[
    ("none", "it is not"),
    ("checkpoint", "the session's workspace goes back to where it was kept last; for effect write"),
]);

static COMPENSATE: Object = Object {
    name: "compensate",
    about: "The tool that undoes a call.",
    fields: &[field(
        "compensate",
        Required,
        Shape::Name,
        "The declared tool that undoes it, called with the same arguments when somebody resolves a call in doubt so.",
    )],
};

static PRECONDITION: Shape = Shape::Object(&Object {
    name: "precondition",
    about: "What must hold before a call: a test of its `arguments`, or what another `tool` gives.",
    fields: &[
        field("arguments", Optional("none"), Shape::JsonSchema, "A further JSON Schema of the call's arguments."),
        field(
            "tool",
            Optional("none"),
            Shape::Object(&LOOK),
            "A tool that tells; it is called before the call is made.",
        ),
        field("message", Required, Shape::Text { bytes_max: 1_000 }, "What the model is told when it does not hold."),
    ],
});

static LOOK: Object = Object {
    name: "precondition_tool",
    about: "A tool that tells whether a call may be made.",
    fields: &[
        field("name", Required, Shape::Name, "The declared tool; its effect is `read`."),
        field(
            "arguments",
            Optional("none"),
            Shape::Values,
            "Its arguments. `${arguments.NAME}` stands for an argument of the call.",
        ),
        field(
            "expect",
            Required,
            Shape::JsonSchema,
            "JSON Schema of what it gives: its output as JSON, or a string when it is none.",
        ),
    ],
};

static SQL: Object = Object {
    name: "sql",
    about: "A statement on a SQLite file.",
    fields: &[
        field("database", Required, Shape::Path, "The file, relative to the project."),
        field(
            "query",
            Required,
            Shape::Text { bytes_max: 65_536 },
            "One statement. Its `:name` parameters are bound from the arguments, and every argument has one.",
        ),
        field("rows_max", Optional("100"), count(10_000), "Rows given back."),
    ],
};

static COMMAND: Object = Object {
    name: "command",
    about: "A program in a jail of its own.",
    fields: &[
        field(
            "program",
            Required,
            Shape::List { of: &ARGUMENT, items_max: 64 },
            "Program and arguments. A program with a `/` is a file of the project, one without is found in the jail.",
        ),
        field(
            "env",
            Optional("none"),
            Shape::Map { keys: Keys::Variable, of: &VALUES, entries_max: 64 },
            "Its environment; the only secrets it sees.",
        ),
    ],
};

static ARGUMENT: Shape = Shape::Text { bytes_max: 4_096 };

static HTTP: Object = Object {
    name: "http",
    about: "A request to a service.",
    fields: &[
        field(
            "method",
            Optional("GET"),
            Shape::OneOf(&[
                ("GET", "fetch"),
                ("POST", "send"),
                ("PUT", "replace"),
                ("PATCH", "change"),
                ("DELETE", "remove"),
            ]),
            "The method.",
        ),
        field(
            "url",
            Required,
            Shape::Template { secrets: Secrets::Refused("a URL is logged; expected it in `headers`") },
            "The URL; `{name}` is replaced by the percent-encoded argument.",
        ),
        field(
            "headers",
            Optional("none"),
            Shape::Map { keys: Keys::Header, of: &VALUES, entries_max: 32 },
            "Headers of the request.",
        ),
        field(
            "body",
            Optional("none"),
            Shape::List { of: &ARGUMENT_NAME, items_max: 64 },
            "Arguments sent as one JSON object; the rest stand in `url`.",
        ),
    ],
};

static ARGUMENT_NAME: Shape = Shape::Text { bytes_max: 256 };

static FUNCTION: Object = Object { name: "function", about: "A registered Rust function.", fields: &[] };

static IDEMPOTENCY: Shape = Shape::OneOf(&[
    ("none", "the other side knows no keys"),
    ("call", "a key for each call"),
    ("arguments", "the digest of the arguments"),
    ("caller", "the key that the caller of the run gave"),
]);

static IDEMPOTENCY_KEY: Object = Object {
    name: "idempotency",
    about: "Under which key the other side knows a repeated call.",
    fields: &[field(
        "key",
        Required,
        Shape::OneOf(&[
            ("call", "a key for each call"),
            ("arguments", "the digest of the arguments"),
            ("caller", "the key that the caller of the run gave"),
        ]),
        "Where the key comes from.",
    )],
};
