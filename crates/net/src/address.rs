//! Which addresses are no business of a host that a model, an answer or a redirect named. Pure: the machine's own interface
//! addresses are judged where the dial is made.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is denied to an untrusted host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// This machine: 127/8, `::1`.
    Loopback,
    /// "This network" and the unspecified address: 0/8, `::`.
    Unspecified,
    /// RFC 1918 networks.
    Private,
    /// Carrier-grade NAT, 100.64/10 (RFC 6598).
    Shared,
    /// 169.254/16 and fe80::/10.
    LinkLocal,
    /// A cloud's instance metadata or host agent, wherever the cloud put it.
    Metadata,
    /// Unique local and the deprecated site-local addresses of IPv6.
    UniqueLocal,
    /// Multicast.
    Multicast,
    /// The limited broadcast address.
    Broadcast,
    /// Set aside by IANA: documentation, benchmarks, protocol assignments, future use, tunnels that hide an address.
    Reserved,
    /// An address of one of this machine's own interfaces.
    OwnInterface,
}

impl Class {
    /// The name used in messages and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Unspecified => "unspecified",
            Self::Private => "private",
            Self::Shared => "shared",
            Self::LinkLocal => "link_local",
            Self::Metadata => "metadata",
            Self::UniqueLocal => "unique_local",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Reserved => "reserved",
            Self::OwnInterface => "own_interface",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The denied class that `address` belongs to; `None` for an ordinary public address. An IPv6 address that carries an IPv4
/// address (mapped, compatible, 6to4, NAT64, ISATAP) is judged by the address it carries.
pub fn class(address: IpAddr) -> Option<Class> {
    match address {
        IpAddr::V4(address) => class_v4(address),
        IpAddr::V6(address) => class_v6(address),
    }
}

/// Metadata services of clouds that do not sit at 169.254.169.254: Azure's host agent, Alibaba, Oracle.
const METADATA_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
];

fn class_v4(address: Ipv4Addr) -> Option<Class> {
    if METADATA_V4.contains(&address) {
        return Some(Class::Metadata);
    }
    match address.octets() {
        [0, ..] => Some(Class::Unspecified),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some(Class::Private),
        [100, 64..=127, ..] => Some(Class::Shared),
        [127, ..] => Some(Class::Loopback),
        [169, 254, ..] => Some(Class::LinkLocal),
        [224..=239, ..] => Some(Class::Multicast),
        [255, 255, 255, 255] => Some(Class::Broadcast),
        // Protocol assignments, three documentation networks, 6to4 relays, benchmarks, future use.
        [192, 0, 0 | 2, _]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        | [192, 88, 99, _]
        | [198, 18 | 19, ..]
        | [240..=255, ..] => Some(Class::Reserved),
        _ => None,
    }
}

/// Metadata services inside the unique-local range: AWS is a whole /32, the others are single addresses (Google, Oracle,
/// Scaleway, and the IPv6 forms some clouds give their IPv4 service).
const METADATA_V6: [Ipv6Addr; 5] = [
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
    Ipv6Addr::new(0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x200),
];

