//! A PostgreSQL server of the tests' own: one per test binary, in a directory of its own, gone with the binary however that
//! ends. `TOPSIDE_TEST_POSTGRES` names another one (a superuser's URL without a database).

#![allow(dead_code, reason = "each test binary uses its part")]

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Runs the server until its standard input is closed.
const GUARD: &str = include_str!("postgres.sh");

/// The server.
#[derive(Debug)]
pub(crate) struct Server {
    /// `postgres://topside@127.0.0.1:PORT`, without a database.
    pub(crate) url: String,
    /// Who signed its certificate.
    pub(crate) ca_pem: String,
    guard: Option<Child>,
}

/// The server, started with the first question; `None` when there is none to be had, which is told.
pub(crate) fn server() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(start).as_ref()
}

/// The URL of a new database.
pub(crate) async fn database() -> Option<String> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let server = server()?;
    let name = format!("t{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let admin = connect(&format!("{}/postgres", server.url)).await;
    admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    Some(format!("{}/{name}", server.url))
}

/// A connection for the test itself.
pub(crate) async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, wire) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(wire);
    client
}

/// Says that a test is left out; on a machine of continuous integration that is a fault.
#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
pub(crate) fn skip(name: &str, why: &str) {
    assert!(environment("CI").as_deref() != Some("true"), "SKIPPED {name}: {why}; nothing may be skipped here");
    eprintln!("SKIPPED {name}: {why}");
}

#[expect(clippy::disallowed_methods, reason = "what the machine of the tests offers")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn start() -> Option<Server> {
    if let Some(url) = environment("TOPSIDE_TEST_POSTGRES") {
        return Some(Server { url: url.trim_end_matches('/').to_owned(), ca_pem: String::new(), guard: None });
    }
    let Some(binaries) = binaries() else {
        skip("postgres", "there is no PostgreSQL server in /usr/lib/postgresql or on the path");
        return None;
    };
    let directory = tempfile::Builder::new().prefix("topside-postgres-").tempdir().unwrap().keep();
    let ca_pem = certificates(&directory);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = as_somebody("sh", &directory);
    command.arg("-c").arg(GUARD).env("BIN", &binaries).env("DIR", &directory).env("PORT", port.to_string());
    command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut guard = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(guard.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let log = || std::fs::read_to_string(directory.join("log")).unwrap_or_default();
    assert_eq!(line, "started\n", "the server did not start: {}", log());
    Some(Server { url: format!("postgres://topside@127.0.0.1:{port}"), ca_pem, guard: Some(guard) })
}

/// The server refuses to run as root.
pub(crate) fn as_somebody(shell: &str, directory: &Path) -> Command {
    if !is_root() {
        return Command::new(shell);
    }
    let given = Command::new("chown").args(["-R", "postgres"]).arg(directory).status().unwrap();
    assert!(given.success(), "root needs a user `postgres` to run the server as");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", shell]);
    command
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn binaries() -> Option<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    let on_path = environment("PATH").unwrap_or_default();
    found.pop().or_else(|| on_path.split(':').map(PathBuf::from).find(|bin| bin.join("initdb").exists()))
}

/// A certificate for the server, in its directory; gives that of its issuer.
fn certificates(directory: &Path) -> String {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let own = own.signed_by(&key, &issuer).unwrap();
    std::fs::write(directory.join("server.pem"), own.pem()).unwrap();
    std::fs::write(directory.join("server.key"), key.serialize_pem()).unwrap();
    std::fs::set_permissions(directory.join("server.key"), PermissionsExt::from_mode(0o600)).unwrap();
    issuer.pem()
}
