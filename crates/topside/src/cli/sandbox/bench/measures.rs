//! What is measured, each on real sandboxes: starts, commands, a burst, checkpoints and forks, output, memory.

use super::figures::{Figure, Worse};
use bytes::Bytes;
use domain::{Id, id};
use sandbox::{Change, Chunk, Command, Error, Limits, Provider as _, RelPath, Sandbox, Spec, Start, Stream, Workspace};
use std::sync::Arc;
use std::time::Duration;
use stdx::{Clock, Random};
use tokio::task::{JoinError, JoinHandle, JoinSet};

/// Sandboxes of a burst.
pub(super) const BURST: usize = 100;
/// Sandboxes that are idle together when their memory is looked at.
const IDLE: usize = 32;
/// The workspace that checkpoints are taken of: directories with so many files each, and what changes between two.
const DIRECTORIES: usize = 100;
const FILES_EACH: usize = 100;
const CHANGED: usize = 50;
const FILE_BYTES: usize = 4_700;
/// Output of one sample.
const OUTPUT_MIB: usize = 256;
/// How long nothing is asked for between two starts.
const REST: Duration = Duration::from_millis(50);
/// Looks at whether a sandbox stands ready, at most.
const LOOKS_MAX: usize = 400;
/// Samples of what takes long, one for so many others.
const RARE: usize = 10;
const RARE_MIN: usize = 3;

/// Where sandboxes are made.
#[derive(Clone, Debug)]
pub(super) struct Ground {
    pub(super) provider: Arc<jail::Provider>,
    clock: Clock,
    random: Random,
}

impl Ground {
    pub(super) fn new(provider: Arc<jail::Provider>) -> Self {
        Self { provider, clock: Clock::system(), random: Random::system() }
    }

    fn id<K: id::Kind>(&self) -> Id<K> {
        Id::new(self.clock.wall_ms(), self.random.bytes())
    }

    fn workspace(&self, start: Start) -> Workspace {
        Workspace::Session { tenant: "bench".to_owned(), session: self.id(), start }
    }

    fn spec(&self, workspace: &Workspace) -> Spec {
        Spec {
            id: self.id(),
            workspace: workspace.clone(),
            environment: Vec::new(),
            root: sandbox::Root::default(),
            binds: Vec::new(),
            mounts: Vec::new(),
            accounts: sandbox::Accounts::default(),
            left_out: Vec::new(),
            limits: Limits::default(),
            walls_optional: Vec::new(),
            landlock_version_min: 0,
            epoch: 1,
        }
    }

    async fn create(&self, workspace: &Workspace) -> Result<Arc<dyn Sandbox>, Error> {
        self.provider.create(self.spec(workspace)).await
    }

    /// Lets what is made ahead of need be made: nobody asks again the moment it was served.
    async fn rest(&self) {
        tokio::time::sleep(REST).await;
    }

    /// Waits until the stock of workspaces is full, as it is where no session began a moment ago.
    async fn fill_up(&self) {
        for _ in 0..LOOKS_MAX {
            if self.provider.in_stock() >= BURST {
                return;
            }
            self.rest().await;
        }
    }

    async fn end(&self, sandbox: &dyn Sandbox, workspace: &Workspace) -> Result<(), Error> {
        sandbox.close().await;
        self.provider.workspace_remove(workspace).await
    }

    fn since(&self, began: Duration) -> f64 {
        ms(self.clock.monotonic().saturating_sub(began))
    }
}

/// A measurement in a task of its own, as runs are in the service; given up, it ends.
pub(super) struct Measuring(JoinHandle<Vec<Figure>>);

impl Measuring {
    /// Begins to measure what has this name.
    pub(super) fn begin(name: &'static str, ground: &Ground, samples: usize) -> Self {
        let ground = ground.clone();
        Self(tokio::spawn(async move {
            // As most tenants, this one has another session already; a failure is told by what is measured.
            let other = ground.workspace(Start::Fresh);
            if let Ok(sandbox) = ground.create(&other).await {
                sandbox.close().await;
            }
            let figures = measure(name, &ground, samples).await;
            let _ = ground.provider.workspace_remove(&other).await;
            figures
        }))
    }

