//! The helper process of one mount, and what it is told. It alone has the mount's credential, which comes over its socket and
//! is in no environment, argument or file. Whoever forks it hands in the walls; they go up before the first byte of a bucket
//! is read.

use crate::{Error, Limits, names, serve};
use blob::{Addressing, Bucket, S3};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use zeroize::Zeroizing;

/// Bytes of what a helper is told, and of its answer, at most.
const MESSAGE_BYTES_MAX: u32 = 8 << 20;
/// What one request to the bucket gets beyond the operation that it is for.
const REQUEST_SLACK_MS: u64 = 1_000;
/// How long a helper waits for what it is told.
const ORDER_WAIT_MAX: Duration = Duration::from_secs(30);

/// Where a bucket is, and what opens it. Its debug form shows no credential.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    /// The endpoint's URL without the bucket.
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// The region; `auto` on R2.
    pub region: String,
    /// Whether the bucket is named in the host instead of the path.
    pub virtual_host: bool,
    /// Access key id.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: String,
    /// Session token, for keys that expire.
    pub session_token: Option<String>,
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, bucket, region, virtual_host, .. } = self;
        f.debug_struct("Storage")
            .field("endpoint", endpoint)
            .field("bucket", bucket)
            .field("region", region)
            .field("virtual_host", virtual_host)
            .finish_non_exhaustive()
    }
}

/// How the network is reached; see [`net::Settings`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Proxy for `http` targets.
    pub http_proxy: Option<String>,
    /// Proxy for `https` targets.
    pub https_proxy: Option<String>,
    /// Hosts that no proxy is used for.
    pub no_proxy: Option<String>,
    /// Certificate authorities trusted besides the system's, PEM.
    pub ca_pem: Option<String>,
}

/// What a helper is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The bucket.
    pub storage: Storage,
    /// What the shown keys begin with; empty for all.
    pub prefix: String,
    /// The network.
    pub network: Network,
    /// User and group that the files belong to, inside.
    pub owner: (u32, u32),
    /// The mount's limits.
    pub limits: Limits,
}

impl Order {
    /// The ports that the helper must reach: the endpoint's, and those of the proxies.
    ///
    /// # Errors
    /// [`Error::Bucket`] for an endpoint or proxy that is no URL.
    pub fn ports(&self) -> Result<Vec<u16>, Error> {
        let proxies = [&self.network.http_proxy, &self.network.https_proxy];
        let urls = proxies.into_iter().flatten().chain([&self.storage.endpoint]);
        let port = |text: &String| {
            let url = net::Url::parse(text).ok();
            url.and_then(|url| url.port_or_known_default()).ok_or_else(|| Error::Bucket {
                code: "blob_settings".to_owned(),
                detail: "the endpoint or a proxy is no URL with a port".to_owned(),
            })
        };
        urls.map(port).collect()
    }
}

/// What a helper answers.
#[derive(Debug, Serialize, Deserialize)]
enum Told {
    Serving,
    Failed { code: String, detail: String },
}

fn broken(what: &str) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::Helper { detail: format!("{what}: {error}") }
}

/// Tells a helper what to serve, and waits until it has read from the bucket; at most `wait_ms_max`.
///
/// # Errors
/// [`Error::Bucket`] when it can't be read, [`Error::Helper`] when the helper ended or takes too long.
pub async fn begin(door: OwnedFd, order: &Order, wait_ms_max: u64) -> Result<(), Error> {
    let door = UnixStream::from(door);
    door.set_nonblocking(true).map_err(broken("its socket"))?;
    let mut door = tokio::net::UnixStream::from_std(door).map_err(broken("its socket"))?;
    let talk = async {
        let text = Zeroizing::new(serde_json::to_vec(order).map_err(|error| broken("telling it")(error.into()))?);
        let length = u32::try_from(text.len()).ok().filter(|length| *length <= MESSAGE_BYTES_MAX);
        let length =
            length.ok_or_else(|| Error::Helper { detail: format!("message_bytes_max = {MESSAGE_BYTES_MAX}") })?;
        door.write_all(&length.to_le_bytes()).await.map_err(broken("telling it"))?;
        door.write_all(&text).await.map_err(broken("telling it"))?;
        let length = door.read_u32_le().await.map_err(broken("it ended early"))?;
        if length > MESSAGE_BYTES_MAX {
            return Err(Error::Helper { detail: "its answer is too long".to_owned() });
        }
        let mut text = vec![0; length as usize];
        door.read_exact(&mut text).await.map_err(broken("it ended early"))?;
        match serde_json::from_slice(&text) {
            Ok(Told::Serving) => Ok(()),
            Ok(Told::Failed { code, detail }) => Err(Error::Bucket { code, detail }),
            Err(error) => Err(broken("its answer")(error.into())),
        }
    };
    let late = || Error::Helper { detail: format!("no word from the bucket within {wait_ms_max} ms") };
    tokio::time::timeout(Duration::from_millis(wait_ms_max), talk).await.unwrap_or_else(|_| Err(late()))
}

