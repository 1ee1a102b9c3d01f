//! What each client address holds: its open connections and its requests in flight, so that none can take all of them.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::config::LimitsConfig;
use crate::limits::aggregate;

/// Clients are spread over this many maps, so that workers seldom contend for a lock.
const SHARDS: usize = 16;
/// A map of this size is purged of clients that hold nothing, and again each time it has doubled.
const CLEAN_AT: usize = 256;

/// All clients that hold something.
pub(crate) struct Clients {
    /// 0 is no limit.
    max_connections: usize,
    /// 0 is no limit.
    max_in_flight: usize,
    /// The share of a service's requests in flight that one client may take.
    percent: usize,
    h2: Share,
    tls: Share,
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

struct Shard {
    clients: HashMap<IpAddr, Arc<ClientUse>>,
    clean_at: usize,
}

/// What one client holds. A connection keeps it, so that its requests need not look it up.
#[derive(Debug, Default)]
pub(crate) struct ClientUse {
    connections: AtomicUsize,
    in_flight: AtomicUsize,
    h2_connections: AtomicUsize,
    tls_connections: AtomicUsize,
}

/// Connections of one kind, of which one client may have half.
#[derive(Debug)]
struct Share {
    used: AtomicUsize,
    max: usize,
}

/// An open connection of a client; it counts until this is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionSlot(Arc<ClientUse>);

/// An open connection of one kind; it counts until this is dropped.
pub(crate) struct ShareSlot<'a> {
    all: &'a AtomicUsize,
    own: Option<&'a AtomicUsize>,
}

/// A request in flight of a client; it counts until this is dropped.
#[derive(Debug)]
pub(crate) struct RequestSlot(Arc<ClientUse>);

impl Clients {
    pub(crate) fn new(limits: &LimitsConfig, tls_connections: usize) -> Self {
        let share = |max| Share { used: AtomicUsize::new(0), max };
        Self {
            max_connections: limits.client_connections,
            max_in_flight: limits.client_in_flight,
            percent: limits.client_in_flight_percent,
            h2: share(limits.h2_connections),
            tls: share(tls_connections),
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| {
                Mutex::new(Shard { clients: HashMap::new(), clean_at: CLEAN_AT })
            }),
        }
    }

    /// The client at an address.
    pub(crate) fn of(&self, client: IpAddr) -> Arc<ClientUse> {
        let client = aggregate(client);
        let shard = usize::try_from(self.hasher.hash_one(client) % SHARDS as u64).unwrap_or_default();
        let Some(shard) = self.shards.get(shard) else { return Arc::default() };
        let mut shard = shard.lock();
        let Shard { clients, clean_at } = &mut *shard;
        if clients.len() >= *clean_at {
            // A client that only the map knows holds nothing; nobody else can come to know it meanwhile.
            clients.retain(|_, client| Arc::strong_count(client) > 1);
            *clean_at = CLEAN_AT.max(clients.len() * 2);
        }
        clients.entry(client).or_default().clone()
    }

    /// Counts a connection of a client, unless it has as many as it may.
    pub(crate) fn connect(&self, client: Arc<ClientUse>) -> Option<ConnectionSlot> {
        let before = client.connections.fetch_add(1, Relaxed);
        let slot = ConnectionSlot(client);
        (self.max_connections == 0 || before < self.max_connections).then_some(slot)
    }

    /// Counts a client's connection as one over HTTP/2, unless there are too many, or too many of this client. `None` is a
    /// trusted proxy.
    pub(crate) fn connect_h2<'a>(&'a self, client: Option<&'a ClientUse>) -> Option<ShareSlot<'a>> {
        self.h2.take(client.map(|client| &client.h2_connections))
    }

    /// The same for a connection with TLS.
    pub(crate) fn connect_tls<'a>(&'a self, client: Option<&'a ClientUse>) -> Option<ShareSlot<'a>> {
        self.tls.take(client.map(|client| &client.tls_connections))
    }

    /// Connections with TLS, and how many there may be.
    pub(crate) fn tls_connections(&self) -> (usize, usize) {
        (self.tls.used.load(Relaxed), self.tls.max)
    }

    /// Counts a request of a client to a service that has `in_flight` of at most `max`, this one included, unless the
    /// client has as many in flight as it may.
    ///
    /// A service that is not crowded has room for everybody. In one that is, a client with as many requests in flight
    /// as its share of that service gets no more.
    pub(crate) fn request(
        &self,
        client: Arc<ClientUse>,
        in_flight: usize,
        max: usize,
    ) -> Option<RequestSlot> {
        let before = client.in_flight.fetch_add(1, Relaxed);
        let slot = RequestSlot(client);
        if self.max_in_flight == 0 {
            return Some(slot);
        }
        let share = if self.percent >= 100 { max } else { (max.saturating_mul(self.percent) / 100).max(1) };
        let most = if in_flight > share { share.min(self.max_in_flight) } else { self.max_in_flight };
        (before < most).then_some(slot)
    }
}

