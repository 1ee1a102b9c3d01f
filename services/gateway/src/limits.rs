//! The rate limit per client address.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Instant;

use hubspoke_chassis::rate_limit::{RateLimit, RateState};
use parking_lot::Mutex;

/// Clients are spread over this many maps, so that workers seldom contend for a lock.
const SHARDS: usize = 16;
/// A map of this size is purged of clients that have their whole burst back, and again each time it has doubled.
const CLEAN_AT: usize = 4096;

/// The request rates of all clients.
pub(crate) struct ClientRates {
    /// `None` is no limit.
    limit: Option<RateLimit>,
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

struct Shard {
    clients: HashMap<IpAddr, RateState>,
    clean_at: usize,
}

impl ClientRates {
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        Self {
            limit: RateLimit::new(per_second, burst),
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| {
                Mutex::new(Shard { clients: HashMap::new(), clean_at: CLEAN_AT })
            }),
        }
    }

    /// Counts a request of a client; false if it exceeds the rate.
    pub(crate) fn admit(&self, client: IpAddr, now: Instant) -> bool {
        let Some(limit) = &self.limit else { return true };
        let client = aggregate(client);
        let shard = usize::try_from(self.hasher.hash_one(client) % SHARDS as u64).unwrap_or_default();
        let Some(shard) = self.shards.get(shard) else { return true };
        let mut shard = shard.lock();
        let Shard { clients, clean_at } = &mut *shard;
        if clients.len() >= *clean_at {
            clients.retain(|_, state| !state.is_full(now));
            *clean_at = CLEAN_AT.max(clients.len() * 2);
        }
        limit.admit(clients.entry(client).or_default(), now)
    }
}

/// An IPv6 client can send from any address of its /64, so the network counts as one client.
pub(crate) fn aggregate(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let rates = ClientRates::new(10, 5);
        let (now, client) = (Instant::now(), IpAddr::from([127, 0, 0, 1]));
        let admitted = |now| (0..20).filter(|_| rates.admit(client, now)).count();
        assert_eq!(admitted(now), 5);
        assert_eq!(admitted(now + Duration::from_millis(100)), 1);
        assert_eq!(admitted(now + Duration::from_secs(60)), 5);
        assert!(rates.admit(IpAddr::from([127, 0, 0, 2]), now));
    }

    #[test]
    fn no_rate_is_no_limit() {
        let rates = ClientRates::new(0, 1);
        assert!((0..1000).all(|_| rates.admit(IpAddr::from([127, 0, 0, 1]), Instant::now())));
    }

    #[test]
    fn an_ipv6_network_is_one_client_and_a_mapped_address_is_ipv4() {
        let addr = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(aggregate(addr("2001:db8::1")), aggregate(addr("2001:db8::ffff:2")));
        assert_ne!(aggregate(addr("2001:db8::1")), aggregate(addr("2001:db8:0:1::1")));
        assert_eq!(aggregate(addr("::ffff:1.2.3.4")), addr("1.2.3.4"));
    }

    #[test]
    fn clients_that_have_their_burst_back_are_purged() {
        let rates = ClientRates::new(1000, 1);
        let now = Instant::now();
        for n in 0..200_000_u32 {
            rates.admit(IpAddr::from(n.to_be_bytes()), now + Duration::from_millis(u64::from(n)));
        }
        let remaining: usize = rates.shards.iter().map(|shard| shard.lock().clients.len()).sum();
        assert!(remaining <= SHARDS * CLEAN_AT);
    }

    #[test]
    fn a_full_map_is_not_purged_for_every_new_client() {
        let rates = ClientRates::new(1, 1);
        let now = Instant::now();
        for n in 0..200_000_u32 {
            rates.admit(IpAddr::from(n.to_be_bytes()), now);
        }
        for shard in &rates.shards {
            let shard = shard.lock();
            assert!(shard.clean_at > shard.clients.len(), "the next client would cause another purge");
        }
    }
}
