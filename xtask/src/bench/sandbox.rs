//! What sandboxes cost, beside `bwrap`, `runc`, Docker and the floor in C. Ours measures itself (`topside sandbox bench`); of the
//! others counts what somebody sees who starts them: from the start of the program to the first byte it gives.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::Arguments;
use super::figures::{Figure, Page};
use crate::clock::Stopwatch;
use crate::process;

/// Samples of each figure in one measurement.
const SAMPLES: usize = 30;
/// Our figures without a peer: their keys, and what they say.
const ALONE: [(&str, &str); 9] = [
    ("warm_ms_p50", "sandbox: claim of a warm one → first output, ms"),
    ("exec_ms_p50", "sandbox: one more command, start → end, ms"),
    ("burst_100_ms", "sandbox: 100 cold starts at once → the last first output, ms"),
    ("checkpoint_pause_ms_p50", "sandbox: checkpoint of 10,000 files, 50 changed: programs stand still, ms"),
    ("checkpoint_ms_p50", "sandbox: checkpoint of 10,000 files, 50 changed, ms"),
    ("fork_ms_p50", "sandbox: fork of 10,000 files → ready, ms"),
    ("stdout_mb_s", "sandbox: output of one command, MB/s"),
    ("close_ms_p50", "sandbox: close → nothing left, ms"),
    ("memory_bytes_per_idle_sandbox", "sandbox: memory of an idle one, bytes"),
];
/// The image and the container that Docker is measured with.
const DOCKER_NAME: &str = "topside-bench-peer";

/// A peer that starts a sandbox, or a command in one.
struct Peer {
    name: &'static str,
    /// Which of our figures it stands beside.
    beside: &'static str,
    command: fn(&Path) -> Command,
    until: Until,
    figure: Figure,
}

/// To what a peer is measured.
#[derive(Clone, Copy)]
enum Until {
    FirstByte,
    End,
}

pub(crate) fn measure(built: &Path, arguments: &Arguments, page: &mut Page) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let floor = arguments.peers.as_deref().map(|peers| compile(peers, folder.path())).transpose()?;
    let mut peers = peers(folder.path(), page)?;
    let (mut ours, mut at_floor) = (vec![Vec::new(); ALONE.len() + 1], Figure::default());
    for _ in 0..arguments.pairs {
        let told = own(built)?;
        let keys = std::iter::once("cold_ms_p50").chain(ALONE.iter().map(|(key, _)| *key));
        for (key, values) in keys.zip(&mut ours) {
            values.extend(told[key].as_f64());
        }
        for peer in &mut peers {
            peer.figure.add(median(|| took((peer.command)(folder.path()), peer.until))?);
        }
        if let Some(program) = &floor {
            let told = process::capture(Command::new(program).arg(folder.path().join("floor.d")))?;
            at_floor
                .add(median_of(&told.tail(20), "full setup userns +netns overlay +cgroup2 -> exec").context("floor")?);
        }
    }
    end_docker();
    show(page, &ours, &peers, floor.is_some().then_some(&at_floor));
    Ok(())
}

fn show(page: &mut Page, ours: &[Vec<f64>], peers: &[Peer], floor: Option<&Figure>) {
    let figure = |values: &[f64]| {
        let mut figure = Figure::default();
        values.iter().for_each(|value| figure.add(*value));
        figure
    };
    const COLD: &str = "sandbox: create → first output, ms";
    let cold = figure(&ours[0]);
    for peer in peers.iter().filter(|peer| peer.beside == COLD_KEY) {
        page.beside(COLD, &cold, peer.name, &peer.figure);
    }
    match floor {
        Some(floor) => page.beside(COLD, &cold, "the floor in C, to the exec", floor),
        None => page.skipped("the floor in C", "no --peers folder was given"),
    }
    for ((key, says), values) in ALONE.iter().zip(&ours[1..]) {
        let mine = figure(values);
        let beside: Vec<&Peer> = peers.iter().filter(|peer| peer.beside == *key).collect();
        match beside.as_slice() {
            _ if values.is_empty() => page.skipped(says, "this machine does not have it"),
            [] => page.alone(says, &mine),
            beside => beside.iter().for_each(|peer| page.beside(says, &mine, peer.name, &peer.figure)),
        }
    }
}

