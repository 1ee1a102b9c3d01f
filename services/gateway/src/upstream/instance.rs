//! One registration of one instance, and what the gateway has seen of it.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderValue;
use hubspoke_protocol::{InstanceState, ServiceInfo};
use rand::Rng;
use tokio::sync::Notify;

use super::pool::Pool;
use crate::balance::{DEFAULT_WEIGHT, Tier};
use crate::config::EjectConfig;
use crate::eject::{Ejection, Verdict};
use crate::metrics::InstanceStats;

/// The greatest weight; more would be a mistake.
const MAX_WEIGHT: u32 = 10_000;

/// One registration of one instance.
pub(crate) struct Instance {
    pub(crate) service: Box<str>,
    /// `host:port`, and the address itself where the host is one.
    pub(crate) addr: Box<str>,
    pub(crate) socket_addr: Option<SocketAddr>,
    pub(crate) id: Box<str>,
    /// What `Hub-Instance` says where the instance does not say it: the id, or where that is the address, a hash.
    pub(crate) label: HeaderValue,
    pub(crate) speaks_h2: bool,
    pub(crate) weight: u32,
    pub(crate) stats: InstanceStats,
    state: AtomicU8,
    in_flight: AtomicUsize,
    /// No longer registered: connections end with the requests on them.
    gone: AtomicBool,
    /// Told when the last request is over that was in flight when it went.
    left: Notify,
    /// Whether `ejection` holds anything at all; spares the lock where all is well.
    failed: AtomicBool,
    ejection: Mutex<Ejection>,
    /// One pool per worker, since a connection stays on the thread that made it.
    pools: Box<[Pool]>,
}

impl Instance {
    pub(super) fn new(info: &ServiceInfo, workers: usize) -> Self {
        let weight = info.meta.get("weight").and_then(|weight| weight.parse().ok());
        let instance = Self {
            service: info.name.as_str().into(),
            addr: info.addr.as_str().into(),
            socket_addr: info.addr.parse().ok(),
            id: info.id().into(),
            label: label(info),
            speaks_h2: info.meta.get("protocol").is_some_and(|protocol| protocol == "h2c"),
            weight: weight.unwrap_or(DEFAULT_WEIGHT).min(MAX_WEIGHT),
            stats: InstanceStats::default(),
            state: AtomicU8::new(0),
            in_flight: AtomicUsize::new(0),
            gone: AtomicBool::new(false),
            left: Notify::new(),
            failed: AtomicBool::new(false),
            ejection: Mutex::default(),
            pools: (0..workers).map(|_| Pool::default()).collect(),
        };
        instance.set_state(info.state());
        instance
    }

    /// Whether this is of the same registration; what else the registration says is fixed with the id.
    pub(super) fn is(&self, info: &ServiceInfo) -> bool {
        *self.addr == *info.addr
            && *self.id == *info.id()
            && self.speaks_h2 == info.meta.get("protocol").is_some_and(|protocol| protocol == "h2c")
            && info.meta.get("weight").and_then(|weight| weight.parse().ok()).unwrap_or(DEFAULT_WEIGHT)
                == self.weight
    }

    pub(super) fn set_state(&self, state: InstanceState) {
        self.state.store(state as u8, Relaxed);
    }

    /// How welcome a request is here.
    pub(super) fn tier(&self, now: Instant, config: &EjectConfig) -> Tier {
        let state = self.state.load(Relaxed);
        if state == InstanceState::Draining as u8 || state == InstanceState::Removed as u8 {
            return Tier::Never;
        }
        let tier = if state == InstanceState::Suspect as u8 { Tier::Suspect } else { Tier::Good };
        if self.failed.load(Relaxed) && self.ejection().verdict(now, config) == Verdict::No {
            return Tier::Ejected;
        }
        tier
    }

    /// A request goes here now.
    pub(super) fn picked(&self, now: Instant) {
        self.stats.picked();
        if self.failed.load(Relaxed) {
            self.ejection().begin_trial(now);
        }
    }

    pub(crate) fn is_ejected(&self) -> bool {
        self.failed.load(Relaxed) && self.ejection().is_ejected()
    }

    /// A request that was sent at `began` was answered.
    pub(crate) fn succeeded(&self, began: Instant) {
        if self.failed.load(Relaxed) {
            let mut ejection = self.ejection();
            if ejection.success(began) {
                tracing::info!(service = %self.service, instance = %self.id, "instance is back");
            }
            self.failed.store(*ejection != Ejection::default(), Relaxed);
        }
    }

    /// A request failed. Says for how long the instance is ejected, where this ejects it.
    pub(crate) fn failed(
        &self,
        now: Instant,
        config: &EjectConfig,
        may_eject: bool,
        rng: &mut impl Rng,
    ) -> Option<Duration> {
        self.failed.store(true, Relaxed);
        self.ejection().failure(now, config, may_eject, rng)
    }

    /// Counts a request as in flight until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        InFlight(self.clone())
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// The connections of one worker; `None` for a worker that there is not.
    pub(crate) fn pool(&self, worker: usize) -> Option<&Pool> {
        self.pools.get(worker)
    }

    /// Idle HTTP/1 connections of all workers.
    pub(crate) fn idle_connections(&self) -> usize {
        self.pools.iter().map(Pool::len).sum()
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Relaxed)
    }

    /// The instance is no longer registered: idle connections end now, the others with their requests.
    pub(crate) fn close(&self) {
        self.gone.store(true, SeqCst);
        self.close_idle();
    }

    /// Done when nothing is in flight, once it is gone.
    pub(crate) async fn left(&self) {
        loop {
            let left = self.left.notified();
            if self.in_flight.load(SeqCst) == 0 {
                return;
            }
            left.await;
        }
    }

    /// Ends all idle connections.
    pub(crate) fn close_idle(&self) {
        self.pools.iter().for_each(Pool::clear);
    }

    fn ejection(&self) -> MutexGuard<'_, Ejection> {
        self.ejection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance")
            .field("service", &self.service)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// One request in flight at an instance.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Instance>);

impl InFlight {
    pub(crate) fn instance(&self) -> &Arc<Instance> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, SeqCst) == 1 && self.0.gone.load(SeqCst) {
            self.0.left.notify_waiters();
        }
    }
}

fn label(info: &ServiceInfo) -> HeaderValue {
    let own = info.id.as_deref().filter(|id| *id != info.addr).and_then(|id| HeaderValue::from_str(id).ok());
    own.unwrap_or_else(|| {
        let mut hasher = DefaultHasher::new();
        info.addr.hash(&mut hasher);
        let text = format!("{}-{:08x}", info.name, hasher.finish() as u32);
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
    })
}
