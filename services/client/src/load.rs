//! The load that a process reports with its heartbeats: counters, written by its server and read by
//! [`Member`](crate::Member). Readers derive rates from them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use hubspoke_protocol::{Heartbeat, Status};

/// Counts requests, served and in flight, and tells whether the process is draining. Clones share the counters.
///
/// ```
/// use hubspoke_client::LoadCounters;
///
/// let load = LoadCounters::default();
/// let request = load.start();
/// assert_eq!((load.heartbeat().requests, load.heartbeat().in_flight), (1, 1));
/// drop(request);
/// assert_eq!((load.heartbeat().requests, load.heartbeat().in_flight), (1, 0));
/// ```
#[derive(Debug, Clone, Default)]
pub struct LoadCounters(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    in_flight: AtomicU64,
    draining: AtomicBool,
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

    /// What a heartbeat is answered with now.
    pub fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            status: if self.0.draining.load(Relaxed) { Status::Draining } else { Status::Serving },
            requests: self.0.requests.load(Relaxed),
            in_flight: self.0.in_flight.load(Relaxed),
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
        assert_eq!(load.heartbeat(), Heartbeat { status: Status::Serving, requests: 2, in_flight: 1 });
        drop(second);
        load.drain();
        assert_eq!(load.heartbeat(), Heartbeat { status: Status::Draining, requests: 2, in_flight: 0 });
    }
}
