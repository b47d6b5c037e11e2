//! A project, a database of its own on a real server, and the processes that share it.

use crate::kit::Project;
use crate::service::{Service, skipped};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Runs the server until its standard input is closed.
const GUARD: &str = include_str!("../../../journal/tests/support/postgres.sh");

/// The server of this test binary; its guard takes it away when the binary ends, however that happens.
struct Server {
    programs: PathBuf,
    port: u16,
    _guard: Child,
}

fn server() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(start).as_ref()
}

fn start() -> Option<Server> {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = installed.filter_map(|version| {
        let number: u32 = version.file_name().to_str()?.parse().ok()?;
        Some((number, version.path().join("bin"))).filter(|(_, programs)| programs.join("initdb").is_file())
    });
    let (_, programs) = newest.max()?;
    let folder = tempfile::Builder::new().prefix("topside-postgres-").tempdir().unwrap().keep();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = as_somebody(&folder);
    command.arg("-c").arg(GUARD).env("BIN", &programs).env("DIR", &folder).env("PORT", port.to_string());
    let mut guard = command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(guard.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let said = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
    assert_eq!(line, "started\n", "the server did not start: {said}");
    Some(Server { programs, port, _guard: guard })
}

/// A shell; the server refuses to run as root.
fn as_somebody(folder: &Path) -> Command {
    use std::os::unix::fs::MetadataExt;
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return Command::new("sh");
    }
    let given = Command::new("chown").args(["-R", "postgres"]).arg(folder).status().unwrap();
    assert!(given.success(), "root needs a user `postgres` to run the server as");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "sh"]);
    command
}

/// A project whose processes share one database. What a tool does outside leads to a [`crate::gate::Gate`].
pub(crate) struct Fleet {
    pub(crate) project: Project,
    pub(crate) database: String,
    /// What its processes are told beside that.
    pub(crate) variables: Vec<(&'static str, String)>,
    programs: &'static Path,
}

impl Fleet {
    /// A project of these files and a new database; nothing, and told so, where there is no server.
    pub(crate) fn of(test: &str, files: &[(&str, &str)]) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let Some(server) = server() else {
            skipped(test, "there is no PostgreSQL server in /usr/lib/postgresql");
            return None;
        };
        let name = format!("d{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut create = Command::new(server.programs.join("createdb"));
        let made = create.args(["-h", "127.0.0.1", "-p", &server.port.to_string(), "-U", "topside", &name]).status();
        assert!(made.unwrap().success(), "createdb {name}");
        let database = format!("postgres://topside@127.0.0.1:{}/{name}", server.port);
        Some(Self { project: Project::of(files), database, variables: Vec::new(), programs: &server.programs })
    }

    /// One of the processes that go on until they are told to end.
    pub(crate) fn start(&self, arguments: &[&str]) -> Service {
        let mut command = self.project.command(arguments);
        command.args(["--listen", "127.0.0.1:0"]).env("DATABASE_URL", &self.database);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        Service::of(command)
    }

    pub(crate) fn door(&self) -> Service {
        self.start(&["serve", "--api-only"])
    }

    pub(crate) fn worker(&self) -> Service {
        self.start(&["worker"])
    }

    /// What the database says to statements, each on its own, in one line each.
    pub(crate) fn ask(&self, statements: &[&str]) -> Vec<String> {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"]);
        statements.iter().for_each(|statement| {
            psql.args(["-c", statement]);
        });
        let said = psql.arg(&self.database).output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// The process that holds a session.
    pub(crate) fn holder(&self, session: &str) -> u32 {
        let statement = format!(
            "SELECT w.name FROM public.heads h JOIN public.workers w ON w.id = h.holder
             JOIN public.session_index s USING (tenant, session) WHERE s.last_run = '{session}'"
        );
        let told = self.ask(&[&statement]);
        let number = told.first().and_then(|name| name.rsplit('-').next()?.parse().ok());
        number.unwrap_or_else(|| panic!("nobody holds the session of {session}: {told:?}"))
    }

    /// Every chain holds; gives the kinds of a session's records, in order.
    pub(crate) fn verified(&self, session: &str) -> Vec<serde_json::Value> {
        let mut command = self.project.command(&["log", session, "--json", "--verify"]);
        let said = crate::kit::Said::of(command.env("DATABASE_URL", &self.database).output().unwrap()).ended(0);
        let mut lines = said.json();
        let verified = lines.pop().unwrap();
        assert_eq!(verified["verified"]["records"], lines.len(), "{verified}");
        lines.into_iter().map(|line| line["record"].clone()).collect()
    }

    /// Declares keys that ask on behalf of these tenants, in the data directory that the processes read at their start.
    pub(crate) fn keys(&self, tenants: &[&str]) -> Vec<String> {
        let mut text = String::new();
        let made = tenants.iter().map(|tenant| {
            let scopes = ["--scope", "runs:read", "--scope", "runs:write"];
            let made = self.project.topside(&[&["key", "new", *tenant][..], &scopes].concat()).ended(0);
            text += &made.data;
            text += &format!("  tenant: {tenant}\n");
            made.talk.split_whitespace().last().unwrap().to_owned()
        });
        let keys = made.collect();
        std::fs::create_dir_all(self.project.data()).unwrap();
        let mut file = std::fs::File::create(self.project.data().join("keys.yaml")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        keys
    }
}
