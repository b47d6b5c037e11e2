//! The project that is killed: one tool of each contract, a model that plays a transcript through all of them, and what
//! each of its runs must answer in the end.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Deeds in the declared store and in the sandbox are counted there; the others, the witness counts.
pub(crate) const STORE: &str = "store.db";

const POLICY: &str = "@id(\"crash.all\")\npermit (principal, action, resource);\n";
const SCHEMA: &str = "input_schema: {type: object, properties: {run: {type: string}}, required: [run]}";

/// An agent and the tools that its runs call, one in each turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agent {
    pub(crate) name: &'static str,
    turns: &'static [Turn],
}

/// A call in the transcript: its id and tool, and what it is called with.
type Turn = (&'static str, &'static str, &'static str);

const RUN: &str = "{run: \"${run}\"}";
const MARK: &str = "{cmd: \"echo ${run} >> deeds.txt; echo marked\"}";
const COUNT: &str = "{cmd: \"touch deeds.txt; echo deeds=$(grep -c . deeds.txt)\"}";

/// Every kind of effect, the sandbox's too.
pub(crate) const WHOLE: Agent = Agent {
    name: "whole",
    turns: &[
        ("look", "look", RUN),
        ("note", "note", RUN),
        ("mark", "exec_command", MARK),
        ("charge", "charge", RUN),
        ("send", "send", RUN),
        ("publish", "publish", RUN),
        ("count", "exec_command", COUNT),
    ],
};

/// What needs no sandbox.
pub(crate) const LIGHT: Agent = Agent {
    name: "light",
    turns: &[("look", "look", RUN), ("note", "note", RUN), ("charge", "charge", RUN), ("send", "send", RUN)],
};

/// What somebody must approve of, without a sandbox.
pub(crate) const HELD: Agent = Agent {
    name: "held",
    turns: &[("look", "look", RUN), ("charge", "charge", RUN), ("send", "send", RUN), ("publish", "publish", RUN)],
};

impl Agent {
    pub(crate) fn has_sandbox(self) -> bool {
        self.turns.iter().any(|(_, tool, _)| *tool == "exec_command")
    }

    /// Whether somebody must approve of one of its calls.
    pub(crate) fn has_approval(self) -> bool {
        self.turns.iter().any(|(_, tool, _)| *tool == "publish")
    }

    /// What a run says at its end, but for the number that stands behind it.
    pub(crate) fn reply(self, run: &str) -> String {
        format!("{run} is done")
    }

    fn declaration(self) -> String {
        let sandbox = if self.has_sandbox() { "sandbox: local\n" } else { "" };
        let tools: Vec<&str> =
            self.turns.iter().map(|(_, tool, _)| *tool).filter(|tool| *tool != "exec_command").collect();
        format!(
            "---\nmodel: {}\n{sandbox}tools: [{}]\n---\nYou do what the transcript says.\n",
            self.name,
            tools.join(", ")
        )
    }

    fn transcript(self) -> String {
        let mut text = format!("title: {}\nsteps:\n- expect: {{user: 'Go (?<run>\\w+)'}}\n", self.name);
        for (id, tool, arguments) in self.turns {
            text.push_str(&format!("  reply:\n  - call: {{id: {id}, tool: {tool}, arguments: {arguments}}}\n"));
            text.push_str(&format!("- expect: {{outputs: {{{id}: '(?s)(?<{id}>.*)'}}}}\n"));
        }
        let told = if self.has_sandbox() { ": ${count}" } else { "" };
        text.push_str(&format!("  reply:\n  - text: '${{run}} is done{told}'\n"));
        text
    }
}

/// Writes the project; its tools lead to the witness on this port.
pub(crate) fn write(folder: &Path, port: u16) -> Result<PathBuf> {
    let http = |method: &str, path: &str, rest: &str| {
        format!(
            "description: A deed outside.\n{SCHEMA}\n{rest}run: {{http: {{method: {method}, url: \"http://127.0.0.1:{port}/{path}\"}}}}\n"
        )
    };
    let body = |text: String| text.replace("\"}}\n", "\", body: [run]}}\n");
    let mut files = vec![
        ("topside.yaml".to_owned(), "default_agent: light\nworker: {lease_seconds: 3}\n".to_owned()),
        ("policies/all.cedar".to_owned(), POLICY.to_owned()),
        ("tools/look.yaml".to_owned(), http("GET", "look/{run}", "effect: read\n")),
        (
            "tools/charge.yaml".to_owned(),
            body(http("POST", "charge", "effect: external\nidempotency: call\nrepeat: once\n")),
        ),
        (
            "tools/publish.yaml".to_owned(),
            body(http("POST", "publish", "effect: external\nidempotency: call\napproval: always\n")),
        ),
        (
            "tools/send.yaml".to_owned(),
            body(http("POST", "send", "effect: external\nrepeat: once\ntimeout_seconds: 2\n")),
        ),
        (
            "tools/note.yaml".to_owned(),
            format!(
                "description: A deed in the declared store.\n{SCHEMA}\neffect: write\n\
                 run: {{sql: {{database: {STORE}, query: \"insert into deeds (run) values (:run)\"}}}}\n"
            ),
        ),
    ];
    for agent in [WHOLE, LIGHT, HELD] {
        let name = agent.name;
        files.push((format!("agents/{name}.md"), agent.declaration()));
        files.push((format!("models/{name}.yaml"), format!("{name}: {{provider: script, transcript: {name}.yaml}}\n")));
        files.push((format!("{name}.yaml"), agent.transcript()));
    }
    let project = folder.join("project");
    for (name, text) in files {
        let path = project.join(name);
        std::fs::create_dir_all(path.parent().context("a parent")?)?;
        std::fs::write(path, text)?;
    }
    super::judge::sql(&project.join(STORE), "create table deeds(run text)")?;
    Ok(project)
}
