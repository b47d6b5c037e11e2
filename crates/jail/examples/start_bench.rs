//! Measures what a sandbox's start costs: from the request to the first output of its first command, and to nothing of it
//! being left. Beside it `bwrap`, where installed. Prints figures and judges none.

use sandbox::{Chunk, Command, Limits, Provider as _, RelPath, Sandbox, Spec, Start, Workspace};
use std::time::Duration;
use stdx::{Clock, Random};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let launcher = jail::launch()?;
    let rounds = std::env::args().nth(1).map_or(Ok(100), |rounds| rounds.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let data = std::env::temp_dir().join(format!("topside-start-bench-{}", std::process::id()));
    let provider = jail::Provider::new(launcher, data.clone(), Random::system())?;
    let measured = runtime.block_on(measure(&provider, rounds));
    let removed = std::fs::remove_dir_all(&data);
    measured?;
    Ok(removed?)
}

async fn measure(provider: &jail::Provider, rounds: usize) -> Result<(), Failure> {
    let clock = Clock::system();
    let (mut output, mut gone, mut command, mut others) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let id = domain::Id::new(clock.wall_ms(), Random::system().bytes());
        let session = domain::Id::new(clock.wall_ms(), Random::system().bytes());
        let workspace = Workspace::Session { tenant: "bench".to_owned(), session, start: Start::Fresh };
        let started = clock.monotonic();
        let sandbox = provider.create(spec(id, workspace.clone())).await?;
        first_output(sandbox.as_ref()).await?;
        output.push(clock.monotonic() - started);
        let again = clock.monotonic();
        first_output(sandbox.as_ref()).await?;
        command.push(clock.monotonic() - again);
        let closing = clock.monotonic();
        sandbox.close().await;
        gone.push(clock.monotonic() - closing);
        provider.workspace_remove(&workspace).await?;
        // Interleaved, so that a busy machine is as unfair to one as to the other.
        if round % 4 == 0 {
            others.extend(bwrap(&clock)?);
        }
    }
    show("create → first output", output);
    show("one more command → first output", command);
    show("close → nothing left", gone);
    if others.is_empty() {
        note("bwrap: not installed")
    } else {
        show("bwrap --unshare-all echo", others)
    }
    Ok(())
}

fn spec(id: domain::Id<domain::id::Sandbox>, workspace: Workspace) -> Spec {
    let (environment, binds, walls_optional) = (Vec::new(), Vec::new(), Vec::new());
    Spec {
        id,
        workspace,
        environment,
        root: sandbox::Root::default(),
        binds,
        mounts: Vec::new(),
        accounts: sandbox::Accounts::default(),
        left_out: Vec::new(),
        limits: Limits::default(),
        walls_optional,
        epoch: 1,
    }
}

async fn first_output(sandbox: &dyn Sandbox) -> Result<(), Failure> {
    let argv = vec!["/bin/echo".to_owned(), "up".to_owned()];
    let (workdir, environment) = (RelPath::root(), Vec::new());
    let command =
        Command { argv, workdir, environment, terminal: false, stdin: false, epoch: 1, name: None, user: None };
    let mut process = sandbox.start(command).await?;
    match process.next().await? {
        Chunk::Output(..) => {}
        Chunk::Exit(exit) => return Err(format!("no output: {exit:?}").into()),
    }
    while !matches!(process.next().await?, Chunk::Exit(_)) {}
    Ok(())
}

fn bwrap(clock: &Clock) -> Result<Option<Duration>, Failure> {
    let arguments =
        ["--unshare-all", "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"];
    let more =
        ["--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "/bin/echo", "up"];
    let started = clock.monotonic();
    match std::process::Command::new("bwrap").args(arguments).args(more).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
        Ok(done) if done.stdout == b"up\n" => Ok(Some(clock.monotonic() - started)),
        Ok(done) => Err(String::from_utf8_lossy(&done.stderr).into()),
    }
}

#[expect(clippy::print_stdout, reason = "the figures are what this program is for")]
fn show(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| {
        times.get((times.len() * share / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
    println!(
        "{what:<34} median {:6.2} ms  p95 {:6.2} ms  min {:6.2} ms  n {}",
        ms(at(50)),
        ms(at(95)),
        ms(at(0)),
        times.len()
    );
}

#[expect(clippy::print_stderr, reason = "said beside the figures")]
fn note(text: &str) {
    eprintln!("{text}");
}
