//! Certificates of `hub up`'s own making: an authority and a certificate for the gateway in the data folder, and one in
//! memory for each `NAME.localhost` that a client asks for. No client accepts `*.localhost`: OpenSSL, curl, rustls and
//! browsers want two labels behind the asterisk.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use hubspoke_protocol::check_name;
use hubspoke_tls::IssueCert;
use jiff::Timestamp;
use parking_lot::Mutex;
use rcgen::KeyPair;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use tokio::time::sleep;

use crate::cert::authority::{AUTHORITY_LIFETIME, Authority, CertNames, Host, renewal_time};
use crate::cert::folder::{CertFolder, Replace};

/// The lifetime of a certificate.
const LIFETIME: Duration = Duration::from_secs(90 * 86_400);
/// How often the end of the certificates is looked at.
const CHECK: Duration = Duration::from_secs(3600);
/// The domain below which each service has a host.
const DOMAIN: &str = ".localhost";
/// The most certificates in memory: a client chooses the names.
const MAX_NAMES: usize = 1000;

/// The files in the data folder.
#[derive(Debug, Clone)]
pub(super) struct LocalTls {
    folder: CertFolder,
    gateway: CertNames,
}

impl LocalTls {
    /// In this folder, for a gateway that is reached by these hosts.
    pub(super) fn new(folder: PathBuf, hosts: BTreeSet<Host>) -> Self {
        let name = hubspoke_gateway::PROCESS.name.to_owned();
        let gateway = CertNames { subject: name.clone(), identity: Some(name), hosts };
        Self { folder: CertFolder::of(&folder), gateway }
    }

    /// Makes what is missing, and replaces what ends soon.
    ///
    /// # Errors
    /// If a file can't be read, written or used.
    pub(super) fn ensure(&self, now: Timestamp) -> anyhow::Result<Authority> {
        let _lock = self.folder.lock()?;
        if !self.folder.has_authority_until(now + LIFETIME)? {
            let made = self.folder.make_authority(None, now, AUTHORITY_LIFETIME, true)?;
            tracing::info!(authority = made, "made a certificate authority");
        }
        let authority = self.folder.authority(now)?;
        self.folder.issue(&authority, &self.gateway, now, LIFETIME, Replace::WhenDue)?;
        Ok(authority)
    }

    /// The certificate that clients need to trust.
    pub(super) fn authority_cert(&self) -> PathBuf {
        self.folder.authority_cert()
    }

    /// Keeps the files from ending; the gateway reads them again by itself.
    pub(super) async fn keep(self) {
        loop {
            sleep(CHECK).await;
            let this = self.clone();
            let ensured = tokio::task::spawn_blocking(move || this.ensure(Timestamp::now()).map(drop)).await;
            if let Ok(Err(error)) = ensured {
                let error: &dyn std::error::Error = error.as_ref();
                tracing::warn!(error, "can't renew the gateway's certificate");
            }
        }
    }
}

/// Makes certificates for the hosts of services as clients ask for them.
///
/// # Errors
/// If no key can be made.
pub(super) fn issue_on_demand(authority: Authority) -> anyhow::Result<IssueCert> {
    let on_demand = OnDemand::new(authority)?;
    Ok(IssueCert::new(move |host| on_demand.find(host, Timestamp::now())))
}

struct OnDemand {
    authority: Authority,
    /// One key for all names; it never leaves the memory.
    key: KeyPair,
    signing: Arc<dyn SigningKey>,
    made: Mutex<HashMap<String, Made>>,
}

struct Made {
    cert: Arc<CertifiedKey>,
    renew: Timestamp,
}

