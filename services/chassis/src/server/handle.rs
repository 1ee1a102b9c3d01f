use std::sync::Arc;

use tokio::sync::Notify;

/// The connection that a request came on, in the request's extensions.
#[derive(Debug, Clone, Default)]
pub struct ConnectionHandle(Arc<Notify>);

impl ConnectionHandle {
    /// Closes the connection at once, with every request on it: for a client that does not read.
    pub fn close(&self) {
        self.0.notify_one();
    }

    pub(super) async fn closed(&self) {
        self.0.notified().await;
    }
}
