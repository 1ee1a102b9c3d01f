//! What an identity consists of, as the verifiers of both ends see it.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;

use crate::cert::{self, Cert, CertError, CertFiles};
use crate::watched::{Watched, read};

/// Where an identity is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The certificate and its key.
    pub own: CertFiles,
    /// The authorities that are trusted, one or several.
    pub ca: PathBuf,
}

/// The content of certificate, key and authorities.
pub(super) type IdentityContent = [Vec<u8>; 3];

impl IdentityFiles {
    pub(super) fn read(&self) -> Result<IdentityContent, CertError> {
        Ok([read(&self.own.cert)?, read(&self.own.key)?, read(&self.ca)?])
    }
}

/// What is in use, for verifiers that outlive it.
#[derive(Debug)]
pub(super) struct IdentityState {
    pub(super) domain: &'static str,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) current: Watched<LoadedIdentity, IdentityContent>,
}

impl IdentityState {
    /// The names in a certificate.
    pub(super) fn names_in(&self, der: &CertificateDer<'_>) -> Vec<String> {
        in_domain(self.domain, cert::uris(der))
    }
}

/// The content of the files.
#[derive(Debug)]
pub(super) struct LoadedIdentity {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) names: Vec<String>,
    pub(super) roots: Arc<RootCertStore>,
    pub(super) clients: Arc<dyn ClientCertVerifier>,
    pub(super) not_after: i64,
}

impl LoadedIdentity {
    pub(super) fn parse(
        files: &IdentityFiles,
        domain: &str,
        [cert, key, ca]: &IdentityContent,
        provider: &Arc<CryptoProvider>,
        now: i64,
    ) -> Result<Self, CertError> {
        let Cert { key, uris, not_after, .. } = Cert::parse(&files.own, cert, key, provider, now)?;
        let of_cert = |why: String| CertError::new(&files.own.cert, why);
        let of_ca = |why: String| CertError::new(&files.ca, why);
        let names = in_domain(domain, uris);
        if names.is_empty() {
            return Err(of_cert(format!("the certificate has no name of the form {domain}NAME (a URI)")));
        }
        let (authorities, last) = cert::authorities(&files.ca, ca, now)?;
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority).map_err(|error| of_ca(format!("not an authority: {error}")))?;
        }
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
        let clients = clients.map_err(|error| of_ca(error.to_string()))?;
        // An authority that was replaced too early would be noticed by the others only.
        if let [leaf, chain @ ..] = &*key.cert {
            let checked = clients.verify_client_cert(leaf, chain, UnixTime::now());
            checked.map_err(|error| {
                of_cert(format!("no authority in {} vouches for it: {error}", files.ca.display()))
            })?;
        }
        Ok(Self { key: Arc::new(key), names, roots, clients, not_after: not_after.min(last) })
    }
}

fn in_domain(domain: &str, uris: Vec<String>) -> Vec<String> {
    let names = uris.iter().filter_map(|uri| uri.strip_prefix(domain)).filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}
