//! Settings of S3-compatible storage, as the operator writes them.

use std::fmt;

/// How a bucket is named in a URL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addressing {
    /// `https://endpoint/bucket/key`: R2 and most self-hosted servers.
    #[default]
    Path,
    /// `https://bucket.endpoint/key`: AWS.
    VirtualHost,
}

/// S3-compatible storage.
#[derive(Clone, PartialEq, Eq)]
pub struct S3 {
    /// The endpoint's URL without the bucket.
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// The region; `auto` on R2.
    pub region: String,
    /// Access key id.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: String,
    /// Session token, for keys that expire.
    pub session_token: Option<String>,
    /// How the bucket is named.
    pub addressing: Addressing,
    /// A path within the bucket that everything lies under; empty for none.
    pub root: String,
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, bucket, region, addressing, root, .. } = self;
        f.debug_struct("S3")
            .field("endpoint", endpoint)
            .field("bucket", bucket)
            .field("region", region)
            .field("addressing", addressing)
            .field("root", root)
            .finish_non_exhaustive()
    }
}
