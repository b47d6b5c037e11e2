//! The files of sessions: given out, compared, put back.

use super::{BODY_REFUSALS, NO_SESSION, WRITE, body, plain};
use crate::endpoint::{Answer, Body, Endpoint, Method, Operation, Parameter, Request, of};
use crate::{RestoreWorkspace, RestoredWorkspace, WORKSPACE_MEDIA, WorkspaceDiff};

const NO_CHECKPOINT: (u16, &str) = (404, "checkpoint_not_found");
const UNDER_WAY: (u16, &str) = (409, "run_under_way");
/// Without the local provider nobody looks into archives.
const NO_PROVIDER: (u16, &str) = (501, "sandbox_unsupported");
const ARCHIVE: Body = Body { media: WORKSPACE_MEDIA, schema: None };
const RESTORED: Answer =
    Answer { status: 200, description: "What the session's files are now.", bodies: &[body(of::<RestoredWorkspace>)] };

pub(super) const GET_WORKSPACE: Endpoint = Endpoint {
    description: "A tar (POSIX pax), as they were kept last or at another checkpoint. An archive that breaks off is none.",
    query: &[Parameter { name: "checkpoint", description: "Which; the last, if not said.", kind: "string" }],
    answers: &[Answer { status: 200, description: "The files.", bodies: &[ARCHIVE] }],
    refusals: &[crate::Refusal::RequestInvalid],
    errors: &[NO_SESSION, NO_CHECKPOINT, (409, "checkpoint_damaged")],
    example: "curl -s {auth}{base}/sessions/demo/workspace || true",
    ..plain(Operation::GetWorkspace, "getWorkspace", "/sessions/{session}/workspace", "The files of a session")
};

pub(super) const DIFF_WORKSPACE: Endpoint = Endpoint {
    description: "Paths that were added, changed or removed, with kinds, lengths and modes; times do not count. At most 5,000 paths \
                  are listed, and 4 MiB of patches of texts up to 256 KiB.",
    query: &[
        Parameter { name: "from", description: "A checkpoint; the session's first, if not said.", kind: "string" },
        Parameter { name: "to", description: "A checkpoint; the last, if not said.", kind: "string" },
        Parameter { name: "patch", description: "`true`: also how the lines of texts differ.", kind: "boolean" },
    ],
    answers: &[Answer { status: 200, description: "The differences.", bodies: &[body(of::<WorkspaceDiff>)] }],
    refusals: &[crate::Refusal::RequestInvalid],
    errors: &[NO_SESSION, NO_CHECKPOINT, (409, "checkpoint_damaged"), NO_PROVIDER],
    example: "curl -s {auth}'{base}/sessions/demo/workspace/diff?patch=true' || true",
    ..plain(
        Operation::DiffWorkspace,
        "diffWorkspace",
        "/sessions/{session}/workspace/diff",
        "How the files of a session differ between two checkpoints",
    )
};

pub(super) const RESTORE_WORKSPACE: Endpoint = Endpoint {
    method: Method::Post,
    access: WRITE,
    description: "The next run of the session begins with the files of that checkpoint. Refused while a run is under way. What the \
                  model was shown meanwhile it still remembers.",
    request: Request::Required(body(of::<RestoreWorkspace>)),
    answers: &[RESTORED],
    refusals: BODY_REFUSALS,
    errors: &[NO_SESSION, NO_CHECKPOINT, UNDER_WAY],
    example: r#"curl -s {auth}{base}/sessions/demo/workspace/restore -H 'content-type: application/json' \
  -d '{"checkpoint_id": "chk_00000000000000000000000000000000"}' || true"#,
    ..plain(
        Operation::RestoreWorkspace,
        "restoreWorkspace",
        "/sessions/{session}/workspace/restore",
        "Put a checkpoint in the place of a session's files",
    )
};

pub(super) const PUT_WORKSPACE: Endpoint = Endpoint {
    method: Method::Post,
    access: WRITE,
    description: "An archive in the form that `GET` gives. It is unpacked in a sandbox first; one that breaks a rule is refused by \
                  that rule's name. Refused while a run is under way.",
    request: Request::Required(ARCHIVE),
    answers: &[RESTORED],
    refusals: BODY_REFUSALS,
    errors: &[NO_SESSION, UNDER_WAY, (422, "archive_refused"), NO_PROVIDER],
    example: r"curl -s {auth}{base}/sessions/demo/workspace -H 'content-type: application/x-tar' --data-binary nothing || true",
    ..plain(
        Operation::PutWorkspace,
        "putWorkspace",
        "/sessions/{session}/workspace",
        "Put an archive in the place of a session's files",
    )
};
