//! `topside.yaml`.

use super::{RETRY, VALUE, count, field};
use crate::shape::Need::{Optional, Required};
use crate::shape::{Keys, Object, Secrets, Shape};

pub(super) static PROJECT: Shape = Shape::Object(&Object {
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
        field("concurrency", Optional("no limit"), Shape::Object(&CONCURRENCY), "How many runs are driven at once."),
        field(
            "retries",
            Optional("the retries below"),
            Shape::Object(&RETRIES),
            "How often what failed for a passing reason is tried again, by the part that failed. Calls of tools have `retry` in their declarations.",
        ),
        field(
            "breaker",
            Optional("the values below"),
            Shape::Object(&BREAKER),
            "When a model, a tool or another part that keeps failing is left alone for a while.",
        ),
        field(
            "webhooks",
            Optional("none"),
            Shape::List { of: &WEBHOOK, items_max: WEBHOOKS_MAX },
            "Who is called when something happens to a run.",
        ),
        field("retention", Optional("everything is kept"), Shape::Object(&RETENTION), "How long sessions are kept."),
        field(
            "database",
            Optional("a SQLite file in the data directory"),
            Shape::Object(&DATABASE),
            "The PostgreSQL database that keeps the sessions. While a variable that it needs is not set, it is switched off.",
        ),
        field(
            "worker",
            Optional("the values below"),
            Shape::Object(&WORKER),
            "What holds for processes that drive runs together.",
        ),
    ],
});

/// Webhooks of one project.
const WEBHOOKS_MAX: usize = 16;

static CONCURRENCY: Object = Object {
    name: "concurrency",
    about: "How many runs are driven at once; further ones wait for their turn.",
    fields: &[
        field("per_tenant", Optional("no limit"), count(1_000_000), "Runs of one tenant."),
        field(
            "per_model",
            Optional("no limit"),
            Shape::Map { keys: Keys::Name, of: &RUNS, entries_max: 1_000 },
            "Questions that runs ask a model at once: a number for each name in `models/`.",
        ),
    ],
};

static RUNS: Shape = count(1_000_000);

static RETRIES: Object = Object {
    name: "retries",
    about: "How often what failed for a passing reason is tried again. While it waits, a run is parked and costs nothing.",
    fields: &[
        field(
            "model",
            Optional("4 attempts, 5 s doubled up to 60 s, within 600 s"),
            Shape::Object(&RETRY),
            "Asking a model, after what is tried at once.",
        ),
        field(
            "dependency",
            Optional("20 attempts, 5 s doubled up to 120 s, within 3600 s"),
            Shape::Object(&RETRY),
            "A service that is configured and can't be reached, such as the objects.",
        ),
        field(
            "sandbox",
            Optional("3 attempts, 1 s doubled up to 60 s, within 600 s"),
            Shape::Object(&RETRY),
            "Making a sandbox.",
        ),
    ],
};

static BREAKER: Object = Object {
    name: "breaker",
    about: "When a part that keeps failing is left alone for a while.",
    fields: &[
        field("failures", Optional("5"), count(1_000), "Failures in a row after which it is left alone."),
        field(
            "open_seconds",
            Optional("30"),
            count(86_400),
            "How long it is left alone, in seconds, before one attempt is let through.",
        ),
    ],
};

static WEBHOOK: Shape = Shape::Object(&Object {
    name: "webhook",
    about: "Who is called when something happens to a run. While a variable that it needs is not set, it is switched off.",
    fields: &[
        field(
            "url",
            Required,
            Shape::Template { secrets: Secrets::Refused("a URL is logged; expected it in `secret`") },
            "Where the event is sent, by POST.",
        ),
        field(
            "secret",
            Required,
            VALUE,
            "What the event is signed with: a reference such as `${secret.NAME}` or `${env.NAME}`.",
        ),
        field(
            "events",
            Optional("[parked, in_doubt, finished]"),
            Shape::List { of: &EVENT, items_max: 8 },
            "Which events are sent.",
        ),
    ],
});

static EVENT: Shape = Shape::OneOf(&[
    ("submitted", "a run was asked for"),
    ("parked", "a run waits, and says for what"),
    ("resumed", "a run that waited goes on"),
    ("in_doubt", "somebody must say what became of a call"),
    ("artifact_saved", "a file was kept"),
    ("finished", "a run ended"),
]);

static RETENTION: Object = Object {
    name: "retention",
    about: "How long sessions are kept.",
    fields: &[field(
        "sessions_days",
        Optional("for ever"),
        count(36_500),
        "Days after its last record that a session without a run that is alive is removed, with its contents, files and artifacts.",
    )],
};

static DATABASE: Object = Object {
    name: "database",
    about: "The PostgreSQL database that keeps the sessions.",
    fields: &[
        field("url", Required, VALUE, "Its URL, such as `${env.DATABASE_URL}`; may lead to a pool of connections."),
        field(
            "direct_url",
            Optional("as url"),
            VALUE,
            "The URL of the database itself, for changes of its schema, when `url` leads to a pool.",
        ),
    ],
};

