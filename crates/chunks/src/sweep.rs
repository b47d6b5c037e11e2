//! Takes away what no manifest needs: whole packs, and what is dead in packs that are mostly so.
//!
//! A sweep marks from the manifests of a tenant. A pack that none of them needs is condemned, and taken away when it is still
//! not needed at a later sweep, a grace after. In between, whoever was storing an archive has put its manifest, or has failed:
//! that takes [`crate::PUT_MS_MAX`] at most, and an archive that shares with earlier ones makes sure, when its manifest is in
//! place, that theirs still are. What is condemned this process alone remembers: after a restart the grace begins anew, and
//! several processes that sweep the same objects do each other no harm. A manifest that can't be read keeps everything of its
//! tenant: nobody knows what it needs.

use crate::form::{Manifest, PackId};
use crate::keys::{Id, Keys};
use crate::pack::{Filling, PACK_BYTES_MAX};
use crate::store::{damaged, pack_key};
use crate::{Chunks, Error, Inner, MANIFEST_SUFFIX};
use blob::Key;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Objects that are listed at once.
const PAGE: usize = 10_000;
/// Packs that one sweep takes away at most; the next one goes on.
const DELETED_MAX: u64 = 10_000;
/// Packs that one sweep looks into, or rewrites, at most.
const REWRITTEN_MAX: usize = 8;
/// A pack is not looked into when more manifests than this need it.
const MANIFESTS_READ_MAX: usize = 256;
/// Manifests whose needs are remembered from sweep to sweep, so that a sweep reads only new ones.
const NEEDS_MAX: usize = 100_000;
/// A pack is rewritten when less than one in so many of its bytes is needed.
const NEEDED_SHARE: u64 = 2;

/// What a sweep came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Manifests that were marked from.
    pub manifests: u64,
    /// Packs that were found.
    pub packs: u64,
    /// Packs that nothing needed, and that were taken away.
    pub deleted_packs: u64,
    /// Packs that were rewritten without what was dead in them.
    pub rewritten_packs: u64,
    /// Bytes that became free.
    pub freed_bytes: u64,
    /// Tenants whose packs were left alone because something of theirs could not be read.
    pub failed_tenants: u64,
}

type Needs = Arc<BTreeMap<PackId, u64>>;

/// What is remembered from sweep to sweep.
#[derive(Debug, Default)]
pub(crate) struct Sweeper {
    needs: HashMap<Key, Needs>,
    /// Packs that nothing needed, and since when.
    condemned: HashMap<Key, Duration>,
    /// Packs that were mostly dead: since when, and what was needed of them then.
    thin: HashMap<Key, (Duration, HashSet<Id>)>,
}

/// A pack as it was listed.
struct Pack {
    id: PackId,
    key: Key,
    bytes: u64,
}

impl Chunks {
    /// Sweeps the packs of every tenant; call it now and then. What can't be read of one tenant is told in the log and keeps
    /// its packs.
    ///
    /// # Errors
    /// [`Error::Objects`] when the packs can't be listed.
    pub async fn sweep(&self) -> Result<Swept, Error> {
        let mut sweeper = self.0.sweeper.lock().await;
        let mut swept = Swept::default();
        // Packs before manifests: one that comes later is not looked at.
        let tenants = self.0.packs().await?;
        let there: HashSet<&Key> = tenants.values().flatten().map(|pack| &pack.key).collect();
        sweeper.condemned.retain(|pack, _| there.contains(pack));
        sweeper.thin.retain(|pack, _| there.contains(pack));
        for (tenant, packs) in &tenants {
            swept.packs += packs.len() as u64;
            if let Err(error) = self.0.sweep_tenant(&mut sweeper, tenant, packs, &mut swept).await {
                swept.failed_tenants += 1;
                tracing::warn!(tenant, code = error.code(), %error, "checkpoints can't be swept; nothing of the tenant is taken away");
            }
        }
        Ok(swept)
    }
}

