//! The guest's files: the test programs, the tools that they and their attacks run, the libraries of all, and the first
//! process. Written as the archive that the kernel unpacks (`newc`).

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::kernel::Kernel;
use crate::process;

const INIT: &str = include_str!("init.sh");
/// What runs besides the test programs; `busybox` makes the machine, the others stand inside sandboxes.
const TOOLS: &[&str] = &[
    "sh", "cat", "chmod", "cp", "cut", "dd", "echo", "env", "find", "grep", "head", "id", "ln", "ls", "mkdir",
    "mkfifo", "mv", "od", "pgrep", "pkill", "printf", "readlink", "rm", "seq", "setsid", "sleep", "sort", "stat", "su",
    "sync", "tail", "tar", "touch", "tr", "true", "wc", "yes",
];

/// Lays the files out and packs them.
pub(crate) fn write(
    archive: &Path,
    tree: &Path,
    programs: &[(String, PathBuf)],
    kernel: &Kernel,
    word: &str,
    list: &str,
) -> Result<()> {
    if tree.exists() {
        std::fs::remove_dir_all(tree)?;
    }
    let root = tree.join("image");
    for name in ["bin", "dev", "etc", "proc", "sys", "tests", "tmp", "usr/bin", "usr/lib"] {
        std::fs::create_dir_all(root.join(name))?;
    }
    let busybox = find("busybox")?;
    std::fs::create_dir_all(tree.join("bin"))?;
    for place in [tree.join("bin/busybox"), root.join("bin/busybox")] {
        std::fs::copy(&busybox, place)?;
    }
    for place in [tree.join("init"), root.join("init")] {
        std::fs::write(&place, INIT)?;
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o755))?;
    }
    std::fs::write(root.join("tests/list"), list)?;
    std::fs::write(root.join("word"), word)?;
    std::fs::copy(&kernel.loop_module, root.join("loop.ko"))?;
    std::fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n")?;
    std::fs::write(root.join("etc/group"), "root:x:0:\n")?;
    let mut libraries = BTreeSet::new();
    for (name, program) in programs {
        libraries.extend(needed(program)?);
        // Most of a test program is what only debuggers read.
        let stripped =
            process::capture(Command::new("strip").arg("-o").arg(root.join("tests").join(name)).arg(program))?;
        ensure!(stripped.status.success(), "strip: {}", stripped.tail(5));
    }
    for name in TOOLS {
        let program = find(name)?;
        libraries.extend(needed(&program)?);
        std::fs::copy(&program, root.join("usr/bin").join(name))?;
    }
    symlink("../usr/bin/sh", root.join("bin/sh"))?;
    for library in libraries {
        let place = root.join(library.strip_prefix("/")?);
        std::fs::create_dir_all(place.parent().context("a library has a directory")?)?;
        std::fs::copy(&library, place)?;
    }
    pack(archive, tree)
}

fn find(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|directory| directory.join(name)).find(|program| program.is_file());
    found.with_context(|| format!("`{name}` is not on the path; hint: `cargo xtask check --only setup`"))
}

/// The libraries of a program, and the loader, by the paths that it looks for them at.
fn needed(program: &Path) -> Result<Vec<PathBuf>> {
    let captured = process::capture(Command::new("ldd").arg(program))?;
    let words =
        captured.text.lines().filter_map(|line| line.split_ascii_whitespace().find(|word| word.starts_with('/')));
    Ok(words.filter(|word| !word.ends_with(':')).map(PathBuf::from).collect())
}

/// Writes every file below `tree` as root's.
fn pack(archive: &Path, tree: &Path) -> Result<()> {
    let mut out = std::io::BufWriter::new(std::fs::File::create(archive)?);
    let mut number = 1;
    let mut waiting = vec![tree.to_owned()];
    while let Some(directory) = waiting.pop() {
        let mut entries = std::fs::read_dir(&directory)?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let (path, metadata) = (entry.path(), entry.metadata()?);
            let name = path.strip_prefix(tree)?.to_str().context("a name that is no text")?.to_owned();
            let content = if metadata.is_dir() {
                waiting.push(path);
                Vec::new()
            } else if metadata.is_symlink() {
                std::fs::read_link(&path)?.into_os_string().into_encoded_bytes()
            } else {
                std::fs::read(&path)?
            };
            number += 1;
            member(&mut out, number, metadata.permissions().mode(), &name, &content)?;
        }
    }
    member(&mut out, 0, 0, "TRAILER!!!", &[])?;
    Ok(out.flush()?)
}

/// One member: thirteen numbers of eight digits, the name, the content, each padded to four bytes.
fn member(out: &mut impl std::io::Write, number: u32, mode: u32, name: &str, content: &[u8]) -> Result<()> {
    let (length, name_length) = (u32::try_from(content.len())?, u32::try_from(name.len() + 1)?);
    let fields = [number, mode, 0, 0, 1, 0, length, 0, 0, 0, 0, name_length, 0];
    let head: String = fields.iter().map(|field| format!("{field:08x}")).collect();
    let mut written = format!("070701{head}{name}\0").into_bytes();
    written.resize(written.len().next_multiple_of(4), 0);
    out.write_all(&written)?;
    out.write_all(content)?;
    out.write_all(&[0; 3][..content.len().next_multiple_of(4) - content.len()])?;
    Ok(())
}
