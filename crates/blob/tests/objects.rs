//! The contract of objects, over a local directory and over a real S3 server in this process (`s3s-fs`, with signatures
//! checked), path-style, virtual-hosted and under a root.

#![allow(clippy::unwrap_used, reason = "a test")]

use blob::{Addressing, Blobs, Key, Link, Links, S3};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use hyper_util::rt::{TokioExecutor, TokioIo};
use net::{Client, Method, Origin, Request, Settings, Url};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use stdx::Clock;
use tokio::task::JoinHandle;

const NOW_MS: u64 = 1_700_000_000_000;

/// Objects somewhere, and what they stand on.
struct Bench {
    name: &'static str,
    blobs: Blobs,
    directory: tempfile::TempDir,
    server: Option<JoinHandle<()>>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

fn links() -> Links {
    Links::new(&[1; 32], Clock::manual(NOW_MS))
}

/// Every name is on loopback, also `bucket.localhost`.
#[derive(Debug)]
struct Loopback;

#[async_trait::async_trait]
impl net::Lookup for Loopback {
    async fn lookup(&self, _name: &str) -> std::io::Result<Vec<IpAddr>> {
        Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)])
    }
}

fn client() -> Client {
    Client::with_lookup(Settings::default(), Arc::new(Loopback)).unwrap()
}

