//! API keys for a service that this command starts: made by the binary, declared in its data directory.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// The keys of whoever asks for runs and of whoever approves of calls; nobody approves of a call of their own.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) asker: String,
    pub(crate) approver: String,
    /// What `keys.yaml` says of them.
    file: String,
}

impl Keys {
    /// Has the binary make them.
    pub(crate) fn make(binary: &Path) -> Result<Self> {
        let mut file = String::new();
        let mut make = |principal: &str, scopes: &[&str]| -> Result<String> {
            let mut command = Command::new(binary);
            command.args(["key", "new", principal]);
            scopes.iter().for_each(|scope| {
                command.args(["--scope", scope]);
            });
            let output = command.output()?;
            let talk = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.success(), "topside key new: {talk}");
            file.push_str(&String::from_utf8_lossy(&output.stdout));
            Ok(talk.split_whitespace().last().context("no key")?.to_owned())
        };
        let asker = make("asker", &["runs:read", "runs:write", "metrics:read"])?;
        let approver = make("approver", &["runs:read", "approvals:write"])?;
        Ok(Self { asker, approver, file })
    }

    /// Declares them in a data directory.
    pub(crate) fn declare(&self, data: &Path) -> Result<()> {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().mode(0o700).create(data)?;
        Ok(std::fs::write(data.join("keys.yaml"), &self.file)?)
    }
}
