//! The file kinds of a project, as shapes: every key, what it means, what it may be. Nothing else knows the keys.

use crate::shape::{Field, Keys, Need, Object, Secrets, Shape};
use Need::{Optional, Required};

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
            Self::Project => &PROJECT,
            Self::Agent => &AGENT,
            Self::Model => &MODELS,
            Self::Tool => &TOOL,
            Self::Manifest => &MANIFEST,
            Self::Prices => &PRICES,
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

static PROJECT: Shape = Shape::Object(&Object {
    name: "project",
    about: "The project.",
    fields: &[
        field(
            "default_agent",
            Optional("the only agent, if there is one only"),
            Shape::Name,
            "The agent that serves when a request names none.",
        ),
        field(
            "contents",
            Optional("sealed"),
            Shape::OneOf(&[
                ("sealed", "encrypted under a key for each session, so that erasing is final"),
                ("plain", "readable with SQL"),
            ]),
            "How messages, arguments and results are stored.",
        ),
        field(
            "sandbox",
            Optional("every wall, the limits below"),
            Shape::Object(&SANDBOX),
            "What holds for every sandbox.",
        ),
    ],
});

static SANDBOX: Object = Object {
    name: "sandbox",
    about: "What holds for every sandbox.",
    fields: &[
        field("limits", Optional("the limits below"), Shape::Object(&SANDBOX_LIMITS), "Its limits."),
        field(
            "walls_optional",
            Optional("none"),
            Shape::List { of: &WALL, items_max: 32 },
            "Walls that a sandbox may do without where the kernel refuses them. `topside doctor` names what is refused.",
        ),
    ],
};

static WALL: Shape = Shape::OneOf(&[
    ("user_namespace", "its own user ids"),
    ("mount_namespace", "its own mounts"),
    ("pid_namespace", "its own processes"),
    ("network_namespace", "no network"),
    ("ipc_namespace", "its own shared memory"),
    ("uts_namespace", "its own host name"),
    ("cgroup_namespace", "its own view of limits"),
    ("private_root", "its own root of read-only layers"),
    ("workspace_limit", "a bounded workspace"),
    ("capabilities", "no capabilities"),
    ("no_new_privileges", "no way to gain any"),
    ("seccomp", "a filter on system calls"),
    ("landlock", "a second wall around files"),
    ("memory_limit", "bounded memory"),
    ("process_limit", "bounded processes"),
    ("cpu_limit", "bounded processor time"),
]);

static SANDBOX_LIMITS: Object = Object {
    name: "sandbox_limits",
    about: "Limits of one sandbox.",
    fields: &[
        field(
            "memory_bytes_max",
            Optional("1073741824"),
            Shape::Integer { min: 16 << 20, max: 1 << 40 },
            "Memory of all processes and in-memory files, in bytes.",
        ),
        field("processes_max", Optional("256"), count(100_000), "Processes and threads."),
        field(
            "cpu_milli_max",
            Optional("2000"),
            Shape::Integer { min: 10, max: 1_000_000 },
            "Processor time per second of wall time, in thousandths of one processor.",
        ),
        field(
            "workspace_bytes_max",
            Optional("1073741824"),
            Shape::Integer { min: 1 << 20, max: 1 << 40 },
            "What the workspace may hold, in bytes.",
        ),
        field(
            "workspace_inodes_max",
            Optional("200000"),
            Shape::Integer { min: 100, max: 100_000_000 },
            "Files and directories of the workspace.",
        ),
        field(
            "tmp_bytes_max",
            Optional("268435456"),
            Shape::Integer { min: 1 << 16, max: 1 << 40 },
            "What `/tmp` may hold, in bytes; counts as memory too.",
        ),
        field(
            "open_files_max",
            Optional("1024"),
            Shape::Integer { min: 16, max: 1_000_000 },
            "Open files of one process.",
        ),
        field("commands_max", Optional("64"), count(1_024), "Commands alive at once."),
    ],
};

static AGENT: Shape = Shape::Object(&Object {
    name: "agent",
    about: "The front matter of an agent.",
    fields: &[
        field(
            "description",
            Optional("none"),
            Shape::Text { bytes_max: 1_000 },
            "One line for people who choose among agents.",
        ),
        field("model", Required, Shape::Name, "The model it uses, by its name in `models/`."),
        field(
            "tools",
            Optional("none"),
            Shape::List { of: &NAME, items_max: 128 },
            "The declared tools it may use, by their names in `tools/`.",
        ),
        field(
            "sandbox",
            Optional("none: no sandbox and no sandbox tools"),
            Shape::Either { short: &PROVIDER, long: &AGENT_SANDBOX },
            "Its sandbox: the provider's name, or a map.",
        ),
        field("limits", Optional("the limits below"), Shape::Object(&LIMITS), "Hard stops of one run."),
        field(
            "artifacts",
            Optional("none"),
            Shape::List { of: &PATH, items_max: 64 },
            "Workspace files that are kept when a run ends, as relative paths.",
        ),
    ],
});

