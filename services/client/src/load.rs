//! What a process counts of its own requests, for its heartbeat: written by whatever serves them, read by
//! [`Member`](crate::Member). Counters only; rates are for readers to derive.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use hubspoke_protocol::{Heartbeat, Status};

/// Shared counters of requests served and in flight, and whether the process drains.
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

    /// From now on the heartbeat says `draining`.
    pub fn drain(&self) {
        self.0.draining.store(true, Relaxed);
    }

    /// What the next heartbeat will say.
    pub fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            status: if self.0.draining.load(Relaxed) { Status::Draining } else { Status::Serving },
            requests: self.0.requests.load(Relaxed),
            in_flight: self.0.in_flight.load(Relaxed),
        }
    }
}

/// One request in flight.
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
    fn a_request_is_in_flight_while_its_guard_lives() {
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
