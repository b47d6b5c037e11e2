//! Buckets that are shown inside, read-only: as a manifest declares them, with references in the place of credentials, and as
//! a provider is asked for them, with the credentials themselves, which are never written down and never enter a sandbox.

use crate::RelPath;
use crate::manifest::{Entry, Refusal};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A bucket of S3-compatible storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Mount {
    /// The bucket.
    pub bucket: String,
    /// What the shown keys begin with; they are shown without it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// The region.
    #[serde(default = "first_region")]
    pub region: String,
    /// The endpoint's URL without the bucket, which is then named in the path; without it AWS's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_url: Option<String>,
    /// A reference to the access key id.
    pub access_key_id: String,
    /// A reference to the secret access key.
    pub secret_access_key: String,
    /// A reference to the session token of keys that expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<String>,
    /// What a provider does that can't mount.
    #[serde(default)]
    pub on_missing: OnMissing,
}

/// A bucket of R2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct R2Mount {
    /// The bucket.
    pub bucket: String,
    /// The account.
    pub account_id: String,
    /// What the shown keys begin with; they are shown without it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// The endpoint's URL in the place of the account's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_url: Option<String>,
    /// A reference to the access key id.
    pub access_key_id: String,
    /// A reference to the secret access key.
    pub secret_access_key: String,
    /// A reference to the session token of keys that expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<String>,
    /// What a provider does that can't mount.
    #[serde(default)]
    pub on_missing: OnMissing,
}

fn first_region() -> String {
    "us-east-1".to_owned()
}

/// What becomes of a mount where none can be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnMissing {
    /// There is no sandbox.
    #[default]
    Refuse,
    /// The bucket is copied into the workspace, as far as a manifest may hold it, when the workspace comes to be.
    Copy,
}

/// A mount as it is declared, whatever kind of storage it names; credentials are references still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The endpoint's URL without the bucket.
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// What the shown keys begin with.
    pub prefix: String,
    /// The region.
    pub region: String,
    /// Whether the bucket is named in the host instead of the path.
    pub virtual_host: bool,
    /// A reference to the access key id.
    pub access_key_id: String,
    /// A reference to the secret access key.
    pub secret_access_key: String,
    /// A reference to the session token.
    pub session_token: Option<String>,
    /// What a provider does that can't mount.
    pub on_missing: OnMissing,
}

impl Entry {
    /// The mount that it is.
    pub fn declared_mount(&self) -> Option<Declared> {
        match self {
            Self::S3Mount(mount) => {
                let S3Mount { bucket, prefix, region, endpoint_url, .. } = mount.clone();
                let virtual_host = endpoint_url.is_none();
                Some(Declared {
                    endpoint: endpoint_url.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com")),
                    bucket,
                    prefix,
                    region,
                    virtual_host,
                    access_key_id: mount.access_key_id.clone(),
                    secret_access_key: mount.secret_access_key.clone(),
                    session_token: mount.session_token.clone(),
                    on_missing: mount.on_missing,
                })
            }
            Self::R2Mount(mount) => {
                let R2Mount { bucket, account_id, prefix, endpoint_url, .. } = mount.clone();
                Some(Declared {
                    endpoint: endpoint_url.unwrap_or_else(|| format!("https://{account_id}.r2.cloudflarestorage.com")),
                    bucket,
                    prefix,
                    region: "auto".to_owned(),
                    virtual_host: false,
                    access_key_id: mount.access_key_id.clone(),
                    secret_access_key: mount.secret_access_key.clone(),
                    session_token: mount.session_token.clone(),
                    on_missing: mount.on_missing,
                })
            }
            Self::File { .. } | Self::Dir { .. } | Self::LocalFile { .. } | Self::LocalDir { .. } => None,
        }
    }
}

impl Entry {
    /// Holds a mount to the rules of a declaration; anything else has none here.
    pub(crate) fn check_mount(&self) -> Result<(), Refusal> {
        if let Self::R2Mount(mount) = self
            && !is_plain(&mount.account_id, 64)
        {
            return Err(Refusal::BadBucket);
        }
        self.declared_mount().map_or(Ok(()), |mount| mount.check())
    }
}

/// Whether a text may stand in a host's name.
fn is_plain(text: &str, length_max: usize) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=length_max).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(is_plain)
}

/// Whether a text is a reference and nothing else.
fn is_reference(text: &str) -> bool {
    let name = text.strip_prefix("${secret.").or_else(|| text.strip_prefix("${env."));
    let name = name.and_then(|rest| rest.strip_suffix('}'));
    name.is_some_and(|name| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
    })
}

