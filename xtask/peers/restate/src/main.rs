//! A peer of the benchmarks: Restate's own server with one object whose handler takes durable steps, one after the other,
//! each of which does nothing: `peer-restate SERVER DIRECTORY SECONDS OBJECTS STEPS` starts the server on an empty
//! directory, invokes that many objects at once until the time is over and prints one line of JSON. It uses fixed ports and
//! is meant to be run in a network namespace of its own. What the figures are compared with, `cargo xtask bench` says.

use restate_sdk::prelude::*;
use std::error::Error;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

const ADMIN: &str = "127.0.0.1:9070";
const INGRESS: &str = "127.0.0.1:8080";
const SERVICE: &str = "127.0.0.1:9080";
/// How long the server may take to serve, and an invocation to end.
const WAIT_MAX: Duration = Duration::from_secs(60);
const WARM: Duration = Duration::from_secs(1);

type Failure = Box<dyn Error + Send + Sync>;

struct Steps;

#[object]
impl Steps {
    /// Takes the steps; answers how many.
    #[handler]
    async fn take(&self, ctx: ObjectContext<'_>, steps: u64) -> Result<u64, TerminalError> {
        let mut taken = 0;
        for _ in 0..steps {
            taken += ctx.run(|| async { Ok(1_u64) }).name("step").await?;
        }
        Ok(taken)
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, directory, seconds, objects, steps] = arguments.as_slice() else {
        return Err("usage: peer-restate SERVER DIRECTORY SECONDS OBJECTS STEPS".into());
    };
    let (time, objects, steps) = (Duration::from_secs(seconds.parse()?), objects.parse()?, steps.parse()?);
    let service = HttpServer::new(Endpoint::builder().bind(Steps).build()).listen_and_serve(SERVICE.parse()?);
    let service = tokio::spawn(service);
    // Ended with this process, whichever way it ends.
    let mut server = start(Path::new(server), Path::new(directory))?;
    register().await?;
    drive(objects, steps, WARM).await?;
    let (mut invocations, seconds) = drive(objects, steps, time).await?;
    invocations.sort_unstable();
    let count = invocations.len() as f64 * steps as f64;
    let p50_ms = invocations[invocations.len() / 2].as_secs_f64() * 1e3 / steps as f64;
    println!(
        "{{\"objects\":{objects},\"steps\":{count},\"steps_per_second\":{:.0},\"step_p50_ms\":{p50_ms:.4}}}",
        count / seconds
    );
    server.kill().await?;
    service.abort();
    Ok(())
}

fn start(program: &Path, directory: &Path) -> Result<Child, std::io::Error> {
    let mut server = Command::new(program);
    server.args(["--node-name", "peer", "--bind-ip", "127.0.0.1", "--advertised-host", "127.0.0.1", "--no-logo"]);
    server.arg("--base-dir").arg(directory).env("RESTATE_DISABLE_TELEMETRY", "true").kill_on_drop(true);
    server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

/// Tells the server of the object, as soon as it takes it, and waits until it can be invoked.
async fn register() -> Result<(), Failure> {
    let begun = Instant::now();
    loop {
        let told = request(&mut None, ADMIN, "/deployments", &format!("{{\"uri\":\"http://{SERVICE}\"}}")).await;
        let ready = match told {
            Ok(_) => request(&mut None, INGRESS, "/Steps/first/take", "1").await,
            Err(error) => Err(error),
        };
        match ready {
            Ok(_) => return Ok(()),
            Err(error) if begun.elapsed() > WAIT_MAX => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Invokes every object again and again until the time is over: how long each invocation took, and the whole in seconds.
async fn drive(objects: u64, steps: u64, time: Duration) -> Result<(Vec<Duration>, f64), Failure> {
    let begun = Instant::now();
    let drivers: Vec<_> = (0..objects)
        .map(|object| {
            tokio::spawn(async move {
                let mut connection = None;
                let mut invocations = Vec::new();
                while begun.elapsed() < time {
                    let at = Instant::now();
                    let path = format!("/Steps/object-{object}/take");
                    let answer = request(&mut connection, INGRESS, &path, &steps.to_string()).await?;
                    if answer != steps.to_string() {
                        return Err(format!("{answer} steps were taken instead of {steps}").into());
                    }
                    invocations.push(at.elapsed());
                }
                Ok::<_, Failure>(invocations)
            })
        })
        .collect();
    let mut all = Vec::new();
    for driver in drivers {
        all.extend(driver.await??);
    }
    Ok((all, begun.elapsed().as_secs_f64()))
}

type Connection = BufReader<TcpStream>;

/// Posts JSON on a connection that is kept; the body of a good answer.
async fn request(kept: &mut Option<Connection>, to: &str, path: &str, body: &str) -> Result<String, Failure> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => BufReader::new(TcpStream::connect(to).await?),
    };
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {to}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(head.as_bytes()).await?;
    let answer = tokio::time::timeout(WAIT_MAX, read(&mut connection)).await??;
    *kept = Some(connection);
    Ok(answer)
}

async fn read(connection: &mut Connection) -> Result<String, Failure> {
    let mut status = String::new();
    connection.read_line(&mut status).await?;
    let mut bytes = 0;
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).await?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(length) = line.strip_prefix("content-length:") {
            bytes = length.trim().parse()?;
        }
    }
    let mut body = vec![0; bytes];
    connection.read_exact(&mut body).await?;
    let body = String::from_utf8(body)?;
    if status.split(' ').nth(1).is_some_and(|code| code.starts_with('2')) {
        Ok(body)
    } else {
        Err(format!("{status} {body}").into())
    }
}
