//! What every step is given: where the tree is, how strict to be, how much of it to look at. Nothing is decided here.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail, ensure};
use cargo_metadata::{Metadata, MetadataCommand, Package};

use crate::process;
use crate::quick::Changed;
use crate::rust_steps::compiler_findings;

/// Builds programs with the features that the whole workspace asks for together, as the tests are built: with those of one
/// package alone nearly every library is compiled once more. What is built is said by tests; with one come its package's binaries.
pub(crate) const AS_TESTED: [&str; 3] = ["test", "--workspace", "--no-run"];
/// A test of the package whose binary is `topside`; no other package has one of this name.
pub(crate) const TOPSIDE_TEST: &str = "cli";

/// How much of the tree a check looks at.
#[derive(Debug)]
pub(crate) enum Scope {
    /// Everything: what continuous integration does.
    Whole,
    /// What differs from the last commit: what is run before a commit.
    Changed(Changed),
    /// One crate, document or example, by name.
    One(String),
}

/// What every step is given.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) root: PathBuf,
    /// Cargo's target directory, also where scratch copies and logs go.
    pub(crate) target: PathBuf,
    /// True where nothing may be skipped.
    pub(crate) strict: bool,
    pub(crate) scope: Scope,
    /// A `topside` that was built already; otherwise it is built when a step wants it.
    pub(crate) binary: Option<PathBuf>,
    metadata: Metadata,
    files: OnceLock<Vec<String>>,
}

impl Context {
    /// Looks at the workspace that the working directory belongs to.
    pub(crate) fn here(strict: bool, scope: Scope, binary: Option<PathBuf>) -> Result<Self> {
        let metadata = MetadataCommand::new()
            .no_deps()
            .exec()
            .context("`cargo metadata` cannot read the workspace's manifests")?;
        Ok(Self {
            root: metadata.workspace_root.clone().into_std_path_buf(),
            target: metadata.target_directory.clone().into_std_path_buf(),
            strict,
            scope,
            binary,
            metadata,
            files: OnceLock::new(),
        })
    }

    /// The workspace's own packages, as their manifests declare them.
    pub(crate) fn packages(&self) -> &[Package] {
        &self.metadata.packages
    }

    /// A package's folder, relative to the root: `crates/journal`.
    pub(crate) fn folder(&self, package: &Package) -> String {
        let parent = package.manifest_path.parent().map(|path| path.as_std_path().to_path_buf()).unwrap_or_default();
        parent.strip_prefix(&self.root).unwrap_or(&parent).to_string_lossy().into_owned()
    }

    /// Every file of the project, relative to the root: committed, and new ones that are not ignored.
    pub(crate) fn files(&self) -> Result<&[String]> {
        if let Some(files) = self.files.get() {
            return Ok(files);
        }
        let text = self.git(&["ls-files", "--cached", "--others", "--exclude-standard", "-z"])?;
        let mut files: Vec<String> = text.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        files.retain(|name| self.root.join(name).is_file());
        files.sort();
        files.dedup();
        Ok(self.files.get_or_init(|| files))
    }

    /// Reads a file of the project as text.
    pub(crate) fn read(&self, name: &str) -> Result<String> {
        std::fs::read_to_string(self.root.join(name)).with_context(|| format!("cannot read {name}"))
    }

    /// The package that a room's folder, import name or package name means.
    pub(crate) fn package_of(&self, name: &str) -> String {
        let is_meant =
            |package: &&Package| package.name.as_str() == name || self.folder(package).ends_with(&format!("/{name}"));
        self.packages().iter().find(is_meant).map_or_else(|| name.to_owned(), |package| package.name.to_string())
    }

    /// A folder for logs and scratch copies, under cargo's target directory.
    pub(crate) fn scratch(&self, name: &str) -> Result<PathBuf> {
        let directory = self.target.join("xtask").join(name);
        std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(directory)
    }

    /// What `git` says in the project's tree.
    pub(crate) fn git(&self, arguments: &[&str]) -> Result<String> {
        git(&self.root, arguments)
    }

    /// `cargo`, to be run at the root. Where nothing may be skipped, the lock file must say what the manifests say.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("cargo");
        command.current_dir(&self.root).args(arguments);
        if self.strict && arguments.first().is_some_and(|first| ["build", "clippy", "test"].contains(first)) {
            command.arg("--locked");
        }
        command
    }

    /// The `topside` that documents and examples are run with.
    pub(crate) fn binary(&self) -> Result<PathBuf> {
        if let Some(binary) = &self.binary {
            ensure!(binary.is_file(), "there is no binary at {}", binary.display());
            return Ok(binary.clone());
        }
        let built = process::capture(self.cargo(&AS_TESTED).args(["--test", TOPSIDE_TEST]))?;
        if !built.status.success() {
            let errors: Vec<String> = compiler_findings(&built.text).iter().map(ToString::to_string).collect();
            bail!("`topside` does not build\n{}", errors.join("\n"));
        }
        Ok(self.target.join("debug").join("topside"))
    }
}

/// What `git` says, run in `directory`.
pub(crate) fn git(directory: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new("git")
        .current_dir(directory)
        .args(arguments)
        .output()
        .context("cannot start git: is it there?")?;
    if !output.status.success() {
        bail!("`git {}` failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
