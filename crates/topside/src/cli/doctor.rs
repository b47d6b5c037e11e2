//! `topside doctor`: every wall of the sandbox tried for real, and every backend asked, each with the exact fix.

use super::Session;
use super::arguments::Place;
use super::clean::clean;
use super::console::{Console, Paint};
use super::ending::{Ending, Trouble};
use catalog::Catalog;
use domain::agent::ModelProvider;
use sandbox::{Probe, Provider};
use std::fmt::Write;
use stdx::Random;
use topside::{Data, Environment};

pub(crate) async fn doctor(session: Session, place: Place) -> Result<Ending, Trouble> {
    let Session { console, environment, launcher } = session;
    let paint = if console.data_is_terminal { console.paint } else { Paint::Plain };
    console.data_line(concat!("topside ", env!("CARGO_PKG_VERSION")));
    let data = place.data.clone().unwrap_or_else(|| place.project.join(topside::DATA_DIRECTORY));
    let probe = match launcher.and_then(|launcher| jail::Provider::new(launcher, data.clone(), Random::system())) {
        Ok(provider) => Ok(provider.probe().await),
        Err(error) => Err(error),
    };
    let ending = match probe {
        Ok(probe) => {
            console.data(&walls(&probe, paint));
            if probe.ready { Ending::Done } else { Ending::Failed }
        }
        Err(error) => {
            console.data_line(&format!("sandbox: not ready: {error}"));
            Ending::Failed
        }
    };
    console.data(&limits());
    backends(&console, &place, &environment, &Data::at(data));
    Ok(ending)
}

fn walls(probe: &Probe, paint: Paint) -> String {
    let standing = probe.walls.iter().filter(|finding| finding.holds).count();
    let state = if probe.ready { paint.green("ready") } else { paint.red("not ready") };
    let mut out = format!("sandbox: {state}, {standing} of {} walls hold\n", probe.walls.len());
    for finding in probe.walls.iter().chain(&probe.remarks) {
        let sign = if finding.holds { paint.green("ok") } else { paint.red("NO") };
        let _ = writeln!(out, "  {sign}  {:<18} {}", finding.wall, clean(&finding.detail));
        if let Some(fix) = &finding.fix {
            for line in fix.lines() {
                let _ = writeln!(out, "      fix: {}", clean(line));
            }
        }
    }
    out
}

fn limits() -> String {
    let sandbox::Limits {
        memory_bytes_max,
        processes_max,
        cpu_milli_max,
        workspace_bytes_max,
        workspace_inodes_max,
        tmp_bytes_max,
        open_files_max,
        commands_max,
        // None unless topside.yaml sets them.
        io_bytes_per_second_max: _,
        io_operations_per_second_max: _,
    } = sandbox::Limits::default();
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    format!(
        "limits: memory {}, {processes_max} processes, {} % of a processor, workspace {} and {workspace_inodes_max} files, \
         /tmp {}, {open_files_max} open files, {commands_max} commands (unless topside.yaml says otherwise)\n",
        mib(memory_bytes_max),
        cpu_milli_max / 10,
        mib(workspace_bytes_max),
        mib(tmp_bytes_max),
    )
}

fn backends(console: &Console, place: &Place, environment: &Environment, data: &Data) {
    let held = if data.has_journal() { "there" } else { "made at the first run" };
    console.data_line(&format!("journal: SQLite in {} ({held})", data.path().display()));
    let objects = match environment.get("TOPSIDE_S3_BUCKET") {
        Some(bucket) => {
            format!("bucket {} on {}", clean(bucket), clean(environment.get("TOPSIDE_S3_ENDPOINT").unwrap_or("?")))
        }
        None => "a local directory".to_owned(),
    };
    console.data_line(&format!("objects: {objects}"));
    let project = place.project.display();
    if !place.project.join("topside.yaml").is_file() {
        return console.data_line(&format!("project: none in {project}; begin one with `topside new`"));
    }
    let catalog = match Catalog::load(&place.project, &|name| environment.get(name).map(str::to_owned)) {
        Ok(catalog) => catalog,
        Err(problems) => {
            return console
                .data_line(&format!("project: {} problem(s) in {project}; see `topside check`", problems.count()));
        }
    };
    console.data_line(&format!("project: {project}"));
    for closure in catalog.agents() {
        let how = match closure.model.provider {
            ModelProvider::Script => "a transcript, no model is called",
            ModelProvider::Openai | ModelProvider::OpenaiCompatible => "a live model",
        };
        let (agent, model) = (clean(&closure.agent.name), clean(&closure.model.name));
        console.data_line(&format!("  agent {agent}: {model} ({how})"));
    }
    for off in &catalog.switched_off {
        console.data_line(&format!("  {}", clean(&off.to_string())));
    }
}
