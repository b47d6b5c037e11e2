//! Measures what a root costs: from the request to the first output, on the host's own tools and beside it on each image or
//! directory that is named (`image=PATH`, `directory=PATH`). Prints figures and judges none.

use domain::Root;
use sandbox::{Chunk, Command, Limits, Provider as _, RelPath, Spec, Workspace};
use std::time::Duration;
use stdx::{Clock, Random};

type Failure = Box<dyn std::error::Error>;

/// How often each root is made.
const ROUNDS: usize = 60;

fn main() -> Result<(), Failure> {
    let launcher = jail::launch()?;
    let mut roots = vec![("host".to_owned(), Root::default())];
    for argument in std::env::args().skip(1) {
        let root = match argument.split_once('=') {
            Some(("image", path)) => Root::Image { path: path.into() },
            Some(("directory", path)) => Root::Directory { path: path.into() },
            _ => return Err(format!("`{argument}`: expected image=PATH or directory=PATH").into()),
        };
        roots.push((argument, root));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let data = std::env::temp_dir().join(format!("topside-root-bench-{}", std::process::id()));
    std::fs::create_dir_all(&data)?;
    let provider = jail::Provider::new(launcher, data.clone(), Random::system())?;
    let measured = runtime.block_on(measure(&provider, &roots));
    drop(provider);
    let removed = std::fs::remove_dir_all(&data);
    measured?;
    Ok(removed?)
}

async fn measure(provider: &jail::Provider, roots: &[(String, Root)]) -> Result<(), Failure> {
    let mut times: Vec<Vec<Duration>> = roots.iter().map(|_| Vec::new()).collect();
    let mut first = Vec::new();
    // Interleaved, so that a busy machine is as unfair to one as to the other.
    for round in 0..=ROUNDS {
        for ((_, root), times) in roots.iter().zip(&mut times) {
            let took = once(provider, root).await?;
            // The first one unpacks.
            if round == 0 { first.push(took) } else { times.push(took) }
        }
    }
    for (((name, _), times), first) in roots.iter().zip(times).zip(first) {
        show(name, times, first);
    }
    Ok(())
}

async fn once(provider: &jail::Provider, root: &Root) -> Result<Duration, Failure> {
    let clock = Clock::system();
    let spec = Spec {
        id: domain::Id::new(clock.wall_ms(), Random::system().bytes()),
        workspace: Workspace::Scratch,
        environment: Vec::new(),
        root: root.clone(),
        binds: Vec::new(),
        mounts: Vec::new(),
        accounts: sandbox::Accounts::default(),
        left_out: Vec::new(),
        limits: Limits::default(),
        walls_optional: Vec::new(),
        epoch: 1,
    };
    let started = clock.monotonic();
    let sandbox = provider.create(spec).await?;
    let argv = vec!["/bin/echo".to_owned(), "up".to_owned()];
    let (workdir, environment) = (RelPath::root(), Vec::new());
    let command =
        Command { argv, workdir, environment, terminal: false, stdin: false, epoch: 1, name: None, user: None };
    let mut process = sandbox.start(command).await?;
    match process.next().await? {
        Chunk::Output(..) => {}
        Chunk::Exit(exit) => return Err(format!("no output: {exit:?}").into()),
    }
    let took = clock.monotonic() - started;
    sandbox.close().await;
    Ok(took)
}

#[expect(clippy::print_stdout, reason = "the figures are what this program is for")]
fn show(what: &str, mut times: Vec<Duration>, first: Duration) {
    times.sort();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
    println!(
        "{what}: create → first output median {:.2} ms  p95 {:.2} ms  min {:.2} ms  n {}; the first {:.2} ms",
        ms(at(50)),
        ms(at(95)),
        ms(at(0)),
        times.len(),
        ms(first)
    );
}
