//! Whom TLS trusts: an authority of the operator's, nobody unknown, and no certificate of another name.

use crate::server::{Names, answer, get, head, outcome};
use net::{Client, Origin, Settings};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// A certificate authority made for a test.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }
}

/// A server that proves to be `name` and answers `over tls`.
pub(crate) async fn serve(authority: &Authority, name: &str) -> SocketAddr {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &authority.0).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await?;
                head(&mut stream).await?;
                answer(&mut stream, "over tls").await
            });
        }
    });
    address
}

#[tokio::test]
async fn an_authority_is_trusted_when_the_operator_says_so() {
    let (known, unknown) = (Authority::new(), Authority::new());
    let good = serve(&known, "service.test").await;
    let stranger = serve(&unknown, "service.test").await;
    let names = || Names::of(&[("service.test", &["127.0.0.1"]), ("other.test", &["127.0.0.1"])]);
    let settings = Settings { ca_pem: Some(known.pem()), ..Settings::default() };
    let client = Client::with_lookup(settings, names()).unwrap();
    let plain = Client::with_lookup(Settings::default(), names()).unwrap();
    for (client, host, address, expected) in [
        (&client, "service.test", good, "over tls"),
        (&client, "other.test", good, "net_tls"),
        (&client, "service.test", stranger, "net_tls"),
        (&plain, "service.test", good, "net_tls"),
    ] {
        let url = format!("https://{host}:{}/", address.port());
        assert_eq!(outcome(client, get(&url, Origin::Operator)).await, expected, "{url}");
    }
}

#[test]
fn a_ca_file_without_a_certificate_is_refused() {
    for pem in ["", "no pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let settings = Settings { ca_pem: Some(pem.into()), ..Settings::default() };
        assert_eq!(Client::new(settings).unwrap_err().code(), "net_settings", "{pem:?}");
    }
}
