//! The connections of a port: which client may have another one, and which one is closed for it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::task::{AbortHandle, Id};

use super::connection_state::{Client, ConnectionState};
use super::limits::PortLimits;
use crate::rate_limit::client_network;

/// How long to wait before asking again, unless a connection ends before.
const PAUSE: Duration = Duration::from_millis(10);
/// How long a connection of the reserve has to send a request before another one takes its place.
const RESERVE_MIN_IDLE: Duration = Duration::from_millis(50);
/// Clients that have left are forgotten when there are more than this many.
const MIN_PURGE: usize = 64;

/// What becomes of a connection that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is served.
    Serve,
    /// Its health checks are answered; anything else waits until it is promoted.
    Reserve,
    /// Neither yet; ask again after this time, or when a connection ends.
    Wait(Duration),
}

/// The open connections.
#[derive(Debug)]
pub(super) struct ConnectionTable {
    limits: PortLimits,
    open: HashMap<Id, Entry>,
    /// How many of them are in the reserve.
    reserved: usize,
    clients: HashMap<IpAddr, Arc<Client>>,
}

#[derive(Debug)]
struct Entry {
    state: Arc<ConnectionState>,
    task: AbortHandle,
}

impl ConnectionTable {
    pub(super) fn new(limits: PortLimits) -> Self {
        Self { limits, open: HashMap::new(), reserved: 0, clients: HashMap::new() }
    }

    /// The client at an address.
    pub(super) fn client(&mut self, address: IpAddr) -> Arc<Client> {
        if self.clients.len() > 2 * self.open.len() + MIN_PURGE {
            self.clients.retain(|_, client| Arc::strong_count(client) > 1);
        }
        let address = client_network(address);
        self.clients.entry(address).or_insert_with(|| Arc::new(Client::new(address))).clone()
    }

    /// Decides about a new connection of a client. If the port is full or the client has its share, the connection that
    /// has been idle for longest is closed, as nginx does; a client must expect that of an idle connection.
    pub(super) fn admit(&self, client: &Client, out_of_files: bool, now: Instant) -> Admission {
        let has_share = client.connections.load(Relaxed) >= self.limits.per_client;
        if !has_share && !out_of_files && self.len() < self.limits.connections {
            return Admission::Serve;
        }
        let of_client = |state: &ConnectionState| state.client.address == client.address;
        let replaceable = |state: &ConnectionState| !state.is_reserved() && (!has_share || of_client(state));
        let is_due = |state: &ConnectionState| state.idle(now) >= Some(self.min_idle(state));
        let closable = |state: &ConnectionState| replaceable(state) && is_due(state);
        if let Some((entry, _)) = self.longest_idle(now, closable) {
            entry.state.close_if_idle(); // if it ends, its place is free
            return Admission::Wait(PAUSE);
        }
        // One that has had requests is about to be due.
        if let Some((_, idle)) = self.longest_idle(now, |state| state.requested() && replaceable(state)) {
            return Admission::Wait(self.limits.min_idle.saturating_sub(idle).max(PAUSE));
        }
        if self.reserved < self.limits.reserve {
            return Admission::Reserve;
        }
        if let Some((entry, idle)) = self.longest_idle(now, ConnectionState::is_reserved)
            && idle >= RESERVE_MIN_IDLE
        {
            entry.task.abort();
        }
        Admission::Wait(PAUSE)
    }

    fn min_idle(&self, state: &ConnectionState) -> Duration {
        if state.requested() { self.limits.min_idle } else { self.limits.min_idle_unused }
    }

    fn longest_idle(
        &self,
        now: Instant,
        among: impl Fn(&ConnectionState) -> bool,
    ) -> Option<(&Entry, Duration)> {
        let of_these = self.open.values().filter(|entry| among(&entry.state));
        of_these.filter_map(|entry| Some((entry, entry.state.idle(now)?))).max_by_key(|(_, idle)| *idle)
    }

    pub(super) fn add(&mut self, task: AbortHandle, state: Arc<ConnectionState>) {
        if state.is_reserved() {
            self.reserved += 1;
        } else {
            state.client.connections.fetch_add(1, Relaxed);
        }
        self.open.insert(task.id(), Entry { state, task });
    }

    /// The task of a connection has ended; the oldest of the reserve takes its place.
    pub(super) fn remove(&mut self, id: Id) {
        let Some(Entry { state, .. }) = self.open.remove(&id) else { return };
        if state.is_reserved() {
            self.reserved -= 1;
            return;
        }
        state.client.connections.fetch_sub(1, Relaxed);
        if self.len() >= self.limits.connections {
            return;
        }
        let may_have_more =
            |state: &ConnectionState| state.client.connections.load(Relaxed) < self.limits.per_client;
        let waiting = self.open.values().map(|entry| &entry.state);
        let waiting = waiting.filter(|state| state.is_reserved() && may_have_more(state));
        if let Some(oldest) = waiting.min_by_key(|state| state.opened()) {
            oldest.promote();
            oldest.client.connections.fetch_add(1, Relaxed);
            self.reserved -= 1;
        }
    }

    /// Connections that are not in the reserve.
    pub(super) fn len(&self) -> usize {
        self.open.len() - self.reserved
    }
}
