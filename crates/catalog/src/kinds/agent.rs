//! The front matter of `agents/*.md`.

use super::{NAME, PATH, count, field};
use crate::shape::Need::{Optional, Required};
use crate::shape::{Field, Object, Shape};

pub(super) static AGENT: Shape = Shape::Object(&Object {
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
        field(
            "checkpoint",
            Optional("turn"),
            Shape::OneOf(&[
                ("turn", "after each turn that changed it"),
                ("never", "not at all: it is lost with its sandbox, and its session can't be forked"),
            ]),
            "When the workspace is kept, so that the session can go back there.",
        ),
        field(
            "root",
            Optional("host"),
            Shape::Either { short: &HOST_ROOT, long: &ROOT },
            "What stands at `/`, read-only: `host`, or a map with one key.",
        ),
        field(
            "user",
            Optional("the one user that every sandbox has"),
            Shape::Name,
            "Who commands run as, and whose the workspace is: one of the manifest's `users`, one that the root has, or `root`, who is nobody outside. Needs a service that runs as root.",
        ),
    ],
};

static HOST_ROOT: Shape = Shape::OneOf(&[("host", "the host's own tools, and nothing else of the host")]);

static ROOT: Object = Object {
    name: "sandbox_root",
    about: "What stands at `/` in a sandbox. Exactly one key is set.",
    fields: &[
        field(
            "directory",
            Optional("none"),
            HOST_PATH,
            "A directory with a whole system in it, such as `debootstrap` makes; absolute, or relative to the project.",
        ),
        IMAGE,
        field("template", Optional("none"), Shape::Name, "A template, by its name in `topside.yaml`."),
    ],
};

/// A path of the machine that the service runs on. Only the operator's files have such.
const HOST_PATH: Shape = Shape::Text { bytes_max: 4_095 };
/// An image as a key.
pub(super) const IMAGE: Field = field(
    "image",
    Optional("none"),
    HOST_PATH,
    "An image: a tar that `docker save` wrote, or an OCI layout as a tar or a directory; absolute, or relative to the project.",
);

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
        field(
            "reached",
            Optional("stop"),
            Shape::OneOf(&[
                ("stop", "the run ends as `budget_exhausted`"),
                ("ask", "the run waits until somebody raises the limit, or ends it"),
            ]),
            "What happens at a limit of turns, calls, tokens or cost. At the end of its running time a run ends.",
        ),
    ],
};
