//! The settings, as one table of a configuration file.

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use serde::{Deserialize, Serialize};

/// Most endpoints.
const MAX_ENDPOINTS: usize = 32;
/// etcd grants no shorter lease than its election takes.
const MIN_LEASE: Duration = Duration::from_secs(2);
/// Longer ones would keep the key of a dead process for too long.
const MAX_LEASE: Duration = Duration::from_secs(3600);

/// How to reach etcd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Client URLs of the cluster's members: `http://10.0.0.1:2379`. All with `https` or none.
    pub endpoints: Vec<String>,
    /// The prefix of all keys. Two platforms on one cluster need two.
    pub prefix: String,
    /// User, if etcd's authentication by password is on.
    pub user: Option<String>,
    /// File with the user's password. It is read again for each authentication.
    pub password_file: Option<PathBuf>,
    /// File with the certificates (PEM) of the authorities that may sign etcd's. Required with `https`.
    pub ca: Option<PathBuf>,
    /// File with the certificate (PEM) to authenticate with. The three files are read again for each connection.
    pub cert: Option<PathBuf>,
    /// File with the certificate's private key (PEM).
    pub key: Option<PathBuf>,
    /// How long connecting to an endpoint may take before the next one is tried.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How long a request may take in all, over all endpoints.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// How long etcd keeps the key of this process after it was last heard of, and how long a watch may be silent. Whole
    /// seconds.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
}

/// A setting that is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct InvalidConfig {
    /// The field of [`Config`].
    pub key: &'static str,
    /// Why its value can't be used.
    pub reason: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            prefix: "/hubspoke".to_owned(),
            user: None,
            password_file: None,
            ca: None,
            cert: None,
            key: None,
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(5),
            lease: Duration::from_secs(5),
        }
    }
}

impl Config {
    /// Checks everything but the endpoints, which may be missing if etcd is not used.
    ///
    /// # Errors
    /// The first invalid setting.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        let invalid = |key, reason: &str| Err(InvalidConfig { key, reason: reason.to_owned() });
        if self.endpoints.len() > MAX_ENDPOINTS {
            return invalid("endpoints", &format!("more than {MAX_ENDPOINTS}"));
        }
        let uris = self.uris()?;
        let encrypted = uris.iter().filter(|uri| uri.scheme() == Some(&Scheme::HTTPS)).count();
        if encrypted != 0 && encrypted != uris.len() {
            return invalid("endpoints", "http and https can't be mixed");
        }
        if encrypted > 0 && self.ca.is_none() {
            return invalid("ca", "is required if the endpoints are https");
        }
        if encrypted == 0 && !uris.is_empty() && (self.ca.is_some() || self.cert.is_some()) {
            return invalid("endpoints", "must be https if ca or cert is set");
        }
        if self.cert.is_some() != self.key.is_some() {
            return invalid("key", "cert and key go together; set both or none");
        }
        if self.user.is_some() != self.password_file.is_some() {
            return invalid("password_file", "user and password_file go together; set both or none");
        }
        if !self.prefix.starts_with('/') || self.prefix.len() < 2 || self.prefix.ends_with('/') {
            return invalid("prefix", "must begin with / and end with something else, such as /hubspoke");
        }
        for (key, value) in
            [("connect_timeout", self.connect_timeout), ("request_timeout", self.request_timeout)]
        {
            if value.is_zero() || value > MAX_LEASE {
                return invalid(key, "must be more than 0 and at most 1h");
            }
        }
        if !(MIN_LEASE..=MAX_LEASE).contains(&self.lease) || self.lease.subsec_nanos() != 0 {
            return invalid("lease", "must be whole seconds, from 2s to 1h");
        }
        Ok(())
    }

    /// Checks everything, for a process that uses etcd.
    ///
    /// # Errors
    /// The first invalid setting.
    pub fn check_in_use(&self) -> Result<(), InvalidConfig> {
        if self.endpoints.is_empty() {
            let reason = "must be set: client URLs of etcd, such as http://10.0.0.1:2379".to_owned();
            return Err(InvalidConfig { key: "endpoints", reason });
        }
        self.check()
    }

    pub(crate) fn uris(&self) -> Result<Vec<Uri>, InvalidConfig> {
        self.endpoints.iter().map(|text| uri(text)).collect()
    }
}

/// A URL of scheme, host and port.
fn uri(text: &str) -> Result<Uri, InvalidConfig> {
    let parsed = text.parse::<Uri>().ok().filter(|uri| {
        let known = matches!(uri.scheme_str(), Some("http" | "https"));
        let bare = uri.path_and_query().is_none_or(|path| path == "/");
        let user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        known && bare && !user && uri.port().is_some() && uri.host().is_some_and(|host| !host.is_empty())
    });
    parsed.ok_or_else(|| InvalidConfig {
        key: "endpoints",
        reason: format!("{text:?} is not a URL with a host and a port, such as http://10.0.0.1:2379"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(endpoints: &[&str]) -> Config {
        Config { endpoints: endpoints.iter().map(|text| (*text).to_owned()).collect(), ..Config::default() }
    }

    fn key_of(config: &Config) -> &'static str {
        config.check_in_use().unwrap_err().key
    }

    #[test]
    fn endpoints_are_urls_with_a_port() {
        for valid in ["http://127.0.0.1:2379", "http://etcd-0.etcd:2379/", "http://[::1]:2379"] {
            config(&[valid]).check_in_use().unwrap();
        }
        for invalid in ["", "x", "127.0.0.1:2379", "http://h", "http://h:1/x", "ftp://h:1", "http://u:p@h:1"]
        {
            assert_eq!(key_of(&config(&[invalid])), "endpoints", "{invalid:?}");
        }
        assert_eq!(key_of(&config(&["http://a:1", "https://b:1"])), "endpoints");
        assert_eq!(key_of(&config(&[])), "endpoints");
        config(&[]).check().unwrap();
    }

    #[test]
    fn settings_that_go_together_are_set_together() {
        let tls = config(&["https://a:1"]);
        assert_eq!(key_of(&tls), "ca");
        let tls = Config { ca: Some("ca.pem".into()), ..tls };
        tls.check_in_use().unwrap();
        assert_eq!(key_of(&Config { cert: Some("c.pem".into()), ..tls.clone() }), "key");
        let plain = config(&["http://a:1"]);
        assert_eq!(key_of(&Config { ca: tls.ca, ..plain.clone() }), "endpoints");
        assert_eq!(key_of(&Config { user: Some("hub".into()), ..plain }), "password_file");
    }

    #[test]
    fn prefix_and_times_are_in_range() {
        let valid = config(&["http://a:1"]);
        for prefix in ["", "/", "x", "/x/"] {
            assert_eq!(key_of(&Config { prefix: prefix.to_owned(), ..valid.clone() }), "prefix");
        }
        assert_eq!(key_of(&Config { lease: Duration::from_millis(2500), ..valid.clone() }), "lease");
        assert_eq!(key_of(&Config { lease: Duration::from_secs(1), ..valid.clone() }), "lease");
        assert_eq!(key_of(&Config { request_timeout: Duration::ZERO, ..valid }), "request_timeout");
    }
}
