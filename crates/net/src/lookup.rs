//! Names to addresses: where they come from, and the judgement made on them in the same breath as the dial, so that the
//! address judged is the address dialled.

use crate::{Class, Network, address};
use async_trait::async_trait;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

/// Addresses kept of one answer of a resolver.
const ADDRESSES_MAX: usize = 64;

/// Finds the addresses of a name.
#[async_trait]
pub trait Lookup: Send + Sync + fmt::Debug {
    /// The addresses of `name`, in the order in which they should be tried.
    async fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// The operating system's resolver.
#[derive(Clone, Copy, Debug)]
pub struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// A host led to a denied address.
#[derive(Debug, thiserror::Error)]
#[error("{host} leads to {address}, a {class} address")]
pub(crate) struct Refused {
    pub(crate) host: String,
    pub(crate) address: IpAddr,
    pub(crate) class: Class,
}

/// A name that has no address.
#[derive(Debug, thiserror::Error)]
#[error("{host} can't be resolved: {message}")]
pub(crate) struct Unresolved {
    pub(crate) host: String,
    pub(crate) message: String,
}

/// Judges addresses of untrusted hosts.
#[derive(Clone, Debug)]
pub(crate) struct Vetting {
    allowed: Arc<[Network]>,
}

impl Vetting {
    pub(crate) fn new(allowed: &[Network]) -> Self {
        Self { allowed: allowed.into() }
    }

    /// Refuses the host when any of its addresses is denied: an answer that mixes good and bad addresses is an attack.
    pub(crate) fn judge(&self, host: &str, addresses: &[IpAddr]) -> Result<(), Refused> {
        for &address in addresses {
            if self.allowed.iter().any(|network| network.contains(address)) {
                continue;
            }
            if let Some(class) = address::class(address).or_else(|| own_interface(address)) {
                return Err(Refused { host: host.to_owned(), address, class });
            }
        }
        Ok(())
    }
}

/// Whether the address is one of this machine's: then, and only then, can a socket be bound to it. Asked anew each time,
/// since interfaces come and go.
fn own_interface(address: IpAddr) -> Option<Class> {
    let bound = |address: IpAddr| UdpSocket::bind((address, 0)).is_ok();
    if !bound(address) {
        return None;
    }
    // Where the kernel lets sockets bind to foreign addresses (`ip_nonlocal_bind`) success says nothing.
    let foreign = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    (!bound(foreign)).then_some(Class::OwnInterface)
}

/// The resolver handed to the HTTP library; with a [`Vetting`] it gives out judged addresses only.
pub(crate) struct Resolver {
    pub(crate) lookup: Arc<dyn Lookup>,
    pub(crate) vetting: Option<Vetting>,
}

impl Resolver {
    /// The addresses of a name, judged when this resolver judges.
    pub(crate) async fn addresses(
        lookup: &dyn Lookup,
        vetting: Option<&Vetting>,
        name: &str,
    ) -> Result<Vec<IpAddr>, Box<dyn std::error::Error + Send + Sync>> {
        let unresolved = |message: String| Unresolved { host: name.to_owned(), message };
        let mut found = lookup.lookup(name).await.map_err(|error| unresolved(error.to_string()))?;
        if found.is_empty() {
            return Err(unresolved("no address".into()).into());
        }
        found.truncate(ADDRESSES_MAX);
        if let Some(vetting) = vetting {
            vetting.judge(name, &found)?;
        }
        Ok(found)
    }
}

impl reqwest::dns::Resolve for Resolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let (lookup, vetting) = (self.lookup.clone(), self.vetting.clone());
        Box::pin(async move {
            let found = Self::addresses(&*lookup, vetting.as_ref(), name.as_str()).await?;
            let addresses: reqwest::dns::Addrs = Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}
