use std::io;
use std::net::SocketAddr;

use hubspoke_client::HttpClientError;
use hubspoke_client::membership::MemberError;

use crate::config::{ConfigError, variable};
use crate::metrics::MetricsError;

/// Lower ports are for privileged processes on most systems.
const PRIVILEGED: u16 = 1024;

/// Why a service can't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address is in use, not on this machine, or not permitted.
    #[error("can't listen on {addr} ({key}): {}", next_step(*addr, key, program, error))]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The configuration key that sets it.
        key: &'static str,
        /// What people start to run the service: `log`, or `hub` if it is one of those in `hub up`.
        program: &'static str,
        /// The cause.
        error: io::Error,
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

/// Why an address can't be bound, and what to do.
fn next_step(addr: SocketAddr, key: &str, program: &str, error: &io::Error) -> String {
    let variable = variable(key);
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "the port is in use; is another {program} running? Stop it, or choose another port with {variable}"
        ),
        io::ErrorKind::PermissionDenied if addr.port() < PRIVILEGED => {
            format!("ports below {PRIVILEGED} need a privilege; choose another one with {variable}")
        }
        io::ErrorKind::AddrNotAvailable => format!(
            "this machine does not have that address; set {variable} to one of its own, or to 0.0.0.0:{} for all",
            addr.port()
        ),
        _ => format!("{error}; choose another address with {variable}"),
    }
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
