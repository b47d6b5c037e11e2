//! `apply_patch`: changes several files of the workspace, all or none.

use super::Job;
use super::files::{self, Unread};
use crate::Outcome;
use crate::output::brief;
use crate::patch::{self, Operation, Refusal};
use crate::reason::Reason;
use crate::schema::{Rejection, Schema};
use bytes::Bytes;
use domain::item::Grammar;
use domain::{Call, ToolSpec};
use sandbox::{Change, FileKind, RelPath, Sandbox};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Bytes of a file that a patch may change.
const FILE_BYTES_MAX: u64 = 10 * 1024 * 1024;

const DESCRIPTION: &str = "Edits files with a patch: *** Begin Patch, then sections *** Add File: PATH, *** Delete File: PATH or *** Update File: PATH (optionally *** Move to: PATH) with hunks of lines that start with a space (context), + or -, each hunk led by @@ or @@ and a line that stands above it, then *** End Patch. All files are changed, or none.";
const SCHEMA: &str = r#"{
  "type": "object",
  "properties": {
    "input": {"type": "string", "minLength": 1, "description": "The whole patch, from *** Begin Patch to *** End Patch."}
  },
  "required": ["input"]
}"#;

pub(crate) fn spec() -> ToolSpec {
    let grammar = Grammar { syntax: "lark".into(), definition: patch::GRAMMAR.into() };
    ToolSpec { grammar: Some(grammar), ..super::spec("apply_patch", DESCRIPTION, SCHEMA) }
}

/// The arguments in any of the forms that models send: free text, `{"input":…}`, `{"patch":…}`, `{"operations":[…]}`, one operation.
pub(crate) fn read(call: &Call, schema: &Schema) -> Result<Map<String, Value>, Rejection> {
    let text = call.arguments.trim_start();
    let free = |text: &str| Map::from_iter([("input".to_owned(), Value::from(text))]);
    let arguments = if text.starts_with('{') {
        match serde_json::from_str::<Map<String, Value>>(text) {
            Ok(object) if object.contains_key("operations") || object.contains_key("type") => object,
            Ok(object) => match object.get("patch").and_then(Value::as_str) {
                Some(patch) if !object.contains_key("input") => free(patch),
                _ => schema.read(text)?,
            },
            Err(_) if call.custom => free(text),
            Err(_) => schema.read(text)?,
        }
    } else if call.custom || text.starts_with("***") {
        free(text)
    } else {
        schema.read(text)?
    };
    // What can't be read is not worth judging.
    match operations(&arguments) {
        Ok(_) => Ok(arguments),
        Err(refusal) => Err(Rejection::new(refusal.code, failed(&refusal.text))),
    }
}

fn failed(why: &str) -> String {
    format!("apply_patch failed, and no file was changed.\n{why}")
}

fn operations(arguments: &Map<String, Value>) -> Result<Vec<Operation>, Refusal> {
    match arguments.get("input").and_then(Value::as_str) {
        Some(text) => patch::parse(text),
        None => patch::from_operations(&Value::Object(arguments.clone())),
    }
}

pub(crate) async fn run(job: &Job<'_>) -> Outcome {
    let sandbox = match job.bench.sandbox().await {
        Ok(sandbox) => sandbox,
        Err(error) => return Outcome::sandbox("apply_patch failed, and no file was changed", &error),
    };
    match change(&*sandbox, &job.arguments).await {
        Ok(text) => Outcome::text(text),
        Err(refusal) => Outcome::error(refusal.code, failed(&refusal.text)),
    }
}

/// Reads all files, computes all changes, applies them at once.
async fn change(sandbox: &dyn Sandbox, arguments: &Map<String, Value>) -> Result<String, Refusal> {
    let mut draft = Draft { sandbox, files: HashMap::new(), order: vec![] };
    let mut told: [Vec<String>; 3] = Default::default();
    let mut tell = |kind: usize, path: &RelPath| {
        let path = path.to_string();
        if !told[kind].contains(&path) {
            told[kind].push(path);
        }
    };
    for operation in operations(arguments)? {
        match operation {
            Operation::Add { path, text } => {
                draft.write(&path, text, None).await?;
                tell(0, &path);
            }
            Operation::Delete { path } => {
                draft.remove(&path).await?;
                tell(2, &path);
            }
            Operation::Update { path, to, hunks } => {
                let (text, mode) = draft.text(&path).await?;
                let text = patch::apply(&path, &text, &hunks)?;
                match to.filter(|to| *to != path) {
                    Some(to) => {
                        draft.remove(&path).await?;
                        draft.write(&to, text, mode).await?;
                        tell(1, &to);
                    }
                    None => {
                        draft.write(&path, text, mode).await?;
                        tell(1, &path);
                    }
                }
            }
        }
    }
    let changes = draft.changes();
    sandbox.apply(changes).await.map_err(|error| Refusal { code: error.code(), text: error.to_string() })?;
    let mut text = "Success. Updated the following files:\n".to_owned();
    for (letter, paths) in ["A", "M", "D"].iter().zip(told) {
        for path in paths {
            text += &format!("{letter} {path}\n");
        }
    }
    Ok(text)
}

