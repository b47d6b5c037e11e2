//! A mount over some server, and what looks at it from outside.

use blob::{Addressing, Bucket, S3};
use mounts::Limits;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use tokio::task::JoinHandle;

/// A bucket that is shown.
pub(crate) struct Shown {
    mount: OwnedFd,
    served: JoinHandle<Result<(), mounts::Error>>,
}

impl Shown {
    /// Shows the bucket behind a port; `None`, said loudly, where FUSE can't be had.
    pub(crate) async fn new(name: &str, port: u16, prefix: &str, limits: Limits) -> Option<Self> {
        let device = match mounts::device() {
            Ok(device) => device,
            Err(error) => {
                eprintln!("SKIPPED {name}: {error}");
                assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI skips nothing: {name}");
                return None;
            }
        };
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let mount = match mounts::mount(std::os::fd::AsFd::as_fd(&device), owner, mounts::Readers::Owner) {
            Ok(mount) => mount,
            Err(error) => {
                eprintln!("SKIPPED {name}: {error}");
                assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI skips nothing: {name}");
                return None;
            }
        };
        let client = net::Client::new(net::Settings::default()).unwrap();
        let bucket = Bucket::new(&settings(port), client, limits.operation_ms_max.saturating_add(1_000)).unwrap();
        let prefix = prefix.to_owned();
        let served = tokio::spawn(async move { mounts::serve(device, bucket, &prefix, owner, limits).await });
        Some(Self { mount, served })
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        Path::new("/proc/self/fd").join(self.mount.as_raw_fd().to_string()).join(below)
    }

    /// Does what waits for files, away from who serves them.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        below: &str,
        look: impl FnOnce(PathBuf) -> T + Send + 'static,
    ) -> T {
        let path = self.path(below);
        tokio::task::spawn_blocking(move || look(path)).await.unwrap()
    }

    /// The names in a directory, those of directories with a slash.
    pub(crate) async fn names(&self, below: &str) -> std::io::Result<Vec<String>> {
        self.look(below, |path| {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(path)? {
                let entry = entry?;
                let end = if entry.file_type()?.is_dir() { "/" } else { "" };
                names.push(format!("{}{end}", entry.file_name().to_string_lossy()));
            }
            names.sort_unstable();
            Ok(names)
        })
        .await
    }

    pub(crate) async fn read(&self, below: &str) -> std::io::Result<Vec<u8>> {
        self.look(below, std::fs::read).await
    }

    /// The error number of reading a file.
    pub(crate) async fn errno(&self, below: &str) -> Option<i32> {
        self.read(below).await.unwrap_err().raw_os_error()
    }

    /// Ends the mount, and gives what its server said.
    pub(crate) async fn end(self) -> Result<(), mounts::Error> {
        drop(self.mount);
        self.served.await.unwrap()
    }

    /// Ends the server as its process's death would.
    pub(crate) fn kill(&self) {
        self.served.abort();
    }
}

pub(crate) fn settings(port: u16) -> S3 {
    S3 {
        endpoint: format!("http://127.0.0.1:{port}"),
        bucket: "bucket".to_owned(),
        region: "us-east-1".to_owned(),
        access_key_id: "access".to_owned(),
        secret_access_key: "secret".to_owned(),
        session_token: None,
        addressing: Addressing::Path,
        root: String::new(),
    }
}
