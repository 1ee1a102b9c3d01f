//! Idle connections make room for new ones before the limit is reached, as in nginx: a client must expect that of an idle
//! connection, and does not notice.

use std::sync::Weak;
use std::time::{Duration, Instant};

use crate::client_conn::{ClientConn, ConnCommand};

/// So many connections are kept free for new clients, as long as there are idle ones.
const SPARE: usize = 32;
/// How long a connection must have been idle, after a request and before the first one.
const MIN_IDLE: Duration = Duration::from_secs(1);
const MIN_UNUSED: Duration = Duration::from_secs(5);
/// Time between two looks at all connections of a worker.
const PAUSE: Duration = Duration::from_millis(100);

/// A worker's connections that were idle at the last look, the one that had been idle for longest last.
#[derive(Default)]
pub(super) struct IdleClients {
    found: Vec<Weak<ClientConn>>,
    looked: Option<Instant>,
    /// Only those with TLS.
    tls_only: bool,
}

/// Whether new connections need the room of idle ones.
pub(super) fn is_crowded(connections: usize, limit: usize) -> bool {
    connections > limit - SPARE.min(limit / 8)
}

impl IdleClients {
    pub(super) fn with_tls() -> Self {
        Self { tls_only: true, ..Self::default() }
    }

    /// Closes the connection that has been idle for longest, if there is one.
    pub(super) fn close_one(&mut self, clients: &[Weak<ClientConn>], now: Instant) {
        let is_due = self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= PAUSE);
        if self.found.is_empty() && is_due {
            self.looked = Some(now);
            let mut idle: Vec<_> =
                clients.iter().filter_map(|client| Some((self.idle(client, now)?, client))).collect();
            idle.sort_by_key(|(time, _)| *time);
            self.found = idle.into_iter().map(|(_, client)| client.clone()).collect();
        }
        while let Some(client) = self.found.pop() {
            if let (Some(_), Some(client)) = (self.idle(&client, now), client.upgrade()) {
                return client.send(ConnCommand::Close);
            }
        }
    }

    /// How long a connection has been idle, if that is long enough for it to be closed.
    fn idle(&self, client: &Weak<ClientConn>, now: Instant) -> Option<Duration> {
        let client = client.upgrade()?;
        let (idle, was_used) = client.idle(now)?;
        let min = if was_used { MIN_IDLE } else { MIN_UNUSED };
        (idle >= min && (client.tls || !self.tls_only)).then_some(idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_places_are_kept_free() {
        let first = |limit: usize| (0..=limit).find(|connections| is_crowded(*connections, limit));
        assert_eq!((first(10_000), first(16), first(8), first(1)), (Some(9_969), Some(15), Some(8), None));
    }
}