/// A server on loopback with one bucket; gives its port.
async fn serve(directory: &Path) -> (u16, JoinHandle<()>) {
    std::fs::create_dir(directory.join("bucket")).unwrap();
    let mut builder = s3s::service::S3ServiceBuilder::new(s3s_fs::FileSystem::new(directory).unwrap());
    builder.set_auth(s3s::auth::SimpleAuth::from_single("access", "secret"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    builder.set_host(s3s::host::SingleDomain::new(&format!("localhost:{port}")).unwrap());
    let service = builder.build();
    let server = tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let service = service.clone();
            tokio::spawn(async move {
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                // A client that leaves ends its connection with an error; that is its right.
                let _ = server.serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    (port, server)
}

fn settings(port: u16, addressing: Addressing, root: &str) -> S3 {
    S3 {
        endpoint: format!("http://localhost:{port}"),
        bucket: "bucket".to_owned(),
        region: "us-east-1".to_owned(),
        access_key_id: "access".to_owned(),
        secret_access_key: "secret".to_owned(),
        session_token: None,
        addressing,
        root: root.to_owned(),
    }
}

async fn benches() -> Vec<Bench> {
    let directory = tempfile::tempdir().unwrap();
    let blobs = Blobs::local(&directory.path().join("objects"), links()).unwrap();
    let mut benches = vec![Bench { name: "local", blobs, directory, server: None }];
    for (name, addressing, root) in [
        ("s3 by path", Addressing::Path, ""),
        ("s3 by host", Addressing::VirtualHost, ""),
        ("s3 under a root", Addressing::Path, "teams/one"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let (port, server) = serve(directory.path()).await;
        let blobs = Blobs::s3(&settings(port, addressing, root), client(), links()).unwrap();
        benches.push(Bench { name, blobs, directory, server: Some(server) });
    }
    benches
}

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

fn pattern(bytes: usize) -> Bytes {
    (0..bytes).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect::<Vec<_>>().into()
}

#[tokio::test]
async fn objects_come_back_as_they_were() {
    for bench in benches().await {
        let Bench { name, blobs, .. } = &bench;
        blobs.probe().await.unwrap_or_else(|error| panic!("{name}: {error}"));
        for bytes in [0, 1, 100_000] {
            let at = key(&format!("outputs/default/run_1/{bytes}"));
            blobs.put(&at, pattern(bytes)).await.unwrap();
            assert_eq!(blobs.get(&at, 100_000).await.unwrap(), pattern(bytes), "{name}: {bytes}");
            assert_eq!(blobs.head(&at).await.unwrap().unwrap().bytes, bytes as u64, "{name}");
            let (length, pieces) = blobs.get_stream(&at).await.unwrap();
            let whole: Vec<Bytes> = pieces.try_collect().await.unwrap();
            assert_eq!((length, whole.concat()), (bytes as u64, pattern(bytes).to_vec()), "{name}");
        }
        let at = key("outputs/default/run_1/100000");
        assert_eq!(blobs.get_range(&at, 10..30).await.unwrap(), pattern(100_000)[10..30], "{name}");
        assert_eq!(blobs.get(&at, 99_999).await.unwrap_err().code(), "blob_too_large", "{name}");
        blobs.put(&at, pattern(5)).await.unwrap();
        assert_eq!(blobs.get(&at, 5).await.unwrap(), pattern(5), "{name}: the newer one");

        let nowhere = key("inputs/nowhere");
        assert_eq!(blobs.get(&nowhere, 1).await.unwrap_err().code(), "blob_missing", "{name}");
        assert_eq!(blobs.head(&nowhere).await.unwrap(), None, "{name}");
        blobs.delete(&nowhere).await.unwrap();
        blobs.delete(&at).await.unwrap();
        assert_eq!(blobs.head(&at).await.unwrap(), None, "{name}");
    }
}

#[tokio::test]
async fn lists_are_bounded_and_stay_under_their_prefix() {
    for bench in benches().await {
        let Bench { name, blobs, .. } = &bench;
        for at in ["outputs/a/1", "outputs/a/2", "outputs/a/b/3", "outputs/ab/4", "inputs/a/5"] {
            blobs.put(&key(at), pattern(3)).await.unwrap();
        }
        let list = async |prefix, max| -> Vec<String> {
            let objects = blobs.list(prefix, max).await.unwrap();
            objects.into_iter().map(|object| object.key.to_string()).collect()
        };
        assert_eq!(list("outputs/a", 10).await, ["outputs/a/1", "outputs/a/2", "outputs/a/b/3"], "{name}");
        assert_eq!(list("outputs/", 10).await.len(), 4, "{name}");
        assert_eq!(list("outputs", 2).await.len(), 2, "{name}");
        assert_eq!(list("knowledge", 10).await.len(), 0, "{name}");
        for bad in ["", "../..", "/etc", "outputs//a"] {
            assert_eq!(blobs.list(bad, 1).await.unwrap_err().code(), "blob_key_malformed", "{name}: {bad:?}");
        }
    }
}

#[tokio::test]
async fn a_stream_is_kept_whole_or_not_at_all() {
    let pieces = |count: usize| stream::iter((0..count).map(|_| Ok(pattern(1 << 20))));
    for bench in benches().await {
        let Bench { name, blobs, .. } = &bench;
        // Below one part, and over several with a rest.
        for megabytes in [0, 3, 19] {
            let at = key(&format!("inputs/{megabytes}"));
            let stored = blobs.put_stream(&at, pieces(megabytes), 20 << 20).await.unwrap();
            assert_eq!(stored.bytes, (megabytes as u64) << 20, "{name}");
            let whole = blobs.get(&at, 20 << 20).await.unwrap();
            assert!(whole.chunks(1 << 20).all(|chunk| chunk == pattern(1 << 20)), "{name}: {megabytes}");
            assert_eq!(whole.len() as u64, stored.bytes, "{name}");
            assert_eq!(stored.digest, domain::Digest::of(&whole), "{name}");
        }
        let at = key("inputs/broken");
        for megabytes in [1, 18] {
            let broken = pieces(megabytes).chain(stream::iter([Err(std::io::Error::other("gone"))]));
            assert_eq!(blobs.put_stream(&at, broken, 20 << 20).await.unwrap_err().code(), "blob_source", "{name}");
            let large = blobs.put_stream(&at, pieces(megabytes + 1), (megabytes as u64) << 20).await.unwrap_err();
            assert_eq!(large.code(), "blob_too_large", "{name}");
            assert_eq!(blobs.head(&at).await.unwrap(), None, "{name}: nothing of it is kept");
        }
        assert_eq!(blobs.list("inputs", 10).await.unwrap().len(), 3, "{name}");
    }
}

#[tokio::test]
async fn pieces_of_any_length_become_parts_of_one() {
    // Odd pieces, some longer than two parts.
    let lengths = [1, 3 << 20, (17 << 20) + 5, 0, 7, 9 << 20];
    let whole = pattern(lengths.iter().sum());
    for bench in benches().await {
        let Bench { name, blobs, .. } = &bench;
        let mut rest = whole.clone();
        let pieces: Vec<_> = lengths.iter().map(|length| Ok(rest.split_to(*length))).collect();
        let at = key("checkpoints/default/odd");
        let stored = blobs.put_stream(&at, stream::iter(pieces), 1 << 30).await.unwrap();
        assert_eq!((stored.bytes, stored.digest), (whole.len() as u64, domain::Digest::of(&whole)), "{name}");
        let (bytes, pieces) = blobs.get_stream(&at).await.unwrap();
        let read: Vec<Bytes> = pieces.try_collect().await.unwrap();
        assert_eq!(bytes, stored.bytes, "{name}");
        assert!(read.concat() == whole, "{name}");
    }
}

#[tokio::test]
async fn one_that_is_given_up_leaves_nothing() {
    for bench in benches().await {
        let Bench { name, blobs, directory, .. } = &bench;
        let at = key("checkpoints/given-up");
        for megabytes in [2, 18] {
            // After so much nothing more ever comes, and whoever waits for it goes away.
            let (sender, mut stalled) = tokio::sync::oneshot::channel::<()>();
            let mut sender = Some(sender);
            let pieces = stream::iter((0..megabytes).map(|_| Ok(pattern(1 << 20)))).chain(
                stream::once(async move {
                    drop(sender.take());
                    std::future::pending::<std::io::Result<Bytes>>().await
                })
                .boxed(),
            );
            let mut storing = Box::pin(blobs.put_stream(&at, pieces, 1 << 30));
            tokio::select! {
                stored = &mut storing => panic!("{name}: {stored:?}"),
                _ = &mut stalled => {}
            }
            drop(storing);
            assert_eq!(blobs.head(&at).await.unwrap(), None, "{name}");
            assert_eq!(blobs.list("checkpoints", 10).await.unwrap(), [], "{name}");
        }
        if *name == "local" {
            let objects = directory.path().join("objects/checkpoints");
            let left = || std::fs::read_dir(&objects).map_or(0, Iterator::count);
            // Another thread removes the staged file; handing work to one waits its turn behind it.
            for _ in 0..10_000 {
                if left() == 0 {
                    break;
                }
                tokio::task::spawn_blocking(|| ()).await.unwrap();
            }
            assert_eq!(left(), 0, "a staged file was left");
        }
    }
}

#[tokio::test]
async fn pages_follow_one_another_and_prefixes_are_deleted_whole() {
    for bench in benches().await {
        let Bench { name, blobs, .. } = &bench;
        let keys: Vec<String> = (0..25).map(|number| format!("checkpoints/a/{}/{number:02}", number % 3)).collect();
        for at in keys.iter().map(String::as_str).chain(["checkpoints/ab/kept", "outputs/a/kept"]) {
            blobs.put(&key(at), pattern(3)).await.unwrap();
        }
        let mut sorted = keys.clone();
        sorted.sort();
        for objects_max in [1, 7, 25, 1_000] {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = blobs.page("checkpoints/a", after.as_ref(), objects_max).await.unwrap();
                assert!(page.len() <= objects_max, "{name}");
                let Some(last) = page.last() else { break };
                after = Some(last.key.clone());
                seen.extend(page.into_iter().map(|object| object.key.to_string()));
            }
            assert_eq!(seen, sorted, "{name}: {objects_max}");
        }
        assert_eq!(blobs.delete_under("checkpoints/a", 10).await.unwrap(), 10, "{name}");
        assert_eq!(blobs.list("checkpoints/a", 100).await.unwrap().len(), 15, "{name}");
        assert_eq!(blobs.delete_under("checkpoints/a", 1_000).await.unwrap(), 15, "{name}");
        assert_eq!(blobs.delete_under("checkpoints/a", 1_000).await.unwrap(), 0, "{name}");
        for kept in ["checkpoints/ab", "outputs/a"] {
            assert_eq!(blobs.list(kept, 10).await.unwrap().len(), 1, "{name}: {kept}");
        }
    }
}

#[tokio::test]
async fn links_lead_to_the_object_and_nowhere_else() {
    for bench in benches().await {
        let Bench { name, blobs, .. } = &bench;
        let at = key("outputs/default/run_1/art_1");
        blobs.put(&at, pattern(1_000)).await.unwrap();
        match blobs.link(&at, "Bericht \"über\" alles.md", 60_000).await.unwrap() {
            Link::Token(token) => {
                assert!(!blobs.is_remote(), "{name}");
                let linked = blobs.links().open(&token).unwrap();
                assert_eq!((linked.key, &*linked.name), (at, "Bericht \"über\" alles.md"), "{name}");
            }
            Link::Url(url) => {
                assert!(blobs.is_remote(), "{name}");
                let fetch = async |url: &str| {
                    let url = Url::parse(url).unwrap();
                    client().send(Request::new(Method::GET, url, Origin::Operator)).await.unwrap()
                };
                let answer = fetch(&url).await;
                assert_eq!(answer.status(), 200, "{name}");
                assert_eq!(answer.bytes().await.unwrap(), pattern(1_000), "{name}");
                let bare = url.split('?').next().unwrap();
                let other = url.replacen("art_1", "art_2", 1);
                let longer = url.replacen("X-Amz-Expires=60", "X-Amz-Expires=61", 1);
                assert_ne!(longer, url, "{name}");
                for refused in [bare, &other, &longer] {
                    assert_eq!(fetch(refused).await.status(), 403, "{name}: {refused}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_probe_tells_the_truth() {
    let directory = tempfile::tempdir().unwrap();
    let objects = directory.path().join("objects");
    let blobs = Blobs::local(&objects, links()).unwrap();
    assert_eq!(objects.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
    blobs.probe().await.unwrap();
    std::fs::remove_dir(&objects).unwrap();
    assert_eq!(blobs.probe().await.unwrap_err().code(), "blob_directory");

    let (port, server) = serve(directory.path()).await;
    let good = settings(port, Addressing::Path, "");
    for (name, wrong) in [
        ("another bucket", S3 { bucket: "nowhere".to_owned(), ..good.clone() }),
        ("another key", S3 { access_key_id: "nobody".to_owned(), ..good.clone() }),
        ("another secret", S3 { secret_access_key: "guess".to_owned(), ..good.clone() }),
    ] {
        let blobs = Blobs::s3(&wrong, client(), links()).unwrap();
        let code = blobs.probe().await.unwrap_err().code();
        assert!(["blob_storage", "blob_missing"].contains(&code), "{name}: {code}");
    }
    Blobs::s3(&good, client(), links()).unwrap().probe().await.unwrap();
    for (name, wrong) in [
        ("no url", S3 { endpoint: "here".to_owned(), ..good.clone() }),
        ("another protocol", S3 { endpoint: "ftp://here".to_owned(), ..good.clone() }),
        ("a root that escapes", S3 { root: "../up".to_owned(), ..good.clone() }),
    ] {
        let code = Blobs::s3(&wrong, client(), links()).unwrap_err().code();
        assert_eq!(code, "blob_settings", "{name}");
    }
    assert!(!format!("{good:?}").contains("secret"), "settings print no secret");
    server.abort();
}

#[tokio::test]
async fn nothing_is_left_of_staged_files() {
    for bench in benches().await {
        if bench.name != "local" {
            continue;
        }
        let broken = stream::iter(
            (0..18).map(|n| if n < 17 { Ok(pattern(1 << 20)) } else { Err(std::io::Error::other("gone")) }),
        );
        bench.blobs.put_stream(&key("inputs/x"), broken, 20 << 20).await.unwrap_err();
        let inputs = bench.directory.path().join("objects/inputs");
        let left = std::fs::read_dir(&inputs).map_or(0, Iterator::count);
        assert_eq!(left, 0, "a staged file was left in {}", inputs.display());
    }
}
