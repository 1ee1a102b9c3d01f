//! Limits of a server's connection.

use std::time::Duration;

use crate::request_head::HeadLimits;

/// Limits of a connection.
#[derive(Debug, Clone, Copy)]
pub struct ServerConfig {
    /// How large a request head may be.
    pub head: HeadLimits,
    /// Bytes of a request's body that are read and discarded if nobody wants them.
    pub discard_bytes: usize,
    /// How long to wait for such bytes.
    pub discard_timeout: Duration,
}

impl Default for ServerConfig {
    /// [`HeadLimits::default`], 64 MiB, 5 s.
    fn default() -> Self {
        let (discard_bytes, discard_timeout) = (64 << 20, Duration::from_secs(5));
        Self { head: HeadLimits::default(), discard_bytes, discard_timeout }
    }
}