impl Declared {
    /// Holds it to the rules of a declaration.
    fn check(&self) -> Result<(), Refusal> {
        let keys = [&self.access_key_id, &self.secret_access_key].into_iter().chain(&self.session_token);
        if !keys.into_iter().all(|key| is_reference(key)) {
            return Err(Refusal::PlainCredential);
        }
        let prefix = self.prefix.trim_matches('/');
        let component = |part: &str| !matches!(part, "" | "." | "..") && !part.chars().any(char::is_control);
        let has_prefix = prefix.is_empty() || (prefix.len() <= 1_000 && prefix.split('/').all(component));
        let endpoint = self.endpoint.strip_prefix("https://").or_else(|| self.endpoint.strip_prefix("http://"));
        let has_endpoint = endpoint.is_some_and(|host| {
            (1..=1_000).contains(&host.len()) && !host.contains(['@', '?', '#', ' ', '\\']) && host.is_ascii()
        });
        if is_plain(&self.bucket, 255) && is_plain(&self.region, 64) && has_prefix && has_endpoint {
            Ok(())
        } else {
            Err(Refusal::BadBucket)
        }
    }

    /// The mount to ask a provider for, with its references put in by `expand`.
    ///
    /// # Errors
    /// Whatever `expand` says.
    pub fn resolve<E>(self, path: RelPath, expand: impl Fn(&str) -> Result<String, E>) -> Result<Mount, E> {
        let credential = Credential {
            access_key_id: expand(&self.access_key_id)?,
            secret_access_key: expand(&self.secret_access_key)?,
            session_token: self.session_token.as_deref().map(&expand).transpose()?,
        };
        let Self { endpoint, bucket, prefix, region, virtual_host, on_missing, .. } = self;
        Ok(Mount { path, endpoint, bucket, prefix, region, virtual_host, credential, on_missing })
    }
}

/// A bucket to show inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where.
    pub path: RelPath,
    /// The endpoint's URL without the bucket.
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// What the shown keys begin with.
    pub prefix: String,
    /// The region.
    pub region: String,
    /// Whether the bucket is named in the host instead of the path.
    pub virtual_host: bool,
    /// What opens it. It never enters the sandbox.
    pub credential: Credential,
    /// What is done where it can't be mounted.
    pub on_missing: OnMissing,
}

/// Why a bucket that is shown did not answer an operation on a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Its deadline was over.
    Late,
    /// It gave no answer, or none that can be used; the kernel did not say which.
    Unanswered,
    /// Who serves it is gone.
    Ended,
}

impl Fault {
    /// Stable code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Late => "mount_deadline",
            Self::Unanswered => "mount_unanswered",
            Self::Ended => "mount_ended",
        }
    }

    /// In words.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Late => "the bucket did not answer in time",
            Self::Unanswered => "the bucket did not answer in time, or with what is no answer",
            Self::Ended => "the bucket is no longer served",
        }
    }
}

/// What opens a bucket. It has no serialised form, and its debug form shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// Access key id.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: String,
    /// Session token, for keys that expire.
    pub session_token: Option<String>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_references_and_nothing_else() {
        for (text, expected) in [
            ("${secret.A_1}", true),
            ("${env.KEY}", true),
            ("${env.KEY:-default}", false),
            ("${secret.}", false),
            ("x${secret.A}", false),
            ("${secret.A}${secret.B}", false),
            ("AKIA", false),
            ("", false),
        ] {
            assert_eq!(is_reference(text), expected, "{text}");
        }
    }

    #[test]
    fn each_kind_of_storage_has_its_endpoint() {
        let keys = r#""access_key_id": "${secret.A}", "secret_access_key": "${secret.B}""#;
        for (text, endpoint, virtual_host) in [
            (r#""s3_mount", "bucket": "b""#, "https://s3.us-east-1.amazonaws.com", true),
            (r#""s3_mount", "bucket": "b", "region": "eu-west-1""#, "https://s3.eu-west-1.amazonaws.com", true),
            (r#""s3_mount", "bucket": "b", "endpoint_url": "http://localhost:9""#, "http://localhost:9", false),
            (r#""r2_mount", "bucket": "b", "account_id": "acc""#, "https://acc.r2.cloudflarestorage.com", false),
        ] {
            let entry: Entry = serde_json::from_str(&format!(r#"{{"type": {text}, {keys}}}"#)).unwrap();
            let declared = entry.declared_mount().unwrap();
            entry.check_mount().unwrap();
            assert_eq!((declared.endpoint.as_str(), declared.virtual_host), (endpoint, virtual_host));
            let expand = |text: &str| Ok::<_, ()>(text.replace("${secret.", "value of "));
            let mount = declared.resolve("at".parse().unwrap(), expand).unwrap();
            assert_eq!(mount.credential.secret_access_key, "value of B}");
            assert!(!format!("{mount:?}").contains("value"), "{mount:?}");
        }
    }
}
