//! Proxies: used where they should be, tunnelled through for https, and no way around the vetting.

use crate::server::{self, Names, answer, get, outcome};
use crate::tls;
use net::{Client, Origin, Settings};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;

/// A proxy that answers plain requests itself and tunnels every CONNECT to `tunnel`; it keeps what it was asked.
async fn proxy(tunnel: Option<SocketAddr>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heads = asked.clone();
    let address = server::raw(move |mut stream: TcpStream, head: String| {
        let line = head.lines().next().unwrap().to_owned();
        let auth = head.to_lowercase().contains("proxy-authorization: basic dTpw".to_lowercase().as_str());
        heads.lock().unwrap().push(if auth { format!("{line} +auth") } else { line.clone() });
        async move {
            if !line.starts_with("CONNECT ") {
                return answer(&mut stream, "by proxy").await;
            }
            let Some(tunnel) = tunnel else { return Err(io::Error::other("no tunnel here")) };
            #[expect(clippy::disallowed_methods, reason = "this is the test's proxy, not the program")]
            let mut onward = TcpStream::connect(tunnel).await?;
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
            copy_bidirectional(&mut stream, &mut onward).await.map(|_| ())
        }
    })
    .await;
    (address, asked)
}

#[tokio::test]
async fn plain_requests_go_through_the_proxy_unless_excepted() {
    let (address, asked) = proxy(None).await;
    let direct = server::raw(|mut stream, _| async move { answer(&mut stream, "direct").await }).await;
    let settings = Settings {
        http_proxy: Some(format!("http://u:p@{address}")),
        no_proxy: Some("127.0.0.1, .inner.test, bare.test, 10.0.0.0/8".into()),
        ..Settings::default()
    };
    let names = Names::of(&[("a.inner.test", &["127.0.0.1"]), ("bare.test", &["127.0.0.1"])]);
    let client = Client::with_lookup(settings, names).unwrap();
    let port = direct.port();
    for (url, expected) in [
        ("http://far.test/x?y=1".to_owned(), "by proxy"),
        (format!("http://127.0.0.1:{port}/"), "direct"),
        (format!("http://a.inner.test:{port}/"), "direct"),
        (format!("http://bare.test:{port}/"), "direct"),
    ] {
        assert_eq!(outcome(&client, get(&url, Origin::Operator)).await, expected, "{url}");
    }
    assert_eq!(*asked.lock().unwrap(), ["GET http://far.test/x?y=1 HTTP/1.1 +auth"]);
}

#[tokio::test]
async fn https_is_tunnelled_and_still_verified() {
    let authority = tls::Authority::new();
    let far = tls::serve(&authority, "far.test").await;
    let (address, asked) = proxy(Some(far)).await;
    let settings = |ca_pem| Settings { https_proxy: Some(format!("http://{address}")), ca_pem, ..Settings::default() };
    let client = Client::with_lookup(settings(Some(authority.pem())), Names::of(&[])).unwrap();
    assert_eq!(outcome(&client, get("https://far.test/", Origin::Operator)).await, "over tls");
    assert_eq!(*asked.lock().unwrap(), ["CONNECT far.test:443 HTTP/1.1"]);
    let other = tls::Authority::new();
    let client = Client::with_lookup(settings(Some(other.pem())), Names::of(&[])).unwrap();
    assert_eq!(outcome(&client, get("https://far.test/", Origin::Operator)).await, "net_tls");
}

#[tokio::test]
async fn a_proxy_is_no_way_around_the_vetting() {
    let (address, asked) = proxy(None).await;
    let settings = Settings { http_proxy: Some(format!("http://{address}")), ..Settings::default() };
    let names = Names::of(&[("inside.test", &["10.0.0.1"]), ("public.test", &["93.184.215.14"])]);
    let client = Client::with_lookup(settings, names).unwrap();
    for (url, expected) in [
        ("http://inside.test/", "net_address_refused"),
        ("http://127.0.0.1/", "net_address_refused"),
        ("http://169.254.169.254/", "net_address_refused"),
        ("http://unknown.test/", "net_resolve"),
        ("http://public.test/", "by proxy"),
    ] {
        assert_eq!(outcome(&client, get(url, Origin::Untrusted)).await, expected, "{url}");
    }
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[test]
fn a_malformed_proxy_is_refused_without_being_shown() {
    let settings = Settings { http_proxy: Some("http://u:secret@[".into()), ..Settings::default() };
    let error = Client::new(settings).unwrap_err();
    assert_eq!(error.code(), "net_settings");
    assert!(!error.to_string().contains("secret"), "{error}");
}
