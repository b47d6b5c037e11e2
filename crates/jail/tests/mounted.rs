//! Buckets shown in real sandboxes: from a real S3 server (`s3s-fs`, signatures checked) and from one that never answers; what
//! is seen, what stays out of archives, where the credential is, and that nothing of it all outlives the sandbox.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test with a main of its own is a test"
)]

mod support;

use futures::StreamExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sandbox::{Credential, Error, Exit, Mount, OnMissing, Provider as _, Sandbox, Start, Workspace};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use support::{Case, World, children_named, command, new_id, path, sh, skip, traces, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// What the scanner looks for, and what it must find to be believed.
const SECRET: &str = "kT9-secret-6f1d0b7ac2e54918";
const KEY_ID: &str = "kT9-key-id-0c53d8e6f7aa21b4";
const CONTROL: &str = "kT9-control-93be57a1d04c2f86";

fn main() -> std::process::ExitCode {
    let (launcher, impatient) = (jail::launch().unwrap(), jail::launch().unwrap());
    let data = tempfile::tempdir().unwrap();
    let cases: Vec<Case> = crate::cases![a_bucket_that_is_late_or_gone_is_told];
    let limits = mounts::Limits { operation_ms_max: OPERATION_MS_MAX, ..mounts::Limits::default() };
    let late = support::run_with(impatient, data.path(), cases, |provider| provider.with_mount_limits(limits));
    let data = tempfile::tempdir().unwrap();
    let cases: Vec<Case> = crate::cases![
        a_bucket_is_seen_and_stays_out_of_archives,
        a_bucket_is_seen_by_all_users,
        a_mount_that_can_not_be_had_is_told,
        a_stalled_bucket_holds_up_nobody_who_is_killed,
        the_credential_is_nowhere_inside,
        nothing_of_a_mount_outlives_its_sandbox,
    ];
    let others = support::run(launcher, data.path(), cases);
    support::head::all([late, others])
}

/// The deadline of one operation where a case waits for it.
const OPERATION_MS_MAX: u64 = 700;

/// What a launcher and the machine would keep of mounts, besides what they would keep of any sandbox.
fn left(world: &World) -> (support::Traces, usize, usize, usize) {
    let launcher = children_named("topside-launch").first().copied().unwrap_or(0);
    let count = |directory: &str| std::fs::read_dir(directory).map_or(0, Iterator::count);
    let connections = count("/sys/fs/fuse/connections");
    (traces(&world.data), count(&format!("/proc/{launcher}/fd")), children_named("topside-mount").len(), connections)
}

/// Waits until nothing is left that was not there before.
async fn nothing_is_left(world: &World, before: &(support::Traces, usize, usize, usize)) {
    for _ in 0..2_000 {
        if left(world) == *before {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let links =
        std::fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
    assert_eq!(left(world), *before, "what is left; open here: {:?}", links.collect::<Vec<_>>());
}

/// A server on loopback with one bucket, which is a directory.
async fn server(directory: &Path) -> u16 {
    std::fs::create_dir_all(directory.join("bucket")).unwrap();
    let mut builder = s3s::service::S3ServiceBuilder::new(s3s_fs::FileSystem::new(directory).unwrap());
    builder.set_auth(s3s::auth::SimpleAuth::from_single(KEY_ID, SECRET));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let service = builder.build();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    port
}

fn put(directory: &Path, key: &str, bytes: impl AsRef<[u8]>) {
    let file = directory.join("bucket").join(key);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, bytes).unwrap();
}

fn mount(at: &str, port: u16, prefix: &str) -> Mount {
    Mount {
        path: path(at),
        endpoint: format!("http://127.0.0.1:{port}"),
        bucket: "bucket".to_owned(),
        prefix: prefix.to_owned(),
        region: "us-east-1".to_owned(),
        virtual_host: false,
        credential: Credential {
            access_key_id: KEY_ID.to_owned(),
            secret_access_key: SECRET.to_owned(),
            session_token: None,
        },
        on_missing: OnMissing::Refuse,
    }
}

async fn with_mounts(world: &World, mounts: Vec<Mount>) -> Result<Arc<dyn Sandbox>, Error> {
    opened(world, world.session(Start::Fresh, new_id()), mounts).await
}

async fn opened(world: &World, workspace: Workspace, mounts: Vec<Mount>) -> Result<Arc<dyn Sandbox>, Error> {
    let mut spec = world.spec(workspace);
    spec.binds.clear();
    spec.left_out = mounts.iter().map(|mount| mount.path.clone()).collect();
    spec.left_out.push(path("scratch"));
    spec.mounts = mounts;
    world.provider.create(spec).await
}

/// Whether buckets can be shown here at all.
async fn can_mount(world: &World, name: &str) -> bool {
    let why = world.provider.mounts_missing().await;
    if let Some(why) = &why {
        skip(name, why);
    }
    why.is_none()
}

async fn a_bucket_is_seen_and_stays_out_of_archives(world: Arc<World>) {
    if !can_mount(&world, "a_bucket_is_seen_and_stays_out_of_archives").await {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let port = server(directory.path()).await;
    let large: Vec<u8> = (0..3_000_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    put(directory.path(), "top.txt", "top\n");
    put(directory.path(), "team/a b.csv", "1,2\n");
    put(directory.path(), "team/deep/large", &large);
    let (session, mounts) = (new_id(), || vec![mount("data", port, ""), mount("in/side/team", port, "team")]);
    let sandbox = opened(&world, world.session(Start::Fresh, session), mounts()).await.unwrap();
    let rows = [
        ("ls data; cat data/top.txt; ls in/side/team", "team\ntop.txt\ntop\na b.csv\ndeep\n", 0),
        (
            "cat 'in/side/team/a b.csv'; wc -c < in/side/team/deep/large; cksum < data/team/deep/large | wc -w",
            "1,2\n3000000\n2\n",
            0,
        ),
        ("find in -type f | sort", "in/side/team/a b.csv\nin/side/team/deep/large\n", 0),
        ("echo x 2>/dev/null > data/new", "", 2),
        ("rm -f data/top.txt 2>/dev/null", "", 1),
        ("cat data/none 2>/dev/null", "", 1),
        (
            "stat -c '%A %U' data/top.txt; grep ' /workspace/data ' /proc/self/mounts | cut -d' ' -f1,3,4 | cut -d, -f1-3",
            "-r--r--r-- agent\nbucket fuse ro,nosuid,nodev\n",
            0,
        ),
        ("mkdir -p scratch && echo e > scratch/e && echo k > kept; mv data elsewhere 2>/dev/null", "", 1),
    ];
    for (script, out, code) in rows {
        let got = sh(&sandbox, script).await;
        assert_eq!((got.out.as_str(), got.exit), (out, Exit::Code(code)), "{script}: {}", got.err);
    }
    let read = sandbox.read(&path("data/team/deep/large"), 1_000_000, 10).await.unwrap();
    assert_eq!(&read[..], &large[1_000_000..1_000_010]);
    assert_eq!(sandbox.list(&path("data"), 10).await.unwrap().len(), 2);
    let changed: Vec<String> =
        sandbox.changed(100).await.unwrap().into_iter().map(|(path, _)| path.to_string()).collect();
    assert_eq!(changed, ["in", "in/side", "kept", "scratch", "scratch/e"], "the mounts are nobody's changes");
    let limits = sandbox::ArchiveLimits::default();
    let mut export = sandbox.export(limits).await.unwrap();
    let pieces: Vec<_> = sandbox::archive::pieces(export.as_mut()).collect().await;
    let archive: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.unwrap().to_vec()).collect();
    let names: Vec<String> = archive
        .chunks(512)
        .filter(|block| block.len() == 512 && &block[257..262] == b"ustar" && block[156] != b'x')
        .map(|block| String::from_utf8_lossy(&block[..100]).trim_end_matches('\0').to_owned())
        .collect();
    assert_eq!(names, ["./", "in/", "in/side/", "kept"]);
    assert!(archive.len() < 100_000, "{}", archive.len());
    sandbox.close().await;
    // They come back with the workspace, whether it was kept or comes out of its archive.
    for start in [support::KEPT, Start::Restored] {
        let session = if start == Start::Restored { new_id() } else { session };
        let sandbox = opened(&world, world.session(start, session), mounts()).await.unwrap();
        if start == Start::Restored {
            let pieces: Vec<_> = archive.chunks(9_973).map(|piece| Ok(bytes::Bytes::copy_from_slice(piece))).collect();
            sandbox.import(futures::stream::iter(pieces).boxed(), limits).await.unwrap();
        }
        assert_eq!(
            sh(&sandbox, "cat data/top.txt kept; ls in/side/team").await.out,
            "top\nk\na b.csv\ndeep\n",
            "{start:?}"
        );
        sandbox.close().await;
    }
}

async fn a_bucket_is_seen_by_all_users(world: Arc<World>) {
    let name = "a_bucket_is_seen_by_all_users";
    // An ordinary user's sandboxes have one user.
    if !world.root || !can_mount(&world, name).await {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let port = server(directory.path()).await;
    put(directory.path(), "file", "shared\n");
    let mut spec = world.spec(world.session(Start::Fresh, new_id()));
    let named = |name: &str| sandbox::manifest::User { name: name.to_owned() };
    let users = vec![named("alice"), named("bob")];
    spec.accounts = sandbox::Accounts { users, groups: Vec::new(), user: Some("alice".to_owned()) };
    spec.left_out = vec![path("data")];
    spec.mounts = vec![mount("data", port, "")];
    let sandbox = world.provider.create(spec).await.unwrap();
    for user in ["alice", "bob", "root", "agent"] {
        let script = "cat data/file; stat -c '%U %a' data/file; touch data/new 2>/dev/null || echo kept";
        let argv = ["/bin/sh", "-c", script];
        let asked = sandbox::Command { user: Some(user.to_owned()), ..command(&argv) };
        let mut process = sandbox.start(asked).await.unwrap();
        let seen = support::finish(process.as_mut()).await.unwrap();
        assert_eq!(seen.out, "shared\nalice 444\nkept\n", "{user}: {}", seen.err);
    }
    assert_eq!(&sandbox.read(&path("data/file"), 0, 100).await.unwrap()[..], b"shared\n");
    sandbox.close().await;
}

async fn a_mount_that_can_not_be_had_is_told(world: Arc<World>) {
    if !can_mount(&world, "a_mount_that_can_not_be_had_is_told").await {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let port = server(directory.path()).await;
    // What is made once and kept, such as the pool of workspaces, is there before.
    world.sandbox().await.close().await;
    let before = left(&world);
    let mut wrong = mount("data", port, "");
    wrong.credential.secret_access_key = "wrong".to_owned();
    let error = with_mounts(&world, vec![wrong]).await.unwrap_err();
    assert!(matches!(&error, Error::Mount { code, .. } if code == "blob_answer"), "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
    let mut nowhere = mount("data", port, "");
    nowhere.bucket = "absent".to_owned();
    let error = with_mounts(&world, vec![mount("a", port, ""), nowhere]).await.unwrap_err();
    assert!(matches!(&error, Error::Mount { path, .. } if path == "data"), "{error}");
    let error = with_mounts(&world, vec![mount("a", port, "x/../y")]).await.unwrap_err();
    assert!(matches!(&error, Error::Mount { code, .. } if code == "mount_prefix"), "{error}");
    // A place that a program made something else of.
    let session = new_id();
    let mut spec = world.spec(world.session(Start::Fresh, session));
    spec.binds.clear();
    let sandbox = world.provider.create(spec).await.unwrap();
    sh(&sandbox, "ln -s /etc data; echo x > file").await;
    sandbox.close().await;
    // Who still holds a closed one holds its end of the stream.
    drop(sandbox);
    for at in ["data", "data/x", "file", "file/x"] {
        let mut spec = world.spec(world.session(support::KEPT, session));
        spec.binds.clear();
        spec.mounts = vec![mount(at, port, "")];
        let error = world.provider.create(spec).await.unwrap_err();
        assert!(error.to_string().contains("its place"), "{at}: {error}");
    }
    nothing_is_left(&world, &before).await;
}

/// How far a server gets with what it is asked for.
#[derive(Clone, Copy, Debug)]
enum Answers {
    /// It takes the question.
    Nothing,
    /// It begins to answer.
    Half,
}

/// A server that answers lists with one file, and of that file at most a half.
async fn stalled(answers: Answers) -> (u16, Arc<tokio::sync::Notify>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(tokio::sync::Notify::new());
    let told = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let told = Arc::clone(&told);
            tokio::spawn(async move {
                let mut text = vec![0; 16 << 10];
                let length = socket.read(&mut text).await.unwrap_or(0);
                let line = String::from_utf8_lossy(&text[..length]).lines().next().unwrap_or_default().to_owned();
                if line.contains("prefix=&") || line.contains("prefix=file&") {
                    let body =
                        "<ListBucketResult><Contents><Key>file</Key><Size>100</Size></Contents></ListBucketResult>";
                    let answer =
                        format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                    let _ = socket.write_all(answer.as_bytes()).await;
                } else {
                    if let Answers::Half = answers {
                        let half = format!(
                            "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 0-99/100\r\ncontent-length: 100\r\n\r\n{:50}",
                            "half"
                        );
                        let _ = socket.write_all(half.as_bytes()).await;
                    }
                    told.notify_one();
                    let _ = socket.read(&mut text).await;
                }
            });
        }
    });
    (port, asked)
}

async fn a_stalled_bucket_holds_up_nobody_who_is_killed(world: Arc<World>) {
    if !can_mount(&world, "a_stalled_bucket_holds_up_nobody_who_is_killed").await {
        return;
    }
    world.sandbox().await.close().await;
    for (freeze, answers) in [(false, Answers::Nothing), (true, Answers::Nothing), (false, Answers::Half)] {
        let (port, asked) = stalled(answers).await;
        let before = left(&world);
        let sandbox = with_mounts(&world, vec![mount("data", port, "")]).await.unwrap();
        assert_eq!(sh(&sandbox, "ls data").await.out, "file\n");
        let mut process = sandbox.start(command(&["cat", "data/file"])).await.unwrap();
        asked.notified().await;
        if freeze {
            // Even a helper that does nothing any more is in nobody's way.
            for helper in children_named("topside-mount") {
                rustix::process::kill_process(
                    rustix::process::Pid::from_raw(i32::try_from(helper).unwrap()).unwrap(),
                    rustix::process::Signal::STOP,
                )
                .unwrap();
            }
        } else {
            let killed = tokio::time::timeout(Duration::from_secs(2), process.kill()).await;
            assert_eq!(killed.expect("a command that waits for a bucket can be killed").unwrap(), Exit::Signal(9));
            assert_eq!(sh(&sandbox, "echo lives").await.out, "lives\n");
        }
        let second = sandbox.start(command(&["cat", "data/file"])).await.unwrap();
        tokio::time::timeout(Duration::from_secs(2), sandbox.close()).await.expect("a sandbox can always be killed");
        drop((process, second, sandbox));
        nothing_is_left(&world, &before).await;
    }
}

async fn a_bucket_that_is_late_or_gone_is_told(world: Arc<World>) {
    if !can_mount(&world, "a_bucket_that_is_late_or_gone_is_told").await {
        return;
    }
    for answers in [Answers::Nothing, Answers::Half] {
        let (port, _) = stalled(answers).await;
        let sandbox = with_mounts(&world, vec![mount("data", port, "")]).await.unwrap();
        let fault = |error: Error| match error {
            Error::Mount { path, code, detail } => {
                assert!(path.starts_with("data"), "{path}: {detail}");
                assert!(detail.starts_with("the bucket"), "{path}: {detail}");
                code
            }
            other => panic!("{other}"),
        };
        // Half an answer to what is no read is none.
        let expected = if let Answers::Nothing = answers { "mount_deadline" } else { "mount_unanswered" };
        assert_eq!(fault(sandbox.stat(&path("data/other")).await.unwrap_err()), expected, "{answers:?}");
        // What pages wait for the kernel may tell as any error of a disk.
        let code = fault(sandbox.read(&path("data/file"), 0, 10).await.unwrap_err());
        assert!(["mount_deadline", "mount_unanswered"].contains(&code.as_str()), "{answers:?}: {code}");
        let seen = sh(&sandbox, "stat data/other; echo other > other; cat other").await;
        let told = if let Answers::Nothing = answers { "timed out" } else { "Input/output error" };
        assert!(seen.err.contains(told) && seen.out == "other\n", "{seen:?}");
        let mut download = sandbox.download(&path("data"), sandbox::ArchiveLimits::default()).await.unwrap();
        while let Ok(piece) = download.next().await {
            assert!(piece.is_some(), "it came whole");
        }
        for helper in children_named("topside-mount") {
            let pid = rustix::process::Pid::from_raw(i32::try_from(helper).unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        until("the mount is gone", || children_named("topside-mount").is_empty()).await;
        assert_eq!(fault(sandbox.read(&path("data/file"), 0, 10).await.unwrap_err()), "mount_ended");
        assert_eq!(fault(sandbox.list(&path("data"), 10).await.unwrap_err()), "mount_ended");
        assert_eq!(&sandbox.read(&path("other"), 0, 10).await.unwrap()[..], b"other\n");
        sandbox.close().await;
    }
}

/// Looks for words everywhere that a program inside can look: its own world, file by file and process by process, with all that
/// the kernel tells of a mount. The words come backwards, so that the scanner itself does not hold them but for the moment of
/// looking. The tools of the host alone are left out.
const SCANNER: &str = r#"
import fcntl, os, re, stat, sys
names = ("control", "secret", "key")
words = [w[::-1].encode() for w in sys.argv[1:4]]
own = os.getpid()
found = set()
counted = {}
def look(kind, data):
    counted[kind] = counted.get(kind, 0) + len(data)
    for name, word in zip(names, words):
        if word in data: found.add(name + ":" + kind)
def read(kind, path, most=16 << 20):
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError: return
    try:
        look(kind, os.read(handle, most))
        while most > 0:
            piece = os.read(handle, 1 << 20)
            if not piece: break
            look(kind, piece); most -= len(piece)
    except OSError: pass
    finally: os.close(handle)
for pid in [p for p in os.listdir("/proc") if p.isdigit() and int(p) != own]:
    base = "/proc/" + pid + "/"
    for kind, name in (("env", "environ"), ("arguments", "cmdline")): read(kind, base + name)
    try:
        maps = open(base + "maps").read().splitlines()
        memory = open(base + "mem", "rb", 0)
        for line in maps:
            m = re.match(r"([0-9a-f]+)-([0-9a-f]+) r(w?)", line)
            if not m or "[vvar" in line or "[vsyscall" in line: continue
            start, end = int(m[1], 16), int(m[2], 16)
            kind = "stack" if "[stack]" in line else "heap"
            try:
                memory.seek(start); look(kind, memory.read(min(end - start, 64 << 20)))
            except (OSError, ValueError, OverflowError): pass
    except OSError: pass
    try: fds = os.listdir(base + "fd")
    except OSError: fds = []
    for fd in fds:
        try: to = os.readlink(base + "fd/" + fd)
        except OSError: continue
        kind = "pipe" if to.startswith("pipe:") else "deleted" if to.endswith(" (deleted)") else None
        if kind: read(kind, base + "fd/" + fd, 1 << 20)
# All else that /proc tells, of everybody: links and names, too.
skipped = ("mem", "environ", "cmdline", "maps", "pagemap", "fd", "kmsg", "sysrq-trigger")
for directory, below, files in os.walk("/proc", onerror=None):
    parts = directory.split("/")
    if len(parts) > 2 and parts[2] in (str(own), "self", "thread-self"): below[:] = []; continue
    below[:] = [b for b in below if not (b == "fd" or (len(parts) > 2 and b in ("map_files", "net", "attr")))]
    for name in files + below:
        at = os.path.join(directory, name)
        look("proc", name.encode(errors="surrogateescape"))
        try: look("proc", os.readlink(at).encode(errors="surrogateescape"))
        except OSError: pass
        if name in files and name not in skipped: read("proc", at, 1 << 20)
tops = ["/" + t for t in os.listdir("/") if t not in ("proc", "usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")]
for top in tops:
    for directory, below, files in os.walk(top):
        mount = directory.startswith("/workspace/data")
        for name in files + below:
            at = os.path.join(directory, name)
            kind = "bucket" if mount or name == "data" else "file"
            look(kind, name.encode(errors="surrogateescape"))
            try:
                state = os.lstat(at)
                look(kind, repr(state).encode())
            except OSError: continue
            try:
                for attribute in os.listxattr(at, follow_symlinks=False):
                    look(kind, attribute.encode()); look(kind, os.getxattr(at, attribute, follow_symlinks=False))
            except OSError as error: look(kind, repr(error).encode())
            if stat.S_ISREG(state.st_mode): read(kind, at)
# What the mount says besides: of itself, of what is not there, and no.
look("bucket", repr(os.statvfs("/workspace/data")).encode())
for deed in (lambda: os.open("/workspace/data/none", os.O_RDONLY), lambda: os.open("/workspace/data/new", os.O_CREAT | os.O_WRONLY),
             lambda: os.getxattr("/workspace/data/file", "user.key"), lambda: os.readlink("/workspace/data/file"),
             lambda: fcntl.ioctl(os.open("/workspace/data/file", os.O_RDONLY), 0x80086601, bytes(8))):
    try: look("bucket", repr(deed()).encode())
    except OSError as error: look("bucket", repr(error).encode())
assert all(counted.get(kind, 0) > 0 for kind in ("env", "heap", "stack", "file", "proc", "bucket")), counted
print(" ".join(sorted(found)))
"#;

/// Holds a word in every place that the scanner looks at.
const PLANT: &str = r#"
import os, sys, time
word = sys.argv[1][::-1]
open("/tmp/planted", "w").write(word)
held = open("/tmp/deleted", "w+"); held.write(word); held.flush(); os.unlink("/tmp/deleted")
heap = bytearray(word.encode() * 3)
reader, writer = os.pipe(); os.write(writer, word.encode())
if os.fork() == 0:
    os.environ["PLANTED"] = word
    os.execv("/bin/sleep", ["sleep", "1000"])
print("ready", flush=True)
time.sleep(1000)
"#;

async fn the_credential_is_nowhere_inside(world: Arc<World>) {
    let name = "the_credential_is_nowhere_inside";
    if !can_mount(&world, name).await {
        return;
    }
    if !Path::new("/usr/bin/python3").exists() {
        return skip(name, "there is no python3 to scan with");
    }
    let directory = tempfile::tempdir().unwrap();
    let port = server(directory.path()).await;
    put(directory.path(), "file", vec![7; 2 << 20]);
    put(directory.path(), "below/with-control", CONTROL);
    let sandbox = with_mounts(&world, vec![mount("data", port, "")]).await.unwrap();
    assert_eq!(sh(&sandbox, "cat data/file | wc -c").await.out, "2097152\n", "the bucket is in use");
    let backwards = |word: &str| word.chars().rev().collect::<String>();
    let (control, secret, key_id) = (backwards(CONTROL), backwards(SECRET), backwards(KEY_ID));
    let mut plant = sandbox.start(command(&["python3", "-c", PLANT, &control])).await.unwrap();
    let told = plant.next().await.unwrap();
    assert!(matches!(told, sandbox::Chunk::Output(_, bytes) if &bytes[..] == b"ready\n"));
    let mut scan = sandbox.start(command(&["python3", "-c", SCANNER, &control, &secret, &key_id])).await.unwrap();
    let seen = support::finish(scan.as_mut()).await.unwrap();
    assert_eq!(
        seen.out, "control:bucket control:deleted control:env control:file control:heap control:pipe control:stack\n",
        "the control is found in every place, the credential in none: {}",
        seen.err
    );
    // From outside, too: in no process of the sandbox and not in the launcher, whoever may look. The helper has it.
    if world.root {
        let holders = |name: &str| children_named(name).into_iter().filter(|pid| holds(*pid, SECRET)).count();
        assert_eq!(holders("topside-mount"), 1, "the helper alone has it, and the scanner finds it there");
        for name in ["topside-init", "topside-launch", "topside-stem", "python3", "sleep"] {
            assert_eq!(holders(name), 0, "{name}");
        }
        let helper = children_named("topside-mount")[0];
        for file in ["environ", "cmdline"] {
            let text = std::fs::read(format!("/proc/{helper}/{file}")).unwrap();
            assert!(!text.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()), "{file} of the helper");
        }
        let status = std::fs::read_to_string(format!("/proc/{helper}/status")).unwrap();
        for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
            assert!(status.contains(line), "{line}: {status}");
        }
        assert!(!status.contains("Uid:\t0"), "{status}");
    }
    sandbox.close().await;
}

/// Whether a process has a word in its memory.
fn holds(pid: u32, word: &str) -> bool {
    use std::os::unix::fs::FileExt as _;
    let Ok(maps) = std::fs::read_to_string(format!("/proc/{pid}/maps")) else { return false };
    let Ok(memory) = std::fs::File::open(format!("/proc/{pid}/mem")) else { return false };
    maps.lines().any(|line| {
        let Some((range, rest)) = line.split_once(' ') else { return false };
        let Some((from, to)) = range.split_once('-') else { return false };
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        if !rest.starts_with("rw") {
            return false;
        }
        let mut bytes = vec![0; usize::try_from((to - from).min(256 << 20)).unwrap()];
        memory
            .read_at(&mut bytes, from)
            .is_ok_and(|length| bytes[..length].windows(word.len()).any(|part| part == word.as_bytes()))
    })
}

async fn nothing_of_a_mount_outlives_its_sandbox(world: Arc<World>) {
    if !can_mount(&world, "nothing_of_a_mount_outlives_its_sandbox").await {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let port = server(directory.path()).await;
    put(directory.path(), "file", "x");
    world.sandbox().await.close().await;
    let before = left(&world);
    for round in 0..20 {
        let sandbox = with_mounts(&world, vec![mount("a", port, ""), mount("b", port, "")]).await.unwrap();
        assert_eq!(sh(&sandbox, "cat a/file b/file").await.out, "xx", "{round}");
        if round % 2 == 0 {
            // A helper that dies takes only its mount with it.
            let helper = children_named("topside-mount")[0];
            let pid = rustix::process::Pid::from_raw(i32::try_from(helper).unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            let got =
                sh(&sandbox, "for i in $(seq 1000); do cat a/file b/file >/dev/null 2>&1 || break; done; echo lives")
                    .await;
            assert_eq!(got.out, "lives\n");
        }
        sandbox.close().await;
    }
    nothing_is_left(&world, &before).await;
}
