//! Certificates of clients: which CAs they must come from, and whether a client needs one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use crate::cert::CertError;

/// Where certificates of clients come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCa {
    /// One or more CA certificates in PEM.
    pub file: PathBuf,
    /// Whether a client without a certificate is refused.
    pub required: bool,
}

/// Verifies clients against the CAs in `bundle`, the content of `file`.
pub(crate) fn verifier(
    file: &Path,
    required: bool,
    bundle: &[u8],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, CertError> {
    let invalid = |why: String| CertError::new(file, why);
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(bundle) {
        let cert = cert.map_err(|error| invalid(format!("invalid PEM: {error}")))?;
        roots.add(cert).map_err(|error| invalid(format!("an invalid CA certificate: {error}")))?;
    }
    if roots.is_empty() {
        return Err(invalid("no certificate in PEM (-----BEGIN CERTIFICATE-----)".to_owned()));
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let builder = if required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| invalid(error.to_string()))
}
