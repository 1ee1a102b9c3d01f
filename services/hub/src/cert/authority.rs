//! A certificate authority: makes itself, and signs certificates. Keys are ECDSA P-256. Pure, but for randomness.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use jiff::{SignedDuration, Timestamp};
use rand::RngExt as _;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, DnsName, PrivateKeyDer};

use super::details::{Details, is_key_of, is_signed_by};
use super::pem;

/// What the URI of an identity begins with.
const IDENTITY: &str = "spiffe://hubspoke/";
/// How long before now a certificate's validity begins: clocks differ.
const CLOCK_SKEW: Duration = Duration::from_secs(300);
/// The lifetime of an authority: ten years.
pub(crate) const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3650 * 86_400);
/// The longest lifetime.
const MAX_LIFETIME: Duration = Duration::from_secs(100 * 366 * 86_400);

/// A host that a certificate is for, beside its identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Host {
    /// A DNS name, perhaps `*.` and a domain.
    Dns(String),
    /// An IP address.
    Ip(IpAddr),
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse() {
            return Ok(Self::Ip(ip));
        }
        let name = text.to_ascii_lowercase();
        let domain = name.strip_prefix("*.");
        if domain.is_some_and(|domain| !domain.contains('.')) {
            return Err(
                "clients accept no wildcard directly below a top-level domain; name the hosts".to_owned()
            );
        }
        match DnsName::try_from(domain.unwrap_or(&name)) {
            Ok(_) => Ok(Self::Dns(name)),
            Err(_) => Err("not a host name or an IP address".to_owned()),
        }
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

/// The names in a certificate.
#[derive(Debug, Clone)]
pub(crate) struct CertNames {
    /// What people call the holder.
    pub(crate) subject: String,
    /// What follows [`IDENTITY`] in the URI, if there is one: a service's name, or a role.
    pub(crate) identity: Option<String>,
    /// The hosts.
    pub(crate) hosts: BTreeSet<Host>,
}

impl CertNames {
    /// As text, as [`Details`] has them.
    pub(super) fn to_texts(&self) -> Vec<String> {
        let identity = self.identity.iter().map(|name| format!("{IDENTITY}{name}"));
        identity.chain(self.hosts.iter().map(Host::to_string)).collect()
    }
}

/// A certificate and its key, in PEM.
pub(crate) struct CertPair {
    pub(crate) cert: String,
    pub(crate) key: String,
    pub(crate) not_after: Timestamp,
}

/// Makes the certificate and key of an authority with this name, which signs only leaves.
///
/// # Errors
/// If the lifetime is not possible.
pub(crate) fn new_authority(name: &str, now: Timestamp, lifetime: Duration) -> anyhow::Result<CertPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let not_after = set_validity(&mut params, now, lifetime)?;
    let key = KeyPair::generate()?;
    let cert = params.self_signed(&key)?;
    Ok(CertPair { cert: cert.pem(), key: key.serialize_pem(), not_after })
}

/// A name for an authority that no other one has: clients find an issuer by its name.
pub(crate) fn unique_name() -> String {
    format!("Hubspoke CA {:08x}", rand::rng().random::<u32>())
}

/// An authority that signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cert: CertificateDer<'static>,
    /// The certificate in PEM.
    pem: String,
    details: Details,
}

impl Authority {
    /// From the content of its two files. Of several certificates, the first one is the authority's; the others are
    /// trusted during a change.
    ///
    /// # Errors
    /// If they can't sign a certificate that clients accept.
    pub(crate) fn parse(
        (cert_file, cert): (&Path, &[u8]),
        (key_file, key): (&Path, &[u8]),
        now: Timestamp,
    ) -> anyhow::Result<Self> {
        let certs = pem::certificates(cert_file, cert)?;
        let pem = pem::first(cert);
        let cert = certs.into_iter().next().ok_or_else(|| anyhow!("{} is empty", cert_file.display()))?;
        let key = pem::private_key(key_file, key)?;
        let details = Details::parse(&cert).with_context(|| cert_file.display().to_string())?;
        if !details.is_ca {
            bail!("{} is not the certificate of a CA", cert_file.display());
        }
        if details.not_after <= now {
            bail!("{} has expired on {}", cert_file.display(), details.not_after);
        }
        let unusable = || format!("{} can't be used", key_file.display());
        if !is_key_of(&key, &cert).with_context(unusable)? {
            bail!("{} is not the key of {}", key_file.display(), cert_file.display());
        }
        let PrivateKeyDer::Pkcs8(key) = key else {
            bail!("{} is not PKCS #8; convert it: openssl pkcs8 -topk8 -nocrypt", key_file.display());
        };
        let issuer = Issuer::from_ca_cert_der(&cert, KeyPair::try_from(&key).with_context(unusable)?)?;
        Ok(Self { issuer, cert, pem, details })
    }