const COLD_KEY: &str = "cold_ms_p50";
const EXEC_KEY: &str = "exec_ms_p50";

fn own(built: &Path) -> Result<Value> {
    let mut bench = Command::new(built.join("topside"));
    bench.args(["sandbox", "bench", "--json", "--samples", &SAMPLES.to_string()]);
    let told = process::capture(&mut bench)?;
    ensure!(told.status.success(), "topside sandbox bench: {}", told.tail(5));
    serde_json::from_str(told.tail(1).trim()).context("topside sandbox bench --json")
}

/// The peers that this machine has; the others are noted.
fn peers(folder: &Path, page: &mut Page) -> Result<Vec<Peer>> {
    let peer = |name, beside, command| {
        let until = if beside == COLD_KEY { Until::FirstByte } else { Until::End };
        Peer { name, beside, command, until, figure: Figure::default() }
    };
    // What of every figure is the program's own, on this machine and at this time.
    let mut found = vec![
        peer("the program alone, no sandbox", COLD_KEY, echo as fn(&Path) -> Command),
        peer("the program alone, no sandbox", EXEC_KEY, nothing),
    ];
    match process::is_present("bwrap") {
        true => found.push(peer("bwrap --unshare-all", COLD_KEY, bwrap)),
        false => page.skipped("bwrap", "it is not installed"),
    }
    match process::is_present("runc") {
        true => {
            bundle(folder)?;
            found.push(peer("runc run", COLD_KEY, runc));
        }
        false => page.skipped("runc", "it is not installed"),
    }
    match begin_docker(folder) {
        Ok(()) => {
            found.push(peer("docker run", COLD_KEY, docker_run));
            found.push(peer("docker exec", EXEC_KEY, docker_exec));
        }
        Err(why) => page.skipped("docker", &why.to_string()),
    }
    Ok(found)
}

/// Without a language, as in `topside sandbox bench`: its tables are read by the program, whoever starts it.
const LANGUAGE: (&str, &str) = ("LC_ALL", "C");

fn echo(_: &Path) -> Command {
    let mut command = Command::new("/bin/echo");
    command.env(LANGUAGE.0, LANGUAGE.1).arg("up");
    command
}

fn nothing(_: &Path) -> Command {
    let mut command = Command::new("/bin/true");
    command.env(LANGUAGE.0, LANGUAGE.1);
    command
}

fn bwrap(_: &Path) -> Command {
    let mut command = Command::new("bwrap");
    command.env(LANGUAGE.0, LANGUAGE.1);
    command.args(["--unshare-all", "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin"]);
    command.args(["--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64", "--proc", "/proc"]);
    command.args(["--dev", "/dev", "--tmpfs", "/tmp", "/bin/echo", "up"]);
    command
}

fn runc(folder: &Path) -> Command {
    let mut command = Command::new("runc");
    // One at a time: the name is free again when it has ended.
    command.arg("--root").arg(folder.join("runc")).args(["run", "--bundle"]).arg(folder.join("bundle")).arg("peer");
    command
}

/// A root of the host's own tools, as ours has one: links where the host has links, and places to mount on.
fn skeleton(folder: &Path) -> Result<PathBuf> {
    let root = folder.join("bundle/rootfs");
    for place in ["usr", "proc", "dev", "sys", "tmp"] {
        fs::create_dir_all(root.join(place))?;
    }
    for name in ["bin", "lib", "lib64"] {
        // A link that leads nowhere yet is there, too.
        if fs::symlink_metadata(root.join(name)).is_err() {
            symlink(format!("usr/{name}"), root.join(name))?;
        }
    }
    Ok(root)
}

fn bundle(folder: &Path) -> Result<()> {
    skeleton(folder)?;
    let made = process::capture(Command::new("runc").arg("spec").current_dir(folder.join("bundle")))?;
    ensure!(made.status.success(), "runc spec: {}", made.tail(3));
    let path = folder.join("bundle/config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = json!(["/bin/echo", "up"]);
    config["process"]["env"].as_array_mut().context("env")?.push(format!("{}={}", LANGUAGE.0, LANGUAGE.1).into());
    let tools = json!({ "destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"] });
    config["mounts"].as_array_mut().context("mounts")?.push(tools);
    Ok(fs::write(path, serde_json::to_vec(&config)?)?)
}

