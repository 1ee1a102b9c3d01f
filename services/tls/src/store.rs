//! The certificates in use.

use std::collections::HashMap;
use std::error::Error;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::cert::{Cert, CertError, CertFiles};
use crate::client_ca::{self, ClientCa};
use crate::issue::IssueCert;
use crate::watched::{Watched, now, read, warn_if_public};

/// The certificates in a list of files. The first one is for clients that ask for no name, or for one that none has.
/// With them the CAs that clients' certificates must come from, if clients are asked for one.
#[derive(Debug)]
pub struct CertStore {
    files: Vec<CertFiles>,
    pub(crate) client_ca: Option<ClientCa>,
    pub(crate) provider: Arc<CryptoProvider>,
    current: Watched<CertSet, Content>,
    /// Certificates for the handshakes of an ACME server, by name.
    challenges: ArcSwap<HashMap<String, Arc<CertifiedKey>>>,
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
        let provider = Arc::new(ring::default_provider());
        let content = Content::read(&files, client_ca.as_ref())?;
        let current =
            Watched::open(content, |content| CertSet::parse(&files, client_ca.as_ref(), content, &provider))?;
        let (challenges, issue) = (ArcSwap::default(), OnceLock::new());
        Ok(Self { files, client_ca, provider, current, challenges, issue })
    }

    /// Reads the files again. If their content has changed and can be used, new connections get the new certificates;
    /// otherwise the last ones stay, which is logged once.
    pub fn reload(&self) {
        let Self { files, client_ca, provider, .. } = self;
        let read = || Content::read(files, client_ca.as_ref());
        if self.current.reload(read, |content| CertSet::parse(files, client_ca.as_ref(), content, provider)) {
            tracing::info!(certificates = files.len(), "new certificates are in use");
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
        let set = self.current.get();
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
        self.current.failures()
    }

    /// Whether a certificate in use is for this host, a name in lower case or an IP address without brackets.
    pub fn has_host(&self, host: &str) -> bool {
        let set = self.current.get();
        match host.parse::<IpAddr>() {
            Ok(ip) => set.by_name.contains_key(&ip.to_string()),
            Err(_) => set.find(host).is_some() || self.issued(host).is_some(),
        }
    }

    pub(crate) fn client_verifier(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        self.current.get().client_verifier.clone()
    }
}

impl Content {
    fn read(files: &[CertFiles], client_ca: Option<&ClientCa>) -> Result<Self, CertError> {
        let certs = files.iter().map(|files| match files.may_be_missing && !files.cert.exists() {
            true => Ok(<(Vec<u8>, Vec<u8>)>::default()),
            false => Ok((read(&files.cert)?, read(&files.key)?)),
        });
        let client_ca = client_ca.map(|ca| read(&ca.file)).transpose();
        Ok(Self { certs: certs.collect::<Result<_, _>>()?, client_ca: client_ca? })
    }
}

impl CertSet {
    fn parse(
        files: &[CertFiles],
        client_ca: Option<&ClientCa>,
        content: &Content,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, CertError> {
        let mut set = Self { not_after: i64::MAX, ..Self::default() };
        for (files, (cert, key)) in files.iter().zip(&content.certs) {
            if files.may_be_missing && cert.is_empty() {
                continue;
            }
            let parsed = Cert::parse(files, cert, key, provider, now());
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
        if let (Some(ca), Some(bundle)) = (client_ca, &content.client_ca) {
            set.client_verifier = Some(client_ca::verifier(&ca.file, ca.required, bundle, provider)?);
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
        let set = self.current.get();
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
