//! `topside sandbox list`: what lives.

use super::reach::{Reach, waiting};
use crate::cli::Session;
use crate::cli::arguments::SandboxList;
use crate::cli::clean::clean;
use crate::cli::ending::{Ending, Trouble};
use crate::cli::run::json_line;
use api::{Sandbox, SandboxLimits, SandboxStatus, SandboxUsage};
use sandbox::Living;
use std::fmt::Write as _;

pub(crate) async fn list(session: Session, arguments: SandboxList) -> Result<Ending, Trouble> {
    let (console, reach) = Reach::find(session, &arguments.target).await?;
    let sandboxes = match reach {
        Reach::Service(client) => client.sandboxes().await?.sandboxes,
        Reach::Launcher(mut visit) => {
            let living = waiting(move || visit.living()).await?;
            console.talk_line(LEFT);
            living.into_iter().filter_map(left).collect()
        }
        Reach::Nowhere => Vec::new(),
    };
    for sandbox in &sandboxes {
        if arguments.json {
            json_line(&console, &serde_json::json!({ "sandbox": sandbox }));
        } else {
            console.data(&told(sandbox));
        }
    }
    if sandboxes.is_empty() && !arguments.json {
        console.talk_line("no sandbox lives");
    }
    Ok(Ending::Done)
}

/// What is said of sandboxes that no service has.
pub(crate) const LEFT: &str = "no service answers; what is told was left by one and waits for the next";

/// One that no service has, as a service would tell it.
pub(crate) fn left(living: Living) -> Option<Sandbox> {
    let (_, session_id) = living.workspace?;
    let sandbox::Usage { memory_bytes, processes, memory_kills } = living.usage;
    let limits = living.limits.map(|limits| SandboxLimits {
        memory_bytes_max: limits.memory_bytes_max,
        processes_max: limits.processes_max,
        cpu_milli_max: limits.cpu_milli_max,
        workspace_bytes_max: limits.workspace_bytes_max,
        workspace_inodes_max: limits.workspace_inodes_max,
        tmp_bytes_max: limits.tmp_bytes_max,
        open_files_max: limits.open_files_max,
        commands_max: limits.commands_max as u64,
        io_bytes_per_second_max: limits.io_bytes_per_second_max,
        io_operations_per_second_max: limits.io_operations_per_second_max,
    });
    Some(Sandbox {
        sandbox_id: living.id,
        session_id,
        run_id: None,
        status: SandboxStatus::Left,
        age_ms: living.age_ms,
        epoch: living.epoch,
        walls: living.walls.standing,
        missing: living.walls.missing,
        usage: SandboxUsage { memory_bytes, processes, memory_kills },
        limits,
        commands: None,
    })
}

/// A sandbox as people read it.
pub(crate) fn told(sandbox: &Sandbox) -> String {
    let Sandbox { sandbox_id, session_id, run_id, status, age_ms, epoch, walls, missing, .. } = sandbox;
    let mut out = format!("{sandbox_id}  {}, {}, epoch {epoch}\n", status.name(), age(*age_ms));
    let run = run_id.map(|run| format!(", run {run}")).unwrap_or_default();
    let _ = writeln!(out, "      session {session_id}{run}");
    let without = if missing.is_empty() { String::new() } else { format!(", without {}", clean(&missing.join(", "))) };
    let _ = writeln!(out, "      {} walls stand{without}", walls.len());
    let _ = writeln!(out, "      {}", usage(sandbox));
    if let Some(commands) = sandbox.commands.as_ref().filter(|commands| !commands.is_empty()) {
        let names: Vec<_> = commands.iter().map(|command| clean(&command.name).into_owned()).collect();
        let _ = writeln!(out, "      commands: {}", names.join(", "));
    }
    out
}

/// What it uses against what it may use.
pub(crate) fn usage(sandbox: &Sandbox) -> String {
    let usage = &sandbox.usage;
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let used = |used: Option<String>| used.unwrap_or_else(|| "not counted".to_owned());
    let (memory, processes) = (used(usage.memory_bytes.map(mib)), used(usage.processes.map(|count| count.to_string())));
    let mut out = match &sandbox.limits {
        Some(limits) => format!(
            "memory {memory} of {}, processes {processes} of {}",
            mib(limits.memory_bytes_max),
            limits.processes_max
        ),
        None => format!("memory {memory}, processes {processes}"),
    };
    if usage.memory_kills > 0 {
        let _ = write!(out, ", killed {} times for memory", usage.memory_kills);
    }
    out
}

fn age(ms: u64) -> String {
    match ms / 1_000 {
        seconds @ 0..120 => format!("{seconds} s old"),
        seconds @ 120..7_200 => format!("{} min old", seconds / 60),
        seconds => format!("{} h old", seconds / 3_600),
    }
}
