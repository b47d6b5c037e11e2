//! `topside sandbox explain`: what a sandbox may do and what it may not, or why it is no more.

use super::list;
use super::reach::{Reach, waiting};
use crate::cli::Session;
use crate::cli::arguments::OfSandbox;
use crate::cli::clean::clean;
use crate::cli::ending::{Ending, Trouble};
use crate::cli::log::time;
use crate::cli::run::json_line;
use api::{Sandbox, SandboxAbout, SandboxDetail, SandboxLimits, SandboxWall};
use std::fmt::Write as _;

pub(crate) async fn explain(session: Session, arguments: OfSandbox) -> Result<Ending, Trouble> {
    let OfSandbox { sandbox, json, target } = arguments;
    let (console, reach) = Reach::find(session, &target).await?;
    let detail = match reach {
        Reach::Launcher(mut visit) => {
            let living = waiting(move || visit.living()).await?;
            let left = living.into_iter().filter_map(list::left).find(|living| living.sandbox_id == sandbox);
            console.talk_line(list::LEFT);
            of_left(left.ok_or(Trouble::SandboxMissing { sandbox })?)
        }
        reach => reach.service()?.sandbox(sandbox).await?,
    };
    if json {
        json_line(&console, &serde_json::json!({ "sandbox": detail }));
    } else {
        console.data(&told(&detail));
    }
    Ok(Ending::Done)
}

/// What the launcher knows of one that no service has: what it was made of, only its harness knew.
fn of_left(living: Sandbox) -> SandboxDetail {
    let (sandbox_id, status) = (living.sandbox_id, living.status);
    let walls = server::sandbox_walls(&living.walls, &living.missing);
    SandboxDetail { sandbox_id, status, living: Some(living), about: None, walls, ended: None }
}

fn told(detail: &SandboxDetail) -> String {
    let mut out = String::new();
    match (&detail.living, &detail.ended) {
        (Some(living), _) => {
            out.push_str(&list::told(living));
            if let Some(limits) = &living.limits {
                out.push_str(&limits_told(limits));
            }
        }
        (None, Some(end)) => {
            let _ = writeln!(out, "{}  {}", detail.sandbox_id, detail.status.name());
            let _ = writeln!(out, "      session {}, run {}", end.session_id, end.run_id);
            let why = end.reason.as_deref().map_or("its end is not on record: its service ended with it".into(), clean);
            let _ = writeln!(out, "      {why} (record {}, {})", end.position, time(end.at_ms));
        }
        (None, None) => {
            let _ = writeln!(out, "{}  {}", detail.sandbox_id, detail.status.name());
        }
    }
    if let Some(about) = &detail.about {
        out.push_str(&about_told(about));
    }
    out.push_str(if detail.living.is_some() { "walls:\n" } else { "walls it had:\n" });
    detail.walls.iter().for_each(|wall| out.push_str(&wall_told(wall)));
    out
}

fn limits_told(limits: &SandboxLimits) -> String {
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    let mut out = format!(
        "limits: {} % of a processor, workspace {} and {} files, /tmp {}, {} open files, {} commands",
        limits.cpu_milli_max / 10,
        mib(limits.workspace_bytes_max),
        limits.workspace_inodes_max,
        mib(limits.tmp_bytes_max),
        limits.open_files_max,
        limits.commands_max
    );
    for (max, unit) in [(limits.io_bytes_per_second_max, "bytes"), (limits.io_operations_per_second_max, "operations")]
    {
        if max > 0 {
            let _ = write!(out, ", {max} {unit} a second to and from the disk");
        }
    }
    out.push('\n');
    out
}

fn about_told(about: &SandboxAbout) -> String {
    let mut out = format!("root: {}\nworkspace: {}\n", clean(&about.root), clean(&about.store));
    let names: Vec<_> = about.environment.iter().map(|name| clean(name)).collect();
    let names = if names.is_empty() { "none of its own".to_owned() } else { names.join(", ") };
    let _ = writeln!(out, "variables: {names}");
    for shown in &about.shown {
        let _ = writeln!(out, "shown: {} ({})", clean(&shown.inside), clean(&shown.what));
    }
    out
}

fn wall_told(wall: &SandboxWall) -> String {
    let SandboxWall { name, stands, holds, refuses, found } = wall;
    let sign = if *stands { "ok" } else { "NO" };
    let mut out = format!("  {sign}  {:<18} {}\n", clean(name), clean(holds));
    if *stands {
        let _ = writeln!(out, "      refuses: {}", clean(refuses));
    }
    let _ = writeln!(out, "      known: {}", clean(found));
    out
}
