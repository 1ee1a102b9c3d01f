//! The load that a process reports with its heartbeats: counters, written by its server and read by
//! [`Member`](crate::Member). Readers derive rates from them.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use hubspoke_protocol::{GatewayHeartbeat, Heartbeat, Status, UpstreamCount};

/// Counts requests, served and in flight, and tells whether the process is draining. Clones share the counters.
///
/// ```
/// use hubspoke_client::LoadCounters;
///
/// let load = LoadCounters::default();
/// let request = load.start();
/// assert_eq!((load.heartbeat().requests, load.heartbeat().in_flight), (Some(1), Some(1)));
/// drop(request);
/// assert_eq!((load.heartbeat().requests, load.heartbeat().in_flight), (Some(1), Some(0)));
/// ```
#[derive(Debug, Clone, Default)]
pub struct LoadCounters(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    in_flight: AtomicU64,
    draining: AtomicBool,
    upstream: OnceLock<UpstreamCounts>,
}

/// Returns what a gateway has counted for others.
struct UpstreamCounts(Box<dyn Fn() -> Vec<UpstreamCount> + Send + Sync>);

impl fmt::Debug for UpstreamCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpstreamCounts")
    }
}

impl LoadCounters {
    /// Counts a request as in flight until the guard is dropped.
    pub fn start(&self) -> InFlight {
        self.0.requests.fetch_add(1, Relaxed);
        self.0.in_flight.fetch_add(1, Relaxed);
        InFlight(self.clone())
    }

    /// Heartbeats report [`Status::Draining`] from now on.
    pub fn drain(&self) {
        self.0.draining.store(true, Relaxed);
    }

    /// Heartbeats report these counts too, from now on. The registry shows them for instances that report no load. To
    /// be called once; their JSON must not exceed 3,500 bytes.
    pub fn count_upstream(&self, counts: impl Fn() -> Vec<UpstreamCount> + Send + Sync + 'static) {
        let _ = self.0.upstream.set(UpstreamCounts(Box::new(counts))); // a second call has no effect
    }

    /// What a heartbeat is answered with now, with what is counted for others.
    pub(crate) fn answer(&self) -> GatewayHeartbeat {
        let upstream = self.0.upstream.get().map(|counts| (counts.0)()).unwrap_or_default();
        GatewayHeartbeat { heartbeat: self.heartbeat(), upstream }
    }

    /// The counters as a heartbeat reports them now.
    pub fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            status: if self.0.draining.load(Relaxed) { Status::Draining } else { Status::Serving },
            requests: Some(self.0.requests.load(Relaxed)),
            in_flight: Some(self.0.in_flight.load(Relaxed)),
        }
    }
}

/// A request in flight; over when this is dropped.
#[derive(Debug)]
pub struct InFlight(LoadCounters);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.0.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_in_flight_until_its_guard_is_dropped() {
        let load = LoadCounters::default();
        let first = load.start();
        let second = load.start();
        drop(first);
        assert_eq!(
            load.heartbeat(),
            Heartbeat { status: Status::Serving, requests: Some(2), in_flight: Some(1) }
        );
        drop(second);
        load.drain();
        assert_eq!(
            load.heartbeat(),
            Heartbeat { status: Status::Draining, requests: Some(2), in_flight: Some(0) }
        );
    }
}
