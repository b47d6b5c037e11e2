//! Over a real S3 server, with signatures checked.

use crate::support::Shown;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mounts::Limits;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::time::Duration;

/// A server on loopback with one bucket, which is a directory.
pub(crate) struct Server {
    directory: tempfile::TempDir,
    port: u16,
}

impl Server {
    async fn new() -> Self {
        Self::with_keys("access", "secret").await
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) async fn with_keys(key_id: &str, secret: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("bucket")).unwrap();
        let files = s3s_fs::FileSystem::new(directory.path()).unwrap();
        let mut builder = s3s::service::S3ServiceBuilder::new(files);
        builder.set_auth(s3s::auth::SimpleAuth::from_single(key_id, secret));
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
        Self { directory, port }
    }

    pub(crate) fn put(&self, key: &str, bytes: impl AsRef<[u8]>) {
        let path = self.directory.path().join("bucket").join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_a_tree_of_files() {
    let server = Server::new().await;
    let large = pattern((5 << 20) + 77);
    server.put("plain", "one\n");
    server.put("empty", "");
    server.put("data/a b.txt", "spaces");
    server.put("data/ünï-日本+%20", "text");
    server.put("data/deep/er/large", &large);
    server.put("data-beside", "not below data");
    let Some(shown) = Shown::new("a_bucket_is_a_tree_of_files", server.port, "", Limits::default()).await else {
        return;
    };
    assert_eq!(shown.names("").await.unwrap(), ["data-beside", "data/", "empty", "plain"]);
    assert_eq!(shown.names("data").await.unwrap(), ["a b.txt", "deep/", "ünï-日本+%20"]);
    for (path, expected) in
        [("plain", "one\n".as_bytes()), ("empty", b""), ("data/a b.txt", b"spaces"), ("data/ünï-日本+%20", b"text")]
    {
        assert_eq!(shown.read(path).await.unwrap(), expected, "{path}");
    }
    assert!(shown.read("data/deep/er/large").await.unwrap() == large);
    let parts = shown
        .look("data/deep/er/large", |path| {
            let file = std::fs::File::open(path).unwrap();
            let mut part = vec![0; 3_000_000];
            file.read_exact_at(&mut part, 1_000_001).unwrap();
            let past = file.read_at(&mut [0; 10], 99 << 20).unwrap();
            let mut end = String::new();
            let mut file = file;
            file.seek(SeekFrom::End(-3)).unwrap();
            let read = file.read_to_string(&mut end).unwrap_or(3);
            (part, past, read)
        })
        .await;
    assert!(parts.0 == large[1_000_001..4_000_001]);
    assert_eq!((parts.1, parts.2), (0, 3));
    let stat = shown.look("data/deep/er/large", |path| std::fs::metadata(path).unwrap()).await;
    assert_eq!((stat.len(), stat.mode(), stat.nlink()), (large.len() as u64, 0o100_444, 1));
    assert!(stat.mtime() > 1_600_000_000, "{}", stat.mtime());
    assert_eq!(shown.look("data", |path| std::fs::metadata(path).unwrap().mode()).await, 0o040_555);
    for path in ["no", "data/no", "dat", "plai", "data/deep/er/large/below"] {
        let errno = shown.errno(path).await;
        assert!(matches!(errno, Some(2 | 20)), "{path}: {errno:?}");
    }
    shown.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_is_the_top_and_nothing_is_beside_it() {
    let server = Server::new().await;
    server.put("team/one/file", "in");
    server.put("team/secret", "out");
    for prefix in ["team/one", "/team/one/"] {
        let name = "a_prefix_is_the_top_and_nothing_is_beside_it";
        let Some(shown) = Shown::new(name, server.port, prefix, Limits::default()).await else { return };
        assert_eq!(shown.names("").await.unwrap(), ["file"]);
        assert_eq!(shown.read("file").await.unwrap(), b"in");
        assert_eq!(shown.errno("secret").await, Some(2));
        shown.end().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_changed() {
    let server = Server::new().await;
    server.put("file", "kept");
    server.put("dir/file", "kept");
    let Some(shown) = Shown::new("nothing_can_be_changed", server.port, "", Limits::default()).await else { return };
    type Deed = fn(&Path) -> std::io::Result<()>;
    let deeds: [(&str, Deed); 9] = [
        ("write", |top| std::fs::write(top.join("file"), "x")),
        ("create", |top| std::fs::write(top.join("new"), "x")),
        ("mkdir", |top| std::fs::create_dir(top.join("new"))),
        ("unlink", |top| std::fs::remove_file(top.join("file"))),
        ("rmdir", |top| std::fs::remove_dir_all(top.join("dir"))),
        ("rename", |top| std::fs::rename(top.join("file"), top.join("other"))),
        ("link", |top| std::fs::hard_link(top.join("file"), top.join("other"))),
        ("symlink", |top| std::os::unix::fs::symlink("file", top.join("other"))),
        ("chmod", |top| {
            let permissions: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            std::fs::set_permissions(top.join("file"), permissions)
        }),
    ];
    for (name, deed) in deeds {
        let done = shown.look("", move |top| deed(&top)).await;
        assert_eq!(done.unwrap_err().raw_os_error(), Some(30), "{name}: read-only file system");
    }
    assert_eq!(shown.names("").await.unwrap(), ["dir/", "file"]);
    shown.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_entries_come_in_pages_and_too_many_are_refused() {
    let server = Server::new().await;
    for number in 0..2_345 {
        server.put(&format!("many/{number:05}"), number.to_string());
    }
    for number in 0..7 {
        server.put(&format!("many/d{number}/x"), "");
    }
    let limits = Limits { directory_entries_max: 2_352, ..Limits::default() };
    let name = "many_entries_come_in_pages_and_too_many_are_refused";
    let Some(shown) = Shown::new(name, server.port, "", limits).await else { return };
    let names = shown.names("many").await.unwrap();
    assert_eq!((names.len(), names[0].as_str(), names[2_351].as_str()), (2_352, "00000", "d6/"));
    assert_eq!(shown.read("many/02344").await.unwrap(), b"2344");
    shown.end().await.unwrap();
    let limits = Limits { directory_entries_max: 2_351, ..limits };
    let Some(shown) = Shown::new(name, server.port, "", limits).await else { return };
    assert_eq!(shown.names("many").await.unwrap_err().raw_os_error(), Some(75), "EOVERFLOW");
    assert_eq!(shown.read("many/02344").await.unwrap(), b"2344", "by name it opens");
    shown.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_is_seen_after_a_while_and_never_half() {
    let server = Server::new().await;
    server.put("file", pattern(3 << 20));
    let limits = Limits { valid_ms: 0, ..Limits::default() };
    let Some(shown) = Shown::new("what_changes_is_seen", server.port, "", limits).await else { return };
    let file = shown.look("file", |path| std::fs::File::open(path).unwrap()).await;
    let (file, first) = tokio::task::spawn_blocking(move || {
        let mut first = [0; 10];
        file.read_exact_at(&mut first, 0).unwrap();
        (file, first)
    })
    .await
    .unwrap();
    assert_eq!(first, pattern(10)[..]);
    server.put("file", vec![7; 3 << 20]);
    server.put("new", "x");
    let later = tokio::task::spawn_blocking(move || file.read_at(&mut [0; 10], (2 << 20) + 5)).await.unwrap();
    if let Ok(length) = later {
        // This server gives files no version, so that what is open may be of either.
        assert_eq!(length, 10);
    }
    assert_eq!(shown.names("").await.unwrap(), ["file", "new"]);
    assert!(shown.read("file").await.unwrap() == vec![7; 3 << 20], "the newer one, whole");
    shown.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_told() {
    let server = Server::new().await;
    server.put("file", "x");
    let client = net::Client::new(net::Settings::default()).unwrap();
    let mut settings = crate::support::settings(server.port);
    settings.secret_access_key = "wrong".to_owned();
    let bucket = blob::Bucket::new(&settings, client, 5_000).unwrap();
    let error = bucket.list("", None, 1).await.unwrap_err();
    assert_eq!((error.code(), error.is_denied()), ("blob_answer", true), "{error}");
    assert!(bucket.read("file", 0..1, None).await.unwrap_err().is_denied());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_ends_with_its_server() {
    let server = Server::new().await;
    server.put("file", "x");
    let Some(shown) = Shown::new("a_mount_ends_with_its_server", server.port, "", Limits::default()).await else {
        return;
    };
    assert_eq!(shown.read("file").await.unwrap(), b"x");
    shown.kill();
    for _ in 0..1_000 {
        if shown.read("other").await.unwrap_err().raw_os_error() == Some(107) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the connection is never aborted");
}
