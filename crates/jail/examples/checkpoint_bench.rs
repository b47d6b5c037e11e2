//! Measures what a checkpoint costs: taken in a moment and forked, where images share blocks; as an export of a small
//! workspace and of a larger one, beside a `tar` that a program inside runs, and a restore. Prints figures and judges none.

use bytes::Bytes;
use domain::{Id, id};
use futures::{StreamExt as _, stream};
use sandbox::{ArchiveLimits, Chunk, Command, Limits, Provider as _, RelPath, Sandbox, Spec, Start, Workspace};
use std::sync::Arc;
use std::time::Duration;
use stdx::{Clock, Random};

type Failure = Box<dyn std::error::Error>;

/// Workspaces, each with the script that makes it.
const WORKSPACES: [(&str, &str); 4] = [
    ("empty", ":"),
    (
        "40 files, 400 KiB",
        "for i in $(seq 1 40); do mkdir -p d$((i % 5)); head -c 10000 /dev/urandom > d$((i % 5))/f$i; done",
    ),
    (
        "2,000 files, 8 MiB",
        "for i in $(seq 1 2000); do mkdir -p d$((i % 50)); head -c 4000 /dev/zero > d$((i % 50))/f$i; done",
    ),
    ("1 file, 200 MiB", "head -c 209715200 /dev/urandom > large"),
];

fn main() -> Result<(), Failure> {
    let launcher = jail::launch()?;
    let rounds = std::env::args().nth(1).map_or(Ok(50), |rounds| rounds.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let data = std::env::temp_dir().join(format!("topside-checkpoint-bench-{}", std::process::id()));
    let provider = jail::Provider::new(launcher, data.clone(), Random::system())?;
    let measured = runtime.block_on(measure(&provider, rounds));
    let removed = std::fs::remove_dir_all(&data);
    measured?;
    Ok(removed?)
}

/// Changes of the large workspace between two checkpoints.
const CHANGE: &str = "for i in $(seq 1 50); do head -c 4700 /dev/urandom > d$((RANDOM % 100))/f$((RANDOM % 100)); done";
/// The large workspace.
const LARGE: &str = "head -c 4700 /dev/urandom > one; for d in $(seq 0 99); do mkdir d$d; \
    for f in $(seq 0 99); do cat one > d$d/f$f; done; done";

/// Checkpoints of 10,000 files of which 50 changed: what the programs notice, and what comes of them.
async fn take(provider: &jail::Provider, clock: &Clock, rounds: usize) -> Result<(), Failure> {
    let (sandbox, workspace) = open(provider, clock, Start::Fresh).await?;
    let Workspace::Session { session, .. } = workspace else { return Ok(()) };
    run(sandbox.as_ref(), LARGE).await?;
    let (mut pauses, mut whole, mut forks, mut exports) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        run(sandbox.as_ref(), CHANGE).await?;
        let started = clock.monotonic();
        let Some(checkpoint) = sandbox.checkpoint(Id::new(clock.wall_ms(), Random::system().bytes())).await? else {
            show("10,000 files: no checkpoint can be taken in a moment here", Vec::new());
            break;
        };
        whole.push(clock.monotonic() - started);
        pauses.push(checkpoint.paused());
        let started = clock.monotonic();
        let (fork, forked) = open(provider, clock, Start::Forked { session, checkpoint: checkpoint.id() }).await?;
        forks.push(clock.monotonic() - started);
        fork.close().await;
        provider.workspace_remove(&forked).await?;
        let (started, mut export) = (clock.monotonic(), checkpoint.export(ArchiveLimits::default()).await?);
        while export.next().await?.is_some() {}
        exports.push(clock.monotonic() - started);
    }
    show("10,000 files, 50 changed: programs stand still", pauses);
    show("10,000 files, 50 changed: checkpoint", whole);
    show("10,000 files: fork, sandbox ready", forks);
    show("10,000 files: export of the checkpoint", exports);
    sandbox.close().await;
    Ok(provider.workspace_remove(&workspace).await?)
}

async fn measure(provider: &jail::Provider, rounds: usize) -> Result<(), Failure> {
    let clock = Clock::system();
    take(provider, &clock, rounds).await?;
    for (name, script) in WORKSPACES {
        let (first, workspace) = open(provider, &clock, Start::Fresh).await?;
        run(first.as_ref(), script).await?;
        let rounds = if name.contains("200") { rounds.min(5) } else { rounds };
        let (mut exports, mut tars, mut restores, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for round in 0..rounds {
            let started = clock.monotonic();
            let pieces = export(first.as_ref()).await?;
            exports.push(clock.monotonic() - started);
            bytes = pieces.iter().map(Bytes::len).sum();
            let started = clock.monotonic();
            run(first.as_ref(), "tar -cf - . | cat").await?;
            tars.push(clock.monotonic() - started);
            if round % 5 == 0 {
                let (second, workspace) = open(provider, &clock, Start::Restored).await?;
                let archive = stream::iter(pieces.into_iter().map(Ok)).boxed();
                let started = clock.monotonic();
                second.import(archive, ArchiveLimits::default()).await?;
                restores.push(clock.monotonic() - started);
                second.close().await;
                provider.workspace_remove(&workspace).await?;
            }
        }
        show(&format!("{name}: export of {bytes} bytes"), exports);
        show(&format!("{name}: a tar inside"), tars);
        show(&format!("{name}: import, durable"), restores);
        first.close().await;
        provider.workspace_remove(&workspace).await?;
    }
    Ok(())
}

async fn open(
    provider: &jail::Provider,
    clock: &Clock,
    start: Start,
) -> Result<(Arc<dyn Sandbox>, Workspace), Failure> {
    let session: Id<id::Session> = Id::new(clock.wall_ms(), Random::system().bytes());
    let workspace = Workspace::Session { tenant: "bench".to_owned(), session, start };
    let id = Id::new(clock.wall_ms(), Random::system().bytes());
    let (environment, binds, walls_optional) = (Vec::new(), Vec::new(), Vec::new());
    let limits = Limits::default();
    let spec = Spec {
        id,
        workspace: workspace.clone(),
        environment,
        root: sandbox::Root::default(),
        binds,
        mounts: Vec::new(),
        accounts: sandbox::Accounts::default(),
        left_out: Vec::new(),
        limits,
        walls_optional,
        epoch: 1,
    };
    Ok((provider.create(spec).await?, workspace))
}

async fn export(sandbox: &dyn Sandbox) -> Result<Vec<Bytes>, Failure> {
    let (mut export, mut pieces) = (sandbox.export(ArchiveLimits::default()).await?, Vec::new());
    while let Some(piece) = export.next().await? {
        pieces.push(piece);
    }
    Ok(pieces)
}

async fn run(sandbox: &dyn Sandbox, script: &str) -> Result<(), Failure> {
    let argv = ["/bin/bash", "-c", script].map(str::to_owned).into();
    let (workdir, environment) = (RelPath::root(), Vec::new());
    let mut process = sandbox
        .start(Command { argv, workdir, environment, terminal: false, stdin: false, epoch: 1, name: None, user: None })
        .await?;
    while !matches!(process.next().await?, Chunk::Exit(_)) {}
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the figures are what this program is for")]
fn show(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| {
        times.get((times.len() * share / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
    println!(
        "{what:<48} median {:8.2} ms  p95 {:8.2} ms  min {:8.2} ms  n {}",
        ms(at(50)),
        ms(at(95)),
        ms(at(0)),
        times.len()
    );
}
