//! TLS towards clients: the listener, the handshake, and the certificates that are read again while it runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hubspoke_chassis::BindError;
use hubspoke_chassis::config::ConfigError;
use hubspoke_tls::{CertFiles, CertStore, IssueCert, server_config};
use opentelemetry::metrics::Meter;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::config::TlsConfig;
use crate::tls_socket::TlsSocket;

/// How often the files are read again.
pub(super) const RELOAD: Duration = Duration::from_secs(5);
/// By ALPN, best first. What a client really speaks is told from its first bytes, as in clear text.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The port for TLS, bound.
pub(super) struct TlsPort {
    pub(super) listener: TcpListener,
    pub(super) addr: SocketAddr,
    pub(super) handshakes: Handshakes,
}

/// Takes handshakes. Clones share the certificates and the count.
#[derive(Clone)]
pub(super) struct Handshakes {
    acceptor: TlsAcceptor,
    store: Arc<CertStore>,
    connections: Arc<AtomicUsize>,
    max: usize,
}

/// A connection with TLS that counts until this is dropped.
pub(super) struct TlsSlot(Arc<AtomicUsize>);

impl Drop for TlsSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl TlsPort {
    /// Reads the certificates and binds the port, if TLS is on.
    pub(super) async fn bind(
        config: &TlsConfig,
        meter: &Meter,
        program: &'static str,
    ) -> Result<Option<Self>, BindError> {
        let Some(listen) = config.listen else { return Ok(None) };
        let invalid = |why: String| BindError::Config(ConfigError::new(format!("gateway.tls.certs: {why}")));
        if config.certs.is_empty() {
            return Err(invalid("is empty, and gateway.tls.listen is set".to_owned()));
        }
        let files = config.certs.iter().map(|folder| CertFiles::in_folder(folder)).collect();
        let store = Arc::new(CertStore::open(files).map_err(|error| invalid(error.to_string()))?);
        let tls = server_config(store.clone(), &PROTOCOLS).map_err(|error| invalid(error.to_string()))?;
        show(meter, &store);
        let failed = |error| BindError::Listen { addr: listen, key: "gateway.tls.listen", program, error };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let handshakes = Handshakes { acceptor, store, connections: Arc::default(), max: config.connections };
        Ok(Some(Self { listener, addr, handshakes }))
    }
}

impl TlsPort {
    /// Lets certificates be made for hosts that no file has one for.
    pub(super) fn issue_with(&self, issue: IssueCert) {
        self.handshakes.store.issue_with(issue);
    }
}

impl Handshakes {
    /// A place for one more connection, unless there are too many.
    pub(super) fn admit(&self) -> Option<TlsSlot> {
        let slot = TlsSlot(self.connections.clone());
        (self.connections.fetch_add(1, Relaxed) < self.max).then_some(slot)
    }

    /// The socket after the handshake; `None` if that fails.
    pub(super) async fn shake(&self, stream: TcpStream) -> Option<TlsSocket> {
        match self.acceptor.accept(stream).await {
            Ok(mut stream) => {
                stream.get_mut().1.set_buffer_limit(Some(MAX_UNSENT));
                Some(TlsSocket::new(stream))
            }
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "a TLS handshake failed");
                None
            }
        }
    }

    /// Reads the certificates again, on a thread that may wait for the disk.
    pub(super) fn reload(&self) -> JoinHandle<()> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || store.reload())
    }
}

/// The most encrypted bytes that wait for one client.
const MAX_UNSENT: usize = 32 << 10;

fn show(meter: &Meter, store: &Arc<CertStore>) {
    let shown = store.clone();
    meter
        .i64_observable_gauge("hub.tls.expiry")
        .with_unit("s")
        .with_description("Time until the first certificate in use ends")
        .with_callback(move |expiry| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            expiry.observe(shown.expires().saturating_sub(i64::try_from(now).unwrap_or(i64::MAX)), &[]);
        })
        .build();
    let shown = store.clone();
    meter
        .u64_observable_counter("hub.tls.reload.failures")
        .with_unit("{reload}")
        .with_description("Times that the certificates' files could not be used, each 5 s while that lasts")
        .with_callback(move |failures| failures.observe(shown.reload_failures(), &[]))
        .build();
}
