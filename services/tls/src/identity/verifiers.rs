//! The checks of both ends, against what is in use at the time of the handshake.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme};

use super::loaded::IdentityState;

/// The certificate of the other end has another name than the one that was expected.
#[derive(Debug, thiserror::Error)]
#[error("the other end's certificate is for {found}, not for {expected}")]
struct WrongName {
    found: String,
    expected: String,
}

/// The process's certificate, as a server and as a client.
#[derive(Debug)]
pub(super) struct OwnCertificate(pub(super) Arc<IdentityState>);

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current.get().key.clone())
    }
}

impl ResolvesClientCert for OwnCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current.get().key.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Accepts clients of trusted authorities that have a name in the domain.
#[derive(Debug)]
pub(super) struct ClientVerifier(pub(super) Arc<IdentityState>);

impl ClientCertVerifier for ClientVerifier {
    /// None: a client has one certificate, and the authorities may change while this is borrowed.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.current.get().clients.verify_client_cert(end_entity, intermediates, now)?;
        if self.0.names_in(end_entity).is_empty() {
            return Err(wrong_name(&[], "a member"));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signature, &self.0.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.0.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Accepts a server of a trusted authority that has one of the expected names.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    pub(super) state: Arc<IdentityState>,
    pub(super) expected: Vec<String>,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let algorithms = self.state.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.state.current.get().roots,
            intermediates,
            now,
            algorithms,
        )?;
        let names = self.state.names_in(end_entity);
        if names.iter().any(|name| self.expected.contains(name)) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(wrong_name(&names, &self.expected.join(" or ")))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            signature,
            &self.state.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            signature,
            &self.state.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.state.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn wrong_name(found: &[String], expected: &str) -> Error {
    let found = if found.is_empty() { "nobody here".to_owned() } else { found.join(", ") };
    let wrong = WrongName { found, expected: expected.to_owned() };
    Error::Other(OtherError(Arc::new(wrong)))
}