impl Inner {
    /// Every pack, by tenant.
    async fn packs(&self) -> Result<BTreeMap<String, Vec<Pack>>, Error> {
        let (mut tenants, mut after) = (BTreeMap::<String, Vec<Pack>>::new(), None);
        loop {
            let page = self.parts.blobs.page("packs", after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { return Ok(tenants) };
            after = Some(last.key.clone());
            for object in page {
                let mut parts = object.key.as_str().split('/').skip(1);
                let (Some(tenant), Some(name), None) = (parts.next(), parts.next(), parts.next()) else { continue };
                let mut id = [0; 16];
                if hex::decode_to_slice(name, &mut id).is_ok() {
                    let tenant = tenant.to_owned();
                    let pack = Pack { id: PackId(id), key: object.key, bytes: object.bytes };
                    tenants.entry(tenant).or_default().push(pack);
                }
            }
        }
    }

    /// The keys of every manifest of a tenant.
    async fn manifests(&self, tenant: &str) -> Result<Vec<Key>, Error> {
        let (mut manifests, mut after) = (Vec::new(), None);
        let prefix = format!("checkpoints/{tenant}");
        loop {
            let page = self.parts.blobs.page(&prefix, after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { return Ok(manifests) };
            after = Some(last.key.clone());
            let keys = page.into_iter().map(|object| object.key);
            manifests.extend(keys.filter(|key| key.as_str().ends_with(MANIFEST_SUFFIX)));
        }
    }

    async fn sweep_tenant(
        self: &Arc<Self>,
        sweeper: &mut Sweeper,
        tenant: &str,
        packs: &[Pack],
        swept: &mut Swept,
    ) -> Result<(), Error> {
        let keys = self.keys(tenant)?;
        let needs = self.needs(sweeper, &keys).await?;
        swept.manifests += needs.len() as u64;
        let (now, grace) = (self.parts.clock.boottime(), Duration::from_millis(self.config.grace_ms));
        let mut needed: HashMap<PackId, u64> = HashMap::new();
        for (pack, bytes) in needs.iter().flat_map(|(_, needs)| needs.iter()) {
            let most = needed.entry(*pack).or_default();
            *most = (*most).max(*bytes);
        }
        let mut thin = Vec::new();
        for pack in packs {
            match needed.get(&pack.id) {
                Some(bytes) => {
                    sweeper.condemned.remove(&pack.key);
                    if bytes.saturating_mul(NEEDED_SHARE) <= pack.bytes {
                        thin.push(pack);
                    } else {
                        sweeper.thin.remove(&pack.key);
                    }
                }
                None => match sweeper.condemned.get(&pack.key) {
                    None => {
                        sweeper.condemned.insert(pack.key.clone(), now);
                    }
                    Some(since) if now.saturating_sub(*since) >= grace && swept.deleted_packs < DELETED_MAX => {
                        self.parts.blobs.delete(&pack.key).await?;
                        sweeper.condemned.remove(&pack.key);
                        swept.deleted_packs += 1;
                        swept.freed_bytes += pack.bytes;
                    }
                    Some(_) => {}
                },
            }
        }
        self.thin_out(sweeper, &keys, &needs, thin, swept).await
    }

    /// What each manifest of a tenant needs.
    async fn needs(&self, sweeper: &mut Sweeper, keys: &Keys) -> Result<Vec<(Key, Needs)>, Error> {
        let manifests = self.manifests(keys.tenant()).await?;
        let there: HashSet<&Key> = manifests.iter().collect();
        let prefix = format!("checkpoints/{}/", keys.tenant());
        sweeper.needs.retain(|key, _| !key.as_str().starts_with(&prefix) || there.contains(key));
        let mut all = Vec::with_capacity(manifests.len());
        for key in manifests {
            let needs = match sweeper.needs.get(&key) {
                Some(needs) => needs.clone(),
                None => match self.manifest(keys, &key).await {
                    Ok((manifest, _)) => Arc::new(manifest.packs),
                    // Deleted since it was listed.
                    Err(Error::Missing { .. }) => continue,
                    Err(error) => return Err(error),
                },
            };
            if sweeper.needs.len() < NEEDS_MAX {
                sweeper.needs.insert(key.clone(), needs.clone());
            }
            all.push((key, needs));
        }
        Ok(all)
    }

    /// Rewrites packs of which little is needed.
    async fn thin_out(
        self: &Arc<Self>,
        sweeper: &mut Sweeper,
        keys: &Arc<Keys>,
        needs: &[(Key, Needs)],
        thin: Vec<&Pack>,
        swept: &mut Swept,
    ) -> Result<(), Error> {
        let (now, grace) = (self.parts.clock.boottime(), Duration::from_millis(self.config.grace_ms));
        let mut looked = 0;
        for pack in thin {
            let ripe = match sweeper.thin.get(&pack.key) {
                None => None,
                Some((since, _)) if now.saturating_sub(*since) < grace => continue,
                Some((_, before)) => Some(before.clone()),
            };
            if looked == REWRITTEN_MAX {
                break;
            }
            looked += 1;
            let Some(live) = self.live(keys, needs, pack.id).await? else { continue };
            let Some(before) = ripe else {
                sweeper.thin.insert(pack.key.clone(), (now, live));
                continue;
            };
            let keep: HashSet<Id> = before.union(&live).copied().collect();
            if let Some(freed_bytes) = self.rewrite(keys, pack, &keep).await? {
                swept.rewritten_packs += 1;
                swept.freed_bytes += freed_bytes;
            }
            sweeper.thin.remove(&pack.key);
        }
        Ok(())
    }

    /// The pieces of a pack that any manifest needs; `None`: too many need it for finding out.
    async fn live(
        self: &Arc<Self>,
        keys: &Arc<Keys>,
        needs: &[(Key, Needs)],
        pack: PackId,
    ) -> Result<Option<HashSet<Id>>, Error> {
        let needing: Vec<_> = needs.iter().filter(|(_, needs)| needs.contains_key(&pack)).collect();
        if needing.len() > MANIFESTS_READ_MAX {
            return Ok(None);
        }
        let mut live = HashSet::new();
        for (key, _) in needing {
            let manifest: Manifest = match self.manifest(keys, key).await {
                Ok((manifest, _)) => manifest,
                Err(Error::Missing { object }) if object.ends_with(MANIFEST_SUFFIX) => continue,
                Err(error) => return Err(error),
            };
            let chunks = self.chunks(keys, key, &manifest).await?;
            let pieces = chunks.iter().chain(&manifest.segments).filter(|piece| piece.pack == pack);
            live.extend(pieces.map(|piece| piece.id));
        }
        Ok(Some(live))
    }

    /// Puts a pack in its own place without what nobody needs; gives how many bytes became free. Whoever reads it meanwhile finds
    /// the old one or the new one whole.
    async fn rewrite(&self, keys: &Keys, pack: &Pack, keep: &HashSet<Id>) -> Result<Option<u64>, Error> {
        let places = self.index(keys, pack.id).await?;
        let whole = self.parts.blobs.get(&pack.key, PACK_BYTES_MAX).await?;
        let mut filling = Filling::new(pack.id);
        for (id, offset, sealed_bytes) in places.iter().filter(|(id, ..)| keep.contains(id)) {
            let begin = *offset as usize;
            let sealed = whole.get(begin..begin.saturating_add(*sealed_bytes as usize));
            filling.add(*id, sealed.ok_or_else(|| damaged(&pack.key, "a piece beyond its end"))?, 0);
        }
        let bytes = filling.end(keys)?;
        let freed_bytes = (whole.len() as u64).saturating_sub(bytes.len() as u64);
        if freed_bytes.saturating_mul(NEEDED_SHARE) < whole.len() as u64 {
            return Ok(None);
        }
        self.parts.blobs.put(&pack_key(keys.tenant(), pack.id)?, bytes.into()).await?;
        Ok(Some(freed_bytes))
    }
}