static PROVIDER: Shape = Shape::OneOf(&[("local", "the sandbox of the machine the service runs on")]);

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

static AGENT_SANDBOX: Object = Object {
    name: "agent_sandbox",
    about: "An agent's sandbox.",
    fields: &[
        field(
            "provider",
            Required,
            Shape::OneOf(&[("local", "the sandbox of the machine the service runs on")]),
            "Who provides it.",
        ),
        field(
            "manifest",
            Optional("none: an empty workspace"),
            Shape::Name,
            "What a fresh workspace holds, by the manifest's name in `manifests/`.",
        ),
        field(
            "capabilities",
            Optional("[filesystem, shell]"),
            Shape::List { of: &CAPABILITY, items_max: 2 },
            "Which built-in tools the agent has.",
        ),
    ],
};

static CAPABILITY: Shape =
    Shape::OneOf(&[("filesystem", "`apply_patch` and `view_image`"), ("shell", "`exec_command` and `write_stdin`")]);

static LIMITS: Object = Object {
    name: "limits",
    about: "Hard stops of one run.",
    fields: &[
        field("turns", Optional("30"), count(10_000), "Model replies."),
        field("tool_calls", Optional("100"), count(100_000), "Tool calls."),
        field("tokens", Optional("2000000"), count(1_000_000_000_000), "Tokens in and out, over all turns."),
        field(
            "running_seconds",
            Optional("1800"),
            count(31_536_000),
            "Seconds of running; time parked or with no process alive does not count.",
        ),
        field(
            "cost_micro_usd",
            Optional("no limit"),
            count(1_000_000_000_000),
            "Millionths of a US dollar, by `prices.yaml`.",
        ),
    ],
};

static MODELS: Shape = Shape::Map { keys: Keys::Name, of: &MODEL, entries_max: 1_000 };

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

static TOOL: Shape = Shape::Object(&Object {
    name: "tool",
    about: "A tool.",
    fields: &[
        field("description", Required, Shape::Text { bytes_max: 8_192 }, "What it does, for the model."),
        field(
            "input_schema",
            Required,
            Shape::JsonSchema,
            "JSON Schema of its arguments, `type: object`. References stay within it. An argument it does not allow never reaches the tool.",
        ),
        field(
            "effect",
            Required,
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
            "approval",
            Optional("policy"),
            Shape::OneOf(&[
                ("policy", "nobody beyond what the policy says"),
                ("never", "nobody; a policy may still deny"),
                ("always", "a person; while nobody can approve, the call is denied"),
            ]),
            "Who must agree before the call.",
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
];

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

static MANIFEST: Shape = Shape::Object(&Object {
    name: "manifest",
    about: "What a fresh workspace holds.",
    fields: &[
        field(
            "entries",
            Optional("none"),
            Shape::Map { keys: Keys::Path, of: &ENTRY, entries_max: 10_000 },
            "What stands where, by relative path.",
        ),
        field(
            "environment",
            Optional("none"),
            Shape::Map { keys: Keys::Variable, of: &OPEN_VALUE, entries_max: 256 },
            "Environment of every command in the sandbox.",
        ),
    ],
});

static OPEN_VALUE: Shape = Shape::Template { secrets: Secrets::Refused("no secret enters a sandbox") };

static ENTRY: Shape = Shape::Tagged(&[
    Object {
        name: "file",
        about: "A file with this text.",
        fields: &[
            field("content", Required, Shape::Verbatim { bytes_max: 512 << 10 }, "The text, as it stands."),
            field("mode", Optional("0644"), Shape::Mode, "Permission bits in octal, such as `0644`."),
        ],
    },
    Object {
        name: "dir",
        about: "A directory.",
        fields: &[field(
            "children",
            Optional("none"),
            Shape::Map { keys: Keys::Path, of: &ENTRY, entries_max: 10_000 },
            "What stands in it, by relative path.",
        )],
    },
    Object {
        name: "local_file",
        about: "A copy of a file of the project.",
        fields: &[field("source", Required, Shape::Path, "The file, relative to the project.")],
    },
    Object {
        name: "local_dir",
        about: "A copy of a directory of the project; links in it are never followed.",
        fields: &[field("source", Required, Shape::Path, "The directory, relative to the project.")],
    },
]);

static PRICES: Shape = Shape::Map { keys: Keys::Text, of: &PRICE, entries_max: 10_000 };

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
