//! TLS towards clients: `[gateway.tls]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// TLS towards clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct TlsConfig {
    /// Where clients connect with TLS, beside `listen`. Unset: nowhere.
    pub listen: Option<SocketAddr>,
    /// Folders, each with a certificate and its chain in `tls.crt` and the key in `tls.key`, as in Kubernetes Secrets, or in
    /// `fullchain.pem` and `privkey.pem`. A client gets the first certificate that has the name it asks for, or else the
    /// first of all.
    pub certs: Vec<PathBuf>,
    /// Client connections with TLS, which take up more memory than others. They count among `limits.connections`, too.
    pub connections: usize,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self { listen: None, certs: Vec::new(), connections: 2000 }
    }
}

impl TlsConfig {
    /// The first fault, if any: its key and why.
    pub(super) fn check(&self) -> Option<(&'static str, &'static str)> {
        (self.connections == 0).then_some(("tls.connections", "must be at least 1"))
    }
}
