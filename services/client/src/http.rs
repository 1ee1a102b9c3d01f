//! What the HTTP clients of this package have in common.

use std::time::Duration;

use reqwest::redirect::Policy;

/// The HTTP client could not be created: out of file descriptors or memory, most likely.
#[derive(Debug, thiserror::Error)]
#[error("can't create an HTTP client")]
pub struct HttpClientError(#[source] reqwest::Error);

/// Builds a client that connects to instances directly, never through a proxy, and follows no redirects.
pub(crate) fn client(
    connect_timeout: Duration,
    options: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
) -> Result<reqwest::Client, HttpClientError> {
    let builder = reqwest::Client::builder().no_proxy().redirect(Policy::none());
    options(builder.connect_timeout(connect_timeout)).build().map_err(HttpClientError)
}

/// A status with its reason phrase: `503 Service Unavailable`.
pub(crate) fn status_line(status: u16) -> impl std::fmt::Display {
    let reason = reqwest::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    std::fmt::from_fn(move |f| match reason {
        Some(reason) => write!(f, "{status} {reason}"),
        None => write!(f, "{status} <unknown status code>"),
    })
}
