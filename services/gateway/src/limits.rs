//! How many requests one client address may make: the generic cell rate algorithm, which needs one time per client.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Maps that clients are spread over, so that workers seldom wait for one another.
const SHARDS: usize = 16;
/// A map is cleared of clients that have their whole burst back when it has grown to this.
const CLEAN_AT: usize = 4096;

/// The rates of all clients.
pub(crate) struct ClientRates {
    /// Time that one request costs; `None` where there is no limit.
    cost: Option<Duration>,
    /// How far ahead of the clock a client may be.
    slack: Duration,
    hasher: RandomState,
    /// When each client will have paid for its requests.
    shards: [Mutex<HashMap<IpAddr, Instant>>; SHARDS],
}

impl ClientRates {
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        let cost = (per_second > 0).then(|| Duration::from_secs(1) / per_second.max(1));
        Self {
            cost,
            slack: cost.unwrap_or_default() * burst.saturating_sub(1),
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }

    /// Counts a request of a client; false where it is one too many.
    pub(crate) fn admit(&self, client: IpAddr, now: Instant) -> bool {
        let Some(cost) = self.cost else { return true };
        let client = aggregate(client);
        let shard = usize::try_from(self.hasher.hash_one(client) % SHARDS as u64).unwrap_or_default();
        let Some(shard) = self.shards.get(shard) else { return true };
        let mut paid = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if paid.len() >= CLEAN_AT && !paid.contains_key(&client) {
            paid.retain(|_, at| *at > now);
        }
        let at = paid.get(&client).copied().unwrap_or(now).max(now);
        if at - now > self.slack {
            return false;
        }
        paid.insert(client, at + cost);
        true
    }
}

/// An IPv6 client has a whole /64 to send from: it counts as one.
fn aggregate(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
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
    fn clients_that_have_paid_are_forgotten() {
        let rates = ClientRates::new(1000, 1);
        let now = Instant::now();
        for n in 0..200_000_u32 {
            rates.admit(IpAddr::from(n.to_be_bytes()), now + Duration::from_millis(u64::from(n)));
        }
        let kept: usize = rates.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!(kept <= SHARDS * CLEAN_AT);
    }
}
