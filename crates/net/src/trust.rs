//! Whom TLS trusts: the system's roots and the operator's own. The system's store is read at the first handshake, not at
//! start: most runs of the program never need it, and a machine without one can still talk to plain services.

use crate::Error;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_platform_verifier::Verifier;
use std::sync::{Arc, OnceLock};

/// The TLS configuration of a client that speaks no HTTP (a database's driver) and trusts the system's roots and those in
/// `ca_pem`, PEM. It checks chain and name, always.
pub fn tls(ca_pem: Option<&[u8]>) -> Result<ClientConfig, Error> {
    let mut configuration = configuration(ca_pem)?;
    configuration.alpn_protocols.clear();
    Ok(configuration)
}

/// The TLS configuration of a client that trusts the system's roots and those in `ca_pem`.
pub(crate) fn configuration(ca_pem: Option<&[u8]>) -> Result<ClientConfig, Error> {
    let settings = |reason: String| Error::Settings { reason };
    let provider = Arc::new(ring::default_provider());
    let verifier = LazyVerifier {
        extra_roots: roots(ca_pem)?,
        algorithms: provider.signature_verification_algorithms,
        provider: provider.clone(),
        loaded: OnceLock::new(),
    };
    let mut configuration = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| settings(error.to_string()))?
        .dangerous() // The name of the builder's door to any verifier but its own; ours ends in the platform's.
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    configuration.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(configuration)
}

fn roots(ca_pem: Option<&[u8]>) -> Result<Vec<CertificateDer<'static>>, Error> {
    let Some(pem) = ca_pem else { return Ok(Vec::new()) };
    let bad = |reason: String| Error::Settings { reason: format!("the CA file holds no usable certificate: {reason}") };
    let found =
        CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|error| bad(error.to_string()))?;
    if found.is_empty() {
        return Err(bad("no `BEGIN CERTIFICATE` in it".into()));
    }
    let mut store = rustls::RootCertStore::empty();
    for certificate in &found {
        store.add(certificate.clone()).map_err(|error| bad(error.to_string()))?;
    }
    Ok(found)
}

#[derive(Debug)]
struct LazyVerifier {
    extra_roots: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
    provider: Arc<CryptoProvider>,
    loaded: OnceLock<Result<Verifier, rustls::Error>>,
}

impl LazyVerifier {
    fn verifier(&self) -> Result<&Verifier, rustls::Error> {
        let load = || Verifier::new_with_extra_roots(self.extra_roots.iter().cloned(), self.provider.clone());
        self.loaded.get_or_init(load).as_ref().map_err(Clone::clone)
    }
}

impl ServerCertVerifier for LazyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verifier()?.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
