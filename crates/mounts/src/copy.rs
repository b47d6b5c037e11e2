//! A bucket as a list of files to copy, for where it can't be mounted: the same keys under the same names as a mount shows.

use crate::listings::{Listings, Refused};
use crate::{Error, Limits, names};
use blob::Bucket;
use std::sync::Arc;
use std::time::Duration;

/// A file of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its key.
    pub key: String,
    /// Where it stands below the prefix; components joined by `/`.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// What the storage calls this version of it.
    pub version: Option<String>,
}

/// Every file below `prefix`, by path.
///
/// # Errors
/// [`Error::Prefix`]; [`Error::TooLarge`] above `entries_max` files and directories or `bytes_max` bytes of them together;
/// [`Error::Bucket`].
pub async fn objects(bucket: &Bucket, prefix: &str, entries_max: usize, bytes_max: u64) -> Result<Vec<Object>, Error> {
    let root: Arc<str> = names::prefix(prefix).ok_or(Error::Prefix)?.into();
    let Limits { listed_entries_max, directory_entries_max, .. } = Limits::default();
    let listings = Listings::new(Duration::ZERO, listed_entries_max, directory_entries_max);
    let (mut open, mut found, mut entries, mut bytes) = (vec![Arc::clone(&root)], Vec::new(), 0, 0_u64);
    let too_large = || Error::TooLarge { entries_max, bytes_max };
    while let Some(directory) = open.pop() {
        let listing = listings.read(bucket, &directory).await.map_err(|refused| match refused {
            Refused::Storage(error) => Error::Bucket { code: error.code().to_owned(), detail: error.to_string() },
            Refused::TooLarge | Refused::Full => too_large(),
        })?;
        for entry in &listing.entries {
            entries += 1;
            let Some(key) = names::key(&directory, entry.name.as_bytes()) else { continue };
            match &entry.file {
                None => open.push(format!("{key}/").into()),
                Some(file) => {
                    bytes = bytes.saturating_add(file.bytes);
                    let path = key.strip_prefix(&*root).unwrap_or(&key).to_owned();
                    let version = file.version.as_deref().map(str::to_owned);
                    found.push(Object { key, path, bytes: file.bytes, version });
                }
            }
            if entries > entries_max || bytes > bytes_max {
                return Err(too_large());
            }
        }
    }
    found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}
