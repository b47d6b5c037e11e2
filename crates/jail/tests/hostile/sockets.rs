//! Behaviours 24 and 25: sockets that lead outside without a network. Walls: a network namespace (abstract names, addresses),
//! Landlock's scope (abstract names again), seccomp (families that no namespace contains, raw sockets), and a root in which the
//! host's sockets are not.

use super::attempts::{Attempt, Control, hold, io, told};
use super::raw::{call_with, gain};
use crate::support::{World, children_named, sh};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::Arc;

fn socket(arguments: &[String]) -> String {
    gain();
    let numbers: Vec<i64> = arguments.iter().map(|argument| argument.parse().unwrap()).collect();
    told(call_with(libc::SYS_socket, [numbers[0], numbers[1], numbers[2]]))
}

const fn family(name: &'static str, arguments: &'static [&'static str], control: Control) -> Attempt {
    Attempt { name, act: socket, arguments, held: "EPERM", walls: &["seccomp"], control }
}

/// Those that take a capability over the network, which root of namespaces of its own has.
const fn privileged(name: &'static str, arguments: &'static [&'static str]) -> Attempt {
    let walls = &["seccomp", "user_namespace_limit"];
    Attempt { name, act: socket, arguments, held: "EPERM", walls, control: Control::Plain }
}

const fn allowed(name: &'static str, arguments: &'static [&'static str]) -> Attempt {
    Attempt { name, act: socket, arguments, held: super::attempts::WORKED, walls: &[], control: Control::Plain }
}

/// Family, type and protocol.
pub(crate) const ATTEMPTS: &[Attempt] = &[
    family("virtual machine sockets", &["40", "1", "0"], Control::PlainOr("EAFNOSUPPORT")),
    privileged("packets", &["17", "3", "0"]),
    family("cryptography", &["38", "5", "0"], Control::PlainOr("EAFNOSUPPORT")),
    family("audit", &["16", "3", "9"], Control::Plain),
    family("generic messages of the kernel", &["16", "2", "16"], Control::Plain),
    privileged("raw", &["2", "3", "1"]),
    privileged("raw with flags", &["2", "526339", "255"]),
    privileged("obsolete packets", &["2", "10", "768"]),
    allowed("local", &["1", "1", "0"]),
    allowed("internet", &["2", "1", "0"]),
    allowed("internet 6", &["10", "2", "0"]),
    allowed("routes, read", &["16", "3", "0"]),
    Attempt {
        name: "a pair of another family",
        act: |_| {
            let pair = [0_i32; 2];
            told(call_with(libc::SYS_socketpair, [2, 1, 0, super::raw::at(&pair)]))
        },
        arguments: &[],
        held: "EPERM",
        walls: &["seccomp"],
        control: Control::PlainOr("EOPNOTSUPP"),
    },
];

/// Those that somebody listens to outside; the name comes from there.
pub(crate) const OUTSIDE: &[Attempt] = &[Attempt {
    name: "an abstract name",
    act: |arguments| io(UnixStream::connect_addr(&SocketAddr::from_abstract_name(&arguments[0]).unwrap())),
    arguments: &[],
    held: "ECONNREFUSED",
    walls: &["network_namespace"],
    control: Control::Plain,
}];

pub(crate) const NETWORK: &[Attempt] = &[Attempt {
    name: "the host's own address",
    act: |arguments| {
        let port: u16 = arguments[0].parse().unwrap();
        io(socket_to(std::net::Ipv4Addr::LOCALHOST, port))
    },
    arguments: &[],
    held: "ECONNREFUSED",
    walls: &["network_namespace"],
    control: Control::Plain,
}];

const fn unreachable(name: &'static str, arguments: &'static [&'static str]) -> Attempt {
    let act = |arguments: &[String]| io(socket_to(arguments[0].parse().unwrap(), 80));
    Attempt { name, act, arguments, held: "ENETUNREACH", walls: &[], control: Control::Machine }
}

pub(crate) const ADDRESSES: &[Attempt] = &[
    unreachable("the metadata of clouds", &["169.254.169.254"]),
    unreachable("the internet", &["1.1.1.1"]),
    unreachable("a private network", &["10.0.0.1"]),
];

/// Connects without the standard library, which only `net` may use for it.
fn socket_to(address: std::net::Ipv4Addr, port: u16) -> std::io::Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)?;
    rustix::net::connect(&socket, &std::net::SocketAddrV4::new(address, port)).map_err(Into::into)
}

pub(crate) async fn no_socket_leads_outside(world: Arc<World>) {
    hold(&world, ATTEMPTS, &[], &[]).await;
    let name = format!("topside-outside-{}", std::process::id());
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    hold(&world, OUTSIDE, &[&name], &[&name]).await;
    drop(listener);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    hold(&world, NETWORK, &[&port], &[&port]).await;
    drop(listener);
    hold(&world, ADDRESSES, &[], &[]).await;
    let sandbox = world.sandbox().await;
    let found = sh(&sandbox, "find / -type s -not -path '/proc/*' 2>/dev/null").await.out;
    assert_eq!(found, "", "no socket of the host is in sight");
    assert_eq!(sh(&sandbox, "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '").await.out, "lo\n");
    assert_eq!(sh(&sandbox, "cat /proc/net/route | wc -l").await.out, "1\n", "a heading, no route");
    // Nothing of the launcher's is left open for a message with descriptors.
    let open = sh(&sandbox, "ls -l /proc/self/fd | grep -c socket").await.out;
    assert_eq!(open, "0\n");
    assert!(!children_named("topside-launch").is_empty());
    sandbox.close().await;
}