    pub(crate) fn cert(&self) -> &CertificateDer<'static> {
        &self.cert
    }

    /// Its certificate in PEM.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// Signs a certificate for a new key. It ends with the authority, at the latest.
    ///
    /// # Errors
    /// If the names or the lifetime are not possible.
    pub(crate) fn issue(
        &self,
        names: &CertNames,
        now: Timestamp,
        lifetime: Duration,
    ) -> anyhow::Result<CertPair> {
        let key = KeyPair::generate()?;
        let (cert, not_after) = self.sign(names, &key, now, lifetime)?;
        Ok(CertPair { cert: cert.pem(), key: key.serialize_pem(), not_after })
    }

    /// Signs a certificate for a key.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub(crate) fn sign(
        &self,
        names: &CertNames,
        key: &KeyPair,
        now: Timestamp,
        lifetime: Duration,
    ) -> anyhow::Result<(rcgen::Certificate, Timestamp)> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&names.subject);
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if let Some(identity) = &names.identity {
            params
                .subject_alt_names
                .push(SanType::URI(Ia5String::try_from(format!("{IDENTITY}{identity}"))?));
        }
        for host in &names.hosts {
            params.subject_alt_names.push(match host {
                Host::Dns(name) => SanType::DnsName(Ia5String::try_from(name.as_str())?),
                Host::Ip(ip) => SanType::IpAddress(*ip),
            });
        }
        let left = Duration::try_from(self.details.not_after.duration_since(now)).unwrap_or_default();
        let not_after = set_validity(&mut params, now, lifetime.min(left))?;
        Ok((params.signed_by(key, &self.issuer)?, not_after))
    }

    /// Whether a certificate with its key, both in PEM, is signed by this authority, has these names, and has more than a
    /// third of its lifetime left.
    pub(crate) fn is_current(&self, cert: &[u8], key: &[u8], names: &CertNames, now: Timestamp) -> bool {
        let check = || -> anyhow::Result<bool> {
            let certs = pem::certificates(Path::new(""), cert)?;
            let cert = certs.first().ok_or_else(|| anyhow!("empty"))?;
            let key = pem::private_key(Path::new(""), key)?;
            let details = Details::parse(cert)?;
            let has: BTreeSet<String> = details.names.iter().cloned().collect();
            Ok(is_key_of(&key, cert)?
                && is_signed_by(cert, &self.cert)
                && has == names.to_texts().into_iter().collect()
                && now < renewal_time(details.not_before, details.not_after))
        };
        check().unwrap_or(false) // anything else is made anew
    }
}

/// When a third of a lifetime is left.
pub(crate) fn renewal_time(not_before: Timestamp, not_after: Timestamp) -> Timestamp {
    not_after - not_after.duration_since(not_before) / 3
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Sets the validity, in whole seconds; returns its end.
fn set_validity(
    params: &mut CertificateParams,
    now: Timestamp,
    lifetime: Duration,
) -> anyhow::Result<Timestamp> {
    if lifetime < Duration::from_secs(1) || lifetime > MAX_LIFETIME {
        bail!("not a time that a certificate can last: from a second to 100 years");
    }
    let seconds = |time: Timestamp| Duration::from_secs(u64::try_from(time.as_second()).unwrap_or_default());
    let epoch = date_time_ymd(1970, 1, 1);
    let end = now.checked_add(SignedDuration::try_from(lifetime)?)?;
    params.not_before = epoch + seconds(now.checked_sub(SignedDuration::try_from(CLOCK_SKEW)?)?);
    params.not_after = epoch + seconds(end);
    Ok(Timestamp::from_second(end.as_second())?)
}

#[cfg(test)]
mod tests;
