//! The certificates in use.

use std::collections::HashMap;
use std::error::Error;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::cert::{Cert, CertError, CertFiles};
use crate::client_ca::{self, ClientCa};
use crate::issue::IssueCert;
use crate::watched::{now, read, warn_if_public};

/// The certificates in a list of files. The first one is for clients that ask for no name, or for one that none has.
/// With them the CAs that clients' certificates must come from, if clients are asked for one.
#[derive(Debug)]
pub struct CertStore {
    files: Vec<CertFiles>,
    pub(crate) client_ca: Option<ClientCa>,
    pub(crate) provider: Arc<CryptoProvider>,
    current: ArcSwap<CertSet>,
    /// Certificates for the handshakes of an ACME server, by name.
    challenges: ArcSwap<HashMap<String, Arc<CertifiedKey>>>,
    /// The content of all files, as it was read last.
    content: Mutex<Content>,
    failures: AtomicU64,
    failing: AtomicBool,
    issue: OnceLock<IssueCert>,
}

/// The content of all files.
#[derive(Debug, PartialEq)]
struct Content {
    /// Of each certificate and its key.
    certs: Vec<(Vec<u8>, Vec<u8>)>,
    client_ca: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
struct CertSet {
    client_verifier: Option<Arc<dyn ClientCertVerifier>>,
    default: Option<Arc<CertifiedKey>>,
    by_name: HashMap<String, Arc<CertifiedKey>>,
    not_after: i64,
}

impl CertStore {
    /// Reads and checks all files.
    ///
    /// # Errors
    /// [`CertError`] about the first file that can't be used.
    pub fn open(files: Vec<CertFiles>, client_ca: Option<ClientCa>) -> Result<Self, CertError> {
        for files in &files {
            warn_if_public(&files.key);
        }
        let empty = Content { certs: Vec::new(), client_ca: None };
        let store = Self {
            files,
            client_ca,
            provider: Arc::new(ring::default_provider()),
            current: ArcSwap::default(),
            challenges: ArcSwap::default(),
            content: Mutex::new(empty),
            failures: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            issue: OnceLock::new(),
        };
        let content = store.read_all()?;
        store.current.store(Arc::new(store.parse(&content)?));
        *store.content.lock() = content;
        Ok(store)
    }

    /// Reads the files again. If their content has changed and can be used, new connections get the new certificates;
    /// otherwise the last ones stay, which is logged once.
    pub fn reload(&self) {
        let mut content = self.content.lock();
        let fresh = self.read_all().and_then(|fresh| {
            if fresh == *content {
                return Ok(None);
            }
            Ok(Some((self.parse(&fresh)?, fresh)))
        });
        match fresh {
            Ok(Some((set, fresh))) => {
                self.current.store(Arc::new(set));
                *content = fresh;
                self.failing.store(false, Relaxed);
                tracing::info!(certificates = self.files.len(), "new certificates are in use");
            }
            Ok(None) => self.failing.store(false, Relaxed),
            Err(error) => {
                self.failures.fetch_add(1, Relaxed);
                if !self.failing.swap(true, Relaxed) {
                    let error = &error as &dyn Error;
                    tracing::warn!(error, "can't use the new certificates; the last ones stay in use");
                }
            }
        }
    }

    /// Lets certificates be made for hosts that no file has one for. A second call changes nothing.
    pub fn issue_with(&self, issue: IssueCert) {
        let _ = self.issue.set(issue);
    }

    fn issued(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        self.issue.get().and_then(|issue| issue.issue(host))
    }

    /// When the first certificate in use ends, in seconds since 1970; `None` if there is none yet.
    pub fn expires(&self) -> Option<i64> {
        let set = self.current.load();
        set.default.is_some().then_some(set.not_after)
    }

