//! Certificates for tests of mutual TLS.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};

/// An authority.
pub struct TestCa(CertifiedIssuer<'static, KeyPair>);

/// The files of an identity: `tls.crt`, `tls.key` and `ca.crt` in one folder, as in a Secret of cert-manager.
#[derive(Debug, Clone)]
pub struct IdentityPaths {
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The trusted authorities.
    pub ca: PathBuf,
}

impl IdentityPaths {
    /// Those in a folder.
    pub fn in_folder(folder: &Path) -> Self {
        Self { cert: folder.join("tls.crt"), key: folder.join("tls.key"), ca: folder.join("ca.crt") }
    }
}

/// When a certificate begins to be valid and when it ends, from now.
pub type Validity = (i64, i64);

/// Valid since an hour ago, for a day.
pub const DAY: Validity = (-3600, 86_400);

impl TestCa {
    /// An authority with a new key.
    #[allow(clippy::new_without_default, reason = "two are never alike")]
    pub fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        set_validity(&mut params, DAY);
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// Its certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// The PEM of a certificate with these URIs, and of its key.
    pub fn issue(&self, uris: &[&str], valid: Validity) -> (String, String) {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        set_validity(&mut params, valid);
        let cert = params.signed_by(&key, &self.0).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    /// Writes the identity of a member of these services, which trusts this authority, to a folder.
    pub fn identity(&self, folder: &Path, names: &[&str]) -> IdentityPaths {
        self.identity_with(folder, names, DAY, &[self])
    }

    /// [`Self::identity`] with another validity, and other authorities that are trusted.
    pub fn identity_with(
        &self,
        folder: &Path,
        names: &[&str],
        valid: Validity,
        trusted: &[&Self],
    ) -> IdentityPaths {
        let uris: Vec<_> = names.iter().map(|name| format!("spiffe://hubspoke/{name}")).collect();
        let uris: Vec<_> = uris.iter().map(String::as_str).collect();
        let (cert, key) = self.issue(&uris, valid);
        std::fs::create_dir_all(folder).unwrap();
        let paths = IdentityPaths::in_folder(folder);
        // The key last, as others write them: for a moment the set is a broken one.
        std::fs::write(&paths.ca, trusted.iter().map(|ca| ca.pem()).collect::<String>()).unwrap();
        std::fs::write(&paths.cert, cert).unwrap();
        std::fs::write(&paths.key, key).unwrap();
        paths
    }
}

fn set_validity(params: &mut CertificateParams, (begins, ends): Validity) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let at =
        |from_now: i64| date_time_ymd(1970, 1, 1) + Duration::from_secs(now.saturating_add_signed(from_now));
    (params.not_before, params.not_after) = (at(begins), at(ends));
}
