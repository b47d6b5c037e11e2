//! `manifests/*.yaml`.

use super::field;
use crate::shape::Need::{Optional, Required};
use crate::shape::{Keys, Object, Secrets, Shape};

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