    /// Answers a challenge of an ACME server for a name (TLS-ALPN-01, RFC 8737) with this certificate and its key in
    /// PKCS #8.
    ///
    /// # Errors
    /// [`rustls::Error`] if the key can't be used.
    pub fn put_challenge(
        &self,
        name: &str,
        cert: CertificateDer<'static>,
        key: Vec<u8>,
    ) -> Result<(), rustls::Error> {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key));
        // Not `from_der`: it refuses the certificate's critical extension, which is for the ACME server.
        let key = self.provider.key_provider.load_private_key(key)?;
        let key = Arc::new(CertifiedKey::new(vec![cert], key));
        let mut challenges = HashMap::clone(&self.challenges.load());
        challenges.insert(name.to_owned(), key);
        self.challenges.store(Arc::new(challenges));
        Ok(())
    }

    /// No challenge is open any longer.
    pub fn clear_challenges(&self) {
        self.challenges.store(Arc::default());
    }

    /// How many times the files could not be used, since the start.
    pub fn reload_failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Whether a certificate in use is for this host, a name in lower case or an IP address without brackets.
    pub fn has_host(&self, host: &str) -> bool {
        let set = self.current.load();
        match host.parse::<IpAddr>() {
            Ok(ip) => set.by_name.contains_key(&ip.to_string()),
            Err(_) => set.find(host).is_some() || self.issued(host).is_some(),
        }
    }

    pub(crate) fn client_verifier(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        self.current.load().client_verifier.clone()
    }

    fn read_all(&self) -> Result<Content, CertError> {
        let certs = self.files.iter().map(|files| match files.may_be_missing && !files.cert.exists() {
            true => Ok(<(Vec<u8>, Vec<u8>)>::default()),
            false => Ok((read(&files.cert)?, read(&files.key)?)),
        });
        let client_ca = self.client_ca.as_ref().map(|ca| read(&ca.file)).transpose();
        Ok(Content { certs: certs.collect::<Result<_, _>>()?, client_ca: client_ca? })
    }

    fn parse(&self, content: &Content) -> Result<CertSet, CertError> {
        let mut set = CertSet::parse(&self.files, content, &self.provider, now())?;
        if let (Some(ca), Some(bundle)) = (&self.client_ca, &content.client_ca) {
            set.client_verifier = Some(client_ca::verifier(&ca.file, ca.required, bundle, &self.provider)?);
        }
        Ok(set)
    }
}

impl CertSet {
    fn parse(
        files: &[CertFiles],
        content: &Content,
        provider: &CryptoProvider,
        now: i64,
    ) -> Result<Self, CertError> {
        let mut set = Self { not_after: i64::MAX, ..Self::default() };
        for (files, (cert, key)) in files.iter().zip(&content.certs) {
            if files.may_be_missing && cert.is_empty() {
                continue;
            }
            let parsed = Cert::parse(files, cert, key, provider, now);
            let Cert { key, names, not_after, .. } = match parsed {
                Ok(cert) => cert,
                Err(error) if files.may_be_missing => {
                    tracing::warn!(
                        error = &error as &dyn Error,
                        "the certificate is left out until there is a new one"
                    );
                    continue;
                }
                Err(error) => return Err(error),
            };
            let key = Arc::new(key);
            set.not_after = set.not_after.min(not_after);
            for name in names {
                set.by_name.entry(name).or_insert_with(|| key.clone());
            }
            set.default.get_or_insert(key);
        }
        Ok(set)
    }

    /// By the name itself, then by `*.` and what follows its first label.
    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        self.by_name.get(name).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.by_name.get(&format!("*.{parent}"))
        })
    }
}

impl ResolvesServerCert for CertStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let challenges = self.challenges.load();
        if !challenges.is_empty() && is_challenge(&hello) {
            return hello.server_name().and_then(|name| challenges.get(name)).cloned();
        }
        let set = self.current.load();
        // rustls has checked that the name is a valid one, and has made it lower case.
        let found =
            hello.server_name().and_then(|name| set.find(name).cloned().or_else(|| self.issued(name)));
        found.or_else(|| set.default.clone())
    }
}

/// Whether an ACME server wants its challenge to be answered.
fn is_challenge(hello: &ClientHello<'_>) -> bool {
    let mut protocols = hello.alpn().into_iter().flatten();
    protocols.next() == Some(b"acme-tls/1") && protocols.next().is_none()
}

#[cfg(test)]
mod tests;
