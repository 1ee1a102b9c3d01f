//! What a certificate says. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::anyhow;
use jiff::Timestamp;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Name};

use crate::text::one_line;

/// Longest name that is shown, in characters.
const MAX_NAME: usize = 200;

/// A certificate's content, as text that is safe on a terminal.
#[derive(Debug)]
pub(super) struct Details {
    pub(super) subject: String,
    /// The names that it is for, beside the subject: URIs, DNS names, IP addresses.
    pub(super) names: Vec<String>,
    pub(super) issuer: String,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    pub(super) key: String,
    pub(super) is_ca: bool,
}

impl Details {
    /// # Errors
    /// If it is not a certificate.
    pub(super) fn parse(der: &CertificateDer<'_>) -> anyhow::Result<Self> {
        let cert = parse(der)?;
        let time = |seconds| Timestamp::from_second(seconds).map_err(|_| anyhow!("an invalid validity"));
        let extension = cert.subject_alternative_name().ok().flatten();
        let names = extension.iter().flat_map(|extension| &extension.value.general_names);
        Ok(Self {
            subject: name(cert.subject()),
            names: names.map(|name| one_line(&alternative_name(name), MAX_NAME)).collect(),
            issuer: name(cert.issuer()),
            not_before: time(cert.validity().not_before.timestamp())?,
            not_after: time(cert.validity().not_after.timestamp())?,
            key: key_kind(cert.public_key()),
            is_ca: cert.is_ca(),
        })
    }
}

/// Whether the holder of `issuer` has signed `cert`.
pub(super) fn is_signed_by(cert: &CertificateDer<'_>, issuer: &CertificateDer<'_>) -> bool {
    let (Ok(cert), Ok(issuer)) = (parse(cert), parse(issuer)) else { return false };
    cert.issuer().as_raw() == issuer.subject().as_raw()
        && cert.verify_signature(Some(issuer.public_key())).is_ok()
}

/// Whether this is the private key of `cert`.
///
/// # Errors
/// If the key's kind is not supported.
pub(super) fn is_key_of(key: &PrivateKeyDer<'_>, cert: &CertificateDer<'_>) -> anyhow::Result<bool> {
    let key = any_supported_type(key)?;
    let public = key.public_key().ok_or_else(|| anyhow!("has no public key"))?;
    Ok(public.as_ref() == parse(cert)?.public_key().raw)
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> anyhow::Result<X509Certificate<'a>> {
    X509Certificate::from_der(der).map(|(_, cert)| cert).map_err(|_| anyhow!("an invalid certificate"))
}

/// The common name if that is all there is, else the whole name.
fn name(name: &X509Name<'_>) -> String {
    let mut parts = name.iter_attributes();
    let only = (parts.next(), parts.next());
    let common = name.iter_common_name().next().and_then(|name| name.as_str().ok());
    match (only, common) {
        ((Some(_), None), Some(common)) => one_line(common, MAX_NAME),
        _ => one_line(&name.to_string(), MAX_NAME),
    }
}

fn alternative_name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => {
            (*name).to_owned()
        }
        GeneralName::IPAddress(bytes) => match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
            (Ok(v4), _) => Ipv4Addr::from(v4).to_string(),
            (_, Ok(v6)) => Ipv6Addr::from(v6).to_string(),
            _ => "an invalid IP address".to_owned(),
        },
        name => name.to_string(),
    }
}

fn key_kind(key: &SubjectPublicKeyInfo<'_>) -> String {
    match key.parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA, {} bits", key.key_size()),
        // The point's coordinates are rounded up to whole bytes.
        Ok(PublicKey::EC(point)) if point.key_size() == 528 => "ECDSA P-521".to_owned(),
        Ok(PublicKey::EC(point)) => format!("ECDSA P-{}", point.key_size()),
        _ if key.algorithm.algorithm.to_id_string() == "1.3.101.112" => "Ed25519".to_owned(),
        _ => format!("of the kind {}", key.algorithm.algorithm.to_id_string()),
    }
}