/// Is a helper: reads its order from `door`, raises the walls that `confine` brings, reads from the bucket once, says so, and
/// serves `device` until the mount is gone. Returns the process's exit code. Call it in a process of its own.
pub fn help(device: OwnedFd, door: OwnedFd, confine: impl FnOnce(&Order) -> Result<(), String>) -> i32 {
    let mut door = UnixStream::from(door);
    let Ok(order) = ordered(&mut door) else { return 1 };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build() {
        Ok(runtime) => runtime,
        Err(error) => return tell(&mut door, &broken("its runtime")(error)),
    };
    let limits = order.limits;
    // Certificates are read here, before the walls hide them.
    let bucket = match bucket(&order) {
        Ok(bucket) => bucket,
        Err(error) => return tell(&mut door, &error),
    };
    if let Err(detail) = confine(&order) {
        return tell(&mut door, &Error::Helper { detail: format!("its walls: {detail}") });
    }
    let (prefix, owner) = (order.prefix.clone(), order.owner);
    drop(order);
    let Some(shown) = names::prefix(&prefix) else { return tell(&mut door, &Error::Prefix) };
    let served = runtime.block_on(async {
        // The kernel's first question waits meanwhile; so do the programs' later ones.
        let probe = tokio::time::timeout(Duration::from_millis(limits.operation_ms_max), bucket.list(&shown, None, 1));
        match probe.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                return Err(Error::Bucket { code: error.code().to_owned(), detail: error.to_string() });
            }
            Err(_) => {
                let detail = format!("no answer within {} ms", limits.operation_ms_max);
                return Err(Error::Bucket { code: "blob_storage".to_owned(), detail });
            }
        }
        if say(&mut door, &Told::Serving).is_err() {
            return Err(Error::Helper { detail: "nobody hears it".to_owned() });
        }
        drop(door.shutdown(std::net::Shutdown::Both));
        serve(device, bucket, &prefix, owner, limits).await
    });
    match served {
        Ok(()) => 0,
        Err(error) => tell(&mut door, &error),
    }
}

fn ordered(door: &mut UnixStream) -> Result<Order, std::io::Error> {
    door.set_read_timeout(Some(ORDER_WAIT_MAX))?;
    let mut length = [0; 4];
    door.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > MESSAGE_BYTES_MAX {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut text = Zeroizing::new(vec![0; length as usize]);
    door.read_exact(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

fn bucket(order: &Order) -> Result<Bucket, Error> {
    let wrong = |code: &str, detail: String| Error::Bucket { code: code.to_owned(), detail };
    let Network { http_proxy, https_proxy, no_proxy, ca_pem } = order.network.clone();
    let ca_pem = ca_pem.map(String::into_bytes);
    let settings = net::Settings { http_proxy, https_proxy, no_proxy, ca_pem, ..net::Settings::default() };
    let client = net::Client::new(settings).map_err(|error| wrong(error.code(), error.to_string()))?;
    let Storage { endpoint, bucket, region, virtual_host, access_key_id, secret_access_key, session_token } =
        order.storage.clone();
    let addressing = if virtual_host { Addressing::VirtualHost } else { Addressing::Path };
    let root = String::new();
    let settings = S3 { endpoint, bucket, region, access_key_id, secret_access_key, session_token, addressing, root };
    // The operation's own deadline comes first, and says what it is.
    let request_ms_max = order.limits.operation_ms_max.saturating_add(REQUEST_SLACK_MS);
    let bucket = Bucket::new(&settings, client, request_ms_max);
    bucket.map_err(|error| wrong(error.code(), error.to_string()))
}

fn say(door: &mut UnixStream, told: &Told) -> Result<(), std::io::Error> {
    let text = serde_json::to_vec(told)?;
    door.write_all(&u32::try_from(text.len()).unwrap_or(0).to_le_bytes())?;
    door.write_all(&text)
}

fn tell(door: &mut UnixStream, error: &Error) -> i32 {
    let (code, detail) = match error {
        Error::Bucket { code, detail } => (code.clone(), detail.clone()),
        error => (error.code().to_owned(), error.to_string()),
    };
    // Whoever asked may be gone.
    let _ = say(door, &Told::Failed { code, detail });
    1
}
