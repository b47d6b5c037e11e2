//! Binaries of other commits: each built once, from an export of the commit in a folder of its own below cargo's target directory.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::context::Context;
use crate::process;

/// The present binary, where no later build replaces it.
pub(super) fn present(context: &Context) -> Result<PathBuf> {
    let built = context.binary()?;
    keep(&built, &context.scratch("upgrade")?.join("topside"))
}

/// The binary of a commit.
pub(super) fn earlier(context: &Context, commit: &str) -> Result<PathBuf> {
    let commit = context.git(&["rev-parse", "--verify", &format!("{commit}^{{commit}}")])?.trim().to_owned();
    let folder = context.scratch("upgrade")?.join(&commit);
    let binary = folder.join("topside");
    if binary.is_file() {
        return Ok(binary);
    }
    let (tree, target) = (folder.join("tree"), folder.join("target"));
    std::fs::create_dir_all(&tree)?;
    let archive = folder.join("tree.tar");
    context.git(&["archive", "--output", &archive.to_string_lossy(), &commit])?;
    let unpacked = process::capture(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&tree))?;
    ensure!(unpacked.status.success(), "tar: {}", unpacked.tail(3));
    seed(&context.target.join("debug"), &target.join("debug"))?;
    let mut cargo = Command::new("cargo");
    cargo.current_dir(&tree).env("CARGO_TARGET_DIR", &target);
    cargo.args(["build", "--locked", "--package", "topside", "--bin", "topside"]);
    let built = process::capture(&mut cargo)?;
    ensure!(built.status.success(), "cargo build of {commit}: {}", built.tail(20));
    let binary = keep(&target.join("debug/topside"), &binary)?;
    // Only the binary is wanted again, and the rest takes gigabytes.
    for left in [&tree, &target] {
        std::fs::remove_dir_all(left).with_context(|| left.display().to_string())?;
    }
    std::fs::remove_file(&archive)?;
    Ok(binary)
}

/// Whether a binary knows a command.
pub(super) fn knows(binary: &Path, command: &str) -> Result<bool> {
    Ok(process::capture(Command::new(binary).args([command, "--help"]))?.status.success())
}

/// A process may still run the one that is there, so it is replaced, not overwritten.
fn keep(built: &Path, at: &Path) -> Result<PathBuf> {
    let fresh = at.with_extension(std::process::id().to_string());
    std::fs::copy(built, &fresh)?;
    std::fs::rename(&fresh, at)?;
    Ok(at.to_owned())
}

/// Links what was compiled of other people's crates, so that only the project's own are compiled again. Cargo decides what fits.
fn seed(from: &Path, to: &Path) -> Result<()> {
    let mut known = BTreeSet::new();
    let hash = |name: &OsStr| {
        let name = name.to_str()?.split('.').next()?;
        Some(name.rsplit_once('-')?.1.to_owned())
    };
    for part in [".fingerprint", "build", "deps"] {
        std::fs::create_dir_all(to.join(part))?;
        for entry in std::fs::read_dir(from.join(part)).into_iter().flatten() {
            let name = entry?.file_name();
            let Some(hash) = hash(&name) else { continue };
            let is_own = name.to_str().is_some_and(|name| name.starts_with("topside") || name.starts_with("xtask"));
            if part == ".fingerprint" && !is_own {
                known.insert(hash.clone());
            }
            if known.contains(&hash) {
                link(&from.join(part).join(&name), &to.join(part).join(&name))?;
            }
        }
    }
    Ok(())
}

/// Links a file, or what is in a folder.
fn link(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        // One that is there, or that a build has just replaced, is compiled again.
        let _ = std::fs::hard_link(from, to);
        return Ok(());
    }
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let name = entry?.file_name();
        link(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}