fn class_v6(address: Ipv6Addr) -> Option<Class> {
    if METADATA_V6.contains(&address) {
        return Some(Class::Metadata);
    }
    let words = address.segments();
    match words {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some(Class::Unspecified),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(Class::Loopback),
        // Compatible, mapped, translated (SIIT) and the well-known NAT64 prefix: the last four bytes are an IPv4 address.
        [0, 0, 0, 0, 0, 0, high, low]
        | [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        // ISATAP carries it there too, behind a marker.
        | [_, _, _, _, 0 | 0x200, 0x5efe, high, low]
        // 6to4 carries it in front.
        | [0x2002, high, low, ..] => class_v4(embedded(high, low)),
        [0xfd00, 0xec2, ..] => Some(Class::Metadata),
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Some(Class::UniqueLocal),
        [0xfe80..=0xfebf, ..] => Some(Class::LinkLocal),
        [0xff00..=0xffff, ..] => Some(Class::Multicast),
        // Teredo and the other protocol assignments of 2001::/23, documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Some(Class::Reserved),
        [0x2000..=0x3fff, ..] => None,
        // Everything outside 2000::/3 is unassigned or special.
        _ => Some(Class::Reserved),
    }
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rows: &[(&str, &str)]) {
        for (address, expected) in rows {
            let got = class(address.parse().unwrap()).map_or("public", Class::name);
            assert_eq!(got, *expected, "{address}");
        }
    }

    #[test]
    fn ipv4_addresses_have_a_class() {
        check(&[
            ("0.0.0.0", "unspecified"),
            ("0.255.255.255", "unspecified"),
            ("1.1.1.1", "public"),
            ("9.255.255.255", "public"),
            ("10.0.0.0", "private"),
            ("10.255.255.255", "private"),
            ("11.0.0.0", "public"),
            ("100.63.255.255", "public"),
            ("100.64.0.0", "shared"),
            ("100.100.100.200", "metadata"),
            ("100.127.255.255", "shared"),
            ("100.128.0.0", "public"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("128.0.0.0", "public"),
            ("168.63.129.16", "metadata"),
            ("168.63.129.17", "public"),
            ("169.253.255.255", "public"),
            ("169.254.0.1", "link_local"),
            ("169.254.169.254", "metadata"),
            ("169.254.170.2", "link_local"),
            ("172.15.255.255", "public"),
            ("172.16.0.0", "private"),
            ("172.31.255.255", "private"),
            ("172.32.0.0", "public"),
            ("192.0.0.1", "reserved"),
            ("192.0.0.192", "metadata"),
            ("192.0.1.1", "public"),
            ("192.0.2.1", "reserved"),
            ("192.88.99.1", "reserved"),
            ("192.168.0.1", "private"),
            ("192.169.0.1", "public"),
            ("198.17.255.255", "public"),
            ("198.18.0.1", "reserved"),
            ("198.19.255.255", "reserved"),
            ("198.51.100.7", "reserved"),
            ("203.0.113.9", "reserved"),
            ("223.255.255.255", "public"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "broadcast"),
        ]);
    }

    #[test]
    fn ipv6_addresses_have_a_class() {
        check(&[
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::7f00:1", "loopback"),
            ("::ffff:10.0.0.1", "private"),
            ("::ffff:8.8.8.8", "public"),
            ("::ffff:0:127.0.0.1", "loopback"),
            ("64:ff9b::169.254.169.254", "metadata"),
            ("64:ff9b::8.8.8.8", "public"),
            ("64:ff9b:1::8.8.8.8", "reserved"),
            ("2002:7f00:1::", "loopback"),
            ("2002:c0a8:1::1", "private"),
            ("2002:808:808::1", "public"),
            ("2001:4860::5efe:10.0.0.1", "private"),
            ("2001:4860::200:5efe:8.8.8.8", "public"),
            ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "reserved"),
            ("2001:db8::1", "reserved"),
            ("2001:20::1", "reserved"),
            ("2001:4860:4860::8888", "public"),
            ("2606:4700:4700::1111", "public"),
            ("3fff::1", "reserved"),
            ("100::1", "reserved"),
            ("4000::1", "reserved"),
            ("fc00::1", "unique_local"),
            ("fd12:3456::1", "unique_local"),
            ("fd00:ec2::254", "metadata"),
            ("fd00:ec2::23", "metadata"),
            ("fd20:ce::254", "metadata"),
            ("fd00:c1::a9fe:a9fe", "metadata"),
            ("fd00:42::42", "metadata"),
            ("fd00:a9fe:a9fe::1", "metadata"),
            ("fd00:100::100:200", "metadata"),
            ("fe80::1", "link_local"),
            ("febf::1", "link_local"),
            ("fec0::1", "unique_local"),
            ("ff02::1", "multicast"),
        ]);
    }
}
