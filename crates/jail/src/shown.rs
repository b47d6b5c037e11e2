//! Buckets shown in a sandbox, seen from the harness: what is asked of the launcher, which never hears a credential, and what
//! each helper is told over its own socket.

use crate::stack::Identity;
use domain::Root;
use mounts::{Limits, Network, Order, Storage};
use sandbox::{About, Error, Mount, Shown, Spec};
use std::os::fd::OwnedFd;

/// What a helper gets beyond its own deadline, so that it can say what went wrong.
const SLACK_MS: u64 = 5_000;

/// What the launcher hears of a mount: where it is, and which bucket, so that a sandbox is not handed over that shows another.
pub(crate) fn asked(mount: &Mount) -> (String, String) {
    let Mount { path, endpoint, bucket, prefix, region, virtual_host, .. } = mount;
    (path.to_string(), format!("{endpoint} {bucket} {prefix:?} {region} {virtual_host}"))
}

/// Tells each helper what to serve, and waits until all have read from their buckets.
pub(crate) async fn begin(
    spec: &Spec,
    doors: Vec<OwnedFd>,
    network: &Network,
    limits: Limits,
    owner: Identity,
) -> Result<(), Error> {
    if doors.len() != spec.mounts.len() {
        return Err(Error::Start {
            stage: "mounts",
            detail: "the launcher made not as many as were asked for".to_owned(),
        });
    }
    let begun = spec.mounts.iter().zip(doors).map(|(mount, door)| async move {
        let order = order(mount, limits, network, owner);
        let failed = |error: mounts::Error| {
            let (code, detail) = match error {
                mounts::Error::Bucket { code, detail } => (code, detail),
                error => (error.code().to_owned(), error.to_string()),
            };
            Error::Mount { path: mount.path.to_string(), code, detail }
        };
        mounts::begin(door, &order, limits.operation_ms_max + SLACK_MS).await.map_err(failed)
    });
    futures::future::try_join_all(begun).await.map(drop)
}

fn order(mount: &Mount, limits: Limits, network: &Network, owner: Identity) -> Order {
    let credential = mount.credential.clone();
    Order {
        storage: Storage {
            endpoint: mount.endpoint.clone(),
            bucket: mount.bucket.clone(),
            region: mount.region.clone(),
            virtual_host: mount.virtual_host,
            access_key_id: credential.access_key_id,
            secret_access_key: credential.secret_access_key,
            session_token: credential.session_token,
        },
        prefix: mount.prefix.clone(),
        network: network.clone(),
        owner: (owner.user, owner.group),
        limits,
    }
}

/// What a sandbox is made of, for who asks later: no value of a variable, no path of the host.
pub(crate) fn about(spec: &Spec) -> About {
    let root = match &spec.root {
        Root::Host { .. } => "the host's own tools".to_owned(),
        Root::Directory { .. } => "a directory of the host".to_owned(),
        Root::Image { .. } => "an image".to_owned(),
        Root::Template(template) => format!("the template `{}`", template.name),
    };
    let views =
        spec.binds.iter().map(|bind| Shown { inside: bind.inside.clone(), what: "a view of the host".to_owned() });
    let buckets = spec.mounts.iter().map(|mount| Shown {
        inside: format!("{}/{}", guest::WORKSPACE, mount.path),
        what: format!("the bucket `{}`", mount.bucket),
    });
    About {
        root,
        store: String::new(),
        environment: spec.environment.iter().map(|(name, _)| name.clone()).collect(),
        shown: views.chain(buckets).collect(),
    }
}

/// Why this machine can show no buckets; `None`: it can.
pub(crate) fn missing() -> Option<String> {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !known.lines().any(|line| line.split_whitespace().last() == Some("fuse")) {
        return Some("the kernel has no FUSE; load its module `fuse`".to_owned());
    }
    mounts::device().err().map(|error| error.to_string())
}
