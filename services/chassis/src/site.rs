//! Which requests web pages may make. A browser sends the requests of any page from inside the operator's network, so a
//! service that trusts its network must tell them apart:
//!
//! - A page whose own name resolves to the service's address (DNS rebinding) is same-origin for the browser, but names
//!   itself in `Host`. So a service answers only to names that it [knows](KnownHosts); 421 for others.
//! - A page of another origin is named by `Sec-Fetch-Site` and `Origin`; 403. Links to a service work.
//!
//! What comes through a gateway is for the public: its `Host` is a name of the gateway, and pages of other sites may be
//! meant to read it. A page can't pretend that: browsers let no script set `Via`. A service that must not be written to
//! from other sites checks that itself, with [`check_same_site`].

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, header};

pub use self::error::SiteError;
pub use self::host::request_host;
pub use self::known::KnownHosts;

mod error;
mod host;
mod known;

/// What some routes of a service accept.
#[derive(Debug, Clone)]
pub(crate) struct SiteRule {
    hosts: KnownHosts,
    /// Whether the routes may be reached through a gateway.
    routed: bool,
}

impl SiteRule {
    pub(crate) fn new(hosts: KnownHosts, routed: bool) -> Self {
        Self { hosts, routed }
    }

    pub(crate) fn check<B>(&self, request: &http::Request<B>) -> Result<(), SiteError> {
        let headers = request.headers();
        let (uri, method) = (request.uri(), request.method());
        // "GET x": hyper takes the target for a host, as CONNECT has it.
        if uri.scheme().is_none() && uri.authority().is_some() && *method != Method::CONNECT {
            return Err(SiteError::Target);
        }
        let host = request_host(request.version(), uri, headers)?;
        if self.routed && headers.contains_key(header::VIA) {
            return Ok(());
        }
        // Only HTTP/1.0 has no Host, and no browser speaks that.
        if let Some(host) = host.filter(|host| !self.hosts.contains(host)) {
            return Err(SiteError::UnknownHost(host.to_owned()));
        }
        if is_cross_site(headers, host) && !is_navigation(method, headers) {
            return Err(SiteError::CrossSite);
        }
        Ok(())
    }
}

/// Refuses a request that a web page of another site made: for handlers that are reached through a gateway, too. Clients
/// that are not browsers send neither `Sec-Fetch-Site` nor `Origin`.
///
/// # Errors
/// [`SiteError::CrossSite`], or an error of [`request_host`].
pub fn check_same_site(request: &Parts) -> Result<(), SiteError> {
    let host = request_host(request.version, &request.uri, &request.headers)?;
    if is_cross_site(&request.headers, host) { Err(SiteError::CrossSite) } else { Ok(()) }
}

fn is_cross_site(headers: &HeaderMap, host: Option<&str>) -> bool {
    let all = |name: &str| headers.get_all(name).into_iter().map(HeaderValue::as_bytes);
    if headers.contains_key("sec-fetch-site") {
        // "none": the user typed the address. A page of another port of this host is "same-site".
        return !all("sec-fetch-site").all(|site| site == b"same-origin" || site == b"none");
    }
    // Older browsers, and pages that come neither by HTTPS nor from this machine.
    let is_own = |origin: &[u8]| {
        let at = origin.windows(3).position(|part| part == b"://");
        let of = at.map(|at| &origin[at + 3..]);
        of.zip(host).is_some_and(|(of, host)| of.eq_ignore_ascii_case(host.as_bytes()))
    };
    !all("origin").all(is_own)
}

/// Whether the user followed a link. The page with the link can't see the answer.
fn is_navigation(method: &Method, headers: &HeaderMap) -> bool {
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|given| given == value);
    *method == Method::GET && is("sec-fetch-mode", "navigate") && is("sec-fetch-dest", "document")
}

#[cfg(test)]
mod tests;
