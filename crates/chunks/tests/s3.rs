//! Checkpoints over a real S3 server in this process (`s3s-fs`, with signatures checked).

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use blob::{Addressing, Blobs, S3};
use chunks::Config;
use domain::Digest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use net::{Client, Settings};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use stdx::Clock;
use support::{CONFIG, get, key, links, noise, over, put, tar, tree};
use tokio::task::JoinHandle;

/// Every name is on loopback.
#[derive(Debug)]
struct Loopback;

#[async_trait::async_trait]
impl net::Lookup for Loopback {
    async fn lookup(&self, _name: &str) -> std::io::Result<Vec<IpAddr>> {
        Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)])
    }
}

/// A server on loopback with one bucket, and the objects in it.
async fn serve(directory: &Path) -> (Blobs, JoinHandle<()>) {
    std::fs::create_dir(directory.join("bucket")).unwrap();
    let mut builder = s3s::service::S3ServiceBuilder::new(s3s_fs::FileSystem::new(directory).unwrap());
    builder.set_auth(s3s::auth::SimpleAuth::from_single("access", "secret"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
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
    let settings = S3 {
        endpoint: format!("http://localhost:{port}"),
        bucket: "bucket".to_owned(),
        region: "us-east-1".to_owned(),
        access_key_id: "access".to_owned(),
        secret_access_key: "secret".to_owned(),
        session_token: None,
        addressing: Addressing::Path,
        root: "teams/one".to_owned(),
    };
    let client = Client::with_lookup(Settings::default(), Arc::new(Loopback)).unwrap();
    (Blobs::s3(&settings, client, links()).unwrap(), server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_are_kept_shared_swept_and_rewritten_on_s3() {
    let directory = tempfile::tempdir().unwrap();
    let (blobs, server) = serve(directory.path()).await;
    let clock = Clock::manual(0);
    let config = Config { pack_bytes: 1 << 20, ..CONFIG };
    let chunks = over(blobs.clone(), &clock, config);
    let mut files = tree(1, 300);
    let first = tar(&files);
    put(&chunks, "ses/1", &[], &first).await.unwrap();
    files.insert("d1/new".to_owned(), noise(9, 30_000));
    let second = tar(&files);
    let stored = put(&chunks, "ses/2", &["ses/1"], &second).await.unwrap();
    assert!(stored.added_bytes < 200_000, "{stored:?}");
    let few = tar(&[("d1/new".to_owned(), noise(9, 30_000))].into());
    put(&chunks, "ses/3", &["ses/2"], &few).await.unwrap();
    for (name, archive) in [("ses/1", &first), ("ses/2", &second), ("ses/3", &few)] {
        let other = over(blobs.clone(), &clock, config);
        assert!(get(&other, name, Digest::of(archive)).await.unwrap() == **archive, "{name}");
    }
    // A session goes; its packs go too, or lose what is dead in them.
    for name in ["ses/1", "ses/2"] {
        blobs.delete(&key(name)).await.unwrap();
    }
    chunks.sweep().await.unwrap();
    clock.advance(Duration::from_millis(config.grace_ms));
    let swept = chunks.sweep().await.unwrap();
    assert!(swept.deleted_packs > 0, "{swept:?}");
    let other = over(blobs.clone(), &clock, config);
    assert!(get(&other, "ses/3", Digest::of(&few)).await.unwrap() == few);
    server.abort();
}
