//! An S3 server in this process (`s3s-fs`, with signatures checked), for processes that share nothing else but a database.

use hyper_util::rt::{TokioExecutor, TokioIo};
use std::path::PathBuf;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

const BUCKET: &str = "bucket";
const ACCESS: &str = "access";
const SECRET: &str = "not-a-secret";

/// Serves until it is dropped.
pub(crate) struct Objects {
    directory: TempDir,
    port: u16,
    _serving: Runtime,
}

impl Objects {
    pub(crate) fn serve() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join(BUCKET)).unwrap();
        let mut builder = s3s::service::S3ServiceBuilder::new(s3s_fs::FileSystem::new(directory.path()).unwrap());
        builder.set_auth(s3s::auth::SimpleAuth::from_single(ACCESS, SECRET));
        let service = builder.build();
        let serving = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = serving.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        serving.spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else { continue };
                let service = service.clone();
                tokio::spawn(async move {
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    // A client that leaves ends its connection with an error; that is its right.
                    let _ = server.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Self { directory, port, _serving: serving }
    }

    /// What the processes are told of it.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("TOPSIDE_S3_ENDPOINT", format!("http://127.0.0.1:{}", self.port)),
            ("TOPSIDE_S3_BUCKET", BUCKET.to_owned()),
            ("TOPSIDE_S3_ACCESS_KEY_ID", ACCESS.to_owned()),
            ("TOPSIDE_S3_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ]
    }

    /// Where the objects are.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join(BUCKET)
    }
}
