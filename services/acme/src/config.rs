//! Settings. Pure.

use std::path::PathBuf;

use http::Uri;
use serde::{Deserialize, Serialize};

/// Let's Encrypt.
const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// Which certificates come from which ACME server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct AcmeConfig {
    /// Host names, each of which gets a certificate. Empty: no server is asked.
    pub hosts: Vec<String>,
    /// The URL of the server's directory.
    pub directory: String,
    /// Where the server's operator reaches you: `mailto:` URLs.
    pub contact: Vec<String>,
    /// How the server sees that a host is ours.
    pub challenge: AcmeChallenge,
    /// A file with the CAs of the server's own certificate. Unset: the system's.
    pub ca: Option<PathBuf>,
}

/// How an ACME server sees that a host is ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AcmeChallenge {
    /// By a request to port 80 of the host (RFC 8555, 8.3).
    #[default]
    #[serde(rename = "http-01")]
    Http01,
    /// By a handshake with port 443 of the host (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
}

impl Default for AcmeConfig {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            directory: DIRECTORY.to_owned(),
            contact: Vec::new(),
            challenge: AcmeChallenge::default(),
            ca: None,
        }
    }
}

impl AcmeConfig {
    /// Whether any certificate comes from an ACME server.
    pub fn is_on(&self) -> bool {
        !self.hosts.is_empty()
    }

    /// The first fault, if any: its key and why.
    pub fn check(&self) -> Option<(&'static str, String)> {
        if let Some(host) = self.hosts.iter().find(|host| !is_dns_name(host)) {
            let why =
                format!("{host:?} is not a host name that an ACME server can check, such as shop.example");
            return Some(("hosts", why));
        }
        let url = self.directory.parse::<Uri>().ok();
        if !url.is_some_and(|url| url.scheme_str() == Some("https") && url.host().is_some()) {
            return Some(("directory", format!("{:?} is not an https URL", self.directory)));
        }
        let contact = self.contact.iter().find(|contact| !contact.starts_with("mailto:"));
        contact.map(|contact| ("contact", format!("{contact:?} does not begin with mailto:")))
    }
}

/// A name of two labels or more: no address, and no wildcard, which needs another kind of challenge.
fn is_dns_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= 253
        && host.contains('.')
        && host.split('.').all(is_label)
        && !last.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_server_can_do_is_refused() {
        let config = |change: fn(&mut AcmeConfig)| {
            let mut config = AcmeConfig { hosts: vec!["shop.example".to_owned()], ..AcmeConfig::default() };
            change(&mut config);
            config.check().map(|(key, _)| key)
        };
        assert_eq!(config(|_| ()), None);
        assert_eq!(config(|it| it.contact = vec!["mailto:a@b.example".to_owned()]), None);
        assert_eq!(config(|it| it.contact = vec!["a@b.example".to_owned()]), Some("contact"));
        for directory in ["http://acme.example/directory", "acme.example", ""] {
            let config = AcmeConfig { directory: directory.to_owned(), ..AcmeConfig::default() };
            assert_eq!(config.check().map(|(key, _)| key), Some("directory"), "{directory}");
        }
        for host in ["*.shop.example", "localhost", "127.0.0.1", "shop.example:443", "", "a..b", "-a.example"]
        {
            let config = AcmeConfig { hosts: vec![host.to_owned()], ..AcmeConfig::default() };
            assert_eq!(config.check().map(|(key, _)| key), Some("hosts"), "{host}");
        }
    }
}