const DOCKER_VIEW: [&str; 7] = ["--network", "none", "--read-only", "-v", "/usr:/usr:ro", "-e", "LC_ALL=C"];

fn docker_run(_: &Path) -> Command {
    let mut command = Command::new("docker");
    command.args(["run", "--rm"]).args(DOCKER_VIEW).args([DOCKER_NAME, "/bin/echo", "up"]);
    command
}

fn docker_exec(_: &Path) -> Command {
    let mut command = Command::new("docker");
    command.args(["exec", "-e", "LC_ALL=C", DOCKER_NAME, "/bin/true"]);
    command
}

/// An image of the skeleton, and a container that waits to be asked.
fn begin_docker(folder: &Path) -> Result<()> {
    ensure!(process::is_present("docker"), "it is not installed");
    let asked = process::capture(Command::new("docker").arg("version"))?;
    ensure!(asked.status.success(), "no engine answers");
    let (root, archive) = (skeleton(folder)?, folder.join("skeleton.tar"));
    let packed = process::capture(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(root).arg("."))?;
    ensure!(packed.status.success(), "tar: {}", packed.tail(3));
    let made = process::capture(Command::new("docker").arg("import").arg(&archive).arg(DOCKER_NAME))?;
    ensure!(made.status.success(), "docker import: {}", made.tail(3));
    let mut waits = Command::new("docker");
    waits.args(["run", "-d", "--name", DOCKER_NAME]).args(DOCKER_VIEW).args([DOCKER_NAME, "/bin/sleep", "86400"]);
    let waits = process::capture(&mut waits)?;
    ensure!(waits.status.success(), "docker run: {}", waits.tail(3));
    Ok(())
}

/// Takes away what was made there; without an engine there is nothing.
fn end_docker() {
    for arguments in [["rm", "-f", DOCKER_NAME], ["rmi", "-f", DOCKER_NAME]] {
        let _ = process::capture(Command::new("docker").args(arguments));
    }
}

/// Milliseconds from the start of a program to its first byte or its end.
fn took(mut command: Command, until: Until) -> Result<f64> {
    let watch = Stopwatch::start();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut out = child.stdout.take().context("its output")?;
    let read = out.read(&mut [0; 1])?;
    let first_ms = watch.seconds() * 1_000.0;
    let status = child.wait()?;
    let ended_ms = watch.seconds() * 1_000.0;
    let (ms, bytes) = match until {
        Until::FirstByte => (first_ms, 1),
        Until::End => (ended_ms, 0),
    };
    ensure!(read == bytes && status.success(), "{command:?} gave {read} bytes: {status}");
    Ok(ms)
}

fn median(sample: impl Fn() -> Result<f64>) -> Result<f64> {
    let mut figure = Figure::default();
    for _ in 0..SAMPLES {
        figure.add(sample()?);
    }
    Ok(figure.median())
}

fn compile(peers: &Path, folder: &Path) -> Result<PathBuf> {
    let program = folder.join("floor");
    let mut cc = Command::new("cc");
    let built = process::capture(cc.arg("-O2").arg(peers.join("floor.c")).arg("-o").arg(&program))?;
    ensure!(built.status.success(), "floor.c: {}", built.tail(5));
    Ok(program)
}

/// The number after `median` or `median=` on the line that begins with `name`, in milliseconds.
fn median_of(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.trim_start().starts_with(name))?;
    let rest = line.split_once("median")?.1.trim_start_matches(['=', ' ', ':']);
    rest.split(|character: char| character.is_whitespace()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_found_on_its_line() {
        let text = "create → first output   median 4.21 ms\nbwrap x  n=3 median=2.500 ms p95=1";
        assert_eq!(
            (median_of(text, "create"), median_of(text, "bwrap"), median_of(text, "gone")),
            (Some(4.21), Some(2.5), None)
        );
    }
}
