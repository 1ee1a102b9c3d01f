//! The certificates in use.

use std::collections::HashMap;
use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::cert::{Cert, CertError, CertFiles, MAX_FILE};
use crate::issue::IssueCert;

/// The certificates in a list of files. The first one is for clients that ask for no name, or for one that none has.
#[derive(Debug)]
pub struct CertStore {
    files: Vec<CertFiles>,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<CertSet>,
    /// The content of all files, as it was read last.
    content: Mutex<Vec<Content>>,
    failures: AtomicU64,
    failing: AtomicBool,
    issue: OnceLock<IssueCert>,
}

/// The content of a certificate's and a key's file.
type Content = (Vec<u8>, Vec<u8>);

#[derive(Debug, Default)]
struct CertSet {
    default: Option<Arc<CertifiedKey>>,
    by_name: HashMap<String, Arc<CertifiedKey>>,
    not_after: i64,
}

impl CertStore {
    /// Reads and checks all files.
    ///
    /// # Errors
    /// [`CertError`] about the first file that can't be used.
    pub fn open(files: Vec<CertFiles>) -> Result<Self, CertError> {
        let provider = Arc::new(ring::default_provider());
        let content = read_all(&files)?;
        let set = CertSet::parse(&files, &content, &provider, now())?;
        for files in &files {
            warn_if_public(&files.key);
        }
        Ok(Self {
            files,
            provider,
            current: ArcSwap::from_pointee(set),
            content: Mutex::new(content),
            failures: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            issue: OnceLock::new(),
        })
    }

    /// Reads the files again. If their content has changed and can be used, new connections get the new certificates;
    /// otherwise the last ones stay, which is logged once.
    pub fn reload(&self) {
        let mut content = self.content.lock();
        let fresh = read_all(&self.files).and_then(|fresh| {
            if fresh == *content {
                return Ok(None);
            }
            Ok(Some((CertSet::parse(&self.files, &fresh, &self.provider, now())?, fresh)))
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

    /// When the first certificate in use ends, in seconds since 1970.
    pub fn expires(&self) -> i64 {
        self.current.load().not_after
    }

    /// How many times the files could not be used, since the start.
    pub fn reload_failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }
}

impl CertSet {
    fn parse(
        files: &[CertFiles],
        content: &[Content],
        provider: &CryptoProvider,
        now: i64,
    ) -> Result<Self, CertError> {
        let mut set = Self { not_after: i64::MAX, ..Self::default() };
        for (files, (cert, key)) in files.iter().zip(content) {
            let Cert { key, names, not_after } = Cert::parse(files, cert, key, provider, now)?;
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
        let set = self.current.load();
        // rustls has checked that the name is a valid one, and has made it lower case.
        let found =
            hello.server_name().and_then(|name| set.find(name).cloned().or_else(|| self.issued(name)));
        found.or_else(|| set.default.clone())
    }
}

/// A server's configuration: TLS 1.2 and 1.3, these certificates, these protocols by ALPN (best first). Session tickets
/// are encrypted with keys that change every six hours and outlive every [`CertStore::reload`].
///
/// # Errors
/// [`rustls::Error`] if the random number generator fails.
pub fn server_config(store: Arc<CertStore>, alpn: &[&[u8]]) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(store.provider.clone());
    let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
    let mut config = builder.with_cert_resolver(store);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.ticketer = ring::Ticketer::new()?;
    Ok(config)
}

fn read_all(files: &[CertFiles]) -> Result<Vec<Content>, CertError> {
    files.iter().map(|files| Ok((read(&files.cert)?, read(&files.key)?))).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, CertError> {
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut content));
    read.map_err(|error| CertError::new(path, error.to_string()))?;
    if content.len() as u64 > MAX_FILE {
        return Err(CertError::new(path, format!("longer than {MAX_FILE} bytes")));
    }
    Ok(content)
}

#[cfg(unix)]
fn warn_if_public(key: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(key).map_or(0, |found| found.permissions().mode());
    if mode & 0o004 != 0 {
        tracing::warn!(file = %key.display(), "everybody on this machine may read the private key");
    }
}

#[cfg(not(unix))]
fn warn_if_public(_: &Path) {}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
