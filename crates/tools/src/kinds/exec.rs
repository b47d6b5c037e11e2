//! `exec_command` and `write_stdin`: commands in the sandbox, with the names, arguments and result text of the Agents SDK.

use super::Job;
use crate::Outcome;
use crate::output::{self, BYTES_PER_TOKEN};
use crate::reason::Reason;
use crate::terminals::{End, Report, TERMINALS_MAX, Terminal, Unread, name_of, numbered};
use bytes::Bytes;
use domain::{CallStatus, FailureClass, ToolSpec};
use sandbox::{Command, Process, RelPath, Sandbox};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a call waits for a command at least and at most.
const YIELD_MS_MIN: u64 = 250;
const YIELD_MS_MAX: u64 = 30_000;
/// A poll that writes nothing waits at least this long: polling more often only costs turns.
const POLL_MS_MIN: u64 = 5_000;
/// From so many live sessions on, the model is told.
const TERMINALS_WARN: usize = 60;
/// Ctrl-C.
const INTERRUPT: &str = "\u{3}";

const EXEC: &str = "Runs a command in a PTY, returning output or a session ID for ongoing interaction.";
const EXEC_SCHEMA: &str = r#"{
  "type": "object",
  "properties": {
    "cmd": {"type": "string", "minLength": 1, "description": "Shell command to run."},
    "workdir": {"type": "string", "minLength": 1, "description": "Directory to run it in, within the workspace. Default: the workspace."},
    "shell": {"type": "string", "minLength": 1, "description": "Shell to run it with. Default: sh."},
    "login": {"type": "boolean", "description": "Whether the shell is a login shell (-lc instead of -c). Default: true."},
    "tty": {"type": "boolean", "description": "Whether the command gets a terminal and takes input through write_stdin. Default: false."},
    "yield_time_ms": {"type": "integer", "minimum": 0, "description": "How long to wait for output, in milliseconds, before a command that still runs is left to a session. Default: 10000."},
    "max_output_tokens": {"type": "integer", "minimum": 1, "description": "How many tokens of output to return; the middle of what exceeds them is left out."}
  },
  "required": ["cmd"]
}"#;
const WRITE: &str = "Writes characters to an existing exec_command session and returns recent output.";
const WRITE_SCHEMA: &str = r#"{
  "type": "object",
  "properties": {
    "session_id": {"type": "integer", "description": "The session ID that exec_command returned."},
    "chars": {"type": "string", "description": "Characters to write to its terminal; empty to poll for output. Default: empty."},
    "yield_time_ms": {"type": "integer", "minimum": 0, "description": "How long to wait for output, in milliseconds. Default: 250; a poll waits at least 5000."},
    "max_output_tokens": {"type": "integer", "minimum": 1, "description": "How many tokens of output to return; the middle of what exceeds them is left out."}
  },
  "required": ["session_id"]
}"#;

pub(crate) fn exec_spec() -> ToolSpec {
    super::spec("exec_command", EXEC, EXEC_SCHEMA)
}

pub(crate) fn write_spec() -> ToolSpec {
    super::spec("write_stdin", WRITE, WRITE_SCHEMA)
}

/// How the process stands in a result's header.
enum Standing {
    Exited(i32),
    Running(u64),
    /// Neither is known.
    Lost,
}

/// `exec_command`.
pub(crate) async fn exec(job: &Job<'_>) -> Outcome {
    let begun = job.bench.clock().monotonic();
    let workdir = match job.text("workdir").map_or_else(|| Ok(RelPath::root()), RelPath::from_model) {
        Ok(workdir) => workdir,
        Err(error) => {
            let text = "Invalid workdir. Use a path within the workspace or an explicitly granted path.";
            return Outcome::error(error.code(), text);
        }
    };
    let tty = job.flag("tty").unwrap_or(false);
    let flag = if job.flag("login").unwrap_or(true) { "-lc" } else { "-c" };
    let argv = [job.text("shell").unwrap_or("sh"), flag, job.text("cmd").unwrap_or_default()];
    let command = Command {
        argv: argv.map(str::to_owned).into(),
        workdir,
        environment: vec![],
        terminal: tty,
        stdin: false,
        epoch: job.epoch,
        name: None,
        user: None,
    };
    let sandbox = match job.bench.sandbox().await {
        Ok(sandbox) => sandbox,
        Err(error) => return Outcome::sandbox("exec_command failed", &error),
    };
    let terminals = job.bench.terminals();
    terminals.make_room();
    let started = match job.bench.is_attached() {
        true => attach(job, sandbox.as_ref()).await,
        false => start(job, sandbox.as_ref(), command).await,
    };
    let (id, terminal) = match started {
        // From here on, dropping this call kills the command.
        Ok((id, process)) => (id, Arc::new(Terminal::new(process, tty))),
        Err(outcome) => return outcome,
    };
    let wait_ms = job.number("yield_time_ms").unwrap_or(10_000).clamp(YIELD_MS_MIN, YIELD_MS_MAX);
    let report = terminal.watch(job.bench, Instant::now() + Duration::from_millis(wait_ms)).await;
    terminals.gave(job.call.id, &terminal, report.position);
    if report.end.is_some() {
        return told(job, begun, report, None);
    }
    terminals.keep(id, terminal);
    told(job, begun, report, Some(id.into()))
}

/// A process and the number under which the model can name it.
type Started = (u32, Box<dyn Process>);

async fn start(job: &Job<'_>, sandbox: &dyn Sandbox, command: Command) -> Result<Started, Outcome> {
    let id = job.bench.terminals().free_number(job.bench.random());
    let command = Command { name: Some(name_of(job.call.id, id)), ..command };
    let failed = |error| Outcome::sandbox("exec_command failed", &error);
    sandbox.start(command).await.map(|process| (id, process)).map_err(failed)
}

