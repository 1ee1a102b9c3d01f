//! TLS towards clients: `[gateway.tls]`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hubspoke_acme::{AcmeChallenge, AcmeConfig};
use serde::{Deserialize, Serialize};

/// TLS towards clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct TlsConfig {
    /// Where clients connect with TLS, beside `listen`. Unset: nowhere.
    pub listen: Option<SocketAddr>,
    /// The port of `https` URLs, if it is not that of `listen`: something in front passes connections on.
    pub public_port: Option<u16>,
    /// Folders, each with a certificate and its chain in `tls.crt` and the key in `tls.key`, as in Kubernetes Secrets, or in
    /// `fullchain.pem` and `privkey.pem`. A client gets the first certificate that has the name it asks for, or else the
    /// first of all.
    pub certs: Vec<PathBuf>,
    /// Client connections with TLS, which take up more memory than others. They count among `limits.connections`, too.
    /// One address gets half of them.
    pub connections: usize,
    /// Whether requests on the clear port are answered with a redirect to `https`.
    pub redirect: bool,
    /// `max-age` of `Strict-Transport-Security`, in responses over TLS. Unset: no such field.
    #[serde(with = "humantime_serde")]
    pub hsts: Option<Duration>,
    /// A file with the CAs that clients' certificates must come from. Unset: clients are not asked for one.
    pub client_ca: Option<PathBuf>,
    /// Whether a client needs a certificate.
    pub client_auth: ClientAuth,
    /// Certificates from an ACME server.
    pub acme: AcmeConfig,
}

/// Whether a client needs a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAuth {
    /// A client may have one; an invalid one is refused.
    Optional,
    /// A client without one is refused.
    #[default]
    Required,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            listen: None,
            public_port: None,
            certs: Vec::new(),
            connections: 2000,
            redirect: false,
            hsts: None,
            client_ca: None,
            client_auth: ClientAuth::default(),
            acme: AcmeConfig::default(),
        }
    }
}

impl TlsConfig {
    /// The first fault, if any: its key and why.
    pub(super) fn check(&self) -> Option<(String, String)> {
        const OFF: &str = "is set, and gateway.tls.listen is not";
        const ASKS: &str =
            "can't be tls-alpn-01 if client_auth is required: an ACME server has no certificate";
        let off = self.listen.is_none();
        let by_tls = self.acme.is_on() && self.acme.challenge == AcmeChallenge::TlsAlpn01;
        let asks = self.client_ca.is_some() && self.client_auth == ClientAuth::Required;
        let fault = [
            ("tls.connections", self.connections == 0, "must be at least 1"),
            ("tls.public_port", self.public_port == Some(0), "must be from 1 to 65535"),
            ("tls.redirect", off && self.redirect, OFF),
            ("tls.hsts", off && self.hsts.is_some(), OFF),
            ("tls.client_ca", off && self.client_ca.is_some(), OFF),
            ("tls.acme.challenge", by_tls && asks, ASKS),
        ]
        .into_iter()
        .find_map(|(key, is_fault, why)| is_fault.then(|| (key.to_owned(), why.to_owned())));
        fault.or_else(|| self.acme.check().map(|(key, why)| (format!("tls.acme.{key}"), why)))
    }
}