/// The files as the patch leaves them, before anything is written.
struct Draft<'a> {
    sandbox: &'a dyn Sandbox,
    files: HashMap<RelPath, File>,
    /// The touched files, in the patch's order.
    order: Vec<RelPath>,
}

struct File {
    /// Whether something stands there now.
    stood: bool,
    /// What shall stand there.
    text: Option<String>,
    mode: Option<u32>,
}

impl Draft<'_> {
    fn put(&mut self, path: &RelPath, file: File) {
        if self.files.insert(path.clone(), file).is_none() {
            self.order.push(path.clone());
        }
    }

    /// Whether a file stands at `path`; anything else there is refused.
    async fn stands(&self, path: &RelPath) -> Result<bool, Refusal> {
        let conflict = |what: &str| Refusal { code: Reason::PatchConflict.code(), text: format!("{path}: {what}.") };
        match self.sandbox.stat(path).await {
            Ok(stat) => match stat.kind {
                FileKind::File | FileKind::Link => Ok(true),
                FileKind::Directory => Err(conflict("it is a directory, expected a file")),
                FileKind::Other => Err(conflict("it is no regular file")),
            },
            Err(sandbox::Error::File { missing: true, .. }) => Ok(false),
            Err(error) => Err(Refusal { code: error.code(), text: error.to_string() }),
        }
    }

    async fn write(&mut self, path: &RelPath, text: String, mode: Option<u32>) -> Result<(), Refusal> {
        let stood = match self.files.get(path) {
            Some(file) => file.stood,
            None => self.stands(path).await?,
        };
        self.put(path, File { stood, text: Some(text), mode });
        Ok(())
    }

    async fn remove(&mut self, path: &RelPath) -> Result<(), Refusal> {
        let (stood, stands) = match self.files.get(path) {
            Some(file) => (file.stood, file.text.is_some()),
            None => {
                let stands = self.stands(path).await?;
                (stands, stands)
            }
        };
        if !stands {
            return Err(missing(path));
        }
        self.put(path, File { stood, text: None, mode: None });
        Ok(())
    }

    /// The text of a file as the patch has left it so far.
    async fn text(&mut self, path: &RelPath) -> Result<(String, Option<u32>), Refusal> {
        if let Some(file) = self.files.get(path) {
            return file.text.clone().map(|text| (text, file.mode)).ok_or_else(|| missing(path));
        }
        let conflict = |what: String| Refusal { code: Reason::PatchConflict.code(), text: format!("{path}: {what}.") };
        let (bytes, stat) = files::read(self.sandbox, path, FILE_BYTES_MAX).await.map_err(|error| match error {
            Unread::Missing => missing(path),
            Unread::Kind(kind) => conflict(format!("it is {kind}, expected a file")),
            Unread::TooLarge(bytes) => {
                conflict(format!("it has {bytes} bytes; a patch changes files of at most {FILE_BYTES_MAX}"))
            }
            Unread::Sandbox(error) => Refusal { code: error.code(), text: error.to_string() },
        })?;
        let text = String::from_utf8(bytes.to_vec()).map_err(|error| {
            conflict(format!("it is no UTF-8 text, from byte {} on", error.utf8_error().valid_up_to()))
        })?;
        Ok((text, Some(stat.mode & 0o7777)))
    }

    fn changes(mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for path in self.order {
            match self.files.remove(&path) {
                Some(File { text: Some(text), mode, .. }) => {
                    changes.push(Change::Write { path, bytes: Bytes::from(text), mode });
                }
                // What the patch itself made and removed never was.
                Some(File { text: None, stood: true, .. }) => changes.push(Change::Remove { path }),
                Some(File { text: None, stood: false, .. }) | None => {}
            }
        }
        changes
    }
}

fn missing(path: &RelPath) -> Refusal {
    Refusal {
        code: Reason::PatchConflict.code(),
        text: format!("{}: there is no such file.", brief(path.as_str(), 400)),
    }
}
