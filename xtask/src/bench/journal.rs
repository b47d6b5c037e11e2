//! What the journal takes of its store: the appends of whole runs beside the shortest loop that writes the same rows.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Arguments;
use super::figures::{Figure, Page};
use crate::postgres::Cluster;
use crate::process;

const WRITERS: &str = "64";

pub(crate) fn measure(built: &Path, arguments: &Arguments, page: &mut Page) -> Result<()> {
    let seconds = arguments.seconds.to_string();
    let (mut mine, mut bare) = (Figure::default(), Figure::default());
    for _ in 0..arguments.pairs {
        for (figure, store) in [(&mut mine, "sqlite"), (&mut bare, "bare-sqlite")] {
            let mut append = Command::new(built.join("examples/append"));
            figure.add(field(append.args([store, &seconds, WRITERS]), "records_per_second")?);
        }
    }
    page.beside(&format!("records per second, SQLite, {WRITERS} writers"), &mine, "bare loop, the same rows", &bare);
    postgres(built, arguments, page)
}

fn postgres(built: &Path, arguments: &Arguments, page: &mut Page) -> Result<()> {
    let name = format!("records per second, PostgreSQL, {WRITERS} writers");
    let Some(mut cluster) = Cluster::start()? else {
        page.skipped(&name, "there is no PostgreSQL server");
        return Ok(());
    };
    let seconds = arguments.seconds.to_string();
    let (mut mine, mut bare) = (Figure::default(), Figure::default());
    for _ in 0..arguments.pairs {
        for (figure, store) in [(&mut mine, "postgres"), (&mut bare, "bare-postgres")] {
            let mut append = Command::new(built.join("examples/append"));
            append.args([store, &seconds, WRITERS, &cluster.database()?]);
            figure.add(field(&mut append, "records_per_second")?);
        }
    }
    page.beside(&name, &mine, "bare fenced statement, the same rows", &bare);
    Ok(())
}

/// Runs a program that prints one line of JSON at its end; one number of it.
pub(super) fn field(command: &mut Command, name: &str) -> Result<f64> {
    fields(command)?[name].as_f64().with_context(|| format!("no {name}: {command:?}"))
}

/// Runs a program that prints one line of JSON at its end.
pub(super) fn fields(command: &mut Command) -> Result<Value> {
    let said = process::capture(command)?;
    ensure!(said.status.success(), "{command:?}: {}", said.tail(10));
    serde_json::from_str(said.tail(1).trim()).with_context(|| format!("{command:?}: {}", said.tail(10)))
}
