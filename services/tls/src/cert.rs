//! One certificate with its chain and key, from the text of two PEM files.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Longest file, in bytes: a chain of a dozen certificates.
pub(crate) const MAX_FILE: u64 = 256 << 10;

/// Where a certificate and its key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertFiles {
    /// The certificate, followed by its chain.
    pub cert: PathBuf,
    /// Its key, not encrypted.
    pub key: PathBuf,
    /// Whether it is left out if it is missing or can't be used: it is still to come.
    pub may_be_missing: bool,
}

impl CertFiles {
    /// The files in a folder: `tls.crt` and `tls.key`, as in a Kubernetes Secret, or else `fullchain.pem` and
    /// `privkey.pem`, as ACME clients name them.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        let is_acme = !folder.join("tls.crt").exists() && folder.join("fullchain.pem").exists();
        let (cert, key) = if is_acme { ("fullchain.pem", "privkey.pem") } else { ("tls.crt", "tls.key") };
        Self { cert: folder.join(cert), key: folder.join(key), may_be_missing: false }
    }

    /// A file with certificate, chain and key, which may be missing as yet.
    #[must_use]
    pub fn in_one_that_may_be_missing(file: PathBuf) -> Self {
        Self { cert: file.clone(), key: file, may_be_missing: true }
    }
}

/// Why a certificate can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", file.display())]
pub struct CertError {
    file: PathBuf,
    why: String,
}

impl CertError {
    pub(crate) fn new(file: &Path, why: impl Into<String>) -> Self {
        Self { file: file.to_owned(), why: why.into() }
    }
}

/// A certificate that can be used.
#[derive(Debug)]
pub(crate) struct Cert {
    pub(crate) key: CertifiedKey,
    /// DNS names in lower case, where `*.SUFFIX` is one label more, and IP addresses as text.
    pub(crate) names: Vec<String>,
    /// Names that are URIs.
    pub(crate) uris: Vec<String>,
    /// When the first certificate of the chain ends, in seconds since 1970.
    pub(crate) not_after: i64,
}

impl Cert {
    /// Checks that both are PEM, belong together, and that every certificate is valid at `now`, in seconds since 1970.
    pub(crate) fn parse(
        files: &CertFiles,
        cert: &[u8],
        key: &[u8],
        provider: &CryptoProvider,
        now: i64,
    ) -> Result<Self, CertError> {
        let of_cert = |why: String| CertError::new(&files.cert, why);
        let of_key = |why: &str| CertError::new(&files.key, why);
        let chain = CertificateDer::pem_slice_iter(cert).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| of_cert(format!("invalid PEM: {error}")))?;
        let Some(leaf) = chain.first() else {
            return Err(of_cert("no certificate in PEM (-----BEGIN CERTIFICATE-----)".to_owned()));
        };
        let leaf = leaf.clone();
        let (_, parsed) =
            X509Certificate::from_der(&leaf).map_err(|_| of_cert("an invalid certificate".to_owned()))?;
        let (names, uris) = names(&parsed);
        let mut not_after = i64::MAX;
        for der in &chain {
            let (_, link) =
                X509Certificate::from_der(der).map_err(|_| of_cert("an invalid certificate".to_owned()))?;
            let validity = link.validity();
            if validity.not_before.timestamp() > now {
                return Err(of_cert(format!("not valid before {}", validity.not_before)));
            }
            if validity.not_after.timestamp() <= now {
                return Err(of_cert(format!("expired on {}", validity.not_after)));
            }
            not_after = not_after.min(validity.not_after.timestamp());
        }
        let text = String::from_utf8_lossy(key);
        if text.contains("ENCRYPTED") {
            return Err(of_key("the key is encrypted; decrypt it, and let only this process read it"));
        }
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| of_key("no private key in PEM (-----BEGIN PRIVATE KEY-----)"))?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                of_key(&format!("the key is not that of the certificate {}", files.cert.display()))
            }
            error => of_key(&format!("the key can't be used: {error}")),
        })?;
        Ok(Self { key, names, uris, not_after })
    }
}

/// From when and until when a certificate in PEM is valid, the first if there are several; in seconds since 1970.
pub fn validity(pem: &[u8]) -> Option<(i64, i64)> {
    let der = CertificateDer::pem_slice_iter(pem).next()?.ok()?;
    let (_, cert) = X509Certificate::from_der(&der).ok()?;
    Some((cert.validity().not_before.timestamp(), cert.validity().not_after.timestamp()))
}

/// The DNS names, in lower case, with the IP addresses, and the URIs of a certificate.
fn names(cert: &X509Certificate<'_>) -> (Vec<String>, Vec<String>) {
    let extension = cert.subject_alternative_name().ok().flatten();
    let (mut names, mut uris) = (Vec::new(), Vec::new());
    for name in extension.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::DNSName(name) => names.push(name.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => names.extend(ip_address(bytes).map(|ip| ip.to_string())),
            GeneralName::URI(uri) => uris.push((*uri).to_owned()),
            _ => {}
        }
    }
    (names, uris)
}

/// The URIs of a certificate in DER; none if it is invalid.
pub(crate) fn uris(der: &CertificateDer<'_>) -> Vec<String> {
    X509Certificate::from_der(der).map(|(_, cert)| names(&cert).1).unwrap_or_default()
}

/// The certificates of authorities in a PEM file that are valid at `now`, and when the last of them ends. Those that have
/// expired are left out: a bundle holds the old and the new one while they change.
pub(crate) fn authorities(
    file: &Path,
    pem: &[u8],
    now: i64,
) -> Result<(Vec<CertificateDer<'static>>, i64), CertError> {
    let invalid = |why: String| CertError::new(file, why);
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|error| invalid(format!("invalid PEM: {error}")))?;
    if all.is_empty() {
        return Err(invalid("no certificate in PEM (-----BEGIN CERTIFICATE-----)".to_owned()));
    }
    let (mut valid, mut not_after) = (Vec::new(), i64::MIN);
    for der in &all {
        let (_, cert) =
            X509Certificate::from_der(der).map_err(|_| invalid("an invalid certificate".to_owned()))?;
        let ends = cert.validity().not_after.timestamp();
        if ends > now {
            valid.push(der.clone());
        }
        not_after = not_after.max(ends);
    }
    if valid.is_empty() {
        return Err(invalid("all certificates in it have expired".to_owned()));
    }
    Ok((valid, not_after))
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
