//! The tenants' keys: `DIRECTORY/TENANT.key`, 32 random bytes, 0600, made on first use. They lie apart from the database,
//! so that a copy of the database opens nothing.

use crate::Error;
use parking_lot::Mutex;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf;
use std::collections::HashMap;
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stdx::Random;
use zeroize::Zeroize;

const KEY_BYTES: usize = 32;
const TENANT_BYTES_MAX: usize = 64;

/// The keys of every tenant.
pub struct Keys {
    directory: PathBuf,
    random: Random,
    /// One per tenant; tenants are declared, so their number is bounded by the configuration.
    tenants: Mutex<HashMap<String, Arc<Tenant>>>,
}

/// What a tenant's key gives. The key itself encrypts nothing: each use has a key derived from it by HKDF-SHA-256.
struct Tenant {
    master: hkdf::Prk,
    wrapping: LessSafeKey,
}

impl Tenant {
    fn new(key: &[u8; KEY_BYTES]) -> Option<Self> {
        let master = hkdf::Salt::new(hkdf::HKDF_SHA256, b"topside tenant key 1").extract(key);
        let wrapping = master.expand(&[b"wrapping"], &AES_256_GCM).ok()?;
        let wrapping = LessSafeKey::new(UnboundKey::from(wrapping));
        Some(Self { master, wrapping })
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// Whether a key that is not there is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Make,
    Refuse,
}

impl Keys {
    /// Opens the directory of keys; makes it (0700) when it is not there.
    pub fn open(directory: &Path, random: Random) -> Result<Self, Error> {
        let io = |error| Error::Io { path: directory.to_owned(), error };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io)?;
        let mode = directory.metadata().map_err(io)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(Error::KeyExposed { path: directory.to_owned(), mode });
        }
        Ok(Self { directory: directory.to_owned(), random, tenants: Mutex::default() })
    }

    /// Wraps a data key for a tenant: nonce ‖ AES-256-GCM. `context` is bound to it. The tenant's key is made, and durable,
    /// when it has none yet.
    pub fn wrap(&self, tenant: &str, context: &[u8], data_key: &[u8; 32]) -> Result<Vec<u8>, Error> {
        let keys = self.tenant(tenant, Missing::Make)?;
        let nonce: [u8; NONCE_LEN] = self.random.bytes();
        let mut out = Vec::with_capacity(NONCE_LEN + KEY_BYTES + AES_256_GCM.tag_len());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(data_key);
        let tag = keys
            .wrapping
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(bound(tenant, context)),
                &mut out[NONCE_LEN..],
            )
            .map_err(|_| Error::Unwrap { tenant: tenant.to_owned() })?;
        out.extend_from_slice(tag.as_ref());
        Ok(out)
    }

    /// Unwraps a data key.
    pub fn unwrap(&self, tenant: &str, context: &[u8], wrapped: &[u8]) -> Result<[u8; 32], Error> {
        let keys = self.tenant(tenant, Missing::Refuse)?;
        let refused = || Error::Unwrap { tenant: tenant.to_owned() };
        let (nonce, sealed) = wrapped.split_at_checked(NONCE_LEN).ok_or_else(refused)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| refused())?;
        let mut sealed = sealed.to_vec();
        let opened = keys.wrapping.open_in_place(nonce, Aad::from(bound(tenant, context)), &mut sealed);
        let key = opened.ok().and_then(|plain| <[u8; 32]>::try_from(&*plain).ok());
        sealed.zeroize();
        key.ok_or_else(refused)
    }

    /// A key for another use of this tenant's, the same after every restart: `label` says which.
    pub fn derive(&self, tenant: &str, label: &str) -> Result<[u8; 32], Error> {
        let keys = self.tenant(tenant, Missing::Make)?;
        let mut out = [0; 32];
        let info: [&[u8]; 2] = [b"derived ", label.as_bytes()];
        let filled = keys.master.expand(&info, hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut out));
        filled.map_err(|_| Error::Unwrap { tenant: tenant.to_owned() })?;
        Ok(out)
    }

    fn tenant(&self, tenant: &str, missing: Missing) -> Result<Arc<Tenant>, Error> {
        // Held over the file, so that two first uses make one key.
        let mut tenants = self.tenants.lock();
        if let Some(keys) = tenants.get(tenant) {
            return Ok(keys.clone());
        }
        let path = self.path(tenant)?;
        let mut key = match read(&path) {
            Err(Error::KeyMissing { .. }) if missing == Missing::Make => self.make(&path)?,
            key => key?,
        };
        let keys = Tenant::new(&key);
        key.zeroize();
        let keys = Arc::new(keys.ok_or_else(|| Error::Unwrap { tenant: tenant.to_owned() })?);
        tenants.insert(tenant.to_owned(), keys.clone());
        Ok(keys)
    }

    fn path(&self, tenant: &str) -> Result<PathBuf, Error> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if tenant.is_empty() || tenant.len() > TENANT_BYTES_MAX || !tenant.bytes().all(plain) {
            return Err(Error::TenantMalformed { tenant: tenant.to_owned() });
        }
        Ok(self.directory.join(format!("{tenant}.key")))
    }

    /// Makes a key under another name and links it into place, so that no reader ever sees half of one.
    fn make(&self, path: &Path) -> Result<[u8; KEY_BYTES], Error> {
        let io = |error| Error::Io { path: path.to_owned(), error };
        let key: [u8; KEY_BYTES] = self.random.bytes();
        let suffix = u64::from_le_bytes(self.random.bytes());
        let draft = path.with_extension(format!("{suffix:016x}.new"));
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&draft).map_err(io)?;
        let written = file.write_all(&key).and_then(|()| file.sync_all());
        let linked = written.and_then(|()| std::fs::hard_link(&draft, path));
        // Whether it was linked or not, the draft's name is of no more use.
        let _ = std::fs::remove_file(&draft);
        match linked {
            Ok(()) => {}
            // Another process was first; its key is the tenant's.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return read(path),
            Err(error) => return Err(io(error)),
        }
        File::open(&self.directory).and_then(|directory| directory.sync_all()).map_err(io)?;
        Ok(key)
    }
}

