//! TLS for probes: the system's roots, or none where the operator says so.

use std::sync::{Arc, OnceLock};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

/// Makes ring the process' crypto provider, for crates that ask for the process' own.
pub fn use_ring() {
    // A second call finds it installed: that is what was wanted.
    let _already = ring::default_provider().install_default();
}

/// Whose certificates are taken; and the configurations of clients, each made when first needed.
#[derive(Default)]
pub struct Trust {
    /// `None`: the system's.
    roots: Option<RootCertStore>,
    clients: [OnceLock<Arc<ClientConfig>>; 4],
}

/// What is spoken under TLS.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Nothing is agreed on.
    Any,
    Http2,
}

impl Trust {
    /// Only these.
    #[cfg(test)]
    pub fn only(roots: RootCertStore) -> Self {
        Trust { roots: Some(roots), ..Trust::default() }
    }

    pub fn client(&self, skip_verify: bool, protocol: Protocol) -> Arc<ClientConfig> {
        let at = usize::from(skip_verify) + 2 * usize::from(protocol == Protocol::Http2);
        self.clients[at].get_or_init(|| Arc::new(self.make(skip_verify, protocol))).clone()
    }

    fn make(&self, skip_verify: bool, protocol: Protocol) -> ClientConfig {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("ring has suites for the versions that rustls speaks");
        let mut config = if skip_verify {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Trusting(provider)))
                .with_no_client_auth()
        } else {
            builder
                .with_root_certificates(self.roots.clone().unwrap_or_else(system_roots))
                .with_no_client_auth()
        };
        // Each look is a stranger's: a session taken up again would not show a certificate that ran out.
        config.resumption = Resumption::disabled();
        if protocol == Protocol::Http2 {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        config
    }
}

/// Read once, since that takes some 10 ms.
fn system_roots() -> RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    let read = || {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots
    };
    ROOTS.get_or_init(read).clone()
}

/// Takes any certificate: `tls_skip_verify` asks for just that.
#[derive(Debug)]
struct Trusting(Arc<CryptoProvider>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