impl OnDemand {
    fn new(authority: Authority) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signing = any_supported_type(&der).context("can't use a new key")?;
        Ok(Self { authority, key, signing, made: Mutex::default() })
    }

    /// A certificate for `NAME.localhost`.
    fn find(&self, host: &str, now: Timestamp) -> Option<Arc<CertifiedKey>> {
        check_name(host.strip_suffix(DOMAIN)?).ok()?;
        let mut all = self.made.lock();
        if let Some(made) = all.get(host).filter(|made| now < made.renew) {
            return Some(made.cert.clone());
        }
        match self.make(host, now) {
            Ok(made) => {
                if all.len() >= MAX_NAMES {
                    all.clear();
                }
                let cert = made.cert.clone();
                all.insert(host.to_owned(), made);
                Some(cert)
            }
            Err(error) => {
                let error: &dyn std::error::Error = error.as_ref();
                tracing::warn!(error, host, "can't make a certificate");
                None
            }
        }
    }

    fn make(&self, host: &str, now: Timestamp) -> anyhow::Result<Made> {
        let hosts = BTreeSet::from([host.parse::<Host>().map_err(|why| anyhow!(why))?]);
        let names = CertNames { subject: host.to_owned(), identity: None, hosts };
        let (cert, not_after) = self.authority.sign(&names, &self.key, now, LIFETIME)?;
        let cert = CertifiedKey::new(vec![cert.into()], self.signing.clone());
        Ok(Made { cert: Arc::new(cert), renew: renewal_time(now, not_after) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(folder: &std::path::Path, hosts: &[&str]) -> LocalTls {
        LocalTls::new(folder.to_owned(), hosts.iter().map(|host| host.parse().unwrap()).collect())
    }

    #[test]
    fn what_is_there_stays_until_it_ends_soon() {
        let folder = tempfile::tempdir().unwrap();
        let read = |file: &str| std::fs::read_to_string(folder.path().join(file)).unwrap();
        let all = || (read("ca.crt"), read("gateway/tls.crt"), read("gateway/tls.key"));
        let (local, now) = (local(folder.path(), &["localhost"]), Timestamp::now());
        local.ensure(now).unwrap();
        let first = all();
        local.ensure(now + Duration::from_secs(59 * 86_400)).unwrap();
        assert_eq!(all(), first);
        local.ensure(now + Duration::from_secs(61 * 86_400)).unwrap();
        let second = all();
        assert!(second.0 == first.0 && second.1 != first.1 && second.2 != first.2);
        // The authority ends within the lifetime of a certificate.
        local.ensure(now + AUTHORITY_LIFETIME - Duration::from_secs(80 * 86_400)).unwrap();
        assert!(all().0 != first.0 && read("gateway/ca.crt").contains(&read("ca.crt")));
        std::fs::write(folder.path().join("ca.key"), "").unwrap();
        let error = format!("{:#}", local.ensure(now).err().unwrap());
        assert!(error.contains("ca.key has no private key in PEM"), "{error}");
        std::fs::remove_file(folder.path().join("ca.key")).unwrap();
        local.ensure(now).unwrap();
    }

    #[test]
    fn other_hosts_get_another_certificate_of_the_same_authority() {
        let folder = tempfile::tempdir().unwrap();
        let read = |file: &str| std::fs::read_to_string(folder.path().join(file)).unwrap();
        local(folder.path(), &["localhost"]).ensure(Timestamp::now()).unwrap();
        let before = (read("ca.crt"), read("gateway/tls.crt"));
        local(folder.path(), &["localhost", "10.0.0.5"]).ensure(Timestamp::now()).unwrap();
        assert!(read("ca.crt") == before.0 && read("gateway/tls.crt") != before.1);
    }

    #[test]
    fn hosts_of_services_get_certificates_and_their_number_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let on_demand = OnDemand::new(local(folder.path(), &[]).ensure(now).unwrap()).unwrap();
        for host in
            ["localhost", "shop.example", "a.b.localhost", "UP.localhost", "-.localhost", ".localhost"]
        {
            assert!(on_demand.find(host, now).is_none(), "{host}");
        }
        let first = on_demand.find("shop.localhost", now).unwrap();
        assert!(Arc::ptr_eq(&first, &on_demand.find("shop.localhost", now + LIFETIME / 2).unwrap()));
        assert!(!Arc::ptr_eq(&first, &on_demand.find("shop.localhost", now + LIFETIME * 3 / 4).unwrap()));
        for n in 0..MAX_NAMES + 10 {
            on_demand.find(&format!("a{n}.localhost"), now).unwrap();
        }
        assert!(on_demand.made.lock().len() <= MAX_NAMES);
    }
}
