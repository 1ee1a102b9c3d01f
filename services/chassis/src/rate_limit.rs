//! A rate limit with a burst: the generic cell rate algorithm (GCRA), a token bucket that needs one time per client
//! and no timer. Pure: the time is a parameter.

use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The address that stands for a client in limits. One IPv6 client has a whole /64 network.
pub fn client_network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

/// A number of events per second, and how many of them may come at once.
///
/// ```
/// use std::time::{Duration, Instant};
/// use hubspoke_chassis::rate_limit::{RateLimit, RateState};
///
/// let limit = RateLimit::new(10, 2).expect("a rate above 0");
/// let (mut client, now) = (RateState::default(), Instant::now());
/// assert!(limit.admit(&mut client, now) && limit.admit(&mut client, now));
/// assert!(!limit.admit(&mut client, now));
/// assert!(limit.admit(&mut client, now + Duration::from_millis(100)));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct RateLimit {
    /// Time between two events at the rate.
    interval: Duration,
    /// How far ahead of the rate a client may be.
    tolerance: Duration,
}

/// The state of one client of a [`RateLimit`]. The default is a client with its whole burst.
#[derive(Debug, Clone, Copy, Default)]
pub struct RateState {
    /// When the client has its whole burst again (GCRA's theoretical arrival time).
    full_at: Option<Instant>,
}

impl RateLimit {
    /// A limit of `per_second` events; `None`, which is no limit, for 0. A `burst` of 0 counts as 1.
    pub fn new(per_second: u32, burst: u32) -> Option<Self> {
        let interval = Duration::from_secs(1).checked_div(per_second)?;
        Some(Self { interval, tolerance: interval * burst.saturating_sub(1) })
    }

    /// Counts an event of a client; `false`, without counting it, if it exceeds the limit.
    pub fn admit(&self, client: &mut RateState, now: Instant) -> bool {
        let full_at = client.full_at.unwrap_or(now).max(now);
        let admitted = full_at - now <= self.tolerance;
        if admitted {
            client.full_at = Some(full_at + self.interval);
        }
        admitted
    }
}

impl RateState {
    /// Whether the client has its whole burst, so that it may be forgotten.
    pub fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|at| at <= now)
    }
}
