//! Certificates that are made as clients ask for them.

use std::fmt;
use std::sync::Arc;

use rustls::sign::CertifiedKey;

type Issue = dyn Fn(&str) -> Option<Arc<CertifiedKey>> + Send + Sync;

/// Makes a certificate for a host, a DNS name in lower case, that no file has a certificate for.
pub struct IssueCert(Box<Issue>);

impl IssueCert {
    /// Calls `issue` within each handshake for such a host: it must not wait, and should remember what it has made.
    pub fn new(issue: impl Fn(&str) -> Option<Arc<CertifiedKey>> + Send + Sync + 'static) -> Self {
        Self(Box::new(issue))
    }

    pub(crate) fn issue(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        self.0(host)
    }
}

impl fmt::Debug for IssueCert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IssueCert")
    }
}
