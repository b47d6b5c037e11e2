//! Where a host may lead that the operator did not write.

use crate::server::{self, Names, get, lenient, outcome};
use axum::Router;
use axum::http::header;
use axum::routing::get as on_get;
use net::{Client, Error, Origin, Settings};
use std::net::UdpSocket;
use std::sync::atomic::Ordering;

fn app() -> Router {
    Router::new().route("/", on_get(|| async { ([(header::CONNECTION, "close")], "inside") }))
}

#[tokio::test]
async fn every_spelling_of_a_denied_address_is_refused() {
    let (address, taken) = server::serve(app()).await;
    let port = address.port();
    let client = Client::new(Settings::default()).unwrap();
    for (host, class) in [
        ("127.0.0.1", "loopback"),
        ("2130706433", "loopback"),
        ("0x7f.1", "loopback"),
        ("0177.0.0.1", "loopback"),
        ("127.0.0.1.", "loopback"),
        ("[::1]", "loopback"),
        ("[::ffff:127.0.0.1]", "loopback"),
        ("[64:ff9b::7f00:1]", "loopback"),
        ("[2002:7f00:1::]", "loopback"),
        ("localhost", "loopback"),
        ("LOCALHOST.", "loopback"),
        ("0.0.0.0", "unspecified"),
        ("[::]", "unspecified"),
        ("10.0.0.1", "private"),
        ("192.168.1.1", "private"),
        ("169.254.169.254", "metadata"),
        ("168.63.129.16", "metadata"),
        ("100.100.100.200", "metadata"),
        ("[fd00:ec2::254]", "metadata"),
        ("[fd12::1]", "unique_local"),
        ("[fe80::1]", "link_local"),
        ("224.0.0.1", "multicast"),
        ("255.255.255.255", "broadcast"),
    ] {
        let error = client.send(get(&format!("http://{host}:{port}/"), Origin::Untrusted)).await.unwrap_err();
        let got = match &error {
            Error::AddressRefused { class, .. } => class.name(),
            other => other.code(),
        };
        assert_eq!(got, class, "{host}");
    }
    assert_eq!(taken.load(Ordering::SeqCst), 0, "connections");
    // What the operator writes is taken as written.
    for host in ["127.0.0.1", "2130706433", "localhost", "LOCALHOST."] {
        assert_eq!(
            outcome(&client, get(&format!("http://{host}:{port}/"), Origin::Operator)).await,
            "inside",
            "{host}"
        );
    }
    let named = get(&format!("http://user:word@93.184.215.14:{port}/"), Origin::Untrusted);
    assert_eq!(outcome(&client, named).await, "net_bad_url");
}

#[tokio::test]
async fn an_answer_that_mixes_good_and_bad_addresses_is_refused() {
    let names = Names::of(&[
        ("mixed.test", &["93.184.215.14", "10.0.0.1"]),
        ("mapped.test", &["2606:4700::1111", "::ffff:192.168.0.1"]),
    ]);
    let client = Client::with_lookup(Settings::default(), names).unwrap();
    for host in ["mixed.test", "mapped.test"] {
        assert_eq!(
            outcome(&client, get(&format!("http://{host}/"), Origin::Untrusted)).await,
            "net_address_refused",
            "{host}"
        );
    }
}

#[tokio::test]
async fn the_address_judged_is_the_address_dialled() {
    let (address, taken) = server::serve(app()).await;
    // The second answer leads elsewhere: whoever asks twice, once to judge and once to dial, would follow it.
    let names = Names::of(&[("rebind.test", &["127.0.0.1"]), ("rebind.test", &["10.9.9.9"])]);
    let client = lenient(names.clone());
    let url = format!("http://rebind.test:{}/", address.port());
    assert_eq!(outcome(&client, get(&url, Origin::Untrusted)).await, "inside");
    assert_eq!((names.asked.load(Ordering::SeqCst), taken.load(Ordering::SeqCst)), (1, 1));
    assert_eq!(outcome(&client, get(&url, Origin::Untrusted)).await, "net_address_refused");
    assert_eq!((names.asked.load(Ordering::SeqCst), taken.load(Ordering::SeqCst)), (2, 1));
}

#[tokio::test]
async fn a_connection_made_on_the_operators_word_is_not_lent_to_others() {
    let (address, _) = server::serve(Router::new().route("/", on_get(|| async { "inside" }))).await;
    let client = Client::new(Settings::default()).unwrap();
    let url = format!("http://localhost:{}/", address.port());
    assert_eq!(outcome(&client, get(&url, Origin::Operator)).await, "inside");
    assert_eq!(outcome(&client, get(&url, Origin::Untrusted)).await, "net_address_refused");
}

#[tokio::test]
async fn an_own_public_address_is_refused() {
    // Connecting a datagram socket sends nothing; it shows which address this machine would send from.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let own = socket.connect("93.184.215.14:53").and_then(|()| socket.local_addr());
    let Ok(own) = own else {
        assert!(std::env::var_os("CI").is_none(), "this machine has no address but loopback");
        eprintln!("SKIPPED an_own_public_address_is_refused: this machine has no address but loopback");
        return;
    };
    let client = Client::new(Settings::default()).unwrap();
    assert_eq!(outcome(&client, get(&format!("http://{}/", own.ip()), Origin::Untrusted)).await, "net_address_refused");
}
