//! The configuration of a TLS server over a [`CertStore`], whose content may change at any time.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};

use crate::store::CertStore;

/// A server's configuration: TLS 1.2 and 1.3, these certificates, these protocols by ALPN (best first). Session tickets
/// are encrypted with keys that change every six hours and outlive every [`CertStore::reload`]. If clients are asked for
/// a certificate, no session is resumed: that would skip the check.
///
/// # Errors
/// [`rustls::Error`] if the random number generator fails.
pub fn server_config(store: Arc<CertStore>, alpn: &[&[u8]]) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(store.provider.clone());
    let builder = builder.with_safe_default_protocol_versions()?;
    let mut config = match &store.client_ca {
        None => {
            let mut config = builder.with_no_client_auth().with_cert_resolver(store);
            config.ticketer = ring::Ticketer::new()?;
            config
        }
        Some(ca) => {
            let verifier = CurrentVerifier { required: ca.required, store: store.clone() };
            let builder = builder.with_client_cert_verifier(Arc::new(verifier));
            let mut config = builder.with_cert_resolver(store);
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            config
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// The verifier that the store has at the moment.
#[derive(Debug)]
struct CurrentVerifier {
    store: Arc<CertStore>,
    required: bool,
}

impl CurrentVerifier {
    fn current(&self) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
        self.store.client_verifier().ok_or_else(|| rustls::Error::General("no CA for clients".to_owned()))
    }
}

impl ClientCertVerifier for CurrentVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    /// None, which means any: the list must outlive the bundle that it is from.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.current()?.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.current()?.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.current()?.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.current().map(|verifier| verifier.supported_verify_schemes()).unwrap_or_default()
    }
}
