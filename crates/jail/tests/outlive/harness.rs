//! A harness that does what it is told, line by line, until it is killed; and the hold that a test has on it. What it reads of
//! a command's output it appends to a file at once: that file is what it has durably.

use crate::user::become_user;
use domain::{Id, id};
use sandbox::{Chunk, Command, Exit, Limits, Process, Provider as _, RelPath, Sandbox, Spec, Start, Workspace};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, ExitCode, Stdio};
use std::sync::Arc;
use stdx::{Clock, Random};

pub(crate) const MODE: &str = "--harness";
/// What an ordinary user without delegated groups does without.
const LIMITS: [&str; 3] = ["memory_limit", "process_limit", "cpu_limit"];

/// A harness as the test holds it.
pub(crate) struct Harness {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    data: PathBuf,
}

impl Harness {
    /// Starts one at home in `data`.
    pub(crate) fn start(data: &Path, user: Option<u32>, grace_ms: u64) -> Self {
        Self::keeping("nothing", data, user, grace_ms)
    }

    /// As [`Harness::start`], with workspaces in stock.
    pub(crate) fn stocked(data: &Path, user: Option<u32>, grace_ms: u64) -> Self {
        Self::keeping("stock", data, user, grace_ms)
    }

    fn keeping(what: &str, data: &Path, user: Option<u32>, grace_ms: u64) -> Self {
        let user = user.map_or_else(|| "-".to_owned(), |user| user.to_string());
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([MODE, &data.display().to_string(), &user, &grace_ms.to_string(), what])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut harness = Self { child, input, output, data: data.to_owned() };
        assert_eq!(harness.hear(), "ready");
        harness
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Tells it to do something, and waits until it is done.
    pub(crate) fn ask(&mut self, what: &str) -> String {
        writeln!(self.input, "{what}").unwrap();
        self.hear()
    }

    /// As [`Harness::ask`], with the answer that is expected.
    pub(crate) fn expect(&mut self, what: &str, expected: &str) {
        assert_eq!(self.ask(what), expected, "{what}");
    }

    /// What it has of a command's output.
    pub(crate) fn has(&self, name: &str) -> Vec<u8> {
        fs::read(log(&self.data, name)).unwrap_or_default()
    }

    /// Kills it in the middle of whatever it does.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets it end in order.
    pub(crate) fn end(mut self) {
        assert_eq!(self.ask("farewell"), "ok");
        drop(self.input);
        assert!(self.child.wait().unwrap().success());
    }
}

fn log(data: &Path, name: &str) -> PathBuf {
    data.join(format!("log-{name}"))
}

/// Is a harness: data directory, user, grace.
pub(crate) fn serve(arguments: &[String]) -> ExitCode {
    let [data, user, grace_ms, keeping] = arguments else { return ExitCode::FAILURE };
    if let Ok(user) = user.parse() {
        become_user(user);
    }
    let launcher = jail::launch().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let data = PathBuf::from(data);
    let grace_ms = grace_ms.parse().unwrap();
    runtime.block_on(async {
        let home = jail::Provider::at_home(launcher, data.clone(), Random::system(), grace_ms).await.unwrap();
        let home = if keeping == "stock" { home.with_stock(2) } else { home };
        let ordinary = !rustix::process::geteuid().is_root();
        let mut world = World { provider: home, data, ordinary, sandbox: None, held: HashMap::new() };
        println!("ready");
        for line in std::io::stdin().lines() {
            let words = line.unwrap();
            let words: Vec<&str> = words.splitn(4, ' ').collect();
            let told = world.act(&words).await;
            println!("{}", told.unwrap_or_else(|error| format!("error {}", error.code())));
        }
    });
    ExitCode::SUCCESS
}

/// How many sandboxes are made ahead.
pub(crate) const WARM: usize = 2;

struct World {
    provider: jail::Provider,
    data: PathBuf,
    ordinary: bool,
    sandbox: Option<Arc<dyn Sandbox>>,
    held: HashMap<String, Box<dyn Process>>,
}

fn done() -> String {
    "ok".to_owned()
}

impl World {
    async fn act(&mut self, words: &[&str]) -> Result<String, sandbox::Error> {
        let live = || self.sandbox.clone().unwrap();
        match words {
            ["warm", session] => {
                let warm = jail::Warm { min: WARM, max: WARM };
                let like = self.spec(session, Start::Fresh, "1");
                while self.provider.keep_warm(&like, warm).await? < WARM {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                Ok(done())
            }
            ["fresh", session, epoch] => self.create(session, Start::Fresh, epoch).await,
            ["kept", session, epoch, generation] => {
                let generation = generation.parse().unwrap();
                self.create(session, Start::Kept { generation }, epoch).await
            }
            ["start" | "terminal", name, epoch, script] => {
                let command = Command {
                    argv: ["/bin/sh", "-c", script].map(str::to_owned).into(),
                    workdir: RelPath::root(),
                    environment: Vec::new(),
                    terminal: words[0] == "terminal",
                    stdin: false,
                    epoch: epoch.parse().unwrap(),
                    name: (*name != "-").then(|| (*name).to_owned()),
                    user: None,
                };
                let process = live().start(command).await?;
                self.held.insert((*name).to_owned(), process);
                Ok(done())
            }
            ["attach", name, position] => {
                let process = live().attach(name, position.parse().unwrap()).await?;
                self.held.insert((*name).to_owned(), process);
                Ok(done())
            }
            ["commands"] => {
                let told = |one: sandbox::KeptCommand| {
                    format!("{} {}..{} {}", one.name, one.from, one.to, one.exit.map_or(-1, Exit::shell_code))
                };
                let mut commands: Vec<String> = live().commands().await?.into_iter().map(told).collect();
                commands.sort();
                Ok(commands.join(", "))
            }
            ["living"] => {
                let told = |one: sandbox::Living| {
                    let commands = one.commands.map_or("?".to_owned(), |commands| commands.len().to_string());
                    format!("{} {} {} {commands}", one.workspace.is_some(), one.epoch, one.walls.standing.len() >= 13)
                };
                Ok(self.provider.living().await?.into_iter().map(told).collect::<Vec<_>>().join(", "))
            }
            ["forget"] => {
                self.held.clear();
                Ok(done())
            }
            ["close"] => {
                live().close().await;
                Ok(done())
            }
            ["farewell"] => {
                self.provider.farewell().await;
                Ok(done())
            }
            [verb, name, rest @ ..] => self.deal(verb, name, rest.join(" ")).await,
            _ => panic!("{words:?}"),
        }
    }

    async fn create(&mut self, session: &str, start: Start, epoch: &str) -> Result<String, sandbox::Error> {
        let sandbox = self.provider.create(self.spec(session, start, epoch)).await?;
        let id = sandbox.id().to_string();
        self.sandbox = Some(sandbox);
        Ok(id)
    }

    fn spec(&self, session: &str, start: Start, epoch: &str) -> Spec {
        let session: Id<id::Session> = session.parse().unwrap();
        let limits = Limits {
            memory_bytes_max: 512 << 20,
            workspace_bytes_max: 64 << 20,
            workspace_inodes_max: 2_000,
            tmp_bytes_max: 16 << 20,
            processes_max: 64,
            ..Limits::default()
        };
        Spec {
            id: Id::new(Clock::system().wall_ms(), Random::system().bytes()),
            workspace: Workspace::Session { tenant: "default".to_owned(), session, start },
            environment: Vec::new(),
            root: sandbox::Root::default(),
            mounts: Vec::new(),
            accounts: sandbox::Accounts::default(),
            left_out: Vec::new(),
            binds: Vec::new(),
            limits,
            walls_optional: if self.ordinary { LIMITS.map(str::to_owned).into() } else { Vec::new() },
            landlock_version_min: 0,
            epoch: epoch.parse().unwrap(),
        }
    }

    /// Deals with a command at hand.
    async fn deal(&mut self, verb: &str, name: &str, rest: String) -> Result<String, sandbox::Error> {
        let file = log(&self.data, name);
        let Some(process) = self.held.get_mut(name) else { return Ok("nobody".to_owned()) };
        let mut log = File::options().append(true).create(true).open(file).unwrap();
        match verb {
            // Reads so many bytes at least, or to the end.
            "read" => {
                let wanted: u64 = rest.parse().unwrap();
                let began = process.position();
                while process.position() - began < wanted {
                    match process.next().await? {
                        Chunk::Output(_, bytes) => log.write_all(&bytes).unwrap(),
                        Chunk::Exit(exit) => return Ok(format!("exit {}", exit.shell_code())),
                    }
                }
                Ok(process.position().to_string())
            }
            // Reads until the output holds something.
            "until" => {
                let mut seen = String::new();
                while !seen.contains(&rest) {
                    match process.next().await? {
                        Chunk::Output(_, bytes) => {
                            log.write_all(&bytes).unwrap();
                            seen.push_str(&String::from_utf8_lossy(&bytes));
                        }
                        Chunk::Exit(exit) => return Ok(format!("exit {} after {seen}", exit.shell_code())),
                    }
                }
                Ok(done())
            }
            "taken" => {
                process.taken(rest.parse().unwrap_or_else(|_| process.position())).await?;
                Ok(done())
            }
            "write" => {
                process.write(format!("{rest}\n").into()).await?;
                Ok(done())
            }
            "resize" => {
                process.resize(50, 132).await?;
                Ok(done())
            }
            "eof" => {
                process.close_stdin().await?;
                Ok(done())
            }
            "kill" => Ok(format!("exit {}", process.kill().await?.shell_code())),
            "drop" => {
                self.held.remove(name);
                Ok(done())
            }
            other => panic!("{other}"),
        }
    }
}
