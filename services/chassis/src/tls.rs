//! Mutual TLS of a server inside the platform, and the metrics of certificates.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hubspoke_tls::{Generation, Identity, TlsSocket};
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::ConfigError;

/// How often the files of an identity are read again.
const RELOAD: Duration = Duration::from_secs(5);
/// By ALPN, best first. What a client really speaks is told from its first bytes, as in clear text.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The server's end of mutual TLS. Clones share the identity.
#[derive(Clone)]
pub struct ServerTls {
    identity: Arc<Identity>,
    config: Arc<rustls::ServerConfig>,
}

impl ServerTls {
    /// For this identity.
    ///
    /// # Errors
    /// [`ConfigError`] if TLS can't be set up.
    pub fn new(identity: &Arc<Identity>) -> Result<Self, ConfigError> {
        let config = identity.server_config(&PROTOCOLS);
        let config = config.map_err(|error| ConfigError::new(format!("tls: {error}")))?;
        Ok(Self { identity: identity.clone(), config: Arc::new(config) })
    }

    /// What is in use now.
    pub(crate) fn generation(&self) -> Generation {
        self.identity.generation()
    }

    /// Completes a handshake; returns the socket and the client's names.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<(TlsSocket<S>, Vec<String>)> {
        self.identity.accept(self.config.clone(), stream).await
    }
}

/// Reads the files of an identity again, every 5 s, on a thread that may wait for the disk. Never ends.
pub(crate) async fn keep_reloading(identity: Arc<Identity>) {
    loop {
        tokio::time::sleep(RELOAD).await;
        let identity = identity.clone();
        // A panic is reported by the runtime, and the next attempt follows.
        let _ = tokio::task::spawn_blocking(move || identity.reload()).await;
    }
}

/// Shows when certificates end, and how many times their files could not be used. `side` is what they are for: `public` or
/// `inside`. `expires` is in seconds since 1970; `None` while
/// there is no certificate.
pub fn show_certificates(
    meter: &Meter,
    side: &'static str,
    expires: impl Fn() -> Option<i64> + Send + Sync + 'static,
    failures: impl Fn() -> u64 + Send + Sync + 'static,
) {
    let label = [KeyValue::new("side", side)];
    meter
        .i64_observable_gauge("hub.tls.expiry")
        .with_unit("s")
        .with_description("Time until the first certificate in use ends")
        .with_callback({
            let label = label.clone();
            move |expiry| {
                let Some(expires) = expires() else { return };
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                expiry.observe(expires.saturating_sub(i64::try_from(now).unwrap_or(i64::MAX)), &label);
            }
        })
        .build();
    meter
        .u64_observable_counter("hub.tls.reload.failures")
        .with_unit("{reload}")
        .with_description("Times that the certificates' files could not be used, each 5 s while that lasts")
        .with_callback(move |count| count.observe(failures(), &label))
        .build();
}
