use std::io;
use std::net::SocketAddr;

use hubspoke_client::HttpClientError;
use hubspoke_client::membership::MemberError;

use crate::config::ConfigError;
use crate::metrics::MetricsError;

/// Why a service can't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address is in use, not on this machine, or not permitted.
    #[error("can't listen on {addr} ({key})")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The configuration key that sets it.
        key: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The membership is invalid.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// The HTTP client for log entries can't be made.
    #[error(transparent)]
    Client(#[from] HttpClientError),
    /// Metrics can't be set up.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

/// Why a service stopped before its shutdown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// One of its tasks panicked.
    #[error("a task of the service panicked")]
    Task(#[from] tokio::task::JoinError),
    /// One of its servers or tasks returned.
    #[error("the service stopped before its shutdown")]
    Ended,
}