    pub(super) async fn done(&mut self) -> Result<Vec<Figure>, JoinError> {
        (&mut self.0).await
    }
}

async fn measure(name: &str, ground: &Ground, samples: usize) -> Vec<Figure> {
    match name {
        "cold" => starts(ground, samples).await,
        "warm" => warm(ground, samples).await,
        "exec" => commands(ground, samples).await,
        "burst" => burst(ground, samples).await,
        "checkpoint" => checkpoints(ground, samples).await,
        "stdout" => stdout(ground, samples).await,
        _ => memory(ground).await,
    }
}

impl Drop for Measuring {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn ms(took: Duration) -> f64 {
    took.as_secs_f64() * 1_000.0
}

fn rare(samples: usize) -> usize {
    (samples / RARE).max(RARE_MIN).min(samples)
}

/// Runs a program, and gives when its first output or its end came and how many bytes there were.
async fn run(ground: &Ground, sandbox: &dyn Sandbox, argv: &[&str]) -> Result<(Duration, u64), Error> {
    let argv = argv.iter().map(|&argument| argument.to_owned()).collect();
    // Without a language the C library reads no tables of it, which would take as long as all that is measured of it.
    let (workdir, environment) = (RelPath::root(), vec![("LC_ALL".to_owned(), "C".to_owned())]);
    let command =
        Command { argv, workdir, environment, terminal: false, stdin: false, epoch: 1, name: None, user: None };
    let mut process = sandbox.start(command).await?;
    let (mut first, mut bytes) = (None, 0);
    loop {
        match process.next().await? {
            Chunk::Output(Stream::Stdout, output) => {
                first.get_or_insert_with(|| ground.clock.monotonic());
                bytes += output.len() as u64;
            }
            Chunk::Output(Stream::Stderr, _) => {}
            Chunk::Exit(_) => break,
        }
    }
    Ok((first.unwrap_or_else(|| ground.clock.monotonic()), bytes))
}

/// The least that says something, and the least there is.
const LINE: [&str; 2] = ["/bin/echo", "up"];
const TRUE: [&str; 1] = ["/bin/true"];

/// Samples, or in their place why one of them failed.
type Samples = Result<Vec<f64>, Error>;

fn told(samples: &Result<(), Error>, of: Vec<f64>) -> Result<Vec<f64>, String> {
    samples.as_ref().map(|()| of).map_err(ToString::to_string)
}

/// From the request to the first output, and from the word to close until nothing is left.
async fn starts(ground: &Ground, samples: usize) -> Vec<Figure> {
    let (mut cold, mut close) = (Vec::new(), Vec::new());
    let mut all = async || -> Result<(), Error> {
        for round in 0..=samples {
            let workspace = ground.workspace(Start::Fresh);
            ground.rest().await;
            let began = ground.clock.monotonic();
            let sandbox = ground.create(&workspace).await?;
            let (first, _) = run(ground, sandbox.as_ref(), &LINE).await?;
            let closing = ground.clock.monotonic();
            sandbox.close().await;
            // The first of all makes what later ones find.
            if round > 0 {
                cold.push(ms(first.saturating_sub(began)));
                close.push(ground.since(closing));
            }
            ground.provider.workspace_remove(&workspace).await?;
        }
        Ok(())
    };
    let done = all().await;
    vec![
        Figure::ms("cold_ms_p50", "cold start: create → first output", told(&done, cold)),
        Figure::ms("close_ms_p50", "close → nothing left", told(&done, close)),
    ]
}

/// The same where a sandbox stands ready, which lacks only what makes it somebody's.
async fn warm(ground: &Ground, samples: usize) -> Vec<Figure> {
    let measured = async || -> Samples {
        let like = ground.spec(&Workspace::Scratch);
        let mut took = Vec::new();
        for _ in 0..samples {
            let mut looks = 0;
            while ground.provider.keep_warm(&like, jail::Warm { min: 2, max: 2 }).await? < 2 {
                looks += 1;
                if looks > LOOKS_MAX {
                    return Err(Error::Command { detail: "none stands ready".to_owned() });
                }
                ground.rest().await;
            }
            let workspace = ground.workspace(Start::Fresh);
            ground.rest().await;
            let began = ground.clock.monotonic();
            let sandbox = ground.create(&workspace).await?;
            let (first, _) = run(ground, sandbox.as_ref(), &LINE).await?;
            took.push(ms(first.saturating_sub(began)));
            ground.end(sandbox.as_ref(), &workspace).await?;
        }
        Ok(took)
    };
    let samples = measured().await.map_err(|error| error.to_string());
    // What else is measured finds nothing ready.
    let none = ground.provider.keep_warm(&ground.spec(&Workspace::Scratch), jail::Warm::default()).await;
    let samples = none.map_err(|error| error.to_string()).and(samples);
    vec![Figure::ms("warm_ms_p50", "warm start: claim → first output", samples)]
}

/// Commands in a sandbox that lives.
async fn commands(ground: &Ground, samples: usize) -> Vec<Figure> {
    let measured = async || -> Samples {
        let workspace = ground.workspace(Start::Fresh);
        let sandbox = ground.create(&workspace).await?;
        let mut took = Vec::new();
        for _ in 0..samples {
            let began = ground.clock.monotonic();
            run(ground, sandbox.as_ref(), &TRUE).await?;
            took.push(ground.since(began));
        }
        ground.end(sandbox.as_ref(), &workspace).await?;
        Ok(took)
    };
    let samples = measured().await.map_err(|error| error.to_string());
    vec![Figure::ms("exec_ms_p50", "a command, /bin/true: start → end", samples)]
}

/// Many at once, to the last one's first output.
async fn burst(ground: &Ground, samples: usize) -> Vec<Figure> {
    let measured = async || -> Samples {
        let mut took = Vec::new();
        for _ in 0..rare(samples) {
            ground.fill_up().await;
            let mut starting = JoinSet::new();
            let began = ground.clock.monotonic();
            for _ in 0..BURST {
                let ground = ground.clone();
                starting.spawn(async move {
                    let workspace = ground.workspace(Start::Fresh);
                    let sandbox = ground.create(&workspace).await?;
                    let (first, _) = run(&ground, sandbox.as_ref(), &LINE).await?;
                    Ok::<_, Error>((sandbox, workspace, first))
                });
            }
            let mut last = began;
            let mut stood = Vec::new();
            for started in starting.join_all().await {
                let (sandbox, workspace, first) = started?;
                last = last.max(first);
                stood.push((sandbox, workspace));
            }
            took.push(ms(last.saturating_sub(began)));
            for (sandbox, workspace) in stood {
                ground.end(sandbox.as_ref(), &workspace).await?;
            }
        }
        Ok(took)
    };
    let samples = measured().await.map_err(|error| error.to_string());
    vec![Figure::ms("burst_100_ms", "100 cold starts at once → the last one's first output", samples)]
}

fn file(index: usize, round: usize) -> Result<Change, Error> {
    let path = format!("d{}/f{}", index / FILES_EACH, index % FILES_EACH).parse()?;
    let text = format!("{index} {round} ");
    let bytes = Bytes::from(text.repeat(FILE_BYTES / text.len()));
    Ok(Change::Write { path, bytes, mode: None })
}

/// Checkpoints of 10,000 files of which 50 changed, and forks of them.
async fn checkpoints(ground: &Ground, samples: usize) -> Vec<Figure> {
    let (mut pause, mut whole, mut fork) = (Vec::new(), Vec::new(), Vec::new());
    let done = take(ground, samples, [&mut pause, &mut whole, &mut fork]).await;
    vec![
        Figure::ms("checkpoint_pause_ms_p50", "checkpoint of 10,000 files: programs stand still", told(&done, pause)),
        Figure::ms("checkpoint_ms_p50", "checkpoint of 10,000 files, 50 changed", told(&done, whole)),
        Figure::ms("fork_ms_p50", "fork of 10,000 files → a sandbox that is ready", told(&done, fork)),
    ]
}

async fn take(ground: &Ground, samples: usize, [pause, whole, fork]: [&mut Vec<f64>; 3]) -> Result<(), Error> {
    let workspace = ground.workspace(Start::Fresh);
    let Workspace::Session { session, .. } = workspace else { return Ok(()) };
    let sandbox = ground.create(&workspace).await?;
    for directory in 0..DIRECTORIES {
        let files = directory * FILES_EACH..(directory + 1) * FILES_EACH;
        sandbox.apply(files.map(|index| file(index, 0)).collect::<Result<_, _>>()?).await?;
    }
    for round in 1..=samples {
        let stride = DIRECTORIES * FILES_EACH / CHANGED;
        let changes = (0..CHANGED).map(|index| file(index * stride + round % stride, round));
        sandbox.apply(changes.collect::<Result<_, _>>()?).await?;
        let began = ground.clock.monotonic();
        let Some(checkpoint) = sandbox.checkpoint(ground.id()).await? else {
            let detail = "workspaces here can't be copied in a moment; they are exported while programs stand still";
            ground.end(sandbox.as_ref(), &workspace).await?;
            return Err(Error::Command { detail: detail.to_owned() });
        };
        whole.push(ground.since(began));
        pause.push(ms(checkpoint.paused()));
        let forked = ground.workspace(Start::Forked { session, checkpoint: checkpoint.id() });
        let began = ground.clock.monotonic();
        let other = ground.create(&forked).await?;
        fork.push(ground.since(began));
        ground.end(other.as_ref(), &forked).await?;
    }
    ground.end(sandbox.as_ref(), &workspace).await
}

/// A program that writes as fast as it is read.
async fn stdout(ground: &Ground, samples: usize) -> Vec<Figure> {
    let measured = async || -> Samples {
        let workspace = ground.workspace(Start::Fresh);
        let sandbox = ground.create(&workspace).await?;
        let script = format!("dd if=/dev/zero bs=64k count={} 2>/dev/null", OUTPUT_MIB << 4);
        let mut rates = Vec::new();
        for _ in 0..rare(samples) {
            let began = ground.clock.monotonic();
            let (_, bytes) = run(ground, sandbox.as_ref(), &["/bin/sh", "-c", &script]).await?;
            let seconds = ground.clock.monotonic().saturating_sub(began).as_secs_f64();
            if bytes != (OUTPUT_MIB as u64) << 20 {
                return Err(Error::Command { detail: format!("{bytes} bytes came of {OUTPUT_MIB} MiB") });
            }
            #[expect(clippy::cast_precision_loss, reason = "a figure, not a count")]
            rates.push(bytes as f64 / 1e6 / seconds);
        }
        ground.end(sandbox.as_ref(), &workspace).await?;
        Ok(rates)
    };
    let samples = measured().await.map_err(|error| error.to_string());
    let says = "output of one command through the lease";
    vec![Figure { key: "stdout_mb_s", says, unit: "MB/s", worse: Worse::Less, samples }]
}

/// What the groups of sandboxes count that stand idle together.
async fn memory(ground: &Ground) -> Vec<Figure> {
    let measured = async || -> Samples {
        let mut stood = Vec::new();
        for _ in 0..IDLE {
            let workspace = ground.workspace(Start::Fresh);
            stood.push((ground.create(&workspace).await?, workspace));
        }
        let living = ground.provider.living().await?;
        for (sandbox, workspace) in stood {
            ground.end(sandbox.as_ref(), &workspace).await?;
        }
        #[expect(clippy::cast_precision_loss, reason = "a figure, not a count")]
        Ok(living.iter().filter_map(|one| one.usage.memory_bytes).map(|bytes| bytes as f64).collect())
    };
    let samples = match measured().await {
        Ok(samples) if samples.is_empty() => Err("no group counts the memory of sandboxes here".to_owned()),
        measured => measured.map_err(|error| error.to_string()),
    };
    let (key, says) = ("memory_bytes_per_idle_sandbox", "memory of an idle sandbox, as its group counts it");
    vec![Figure { key, says, unit: "bytes", worse: Worse::More, samples }]
}