fn read(path: &Path) -> Result<[u8; KEY_BYTES], Error> {
    let io = |error| Error::Io { path: path.to_owned(), error };
    let mut file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Error::KeyMissing { path: path.to_owned() });
        }
        file => file.map_err(io)?,
    };
    let metadata = file.metadata().map_err(io)?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Error::KeyExposed { path: path.to_owned(), mode });
    }
    if metadata.len() != KEY_BYTES as u64 {
        return Err(Error::KeyMalformed { path: path.to_owned(), bytes: metadata.len() });
    }
    let mut key = [0; KEY_BYTES];
    file.read_exact(&mut key).map_err(io)?;
    Ok(key)
}

/// What a wrapped key is bound to; a tenant's name has no zero byte.
fn bound(tenant: &str, context: &[u8]) -> Vec<u8> {
    [b"topside data key 1\0", tenant.as_bytes(), &[0], context].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, read_dir, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;

    fn keys(directory: &Path) -> Keys {
        Keys::open(&directory.join("keys"), Random::system()).unwrap()
    }

    #[test]
    fn a_key_is_made_once_and_opens_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let wrapped = keys(directory.path()).wrap("default", b"ses", &[7; 32]).unwrap();
        let again = keys(directory.path());
        assert_eq!(again.unwrap("default", b"ses", &wrapped).unwrap(), [7; 32]);
        assert_ne!(again.wrap("default", b"ses", &[7; 32]).unwrap(), wrapped, "a nonce came twice");
        let file = directory.path().join("keys/default.key").metadata().unwrap();
        assert_eq!((file.mode() & 0o7777, file.len()), (0o600, 32));
        assert_eq!(directory.path().join("keys").metadata().unwrap().mode() & 0o7777, 0o700);
        assert_eq!(
            again.derive("default", "links").unwrap(),
            keys(directory.path()).derive("default", "links").unwrap()
        );
        assert_ne!(again.derive("default", "links").unwrap(), again.derive("default", "others").unwrap());
        let files = read_dir(directory.path().join("keys")).unwrap().count();
        assert_eq!(files, 1, "a draft was left behind");
    }

    /// Keys that exist were wrapped and derived like this: these bytes never change.
    #[test]
    fn wrapped_bytes_are_fixed() {
        let wrapped = "c15c0289ec2d0a9167ec8e656e06ae35c1f6cbbbeadc661dfe9589447fb7825ebeb133d005bc17c621ad72cc0ae786911da68624582cfc361b600dbd";
        let derived = "26ef6cae0c78eccbf8f821031790bc656a0318ed50f933e5505c47db945c7bd1";
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::open(&directory.path().join("keys"), Random::seeded(1)).unwrap();
        let path = directory.path().join("keys/default.key");
        write(&path, [3; 32]).unwrap();
        set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(hex::encode(keys.wrap("default", &[1; 16], &[2; 32]).unwrap()), wrapped);
        assert_eq!(keys.unwrap("default", &[1; 16], &hex::decode(wrapped).unwrap()).unwrap(), [2; 32]);
        assert_eq!(hex::encode(keys.derive("default", "links").unwrap()), derived);
    }

    #[test]
    fn many_first_uses_make_one_key() {
        let directory = tempfile::tempdir().unwrap();
        let wrapped: Vec<_> = std::thread::scope(|scope| {
            // Each with its own state, as processes would have.
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| keys(directory.path()).wrap("default", b"", &[1; 32]).unwrap()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let keys = keys(directory.path());
        for wrapped in wrapped {
            assert_eq!(keys.unwrap("default", b"", &wrapped).unwrap(), [1; 32]);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let keys = keys(directory.path());
        let wrapped = keys.wrap("a", b"one", &[7; 32]).unwrap();
        keys.wrap("b", b"one", &[7; 32]).unwrap();
        let mut flipped = wrapped.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for (name, tenant, context, bytes) in [
            ("another context", "a", &b"two"[..], &wrapped[..]),
            ("another tenant", "b", b"one", &wrapped),
            ("a flipped bit", "a", b"one", &flipped),
            ("cut short", "a", b"one", &wrapped[..5]),
            ("nothing", "a", b"one", &[]),
        ] {
            assert_eq!(keys.unwrap(tenant, context, bytes).unwrap_err().code(), "vault_unwrap", "{name}");
        }
        assert_eq!(keys.unwrap("c", b"one", &wrapped).unwrap_err().code(), "vault_key_missing");
        for tenant in ["", "../a", "a/b", "a.b", "a\0", &"x".repeat(65)] {
            assert_eq!(keys.wrap(tenant, b"", &[0; 32]).unwrap_err().code(), "vault_tenant_malformed", "{tenant:?}");
        }
    }

    #[test]
    fn a_damaged_or_exposed_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        keys(directory.path()).wrap("short", b"", &[7; 32]).unwrap();
        keys(directory.path()).wrap("open", b"", &[7; 32]).unwrap();
        write(directory.path().join("keys/short.key"), [0; 31]).unwrap();
        set_permissions(directory.path().join("keys/open.key"), Permissions::from_mode(0o640)).unwrap();
        let again = keys(directory.path());
        assert_eq!(again.wrap("short", b"", &[7; 32]).unwrap_err().code(), "vault_key_malformed");
        assert_eq!(again.wrap("open", b"", &[7; 32]).unwrap_err().code(), "vault_key_exposed");
        set_permissions(directory.path().join("keys"), Permissions::from_mode(0o755)).unwrap();
        let refused = Keys::open(&directory.path().join("keys"), Random::system()).unwrap_err();
        assert_eq!(refused.code(), "vault_key_exposed");
    }
}
