//! Measures durable steps: `cargo run --release -p topside --example steps SECONDS SESSIONS STEPS`.
//!
//! Each session asks for one run after the other, as a client of the service in this process; a run is that many calls, one
//! after the other, of a Rust function that does nothing and must not be called twice. A step is counted when both of its
//! records are found in the database afterwards. One line of JSON says what came of it.

use api::PostRun;
use client::{PostOptions, Wait};
use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use stdx::Clock;
use topside::{App, Builder};

const USAGE: &str = "usage: steps SECONDS SESSIONS STEPS";
const WARM: Duration = Duration::from_secs(1);
/// A reply, and the end of the service, are waited for so long.
const WAIT_SECONDS: u32 = 60;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [seconds, sessions, steps] = arguments.as_slice() else { return Err(USAGE.into()) };
    let (time, sessions, steps) = (Duration::from_secs(seconds.parse()?), sessions.parse::<u32>()?, steps.parse()?);
    let project = tempfile::tempdir()?;
    write_project(project.path(), steps)?;
    let app = Builder::new(project.path()).function("step", |_, _| async { Ok::<_, String>("done") });
    let app = Arc::new(app.start().await?);
    let warm = drive(&app, sessions, WARM).await?;
    let (mut runs, seconds) = drive(&app, sessions, time).await?;
    let data = app.data().path().to_owned();
    let app = Arc::into_inner(app).ok_or("a session still holds the service")?;
    app.close(Duration::from_secs(WAIT_SECONDS.into())).await?;
    let expected = (warm.0.len() + runs.len()) as u64 * u64::from(steps);
    let found = count(&data)?;
    if found != expected {
        return Err(format!("{expected} steps were acknowledged, {found} are in the database").into());
    }
    runs.sort_unstable();
    let p50 = runs.get(runs.len() / 2).ok_or("no run ended")?.as_secs_f64() * 1e3 / f64::from(steps);
    let steps = runs.len() as f64 * f64::from(steps);
    writeln!(
        std::io::stdout(),
        "{{\"sessions\":{sessions},\"steps\":{steps},\"steps_per_second\":{:.0},\"step_p50_ms\":{p50:.4}}}",
        steps / seconds
    )?;
    Ok(())
}

/// How long each run took, and how many seconds all of it.
async fn drive(app: &Arc<App>, sessions: u32, time: Duration) -> Result<(Vec<Duration>, f64), Failure> {
    let clock = Clock::system();
    let session = |app: Arc<App>, clock: Clock| async move {
        let mut runs = Vec::new();
        while clock.monotonic() < time {
            let begun = clock.monotonic();
            let run = PostRun { message: "Go.".to_owned(), ..PostRun::default() };
            let options = PostOptions { wait: Wait::Seconds(WAIT_SECONDS), ..PostOptions::default() };
            let posted = app.client().post_run(&run, &options).await?;
            if posted.reply.as_deref() != Some("Done.") {
                return Err(format!("a run did not end as it should: {posted:?}").into());
            }
            runs.push(clock.monotonic().saturating_sub(begun));
        }
        Ok::<_, Failure>(runs)
    };
    let tasks: Vec<_> = (0..sessions).map(|_| tokio::spawn(session(app.clone(), clock.clone()))).collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    Ok((all, clock.monotonic().as_secs_f64()))
}

/// Steps whose two records are in the database.
fn count(data: &Path) -> Result<u64, Failure> {
    let database = rusqlite::Connection::open(data.join("journal.db"))?;
    let of = |kind: &str| {
        let sql = "SELECT count(*) FROM log WHERE kind = ?1";
        database.query_row(sql, [kind], |row| row.get::<_, u64>(0))
    };
    Ok(of("began")?.min(of("returned")?))
}

/// An agent whose transcript calls the tool so many times, and a policy that lets it.
fn write_project(folder: &Path, steps: u32) -> Result<(), Failure> {
    let mut transcript = "title: steps\nsteps:\n- expect: {user: Go}\n".to_owned();
    for step in 0..steps {
        if step > 0 {
            writeln!(transcript, "- expect: {{outputs: {{c{}: done}}}}", step - 1)?;
        }
        write!(transcript, "  reply:\n  - call: {{id: c{step}, tool: step, arguments: {{}}}}\n")?;
    }
    write!(transcript, "- expect: {{outputs: {{c{}: done}}}}\n  reply:\n  - text: Done.\n", steps.saturating_sub(1))?;
    for (name, text) in [
        ("topside.yaml", "default_agent: worker\n"),
        (
            "agents/worker.md",
            "---\nmodel: main\ntools: [step]\nlimits: {turns: 1000, tool_calls: 1000}\n---\nYou take steps.\n",
        ),
        ("models/main.yaml", "main: {provider: script, transcript: steps.yaml}\n"),
        (
            "tools/step.yaml",
            "description: Takes a step.\ninput_schema: {type: object}\neffect: external\nrepeat: once\nrun: {function: {}}\n",
        ),
        ("policies/steps.cedar", "@id(\"steps\")\npermit (principal, action, resource);\n"),
        ("steps.yaml", &transcript),
    ] {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().ok_or("no parent")?)?;
        std::fs::write(path, text)?;
    }
    Ok(())
}