/// Goes on with the program that an earlier driver started.
async fn attach(job: &Job<'_>, sandbox: &dyn Sandbox) -> Result<Started, Outcome> {
    let failed = |error| Outcome::sandbox("the command can't be gone on with", &error);
    let kept = sandbox.commands().await.map_err(failed)?;
    let of_call = kept.into_iter().find_map(|kept| match numbered(&kept.name)? {
        (call, id) if call == job.call.id => Some((id, kept)),
        _ => None,
    });
    let (id, kept) = of_call.ok_or_else(|| failed(sandbox::Error::NoProcess))?;
    sandbox.attach(&kept.name, kept.from).await.map(|process| (id, process)).map_err(failed)
}

/// `write_stdin`.
pub(crate) async fn write(job: &Job<'_>) -> Outcome {
    let begun = job.bench.clock().monotonic();
    let id = job.number("session_id").unwrap_or(0);
    let chars = job.text("chars").unwrap_or_default();
    job.bench.awake().await;
    let terminals = job.bench.terminals();
    let Some(terminal) = terminals.get(id) else {
        let text = format!(
            "write_stdin failed: unknown session_id {id}; it ended, was closed, or never was. Start the command again with exec_command."
        );
        return render(job, begun, &Standing::Exited(1), text.into_bytes(), None)
            .failed(CallStatus::Error, Reason::TerminalUnknown.code());
    };
    let asked = job.number("yield_time_ms").unwrap_or(250);
    let wait_ms = asked.clamp(if chars.is_empty() { POLL_MS_MIN } else { YIELD_MS_MIN }, YIELD_MS_MAX);
    if !chars.is_empty() {
        let refused = |text: String, code| {
            render(job, begun, &Standing::Running(id), text.into_bytes(), None).failed(CallStatus::Error, code)
        };
        if terminal.tty {
            match terminal.write(Bytes::copy_from_slice(chars.as_bytes())).await {
                // An end is told with the output that came before it.
                Ok(()) | Err(Unread::Ended) => {}
                Err(Unread::Stuck) => {
                    return refused("write_stdin failed: the process does not read its input; a part of it may have been written. Poll for its output, or interrupt it with \\u0003.".into(), Reason::TerminalStuck.code());
                }
                Err(Unread::Sandbox(error)) => return refused(format!("write_stdin failed: {error}"), error.code()),
            }
        } else if chars == INTERRUPT {
            terminal.kill().await;
        } else {
            return refused("stdin is not available for this process. Start the command with `tty=true` to write to it; \\u0003 alone stops it.".into(), Reason::TerminalNoStdin.code());
        }
    }
    let report = terminal.watch(job.bench, Instant::now() + Duration::from_millis(wait_ms)).await;
    terminals.gave(job.call.id, &terminal, report.position);
    if report.end.is_some() {
        terminals.forget(id);
    }
    told(job, begun, report, Some(id))
}

/// What a watched process gave, in the form that models know.
fn told(job: &Job<'_>, begun: Duration, report: Report, id: Option<u64>) -> Outcome {
    let Report { mut output, total_bytes, end, .. } = report;
    match (end, id) {
        (Some(End::Exit(exit)), _) => {
            render(job, begun, &Standing::Exited(exit.shell_code()), output, Some(total_bytes))
        }
        (Some(End::Lost(error)), _) => {
            output.extend_from_slice(format!("\n[the command was lost: {error}]\n").as_bytes());
            let outcome = render(job, begun, &Standing::Lost, output, Some(total_bytes));
            outcome.failed(CallStatus::Error, error.code()).of_class(FailureClass::Sandbox)
        }
        (None, Some(id)) => {
            let open = job.bench.terminals().count();
            if open >= TERMINALS_WARN {
                let warning = format!(
                    "\n[{open} of at most {TERMINALS_MAX} sessions are open; the one idle longest is ended for a further one]\n"
                );
                output.extend_from_slice(warning.as_bytes());
            }
            render(job, begun, &Standing::Running(id), output, Some(total_bytes))
        }
        (None, None) => render(job, begun, &Standing::Lost, output, Some(total_bytes)),
    }
}

fn render(job: &Job<'_>, begun: Duration, standing: &Standing, output: Vec<u8>, total_bytes: Option<u64>) -> Outcome {
    let tokens_max = job.number("max_output_tokens").unwrap_or(u64::MAX);
    let bytes_max = job.contract.output_bytes_max.min(tokens_max.saturating_mul(BYTES_PER_TOKEN));
    let shown = output::show(&output, bytes_max, job.call.id);
    let [a, b, c] = job.bench.random().bytes::<3>();
    let seconds = job.bench.clock().monotonic().saturating_sub(begun).as_secs_f64();
    let mut text = format!("Chunk ID: {a:02x}{b:02x}{c:02x}\nWall time: {seconds:.4} seconds\n");
    // Writing to a string can't fail.
    let _ = match standing {
        Standing::Exited(code) => writeln!(text, "Process exited with code {code}"),
        Standing::Running(id) => writeln!(text, "Process running with session ID {id}"),
        Standing::Lost => Ok(()),
    };
    if shown.cut {
        let tokens = total_bytes.map_or(shown.tokens, |bytes| bytes.div_ceil(BYTES_PER_TOKEN));
        let _ = writeln!(text, "Original token count: {tokens}");
    }
    text.push_str("Output:\n");
    text.push_str(&shown.text);
    Outcome { whole: shown.cut.then(|| output.into()), ..Outcome::text(text) }
}
