//! What the operator decides about the way out, as data. Who reads it from environment or file is `topside`.

use crate::Error;
use std::net::IpAddr;
use std::str::FromStr;

/// Settings of a [`crate::Client`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// Proxy for `http` targets, as `http_proxy` holds it.
    pub http_proxy: Option<String>,
    /// Proxy for `https` targets, as `https_proxy` holds it.
    pub https_proxy: Option<String>,
    /// Hosts that no proxy is used for, as `no_proxy` holds them: names with their subdomains, addresses, networks, `*`.
    pub no_proxy: Option<String>,
    /// Certificate authorities trusted besides the system's, PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// Networks that untrusted hosts may lead to although their class is denied.
    pub untrusted_networks_allowed: Vec<Network>,
    /// How long name, connection and handshake may take together.
    pub connect_ms: u64,
    /// Idle connections kept per host.
    pub pool_idle_per_host_max: usize,
    /// How long an idle connection is kept.
    pub pool_idle_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            http_proxy: None,
            https_proxy: None,
            no_proxy: None,
            ca_pem: None,
            untrusted_networks_allowed: Vec::new(),
            connect_ms: 10_000,
            pool_idle_per_host_max: 64,
            pool_idle_ms: 60_000,
        }
    }
}

/// A network in CIDR form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

impl Network {
    /// Whether `address` lies in it. An IPv4-mapped IPv6 address is judged as the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (network, address, width) = match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (u128::from(network.to_bits()), u128::from(address.to_bits()), 32)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits(), address.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        let host_bits = width - u32::from(self.prefix_bits);
        network.checked_shr(host_bits) == address.checked_shr(host_bits)
    }
}

impl FromStr for Network {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::Settings {
            reason: format!("`{text}` is no network; expected one like 10.1.0.0/16 or fd12::/48"),
        };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = bits.map_or(Ok(width), str::parse).map_err(|_| bad())?;
        if prefix_bits > width {
            return Err(bad());
        }
        Ok(Self { address, prefix_bits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_addresses_only() {
        for (network, address, expected) in [
            ("127.0.0.0/8", "127.9.9.9", true),
            ("127.0.0.0/8", "128.0.0.1", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "::1", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "fe80::1", false),
            ("::/0", "2001::1", true),
        ] {
            let network: Network = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), expected, "{network:?} {address}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0/8", "host/8", "10.0.0.0/-1"] {
            assert!(text.parse::<Network>().is_err(), "{text} was taken");
        }
    }
}
