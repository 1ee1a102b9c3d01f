//! TLS towards a collector.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// The files that are used for TLS, read again for each connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TlsFiles {
    /// The authorities that may sign the collector's certificate; otherwise those of the machine.
    pub(super) ca: Option<PathBuf>,
    /// The certificate to authenticate with, and its key.
    pub(super) client: Option<(PathBuf, PathBuf)>,
}

impl TlsFiles {
    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// If one can't be read or used.
    pub(super) fn client_config(
        &self,
        protocol: &[u8],
    ) -> Result<ClientConfig, Box<dyn Error + Send + Sync>> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(file) => {
                for cert in certs(file)? {
                    roots.add(cert).map_err(|error| named(file, error))?;
                }
            }
            None => {
                let (added, _) =
                    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if added == 0 {
                    let why = "this machine trusts no authority; set OTEL_EXPORTER_OTLP_CERTIFICATE to a file with one";
                    return Err(why.into());
                }
            }
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match &self.client {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let private = PrivateKeyDer::from_pem_file(key).map_err(|error| named(key, error))?;
                builder.with_client_auth_cert(certs(cert)?, private).map_err(|error| named(cert, error))?
            }
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(config)
    }
}

/// The certificates of a file, at least one.
fn certs(file: &Path) -> Result<Vec<CertificateDer<'static>>, Box<dyn Error + Send + Sync>> {
    let certs = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certs = certs.map_err(|error| named(file, error))?;
    if certs.is_empty() { Err(named(file, "no certificate in PEM")) } else { Ok(certs) }
}

fn named(file: &Path, why: impl std::fmt::Display) -> Box<dyn Error + Send + Sync> {
    format!("{}: {why}", file.display()).into()
}
