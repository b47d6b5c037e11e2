//! Lays a manifest: what stands in a fresh workspace, what comes back with one, and which buckets are shown in it. Portions
//! are read and applied beside each other, and only so many are in memory.

use crate::engine::Inner;
use domain::Digest;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use sandbox::manifest::{Batch, MANIFEST_BYTES_MAX, MANIFEST_ENTRIES_MAX, Plan, Progress, Which};
use sandbox::{Accounts, Change, Error, Manifest, Mount, OnMissing, Provider, RelPath, Sandbox};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// Portions that are read or applied at once.
const BATCHES_MAX: usize = 4;
/// How long one question to a bucket that is copied may take.
const COPY_REQUEST_MS_MAX: u64 = 30_000;
/// Bytes of one portion of a bucket that is copied.
const COPY_BYTES_MAX: u64 = 4 << 20;
const COPY_ENTRIES_MAX: usize = 256;

/// A manifest for one provider.
#[derive(Debug)]
pub(crate) struct Laying {
    manifest: Manifest,
    /// Who there is.
    pub(crate) accounts: Accounts,
    /// Buckets to mount.
    pub(crate) mounts: Vec<Mount>,
    /// Buckets to copy, because they can't be mounted.
    copies: Vec<Mount>,
    /// What stays out of checkpoints.
    pub(crate) left_out: Vec<RelPath>,
}

impl Laying {
    /// Looks at a manifest, which shows these buckets, before there is a sandbox: whether the provider has what it asks for.
    pub(crate) async fn prepare(
        manifest: Manifest,
        mut mounts: Vec<Mount>,
        user: Option<String>,
        provider: &dyn Provider,
    ) -> Result<Self, Error> {
        let unsupported = |what, detail: &str| Error::Unsupported {
            provider: provider.name().to_owned(),
            what,
            detail: detail.to_owned(),
        };
        let accounts = Accounts { users: manifest.users.clone(), groups: manifest.groups.clone(), user };
        if accounts.are_declared()
            && let Some(why) = provider.accounts_missing().await
        {
            return Err(unsupported("users and groups", &why));
        }
        let left_out = manifest.left_out()?;
        let mut copies = Vec::new();
        if !mounts.is_empty()
            && let Some(why) = provider.mounts_missing().await
        {
            if mounts.iter().any(|mount| mount.on_missing == OnMissing::Refuse) {
                return Err(unsupported("mounts", &format!("{why}; hint: `on_missing: copy` copies a bucket instead")));
            }
            copies = std::mem::take(&mut mounts);
        }
        Ok(Self { manifest, accounts, mounts, copies, left_out })
    }

    /// Whether buckets are copied, whose objects are listed first.
    pub(crate) fn has_copies(&self) -> bool {
        !self.copies.is_empty()
    }

    /// Lays what is wanted, and gives the digest of all that was laid, when that is all there is. `told` hears how far it is.
    pub(crate) async fn lay(
        &self,
        inner: &Inner,
        project: PathBuf,
        which: Which,
        sandbox: &dyn Sandbox,
        told: &(dyn Fn(Progress, Progress) + Sync),
    ) -> Result<Option<Digest>, Error> {
        let manifest = self.manifest.clone();
        let plan = blocking(move || Plan::of(&manifest, &project)).await?;
        let whole = plan.totals();
        let (entries, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        let done = |more: Progress| {
            let entries = entries.fetch_add(more.entries, Ordering::AcqRel) + more.entries;
            let bytes = bytes.fetch_add(more.bytes, Ordering::AcqRel) + more.bytes;
            told(Progress { entries, bytes }, whole);
        };
        let (mut digests, mut beside) = (Vec::new(), Vec::new());
        for batch in plan.batches(which) {
            if !batch.is_alone() {
                beside.push(batch);
                continue;
            }
            // Directories come before everything in them, and get their modes after.
            digests.extend(all(std::mem::take(&mut beside), sandbox, &done).await?);
            digests.extend(one(batch, sandbox, &done).await?);
        }
        digests.extend(all(beside, sandbox, &done).await?);
        for mount in &self.copies {
            copy(inner, mount, sandbox, &done).await?;
        }
        match which {
            Which::All => plan.seal(digests).map(Some),
            Which::Ephemeral => Ok(None),
        }
    }
}

type Digests = Vec<(RelPath, Digest)>;

async fn all(batches: Vec<Batch>, sandbox: &dyn Sandbox, done: &(dyn Fn(Progress) + Sync)) -> Result<Digests, Error> {
    let laid = stream::iter(batches).map(|batch| one(batch, sandbox, done)).buffer_unordered(BATCHES_MAX);
    laid.try_concat().await
}

async fn one(batch: Batch, sandbox: &dyn Sandbox, done: &(dyn Fn(Progress) + Sync)) -> Result<Digests, Error> {
    let portion = blocking(move || batch.read()).await?;
    sandbox.apply(portion.changes).await?;
    done(portion.progress);
    Ok(portion.digests)
}

/// Runs what waits for the disk on a thread that may wait.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let failed = |detail: String| Error::Start { stage: "manifest", detail };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(failed(error.to_string())))
}

/// Copies a bucket into the workspace.
async fn copy(
    inner: &Inner,
    mount: &Mount,
    sandbox: &dyn Sandbox,
    done: &(dyn Fn(Progress) + Sync),
) -> Result<(), Error> {
    let failed =
        |code: &str, detail: String| Error::Mount { path: mount.path.to_string(), code: code.to_owned(), detail };
    let told = |error: blob::Error| failed(error.code(), error.to_string());
    let settings = blob::S3 {
        endpoint: mount.endpoint.clone(),
        bucket: mount.bucket.clone(),
        region: mount.region.clone(),
        access_key_id: mount.credential.access_key_id.clone(),
        secret_access_key: mount.credential.secret_access_key.clone(),
        session_token: mount.credential.session_token.clone(),
        addressing: if mount.virtual_host { blob::Addressing::VirtualHost } else { blob::Addressing::Path },
        root: String::new(),
    };
    let bucket = blob::Bucket::new(&settings, inner.parts.net.clone(), COPY_REQUEST_MS_MAX).map_err(told)?;
    let objects = mounts::objects(&bucket, &mount.prefix, MANIFEST_ENTRIES_MAX, MANIFEST_BYTES_MAX).await;
    let objects = objects.map_err(|error| failed(error.code(), error.to_string()))?;
    let (mut changes, mut bytes) = (vec![Change::MakeDir { path: mount.path.clone() }], 0);
    for object in objects {
        let path = mount.path.join(&object.path)?;
        let content =
            bucket.read(&object.key, 0..object.bytes.max(1), object.version.as_deref()).await.map_err(told)?;
        bytes += content.len() as u64;
        done(Progress { entries: 1, bytes: content.len() as u64 });
        changes.push(Change::Write { path, bytes: content, mode: Some(0o444) });
        if bytes >= COPY_BYTES_MAX || changes.len() >= COPY_ENTRIES_MAX {
            sandbox.apply(std::mem::take(&mut changes)).await?;
            bytes = 0;
        }
    }
    sandbox.apply(changes).await
}