impl ConnectionSlot {
    /// The client that holds it.
    pub(crate) fn client(&self) -> Arc<ClientUse> {
        self.0.clone()
    }
}

impl Share {
    /// Counts a connection, unless there are too many, or too many of its client, which has `own`.
    fn take<'a>(&'a self, own: Option<&'a AtomicUsize>) -> Option<ShareSlot<'a>> {
        let all_before = self.used.fetch_add(1, Relaxed);
        let own_before = own.map_or(0, |own| own.fetch_add(1, Relaxed));
        let slot = ShareSlot { all: &self.used, own };
        (all_before < self.max && own_before < self.max.div_ceil(2)).then_some(slot)
    }
}

impl Drop for ShareSlot<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Relaxed);
        if let Some(own) = self.own {
            own.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

impl Drop for RequestSlot {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(connections: usize, in_flight: usize) -> Clients {
        let limits = LimitsConfig {
            client_connections: connections,
            client_in_flight: in_flight,
            client_in_flight_percent: 50,
            ..LimitsConfig::default()
        };
        Clients::new(&limits, 1)
    }

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_connections_of_an_address_are_limited() {
        let clients = clients(2, 0);
        let connect = |text: &str| clients.connect(clients.of(addr(text)));
        let (first, second) = (connect("127.0.0.1"), connect("127.0.0.1"));
        assert!(first.is_some() && second.is_some() && connect("127.0.0.1").is_none());
        assert!(connect("127.0.0.2").is_some());
        drop(first);
        let third = connect("::ffff:127.0.0.1");
        assert!(third.is_some() && connect("127.0.0.1").is_none());
        drop((second, third));
        assert!(connect("127.0.0.1").is_some());
    }

    #[test]
    fn one_address_gets_half_of_the_http2_connections() {
        let clients = Clients::new(&LimitsConfig { h2_connections: 4, ..LimitsConfig::default() }, 1);
        let (greedy, other) = (clients.of(addr("127.0.0.1")), clients.of(addr("127.0.0.2")));
        let held = [clients.connect_h2(Some(&greedy)), clients.connect_h2(Some(&greedy))];
        assert!(held.iter().all(Option::is_some) && clients.connect_h2(Some(&greedy)).is_none());
        let proxy = [clients.connect_h2(Some(&other)), clients.connect_h2(None)];
        assert!(proxy.iter().all(Option::is_some) && clients.connect_h2(None).is_none());
        drop(held);
        assert!(clients.connect_h2(Some(&greedy)).is_some());
    }

    #[test]
    fn the_requests_in_flight_of_a_network_are_limited() {
        let clients = clients(0, 3);
        let request = |text: &str| clients.request(clients.of(addr(text)), 1, 1000);
        let held = [request("2001:db8::1"), request("2001:db8::2"), request("2001:db8::ffff:3")];
        assert!(held.iter().all(Option::is_some) && request("2001:db8::4").is_none());
        assert!(request("2001:db8:0:1::1").is_some() && request("127.0.0.1").is_some());
        drop(held);
        assert!(request("2001:db8::4").is_some());
    }

    #[test]
    fn a_client_with_its_share_gets_no_more_of_a_crowded_service() {
        let clients = clients(0, 1000);
        let (greedy, other) = (clients.of(addr("127.0.0.1")), clients.of(addr("127.0.0.2")));
        let held: Vec<_> = (1..=100).map(|n| clients.request(greedy.clone(), n, 200)).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(clients.request(greedy.clone(), 101, 200).is_none());
        assert!(clients.request(other, 101, 200).is_some());
        // Another service, which is not crowded, is open to it.
        assert!(clients.request(greedy, 1, 200).is_some());
    }

    #[test]
    fn no_limit_admits_all() {
        let clients = clients(0, 0);
        let client = clients.of(addr("127.0.0.1"));
        let all: Vec<_> = (0..100).map(|_| clients.request(client.clone(), 10, 10)).collect();
        assert!(all.iter().all(Option::is_some));
        assert!((0..100).all(|_| clients.connect(client.clone()).is_some()));
    }

    #[test]
    fn clients_that_hold_nothing_are_forgotten() {
        let clients = clients(0, 10);
        let held = clients.of(addr("127.0.0.1"));
        for n in 0..100_000_u32 {
            clients.request(clients.of(IpAddr::from(n.to_be_bytes())), 1, 1);
        }
        let known: usize = clients.shards.iter().map(|shard| shard.lock().clients.len()).sum();
        assert!(known <= SHARDS * CLEAN_AT, "{known}");
        assert!(Arc::ptr_eq(&held, &clients.of(addr("127.0.0.1"))));
    }
}
