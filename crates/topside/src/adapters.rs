//! Seams of the journal and of checkpoints, joined to the rooms that fill them: tenants' keys from `vault`, large contents in
//! `blob`.

use async_trait::async_trait;
use blob::{Blobs, OBJECT_BYTES_MAX};
use std::sync::Arc;

/// The tenants' keys, as the journal wants them.
#[derive(Debug)]
pub(crate) struct Wrapping(pub(crate) Arc<vault::Keys>);

impl journal::Wrap for Wrapping {
    fn wrap(&self, tenant: &str, context: &[u8], data_key: &[u8; 32]) -> Result<Vec<u8>, String> {
        self.0.wrap(tenant, context, data_key).map_err(|error| error.to_string())
    }

    fn unwrap(&self, tenant: &str, context: &[u8], wrapped: &[u8]) -> Result<[u8; 32], String> {
        self.0.unwrap(tenant, context, wrapped).map_err(|error| error.to_string())
    }
}

/// The tenants' keys, as checkpoints want them.
#[derive(Debug)]
pub(crate) struct Sealing(pub(crate) Arc<vault::Keys>);

impl chunks::TenantKeys for Sealing {
    fn key(&self, tenant: &str) -> Result<[u8; 32], String> {
        self.0.derive(tenant, "checkpoints").map_err(|error| error.to_string())
    }
}

/// The objects, as the journal wants them.
#[derive(Debug)]
pub(crate) struct Contents(pub(crate) Blobs);

#[async_trait]
impl journal::Objects for Contents {
    async fn put(&self, key: &str, bytes: Vec<u8>) -> Result<(), String> {
        let key = key.parse().map_err(told)?;
        self.0.put(&key, bytes.into()).await.map_err(told)
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        let key = key.parse().map_err(told)?;
        match self.0.get(&key, OBJECT_BYTES_MAX).await {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(blob::Error::Missing { .. }) => Ok(None),
            Err(error) => Err(told(error)),
        }
    }

    async fn delete(&self, key: &str) -> Result<(), String> {
        let key = key.parse().map_err(told)?;
        self.0.delete(&key).await.map_err(told)
    }
}

fn told(error: blob::Error) -> String {
    error.to_string()
}
