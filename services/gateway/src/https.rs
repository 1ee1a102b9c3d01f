//! What TLS towards clients means for requests and responses: redirects from the clear port, HSTS, and the certificate
//! of a client. Pure, but for the certificates in use, which it asks for their names.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::STRICT_TRANSPORT_SECURITY;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue};
use hubspoke_acme::{Answers, CHALLENGE_PATH};
use hubspoke_tls::CertStore;

use crate::config::TlsConfig;
use crate::headers::X_FORWARDED_PROTO;
use crate::host_name;

/// The longest client certificate, in bytes, so that its header field stays below 8 KiB: many servers take no longer
/// one.
const MAX_CLIENT_CERT: usize = 6000;

/// TLS towards clients, as far as requests are concerned.
pub(crate) struct Https {
    certs: Arc<CertStore>,
    /// `None` if no certificates come from an ACME server.
    acme: Option<Arc<Answers>>,
    redirects: bool,
    /// `:PORT` in URLs; empty for 443.
    port: String,
    hsts: Option<HeaderValue>,
    /// Whether `Client-Cert` is the gateway's own.
    pub(crate) asks_for_certs: bool,
}

/// Why a request on the clear port is not redirected: no certificate is for its host. A redirect to whatever host a
/// client claims would lead the readers of a shared cache elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoCertForHost;

impl Https {
    /// `bound` is the port that is bound for TLS.
    pub(crate) fn new(
        config: &TlsConfig,
        bound: u16,
        certs: Arc<CertStore>,
        acme: Option<Arc<Answers>>,
    ) -> Self {
        let port = config.public_port.unwrap_or(bound);
        let hsts = config.hsts.map(|age| HeaderValue::from_str(&format!("max-age={}", age.as_secs())));
        Self {
            certs,
            acme,
            redirects: config.redirect,
            port: if port == 443 { String::new() } else { format!(":{port}") },
            hsts: hsts.and_then(Result::ok),
            asks_for_certs: config.client_ca.is_some(),
        }
    }

    /// The answer to an ACME server, if a request for this path is from one.
    pub(crate) fn challenge_answer(&self, path: &str) -> Option<String> {
        self.acme.as_ref()?.of(path)
    }

    /// Where a request on the clear port is redirected to, if it is.
    pub(crate) fn redirect(
        &self,
        host: Option<&HeaderValue>,
        target: Option<&PathAndQuery>,
        headers: &HeaderMap,
        is_trusted: bool,
    ) -> Result<Option<HeaderValue>, NoCertForHost> {
        let target = target.map_or("/", PathAndQuery::as_str);
        // A trusted proxy that terminates TLS passes the request on in clear text.
        let was_secure = is_trusted
            && headers
                .get(X_FORWARDED_PROTO)
                .is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"));
        if !self.redirects || was_secure || target.starts_with(CHALLENGE_PATH) {
            return Ok(None);
        }
        let host = host.and_then(|host| host_name::without_port(host.as_bytes())).ok_or(NoCertForHost)?;
        let host = host_name::lower(host);
        let is_ours = self.certs.has_host(host.trim_start_matches('[').trim_end_matches(']'));
        let location = format!("https://{host}{}{target}", self.port);
        match HeaderValue::from_str(&location) {
            Ok(location) if is_ours => Ok(Some(location)),
            _ => Err(NoCertForHost),
        }
    }

    /// Tells the client of a response over TLS to come back over TLS only, unless the instance has set a policy itself.
    pub(crate) fn set_policy(&self, headers: &mut HeaderMap) {
        if let Some(hsts) = &self.hsts
            && !headers.contains_key(STRICT_TRANSPORT_SECURITY)
        {
            headers.insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
    }

    /// The same as a line of a head.
    pub(crate) fn policy_line(&self) -> String {
        let value = self.hsts.as_ref().and_then(|hsts| hsts.to_str().ok());
        value.map(|value| format!("{STRICT_TRANSPORT_SECURITY}: {value}\r\n")).unwrap_or_default()
    }
}

/// The value of `Client-Cert` (RFC 9440, 2.2), a byte sequence; `None` if the certificate is too long.
pub(crate) fn client_cert_value(der: &[u8]) -> Option<HeaderValue> {
    if der.len() > MAX_CLIENT_CERT {
        return None;
    }
    HeaderValue::try_from(format!(":{}:", STANDARD.encode(der))).ok()
}
