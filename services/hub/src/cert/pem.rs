//! PEM files: read with a bound, and errors that tell what a file has instead.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Longest file, in bytes: a bundle of some hundred certificates.
const MAX_FILE: u64 = 256 << 10;

/// The content of a file.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut content));
    read.with_context(|| format!("can't read {}", path.display()))?;
    if content.len() as u64 > MAX_FILE {
        bail!("{} is longer than {MAX_FILE} bytes", path.display());
    }
    Ok(content)
}

/// All certificates of a file; at least one.
pub(super) fn certificates(path: &Path, content: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let path = path.display();
    let certs = CertificateDer::pem_slice_iter(content).collect::<Result<Vec<_>, _>>();
    let certs = certs.map_err(|error| anyhow!("{path} is not valid PEM: {error}"))?;
    if certs.is_empty() {
        let text = String::from_utf8_lossy(content);
        if text.trim().is_empty() {
            bail!("{path} is empty");
        } else if is_der(content) {
            bail!("{path} is DER, not PEM; convert it: openssl x509 -inform der -in {path} -out FILE");
        } else if text.contains("PRIVATE KEY-----") {
            bail!("{path} has a private key and no certificate");
        }
        bail!("{path} has no certificate in PEM (-----BEGIN CERTIFICATE-----)");
    }
    Ok(certs)
}

/// The first certificate of a valid file, as it is written there.
pub(super) fn first(content: &[u8]) -> String {
    const END: &str = "-----END CERTIFICATE-----";
    let text = String::from_utf8_lossy(content);
    let begin = text.find("-----BEGIN CERTIFICATE-----").unwrap_or_default();
    let text = &text[begin..];
    text.split_inclusive(END).next().unwrap_or_default().to_owned() + "\n"
}

/// The private key of a file.
pub(super) fn private_key(path: &Path, content: &[u8]) -> anyhow::Result<PrivateKeyDer<'static>> {
    let path = path.display();
    if String::from_utf8_lossy(content).contains("ENCRYPTED") {
        bail!("{path} is encrypted; decrypt it (openssl pkey), and let only its service read it");
    }
    PrivateKeyDer::from_pem_slice(content).map_err(|_| {
        if is_der(content) {
            anyhow!("{path} is DER, not PEM; convert it: openssl pkey -inform der -in {path} -out FILE")
        } else {
            anyhow!("{path} has no private key in PEM (-----BEGIN PRIVATE KEY-----)")
        }
    })
}

/// Whether this begins as a certificate or key in DER does: with a long ASN.1 sequence.
fn is_der(content: &[u8]) -> bool {
    matches!(content, [0x30, 0x81 | 0x82, ..])
}
