//! Tools of kind `command`: a program of the project on the harness's side, in a jail of its own, JSON in, text out. Its
//! environment is the only way a secret gets to it.

use super::Job;
use crate::Outcome;
use crate::feed::{Fed, PIECE_BYTES_MAX, feed};
use crate::output::{self, Capture, WHOLE_BYTES_MAX};
use crate::project::{Values, locate};
use crate::reason::Reason;
use bytes::Bytes;
use domain::{CallStatus, Id};
use sandbox::{Bind, Chunk, Command, Exit, Limits, Process, RelPath, Spec, Stream, Workspace};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Where a program finds itself in its jail.
const INSIDE: &str = "/tool";
/// The variable a keyed call's key is in.
const KEY: &str = "TOPSIDE_IDEMPOTENCY_KEY";
/// Standard error kept at most.
const STDERR_BYTES_MAX: u64 = 64 * 1024;

/// A declared program.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) argv: Vec<String>,
    /// Values unexpanded.
    pub(crate) environment: BTreeMap<String, String>,
}

/// What a program left behind.
struct Ended {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    exit: Exit,
}

pub(crate) async fn run(program: &Program, job: &Job<'_>) -> Outcome {
    let name = &job.call.tool;
    let Some(helper) = job.bench.helper() else {
        let text = format!(
            "`{name}` can't run: this machine gives no jail for programs of the project. Its operator finds the reason with `topside doctor`."
        );
        return Outcome::error(Reason::HelperMissing.code(), text);
    };
    let mut values = Values::new(job.bench);
    let mut environment = Vec::new();
    for (variable, value) in &program.environment {
        match values.expand(value) {
            Ok(value) => environment.push((variable.clone(), value)),
            Err(error) => {
                return Outcome::error(
                    Reason::ToolNotConfigured.code(),
                    format!("`{name}` is not configured: {error}"),
                );
            }
        }
    }
    environment.extend(job.bench.idempotency_key().map(|key| (KEY.to_owned(), key.to_owned())));
    let (argv, binds) = match inside(job.bench.project(), &program.argv) {
        Ok(inside) => inside,
        Err(text) => return Outcome::error(Reason::CommandProgram.code(), format!("`{name}` can't run: {text}")),
    };
    let spec = Spec {
        id: Id::new(job.bench.clock().wall_ms(), job.bench.random().bytes()),
        workspace: Workspace::Scratch,
        environment: vec![],
        root: sandbox::Root::default(),
        binds,
        mounts: vec![],
        accounts: sandbox::Accounts::default(),
        left_out: vec![],
        limits: Limits::default(),
        walls_optional: vec![],
        landlock_version_min: 0,
        epoch: job.epoch,
    };
    let failed = |error: &sandbox::Error| Outcome::sandbox(&format!("`{name}` can't run"), error);
    // Dropping this call drops the jail, which ends the program.
    let jail = match helper.create(spec).await {
        Ok(jail) => jail,
        Err(error) => return failed(&error),
    };
    let command = Command {
        argv,
        workdir: RelPath::root(),
        environment,
        terminal: false,
        stdin: true,
        epoch: job.epoch,
        name: None,
        user: None,
    };
    let ended = match jail.start(command).await {
        Ok(mut process) => converse(&mut *process, Value::Object(job.arguments.clone()).to_string()).await,
        Err(error) => Err(error),
    };
    jail.close().await;
    match ended {
        Ok(ended) => told(ended, &values, job),
        Err(error) => failed(&error),
    }
}

/// Where the program and the files it is given stand in the jail. A file of a subdirectory comes with its directory, so
/// that a program finds what lies beside it; a file of the project's root comes alone.
fn inside(project: &Path, argv: &[String]) -> Result<(Vec<String>, Vec<Bind>), String> {
    let mut binds: Vec<Bind> = Vec::new();
    let mut inside = Vec::new();
    for (index, word) in argv.iter().enumerate() {
        // A program without a path is the jail's own; further words may name files of the project.
        if index == 0 && !word.contains('/') {
            inside.push(word.clone());
            continue;
        }
        let is_path = index == 0;
        let file = match locate(project, word) {
            Ok(file) if file.is_file() => file,
            Ok(_) if is_path => return Err(format!("`{word}` is no file")),
            Err(error) if is_path => return Err(error.to_string()),
            Ok(_) | Err(_) => {
                inside.push(word.clone());
                continue;
            }
        };
        let root = project.canonicalize().map_err(|error| format!("the project can't be opened: {error}"))?;
        let relative = file.strip_prefix(&root).unwrap_or(&file);
        let shown = match relative.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => parent,
            None => relative,
        };
        let bind = Bind { host: root.join(shown), inside: format!("{INSIDE}/{}", shown.display()) };
        if !binds.contains(&bind) {
            binds.push(bind);
        }
        inside.push(format!("{INSIDE}/{}", relative.display()));
    }
    // Of a directory and one within it only the outer one is shown.
    let all = binds.clone();
    binds.retain(|bind| !all.iter().any(|outer| outer != bind && bind.host.starts_with(&outer.host)));
    Ok((inside, binds))
}

/// Gives the arguments, takes the output, until the end.
async fn converse(process: &mut dyn Process, arguments: String) -> Result<Ended, sandbox::Error> {
    let (mut stdout, mut stderr) = (Capture::new(WHOLE_BYTES_MAX), Capture::new(STDERR_BYTES_MAX));
    let mut exit = None;
    let mut take = |chunk: Chunk| match chunk {
        Chunk::Output(Stream::Stdout, bytes) => stdout.push(&bytes),
        Chunk::Output(Stream::Stderr, bytes) => stderr.push(&bytes),
        Chunk::Exit(end) => exit = Some(end),
    };
    let mut rest = Bytes::from(arguments);
    let mut ended = false;
    while !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(PIECE_BYTES_MAX));
        match feed(process, piece, &mut take).await {
            Ok(Fed::Written) => {}
            Ok(Fed::Ended) => {
                ended = true;
                break;
            }
            // A program need not read its arguments, and may close its end before it is done.
            Ok(Fed::Stuck) | Err(_) => break,
        }
    }
    if !ended {
        // It may have closed its end already.
        let _ = process.close_stdin().await;
    }
    while !ended {
        let chunk = process.next().await?;
        ended = matches!(chunk, Chunk::Exit(_));
        take(chunk);
    }
    let exit = exit.ok_or(sandbox::Error::NoProcess)?;
    Ok(Ended { stdout: stdout.take(), stderr: stderr.take(), exit })
}

fn told(ended: Ended, values: &Values<'_>, job: &Job<'_>) -> Outcome {
    let Ended { stdout, stderr, exit } = ended;
    let bytes_max = job.contract.output_bytes_max;
    if exit == Exit::Code(0) {
        return Outcome::bytes(values.scrub(stdout), bytes_max, job.call.id);
    }
    let how = match exit {
        Exit::Code(code) => format!("ended with exit code {code}"),
        Exit::Signal(signal) => format!("was ended by signal {signal}"),
    };
    let mut text = format!("`{}` {how}.", job.call.tool).into_bytes();
    for (title, stream) in [("Standard error", stderr), ("Standard output", stdout)] {
        if !stream.is_empty() {
            text.extend_from_slice(format!("\n{title}:\n").as_bytes());
            text.extend_from_slice(&stream);
        }
    }
    let shown = output::show(&values.scrub(text), bytes_max, job.call.id);
    // A failure's output is not kept for paging: the end that explains it is shown.
    Outcome::text(shown.text).failed(CallStatus::Error, Reason::CommandFailed.code())
}
