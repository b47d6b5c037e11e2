//! The guest's kernel: Debian's cloud kernel, unpacked from its package and never installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::process;

/// The package that names the newest one.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// A kernel and the one module that the guest needs.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) program: PathBuf,
    pub(crate) loop_module: PathBuf,
}

/// Takes the kernel from where an earlier run left it, or from the package archive.
pub(crate) fn fetch(directory: &Path) -> Result<Kernel> {
    if let Ok(kernel) = find(directory) {
        return Ok(kernel);
    }
    std::fs::create_dir_all(directory)?;
    let depends = process::capture(Command::new("apt-cache").args(["depends", PACKAGE]))?;
    let name = depends.text.lines().find_map(|line| line.trim().strip_prefix("Depends: ")).map(str::to_owned);
    let name = name.with_context(|| format!("apt knows no {PACKAGE}; hint: `apt-get update`\n{}", depends.tail(5)))?;
    let mut download = Command::new("apt-get");
    let captured = process::capture(download.args(["download", "--quiet", &name]).current_dir(directory))?;
    ensure!(captured.status.success(), "{name} can't be had: {}", captured.tail(5));
    let package = entries(directory)?.into_iter().find(|path| path.extension().is_some_and(|end| end == "deb"));
    let package = package.with_context(|| format!("{name} was not left in {}", directory.display()))?;
    let captured = process::capture(Command::new("dpkg-deb").arg("-x").arg(&package).arg(directory))?;
    ensure!(captured.status.success(), "{} can't be unpacked: {}", package.display(), captured.tail(5));
    std::fs::remove_file(package)?;
    find(directory)
}

fn find(directory: &Path) -> Result<Kernel> {
    let program = entries(&directory.join("boot"))?
        .into_iter()
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))
        .context("no kernel in the package")?;
    let version = entries(&directory.join("lib/modules"))?.pop().context("no modules in the package")?;
    let loop_module = version.join("kernel/drivers/block/loop.ko");
    ensure!(loop_module.is_file(), "{} is not there", loop_module.display());
    Ok(Kernel { program, loop_module })
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    Ok(entries.collect::<Result<Vec<_>, _>>()?.into_iter().map(|entry| entry.path()).collect())
}
