//! The peers, and the project that does the same work on our side: three model calls and two look-ups in SQLite.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::process;
use crate::server::{Server, free_port};

/// Writes the project: one agent, one `sql` tool, one model that answers at once on `model_port`.
pub(crate) fn write_project(folder: &Path, model_port: u16, wire: &str, stream: bool) -> Result<()> {
    let write = |path: &str, text: &str| -> Result<()> {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().context("a parent")?)?;
        Ok(std::fs::write(path, text)?)
    };
    write("topside.yaml", "default_agent: maya\n")?;
    write(
        "agents/maya.md",
        "---\nmodel: fast\ntools: [lookup_account]\nlimits: {turns: 10, tool_calls: 20, running_seconds: 300}\n---\nYou are Maya, tier-1 support.\n",
    )?;
    let model = format!(
        "provider: openai-compatible, key: x, name: bench-2-lookup_account, wire: {wire}, stream: {stream}, url: \"http://127.0.0.1:{model_port}/v1\""
    );
    write("models/main.yaml", &format!("fast: {{{model}}}\n"))?;
    write(
        "tools/lookup_account.yaml",
        "description: Look an account up.\ninput_schema: {type: object, properties: {account_id: {type: string}}, required: [account_id]}\n\
         effect: read\nrun: {sql: {database: support.db, query: \"select id, plan, status from accounts where id = :account_id\"}}\n",
    )?;
    let statements = "create table accounts(id text primary key, plan text, status text); insert into accounts values('a1', 'pro', 'active');";
    let mut sqlite = Command::new("sqlite3");
    let made = process::capture(sqlite.arg(folder.join("support.db")).arg(statements))?;
    ensure!(made.status.success(), "sqlite3: {}", made.tail(3));
    Ok(())
}

/// Starts the model that answers at once.
pub(crate) fn model(peers: &Path) -> Result<Server> {
    let folder = peers.join("fakemodel");
    let mut cargo = Command::new("cargo");
    let built = process::capture(cargo.args(["build", "--release", "--quiet"]).current_dir(&folder))?;
    ensure!(built.status.success(), "fakemodel: {}", built.tail(20));
    let port = free_port()?;
    let mut command = Command::new(folder.join("target/release/fakemodel"));
    Server::start(command.env("PORT", port.to_string()), port, "/count")
}

/// Starts the recipe beside that model, on a database of its own.
pub(crate) fn recipe(peers: &Path, model_port: u16, database: &Path) -> Result<Server> {
    let folder = peers.join("recipe");
    let port = free_port()?;
    let mut command = Command::new(folder.join(".venv/bin/uvicorn"));
    command.args(["app:app", "--log-level", "warning", "--port", &port.to_string()]).current_dir(&folder);
    command.env("DB", database).env("MODEL", "bench-2-lookup_account");
    command.env("MODEL_URL", format!("http://127.0.0.1:{model_port}/v1"));
    Server::start(&mut command, port, "/health").context("recipe: make its .venv as its README says")
}
