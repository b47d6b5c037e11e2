//! What `topside check` says of a project that is right.

use crate::{Catalog, Contents};
use domain::agent::ModelProvider;
use domain::{Root, ToolRun};
use std::fmt::Write as _;

impl Catalog {
    /// The agents with what they use, the policies, and what is switched off; lines of text.
    pub fn check_report(&self) -> String {
        let mut report = String::new();
        let _ = writeln!(report, "project {}", self.root.display());
        let _ = writeln!(report, "digest  {}", self.digest);
        let contents = match self.settings.contents {
            Contents::Sealed => "sealed",
            Contents::Plain => "plain",
        };
        let _ = writeln!(report, "contents {contents}, policies {} ({})", self.pack.policies(), self.pack.name());
        for closure in self.agents() {
            let agent = &closure.agent;
            let default = if self.default_agent.as_deref() == Some(&agent.name) { " (default)" } else { "" };
            let _ = writeln!(report, "agent {}{default}", agent.name);
            let model = &closure.model;
            let how = if model.provider == ModelProvider::Script { "a transcript, no model" } else { "a live model" };
            let _ = writeln!(report, "  model    {}: {} ({how})", model.alias, model.name);
            if closure.model_stands_in() {
                let _ = writeln!(report, "           stands in for {}, which is switched off", agent.model);
            }
            for tool in &closure.tools {
                let by = if tool.caller.is_model() { "" } else { ", for the harness alone" };
                let is = match &tool.run {
                    ToolRun::Agent { agent } => format!(", the agent {agent}"),
                    _ => String::new(),
                };
                let _ = writeln!(report, "  tool     {} ({}{is}{by})", tool.name, tool.contract.effect.name());
            }
            if let Some(sandbox) = &agent.sandbox {
                let manifest = sandbox.manifest.as_deref().unwrap_or("empty workspace");
                let root = match &sandbox.root {
                    Root::Host { .. } => String::new(),
                    Root::Directory { path } => format!(", on the directory {}", path.display()),
                    Root::Image { path } => format!(", on the image {}", path.display()),
                    Root::Template(template) => format!(", on the template {}", template.name),
                };
                let _ = writeln!(report, "  sandbox  {}, {manifest}{root}", sandbox.provider);
            }
            let _ = writeln!(report, "  digest   {}", closure.digest());
        }
        for off in &self.switched_off {
            let _ = writeln!(report, "{off}");
        }
        report
    }
}
