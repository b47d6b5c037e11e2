//! From the start of the process to the first answer of `/health`, with many sessions stored.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use super::figures::{Figure, Page};
use super::peers;
use crate::process;
use crate::server::Server;

pub(crate) fn measure(built: &Path, arguments: &super::Arguments, page: &mut Page) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let project = folder.path().join("project");
    peers::write_project(&project, 1, "responses", false)?;
    let data = folder.path().join("data");
    let mut fill = Command::new(built.join("examples/store"));
    fill.arg("fill").arg(&data).arg(arguments.sessions.to_string());
    let filled = process::capture(&mut fill)?;
    ensure!(filled.status.success(), "store fill: {}", filled.tail(5));
    let mut ready = Figure::default();
    // The first start makes keys and folders, and warms the page cache.
    Server::topside(built, &project, &data)?.stop()?;
    for _ in 0..arguments.pairs {
        let server = Server::topside(built, &project, &data)?;
        ready.add(server.ready_ms);
        server.stop()?;
    }
    page.alone(&format!("start to `/health`, {} sessions stored, ms", arguments.sessions), &ready);
    Ok(())
}
