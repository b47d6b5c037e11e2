//! `topside workspace`: the files of sessions compared, written to archives, put back.

use super::Session;
use super::arguments::{WorkspaceCommand, WorkspaceDiff, WorkspaceExport, WorkspaceRestore};
use super::clean::clean;
use super::console::Console;
use super::ending::{Ending, Trouble};
use super::service::{Purpose, Service};
use api::{FileDiff, FileState};
use bytes::Bytes;
use client::{Archive, Client};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

pub(crate) async fn workspace(session: Session, command: WorkspaceCommand) -> Result<Ending, Trouble> {
    match command {
        WorkspaceCommand::Diff(arguments) => diff(session, arguments).await,
        WorkspaceCommand::Export(arguments) => export(session, arguments).await,
        WorkspaceCommand::Restore(arguments) => restore(session, arguments).await,
    }
}

async fn diff(session: Session, arguments: WorkspaceDiff) -> Result<Ending, Trouble> {
    let (console, service) = Service::reach(session, &arguments.target, Purpose::Look).await?;
    let WorkspaceDiff { session, from, to, patch, .. } = arguments;
    let compared = service.client().workspace_diff(&session, from, to, patch.then_some("true")).await;
    let told = compared.map_err(Trouble::from).map(|diff| {
        diff.files.iter().for_each(|file| console.data_line(&line(file)));
        for patch in diff.files.iter().filter_map(|file| file.patch.as_ref()) {
            console.data(&clean(patch));
        }
        if diff.unlisted > 0 {
            console.talk_line(&format!("{} more paths differ", diff.unlisted));
        }
        if diff.files.is_empty() {
            console.talk_line(&format!("{} and {} do not differ", diff.from, diff.to));
        }
        Ending::Done
    });
    service.end(told).await
}

/// A path in one line: what became of it, its mode, its length.
fn line(file: &FileDiff) -> String {
    let FileDiff { path, before, after, .. } = file;
    let was = |side: fn(&FileState) -> String| match (before, after) {
        (Some(before), Some(after)) if side(before) != side(after) => format!("{} -> {}", side(before), side(after)),
        (before, after) => after.as_ref().or(before.as_ref()).map(side).unwrap_or_default(),
    };
    let sign = match (before, after) {
        (None, _) => '+',
        (_, None) => '-',
        _ => '~',
    };
    let (mode, bytes) = (was(|state| state.mode.clone()), was(|state| format!("{} bytes", state.bytes)));
    // The kind is told where it is none of a file, or another than before.
    let kind = was(|state| state.kind.clone());
    let kind = if kind == "file" { String::new() } else { format!(" ({kind})") };
    format!("{sign} {mode} {bytes}  {}{kind}", clean(path))
}

async fn export(session: Session, arguments: WorkspaceExport) -> Result<Ending, Trouble> {
    let (console, service) = Service::reach(session, &arguments.target, Purpose::Look).await?;
    let written = written(&console, service.client(), &arguments).await.map(|()| Ending::Done);
    service.end(written).await
}

async fn written(console: &Console, client: &Client, arguments: &WorkspaceExport) -> Result<(), Trouble> {
    let mut archive = client.workspace(&arguments.session, arguments.checkpoint).await?;
    if arguments.out == Path::new("-") {
        while let Some(piece) = archive.next().await? {
            console.data_bytes(&piece);
        }
        return Ok(());
    }
    let broken = |error: io::Error| Trouble::File { path: arguments.out.clone(), error };
    // Half an archive never stands under the name that was asked for.
    let mut part = arguments.out.clone().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let saved = save(&part, archive).await;
    let named = match saved {
        Ok(()) => fs::rename(&part, &arguments.out).map_err(broken),
        Err(error) => Err(error),
    };
    if named.is_err() {
        // What is left over says nothing of itself; the next attempt writes over it.
        let _ = fs::remove_file(&part);
    }
    named
}

async fn save(part: &Path, mut archive: Archive) -> Result<(), Trouble> {
    let broken = |error: io::Error| Trouble::File { path: part.to_owned(), error };
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(part).map_err(broken)?;
    while let Some(piece) = archive.next().await? {
        file.write_all(&piece).map_err(broken)?;
    }
    file.sync_all().map_err(broken)
}

async fn restore(session: Session, arguments: WorkspaceRestore) -> Result<Ending, Trouble> {
    let archive = match &arguments.archive {
        Some(path) => {
            let bytes = fs::read(path).map_err(|error| Trouble::File { path: path.clone(), error })?;
            Some(Bytes::from(bytes))
        }
        None => None,
    };
    let (console, service) = Service::reach(session, &arguments.target, Purpose::Look).await?;
    let restored = match (arguments.checkpoint, archive) {
        (Some(checkpoint), _) => service.client().restore_workspace(&arguments.session, checkpoint).await,
        (None, archive) => service.client().put_workspace(&arguments.session, archive.unwrap_or_default()).await,
    };
    let told = restored.map_err(Trouble::from).map(|restored| {
        let api::RestoredWorkspace { checkpoint_id, bytes, entries, at } = restored;
        console.talk_line(&format!("{entries} entries, {bytes} bytes; the session has {at} records"));
        console.data_line(&checkpoint_id.to_string());
        Ending::Done
    });
    service.end(told).await
}
