use std::time::Duration;

use tokio::sync::watch;

/// Tells a server when to drain, and how long it may take.
#[derive(Debug, Clone)]
pub struct Drain {
    start: watch::Receiver<bool>,
    grace: Duration,
}

impl Drain {
    /// A drain that starts when `true` is sent, or when the sender is dropped.
    pub fn new(start: watch::Receiver<bool>, grace: Duration) -> Self {
        Self { start, grace }
    }

    /// Completes when the server is to accept no more connections and to finish the requests in flight.
    pub async fn started(&self) {
        let _ = self.start.clone().wait_for(|started| *started).await;
    }

    /// How long the requests in flight may take from then on.
    pub fn grace(&self) -> Duration {
        self.grace
    }
}
