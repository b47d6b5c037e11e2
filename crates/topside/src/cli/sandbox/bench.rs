//! `topside sandbox bench`: what sandboxes cost on this machine, measured on real ones of a launcher and a data directory of
//! its own. Judges no figure.

mod figures;
mod measures;

use crate::cli::Session;
use crate::cli::arguments::SandboxBench;
use crate::cli::console::Console;
use crate::cli::ending::{Ending, Trouble};
use crate::cli::signals::{Signals, Wish};
use figures::{Figure, Machine};
use measures::Ground;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stdx::Random;

/// What can be measured, in this order.
pub(crate) const NAMES: [&str; 7] = ["cold", "warm", "exec", "burst", "checkpoint", "stdout", "memory"];

pub(crate) async fn bench(session: Session, arguments: SandboxBench) -> Result<Ending, Trouble> {
    let Session { console, environment, launcher } = session;
    let mut signals = Signals::new()?;
    let above = PathBuf::from(environment.get("TMPDIR").unwrap_or("/tmp"));
    let data = Data::make(above.join(format!("topside-bench-{}", std::process::id())))?;
    let provider = launcher.and_then(|launcher| jail::Provider::new(launcher, data.0.clone(), Random::system()));
    let provider = match provider {
        Ok(provider) => Arc::new(provider.with_stock(measures::BURST)),
        Err(error) => {
            console.talk_line(&format!("error: no sandboxes: {error}"));
            return Ok(Ending::Failed);
        }
    };
    let ground = Ground::new(provider);
    tokio::select! {
        ending = measure(&console, &ground, &arguments) => Ok(ending),
        wish = signals.next() => Ok(match wish {
            Wish::Interrupt => Ending::Cancelled,
            Wish::Terminate => Ending::Terminated,
        }),
    }
}

/// Failed when something could not be measured at all; the rest is told all the same.
async fn measure(console: &Console, ground: &Ground, arguments: &SandboxBench) -> Ending {
    let mut ending = Ending::Done;
    let samples = usize::from(arguments.samples);
    let mut measured: Vec<Figure> = Vec::new();
    for name in NAMES {
        if !arguments.only.is_empty() && !arguments.only.iter().any(|only| only == name) {
            continue;
        }
        if console.talk_is_terminal {
            console.talk_line(&format!("measuring {name} …"));
        }
        let mut measuring = measures::Measuring::begin(name, ground, samples);
        match measuring.done().await {
            Ok(figures) => measured.extend(figures),
            Err(error) => {
                console.talk_line(&format!("error: measuring {name}: {error}"));
                ending = Ending::Failed;
            }
        }
    }
    let machine = Machine::here(ground).await;
    console.data(&if arguments.json {
        figures::json(&machine, &measured)
    } else {
        figures::table(&machine, &measured)
    });
    ending
}

/// A directory that is gone with this value.
struct Data(PathBuf);

impl Data {
    fn make(path: PathBuf) -> Result<Self, Trouble> {
        // Only a new one: what stands there already is somebody else's.
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Self(path)),
            Err(error) => Err(Trouble::File { path, error }),
        }
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path) {
        tracing::warn!(path = %path.display(), %error, "the bench's directory is left behind");
    }
}
