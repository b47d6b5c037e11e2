//! What a sandbox gets from outside its agent's closure: from the settings, and from what the manifest refers to, as they are now.
//! One that was made with other terms is not gone on in.

use crate::engine::Inner;
use catalog::Closure;
use domain::Root;
use sandbox::{Error, Limits, Manifest, Mount};

/// The terms of one sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// The variables of its commands.
    pub(crate) environment: Vec<(String, String)>,
    /// What stands at `/`.
    pub(crate) root: Root,
    /// The buckets that are shown in it, with what opens them.
    pub(crate) mounts: Vec<Mount>,
    /// Its limits.
    pub(crate) limits: Limits,
}

impl Terms {
    /// The terms of a sandbox that is made for an agent now.
    pub(crate) fn of(inner: &Inner, closure: &Closure) -> Result<Self, Error> {
        let catalog = (inner.parts.catalog)();
        let settings = &catalog.settings.sandbox;
        let root = match closure.agent.sandbox.as_ref().map(|sandbox| &sandbox.root) {
            None | Some(Root::Host { .. }) => Root::Host { directories: settings.host_directories.clone() },
            Some(root) => root.below(&catalog.root),
        };
        let (environment, mounts) = match &closure.manifest {
            Some(manifest) => (environment_of(inner, manifest)?, mounts_of(inner, manifest)?),
            None => (Vec::new(), Vec::new()),
        };
        Ok(Self { environment, root, mounts, limits: settings.limits })
    }
}

/// The variables of a manifest, with what they refer to.
fn environment_of(inner: &Inner, manifest: &Manifest) -> Result<Vec<(String, String)>, Error> {
    let failed = |detail: String| Error::Start { stage: "manifest", detail };
    let variables = manifest.environment.iter().map(|(name, value)| {
        let value = inner.expand(value).map_err(|error| failed(error.to_string()))?;
        Ok((name.clone(), value))
    });
    variables.collect()
}

/// The buckets of a manifest, with what their references stand for.
fn mounts_of(inner: &Inner, manifest: &Manifest) -> Result<Vec<Mount>, Error> {
    let mut mounts = Vec::new();
    for (path, entry) in manifest.check()? {
        let Some(declared) = entry.declared_mount() else { continue };
        let at = path.to_string();
        let resolved = declared.resolve(path, |text| inner.expand(text));
        let failed = |error: domain::template::Error| Error::Mount {
            path: at,
            code: "manifest_refused".to_owned(),
            detail: error.to_string(),
        };
        mounts.push(resolved.map_err(failed)?);
    }
    Ok(mounts)
}
