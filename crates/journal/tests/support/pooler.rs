//! PgBouncer in front of the tests' server, as strict as it gets: every statement may find another session of the server,
//! and there are few of them. Gone with the test binary however that ends.

use super::support::postgres::{as_somebody, skip};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};

/// Runs it while standard input is open.
const GUARD: &str = r#"
set -eu
"$POOLER" "$DIR/pooler.ini" >"$DIR/log" 2>&1 &
until (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; do kill -0 $!; done
echo started
cat >/dev/null || true
kill -9 $! || true
rm -rf "$DIR"
"#;

/// The pooler.
#[derive(Debug)]
pub(crate) struct Pooler {
    pub(crate) port: u16,
    _guard: Child,
}

/// A pooler in front of the server at `port`; `None` when there is no PgBouncer, which is told.
pub(crate) fn pooler(test: &str, port: u16) -> Option<Pooler> {
    let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].map(PathBuf::from).into_iter().find(|it| it.exists());
    let Some(program) = program else {
        skip(test, "there is no pgbouncer");
        return None;
    };
    let directory = tempfile::Builder::new().prefix("topside-pooler-").tempdir().unwrap().keep();
    let own = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = format!(
        "[databases]\n* = host=127.0.0.1 port={port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {own}\n\
         unix_socket_dir =\nauth_type = trust\nauth_file = {directory}/users\npool_mode = transaction\n\
         default_pool_size = 3\nmax_client_conn = 200\nserver_round_robin = 1\n",
        directory = directory.display()
    );
    std::fs::write(directory.join("pooler.ini"), settings).unwrap();
    std::fs::write(directory.join("users"), "\"topside\" \"\"\n").unwrap();
    std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = as_somebody("bash", &directory);
    command.arg("-c").arg(GUARD).env("POOLER", program).env("DIR", &directory).env("PORT", own.to_string());
    let mut guard = command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(guard.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "started\n", "{}", std::fs::read_to_string(directory.join("log")).unwrap_or_default());
    Some(Pooler { port: own, _guard: guard })
}
