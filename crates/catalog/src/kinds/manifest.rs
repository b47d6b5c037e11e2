//! `manifests/*.yaml`.

use super::field;
use crate::shape::Need::{Optional, Required};
use crate::shape::{Field, Keys, Object, Secrets, Shape};

pub(super) static MANIFEST: Shape = Shape::Object(&Object {
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
        field(
            "users",
            Optional("none"),
            Shape::List { of: &USER, items_max: 64 },
            "Users inside, besides the one that every sandbox has, each with a home of its own. The provider `local` has them where the service runs as root, and refuses them otherwise.",
        ),
        field(
            "groups",
            Optional("none"),
            Shape::List { of: &GROUP_OF_USERS, items_max: 64 },
            "Groups inside, of users; for the provider `local` see `users`.",
        ),
    ],
});

static OPEN_VALUE: Shape = Shape::Template { secrets: Secrets::Refused("no secret enters a sandbox") };

/// What keeps an entry out of checkpoints.
const EPHEMERAL: Field = field(
    "ephemeral",
    Optional("false"),
    Shape::Boolean,
    "Whether it stays out of checkpoints and is laid again whenever the workspace comes back.",
);
const GROUP: Field = field("group", Optional("none"), Shape::Name, "The group it belongs to, one of `groups`.");
const MODE: Shape = Shape::Mode;
/// Names a credential; a written one would be stored with the run.
const REFERENCE: Shape = Shape::Template { secrets: Secrets::Allowed };

const PREFIX: Field = field(
    "prefix",
    Optional("none: all keys"),
    Shape::Text { bytes_max: 1_000 },
    "What the shown keys begin with, such as `data/2024/`; they are shown without it.",
);
const KEY_ID: Field =
    field("access_key_id", Required, REFERENCE, "`${secret.NAME}` or `${env.NAME}`: the access key id.");
const KEY: Field = field(
    "secret_access_key",
    Required,
    REFERENCE,
    "`${secret.NAME}` or `${env.NAME}`: the secret access key. It never enters the sandbox.",
);
const TOKEN: Field = field(
    "session_token",
    Optional("none"),
    REFERENCE,
    "`${secret.NAME}` or `${env.NAME}`: the session token of keys that expire.",
);
const ON_MISSING: Field = field(
    "on_missing",
    Optional("refuse"),
    Shape::OneOf(&[
        ("refuse", "there is no sandbox"),
        ("copy", "the bucket is copied into the workspace, within the bounds of a manifest"),
    ]),
    "What becomes of it where it can't be mounted.",
);
const ENDPOINT: &str = "The endpoint's URL without the bucket, which is then named in the path.";
const BUCKET: Field = field("bucket", Required, Shape::Text { bytes_max: 255 }, "The bucket.");

static USER: Shape = Shape::Object(&Object {
    name: "user",
    about: "A user inside.",
    fields: &[field("name", Required, Shape::Name, "Its name.")],
});

static GROUP_OF_USERS: Shape = Shape::Object(&Object {
    name: "group",
    about: "A group inside.",
    fields: &[
        field("name", Required, Shape::Name, "Its name."),
        field("users", Optional("none"), Shape::List { of: &super::NAME, items_max: 64 }, "Its members, by name."),
    ],
});

static ENTRY: Shape = Shape::Tagged(&[
    Object {
        name: "file",
        about: "A file with this text.",
        fields: &[
            field("content", Required, Shape::Verbatim { bytes_max: 512 << 10 }, "The text, as it stands."),
            field("mode", Optional("0644"), MODE, "Permission bits in octal, such as `0644`."),
            EPHEMERAL,
            GROUP,
        ],
    },
    Object {
        name: "dir",
        about: "A directory.",
        fields: &[
            field(
                "children",
                Optional("none"),
                Shape::Map { keys: Keys::Path, of: &ENTRY, entries_max: 10_000 },
                "What stands in it, by relative path.",
            ),
            field("mode", Optional("0755"), MODE, "Permission bits in octal, such as `0755`."),
            EPHEMERAL,
            GROUP,
        ],
    },
    Object {
        name: "local_file",
        about: "A copy of a file of the project.",
        fields: &[
            field("source", Required, Shape::Path, "The file, relative to the project."),
            field("mode", Optional("0755 for a program, else 0644"), MODE, "Permission bits in octal."),
            EPHEMERAL,
            GROUP,
        ],
    },
    Object {
        name: "local_dir",
        about: "A copy of a directory of the project; links in it are never followed.",
        fields: &[field("source", Required, Shape::Path, "The directory, relative to the project."), EPHEMERAL, GROUP],
    },
    Object {
        name: "s3_mount",
        about: "A bucket of S3-compatible storage, shown read-only.",
        fields: &[
            BUCKET,
            PREFIX,
            field("region", Optional("us-east-1"), Shape::Text { bytes_max: 64 }, "The region."),
            field("endpoint_url", Optional("AWS's own"), Shape::Text { bytes_max: 1_000 }, ENDPOINT),
            KEY_ID,
            KEY,
            TOKEN,
            ON_MISSING,
        ],
    },
    Object {
        name: "r2_mount",
        about: "A bucket of R2, shown read-only.",
        fields: &[
            BUCKET,
            field("account_id", Required, Shape::Text { bytes_max: 64 }, "The account."),
            PREFIX,
            field("endpoint_url", Optional("the account's own"), Shape::Text { bytes_max: 1_000 }, ENDPOINT),
            KEY_ID,
            KEY,
            TOKEN,
            ON_MISSING,
        ],
    },
]);
