//! A scratch copy of the project in which documents and examples are run: nothing they do reaches the tree, and nothing
//! of the person's own settings or keys reaches them.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::context::Context;
use crate::process;

/// A script that is not done by then is stopped and has failed.
const SCRIPT_SECONDS_MAX: u32 = 600;

/// Stands in for cargo, so that the first command of the README runs what was built already.
const CARGO: &str = r#"#!/bin/sh
if [ "$1" != run ]; then
    echo "in documents, cargo is stood in for and knows only: cargo run [--release] -- ARGUMENTS" >&2
    exit 64
fi
while [ $# -gt 0 ] && [ "$1" != -- ]; do shift; done
shift
exec topside "$@"
"#;

/// Gives a script a network of its own: only loopback, so that nothing can depend on the world outside, and every port
/// is free. An ordinary user cannot make one and goes without.
const OWN_NETWORK: [&str; 6] = ["unshare", "--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "own-network"];

/// The copy. It goes away when this is dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    directory: TempDir,
    own_network: bool,
}

/// What a script said and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) success: bool,
    pub(crate) text: String,
}

impl Scratch {
    /// Copies the project's files, and puts its binary on the path.
    pub(crate) fn of(context: &Context) -> Result<Self> {
        let scratch = Self::empty(&context.binary()?)?;
        for name in context.files()? {
            let to = scratch.tree().join(name);
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::copy(context.root.join(name), &to).with_context(|| format!("cannot copy {name}"))?;
        }
        Ok(scratch)
    }

    fn empty(binary: &Path) -> Result<Self> {
        let directory = TempDir::with_prefix("topside-check-").context("cannot make a scratch folder")?;
        let tried = process::capture(Command::new(OWN_NETWORK[0]).args(&OWN_NETWORK[1..]).arg("true"));
        let scratch = Self { directory, own_network: tried.is_ok_and(|tried| tried.status.success()) };
        for folder in ["tree", "home", "bin", "tmp"] {
            fs::create_dir(scratch.directory.path().join(folder))?;
        }
        let programs = scratch.directory.path().join("bin");
        symlink(binary, programs.join("topside"))?;
        let cargo = programs.join("cargo");
        fs::write(&cargo, CARGO)?;
        fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755))?;
        Ok(scratch)
    }

    /// Whether no other script's services are in its way, and it in theirs.
    pub(crate) const fn has_own_network(&self) -> bool {
        self.own_network
    }

    /// The copy of the project's root.
    pub(crate) fn tree(&self) -> PathBuf {
        self.directory.path().join("tree")
    }

    /// Runs a program in a folder of the copy, with none of the caller's environment, and ends whatever it left behind.
    pub(crate) fn run(&self, folder: &Path, program: &[&str]) -> Result<Said> {
        let at = self.directory.path();
        let log = at.join("said");
        let said = fs::File::create(&log)?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(at.join("bin")).chain(std::env::split_paths(&path));
        // Output goes to a file: a pipe would wait for every service a script leaves in the background.
        let mut child = Command::new("timeout")
            .arg("--kill-after=5")
            .arg(SCRIPT_SECONDS_MAX.to_string())
            .args(if self.own_network { &OWN_NETWORK[..] } else { &[] })
            .args(program)
            .current_dir(folder)
            .env_clear()
            .env("PATH", std::env::join_paths(paths)?)
            .env("HOME", at.join("home"))
            .env("TMPDIR", at.join("tmp"))
            .env("LANG", "C.UTF-8")
            .env("TERM", "dumb")
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program.join(" ")))?;
        let group = child.id();
        let status = child.wait()?;
        // What still runs in the script's process group is its own; a script that leaves nothing makes this fail, rightly.
        Command::new("bash").arg("-c").arg(format!("kill -KILL -- -{group} 2>/dev/null")).status()?;
        let mut text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        if status.code() == Some(124) {
            text.push_str(&format!("\nstopped after {SCRIPT_SECONDS_MAX} s\n"));
        }
        Ok(Said { success: status.success(), text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> Scratch {
        Scratch::empty(Path::new("/bin/echo")).expect("a scratch folder")
    }

    #[test]
    fn cargo_run_is_the_binary_and_no_other_cargo_is() {
        let scratch = scratch();
        let said =
            scratch.run(&scratch.tree(), &["cargo", "run", "--release", "--", "run", "analyst"]).expect("it runs");
        assert!(said.success, "{said:?}");
        assert_eq!(said.text, "run analyst\n");
        let said = scratch.run(&scratch.tree(), &["cargo", "build"]).expect("it runs");
        assert!(!said.success && said.text.contains("stood in for"), "{said:?}");
    }

    #[test]
    fn a_script_has_a_network_of_its_own_where_one_can_be_made() {
        let scratch = scratch();
        let said = scratch.run(&scratch.tree(), &["sh", "-c", "ip -oneline link show lo; ip route"]).expect("it runs");
        assert!(said.success && said.text.contains("LOOPBACK,UP"), "{said:?}");
        // A way out would be a route, and a second line.
        assert!(!scratch.own_network || said.text.lines().count() == 1, "{said:?}");
    }

    #[test]
    fn nothing_of_the_caller_is_seen_and_nothing_is_left_running() {
        let scratch = scratch();
        // The background process holds the lock with the shell; whoever gets it afterwards knows that both are gone.
        let script = "env; exec 9>lock; flock 9; (sleep 60; touch survived) &";
        let said = scratch.run(&scratch.tree(), &["bash", "-c", script]).expect("it runs");
        assert!(said.success && !said.text.contains("CARGO"), "{said:?}");
        fs::File::open(scratch.tree().join("lock")).and_then(|lock| lock.lock()).expect("the lock is free");
        assert!(!scratch.tree().join("survived").exists());
    }
}