static WORKER: Object = Object {
    name: "worker",
    about: "What holds for processes that drive runs together.",
    fields: &[
        field(
            "lease_seconds",
            Optional("15"),
            Shape::Integer { min: 3, max: 300 },
            "Seconds after which the sessions of a process that is not heard of any more are taken over by another.",
        ),
        field(
            "no_progress_seconds_max",
            Optional("1800"),
            count(86_400),
            "Seconds without any progress (a record, a piece of a reply, a tool's output, bytes of a workspace) after which a run's driver is stopped and its session given back. While a tool runs, twice its time limit when that is longer.",
        ),
    ],
};

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
        field(
            "landlock_version_min",
            Optional("0"),
            Shape::Integer { min: 0, max: 6 },
            "The least version of Landlock that must hold, also where `walls_optional` names it: with an older kernel nothing starts. 0: whichever there is.",
        ),
        field(
            "host_directories",
            Optional("/usr, /bin, /sbin, /lib, /lib32, /lib64 and /libx32, as far as there are such"),
            Shape::List { of: &HOST_DIRECTORY, items_max: 32 },
            "The directories of the host that are shown where `root` is `host`, read-only. Private ones, such as `/etc` or `/home`, are refused.",
        ),
        field(
            "workspaces_bytes_max",
            Optional("274877906944"),
            Shape::Integer { min: 256 << 20, max: 1 << 50 },
            "What all workspaces and checkpoints kept on this machine may take together, in bytes, open ones with their whole size; beyond it no sandbox is opened (`sandbox_limit`). In force from the next start on. A pool of workspaces that was made already keeps its size: a larger value then has no effect beyond that.",
        ),
        field(
            "warm_min",
            Optional("1"),
            Shape::Integer { min: 0, max: 64 },
            "How many sandboxes of the kind that was asked for last stand ready at least, without files, names or environment of anybody; never more than `warm_max`. As root as many are made whole around empty workspaces, for sessions that begin. The first of a kind is made when it is asked for. In force from the next start on.",
        ),
        field(
            "warm_max",
            Optional("4"),
            Shape::Integer { min: 0, max: 64 },
            "How many stand ready at most, as they are asked for; ten seconds without a request let go of those above `warm_min`. 0: none. Only roots of the host's own tools can stand ready, without mounts.",
        ),
        field(
            "keep_parked_ms",
            Optional("180000"),
            Shape::Integer { min: 0, max: 86_400_000 },
            "How long, in milliseconds, the sandbox of a run that waits for somebody stands still with its programs and terminals, before it is closed and the run goes on from its kept files. 0: it is closed at once.",
        ),
        field(
            "keep_idle_ms",
            Optional("0"),
            Shape::Integer { min: 0, max: 86_400_000 },
            "How long, in milliseconds, the sandbox of a completed run stands still for the session's next run. 0: it is closed with the run.",
        ),
        field(
            "idle_max",
            Optional("16"),
            Shape::Integer { min: 0, max: 4_096 },
            "How many sandboxes stand still at once at most; of more, and where room is needed, the one that has stood longest is closed.",
        ),
        field(
            "templates",
            Optional("none"),
            Shape::Map { keys: Keys::Name, of: &TEMPLATE, entries_max: 64 },
            "Roots that steps make, by name.",
        ),
    ],
};

static HOST_DIRECTORY: Shape = Shape::Text { bytes_max: 4_095 };

static TEMPLATE: Shape = Shape::Object(&Object {
    name: "template",
    about: "A root that steps make of another one: made when it is first used, and again when its base or a step changes.",
    fields: &[
        field(
            "base",
            Required,
            Shape::Choice(&[
                super::agent::IMAGE,
                field("template", Optional("none"), Shape::Name, "Another template, by name."),
            ]),
            "What it begins with.",
        ),
        field(
            "steps",
            Required,
            Shape::List { of: &STEP, items_max: domain::root::STEPS_MAX },
            "Shell commands, in order, each over what the ones before left. They run in a sandbox, without a network.",
        ),
    ],
});

static STEP: Shape = Shape::Verbatim { bytes_max: 64 << 10 };

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
    ("io_limit", "bounded reading and writing, where a limit is set"),
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
        field(
            "io_bytes_per_second_max",
            Optional("no limit"),
            Shape::Integer { min: 1 << 16, max: 1 << 40 },
            "Bytes read from the workspace's disk in a second, and as many written to it. Asked for, it needs the wall `io_limit`.",
        ),
        field(
            "io_operations_per_second_max",
            Optional("no limit"),
            Shape::Integer { min: 10, max: 1_000_000_000 },
            "Read operations on the workspace's disk in a second, and as many write operations. Asked for, it needs the wall `io_limit`.",
        ),
    ],
};
