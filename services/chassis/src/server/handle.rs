use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::Notify;

/// The connection that a request came on, in the request's extensions.
#[derive(Debug, Clone, Default)]
pub struct ConnectionHandle {
    close: Arc<Notify>,
    peer: Option<SocketAddr>,
    certificate: Option<Arc<[String]>>,
}

impl ConnectionHandle {
    /// The handle of a connection from an address.
    pub fn new(peer: SocketAddr) -> Self {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        Self { close: Arc::default(), peer: Some(peer), certificate: None }
    }

    /// The same connection, with the names in the client's certificate.
    #[must_use]
    pub(super) fn with_certificate(self, names: Vec<String>) -> Self {
        Self { certificate: Some(names.into()), ..self }
    }

    /// The names in the client's certificate; `None` if the connection has no TLS.
    pub fn certificate(&self) -> Option<&Arc<[String]>> {
        self.certificate.as_ref()
    }

    /// The other end's address; an IPv4 address also if the socket is IPv6. `None` for the default, which belongs to
    /// no connection.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Closes the connection at once, with every request on it: for a client that does not read.
    pub fn close(&self) {
        self.close.notify_one();
    }

    pub(super) async fn closed(&self) {
        self.close.notified().await;
    }
}
