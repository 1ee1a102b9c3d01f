//! One registration of one instance, and what the gateway has observed of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::HeaderValue;
use hubspoke_protocol::{InstanceState, Load, ServiceInfo, UpstreamCount};
use hubspoke_tls::Identity;
use parking_lot::Mutex;
use rand::Rng;
use tokio::sync::Notify;

use super::pool::Pool;
use crate::balance::{DEFAULT_WEIGHT, PickTier};
use crate::config::EjectConfig;
use crate::eject::{Ejection, Verdict};
use crate::stats::InstanceStats;

/// Greater weights count as this one.
const MAX_WEIGHT: u32 = 10_000;

/// How often a stream that may be silent checks whether its instance is still registered.
pub(crate) const REMOVAL_CHECK: Duration = Duration::from_secs(30);

/// One registration of one instance.
pub(crate) struct Instance {
    pub(crate) service: Box<str>,
    /// `host:port`.
    pub(crate) addr: Box<str>,
    /// `addr`, parsed, if its host is an IP address.
    pub(crate) socket_addr: Option<SocketAddr>,
    pub(crate) id: Box<str>,
    /// The gateway's identity, if instances speak TLS.
    pub(super) identity: Option<Arc<Identity>>,
    /// `Hub-Instance` of responses in which the instance sets none. It does not show the address.
    pub(crate) label: HeaderValue,
    pub(crate) stats: InstanceStats,
    metadata: Metadata,
    state: AtomicU8,
    in_flight: AtomicUsize,
    /// No longer registered: connections close when the requests on them are over.
    removed: AtomicBool,
    removed_at: OnceLock<Instant>,
    /// Notified when the last request in flight at a removed instance is over.
    drained: Notify,
    /// Whether `ejection` has anything on record. Spares the lock while all is well.
    suspicious: AtomicBool,
    ejection: Mutex<Ejection>,
    /// One pool per worker, since a connection stays on the thread that opened it.
    pools: Box<[Pool]>,
}

/// The part of `Meta` that the gateway acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Metadata {
    h2c: bool,
    weight: u32,
}

impl Metadata {
    fn of(info: &ServiceInfo) -> Self {
        let weight = info.meta.get("weight").and_then(|weight| weight.parse().ok());
        Self {
            h2c: info.meta.get("protocol").is_some_and(|protocol| protocol == "h2c"),
            weight: weight.unwrap_or(DEFAULT_WEIGHT).min(MAX_WEIGHT),
        }
    }
}

impl Instance {
    pub(super) fn new(info: &ServiceInfo, workers: usize, identity: Option<Arc<Identity>>) -> Self {
        let instance = Self {
            service: info.name.as_str().into(),
            addr: info.addr.as_str().into(),
            socket_addr: info.addr.parse().ok(),
            id: info.id().into(),
            identity,
            label: label(info),
            stats: InstanceStats::default(),
            metadata: Metadata::of(info),
            state: AtomicU8::new(0),
            in_flight: AtomicUsize::new(0),
            removed: AtomicBool::new(false),
            removed_at: OnceLock::new(),
            drained: Notify::new(),
            suspicious: AtomicBool::new(false),
            ejection: Mutex::default(),
            pools: (0..workers).map(|_| Pool::default()).collect(),
        };
        instance.set_state(info.state());
        instance
    }

    /// Whether `info` describes this registration.
    pub(super) fn matches(&self, info: &ServiceInfo) -> bool {
        *self.addr == *info.addr && *self.id == *info.id() && self.metadata == Metadata::of(info)
    }

    /// Requests that were sent to it.
    pub(crate) fn count(&self) -> UpstreamCount {
        let in_flight = self.in_flight.load(Relaxed) as u64;
        let load = Load { requests: self.stats.picks.get(), in_flight: Some(in_flight) };
        UpstreamCount { service: self.service.to_string(), addr: self.addr.to_string(), load }
    }

    /// Whether it speaks HTTP/2 with prior knowledge.
    pub(crate) fn speaks_h2(&self) -> bool {
        self.metadata.h2c
    }

    pub(super) fn weight(&self) -> u32 {
        self.metadata.weight
    }

    pub(super) fn set_state(&self, state: InstanceState) {
        self.state.store(state as u8, Relaxed);
    }

    pub(super) fn tier(&self, now: Instant, config: &EjectConfig) -> PickTier {
        let state = self.state.load(Relaxed);
        if state == InstanceState::Draining as u8 || state == InstanceState::Removed as u8 {
            return PickTier::Never;
        }
        let tier = if state == InstanceState::Suspect as u8 { PickTier::Suspect } else { PickTier::Good };
        if self.suspicious.load(Relaxed) && self.ejection.lock().verdict(now, config) == Verdict::No {
            return PickTier::Ejected;
        }
        tier
    }

    /// A request is about to be sent here.
    pub(super) fn picked(&self, now: Instant) {
        self.stats.picks.count();
        if self.suspicious.load(Relaxed) {
            self.ejection.lock().begin_trial(now);
        }
    }

    pub(crate) fn is_ejected(&self) -> bool {
        self.suspicious.load(Relaxed) && self.ejection.lock().is_ejected()
    }

    /// A request that was sent at `began` was answered.
    pub(crate) fn succeeded(&self, began: Instant) {
        if self.suspicious.load(Relaxed) {
            let mut ejection = self.ejection.lock();
            if ejection.success(began) {
                tracing::info!(service = %self.service, instance = %self.id, "instance responds again, ejection ended");
            }
            self.suspicious.store(*ejection != Ejection::default(), Relaxed);
        }
    }

    /// A request failed. Returns for how long the instance is ejected, if this ejects it.
    pub(crate) fn failed(
        &self,
        now: Instant,
        config: &EjectConfig,
        may_eject: bool,
        rng: &mut impl Rng,
    ) -> Option<Duration> {
        self.suspicious.store(true, Relaxed);
        self.ejection.lock().failure(now, config, may_eject, rng)
    }

    /// Counts a request as in flight until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> InFlightGuard {
        self.in_flight.fetch_add(1, Relaxed);
        InFlightGuard(self.clone())
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// The connections of one worker; `None` if there is no such worker.
    pub(crate) fn pool(&self, worker: usize) -> Option<&Pool> {
        self.pools.get(worker)
    }

    /// Idle HTTP/1 connections of all workers.
    pub(crate) fn idle_connections(&self) -> usize {
        self.pools.iter().map(Pool::len).sum()
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Relaxed)
    }

    /// The instance is no longer registered: idle connections close now, the others after their requests.
    pub(crate) fn remove(&self) {
        let _ = self.removed_at.set(Instant::now()); // the first time counts
        self.removed.store(true, SeqCst);
        self.close_idle();
    }

    /// Whether it was removed at least so long ago.
    pub(crate) fn was_removed_before(&self, time: Duration) -> bool {
        self.is_removed() && self.removed_at.get().is_some_and(|at| at.elapsed() >= time)
    }

    /// Waits until it has been removed for so long, give or take half a minute.
    pub(crate) async fn gone_for(&self, time: Duration) {
        while !self.was_removed_before(time) {
            tokio::time::sleep(time.min(REMOVAL_CHECK)).await;
        }
    }

    /// Waits until nothing is in flight at a removed instance.
    pub(crate) async fn drained(&self) {
        loop {
            let drained = self.drained.notified();
            if self.in_flight.load(SeqCst) == 0 {
                return;
            }
            drained.await;
        }
    }

    /// Closes all idle connections.
    pub(crate) fn close_idle(&self) {
        self.pools.iter().for_each(Pool::clear);
    }
}

/// One request in flight at an instance; it counts until this is dropped.
pub(crate) struct InFlightGuard(Arc<Instance>);

impl InFlightGuard {
    pub(crate) fn instance(&self) -> &Arc<Instance> {
        &self.0
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, SeqCst) == 1 && self.0.removed.load(SeqCst) {
            self.0.drained.notify_waiters();
        }
    }
}

fn label(info: &ServiceInfo) -> HeaderValue {
    HeaderValue::from_str(&info.instance_id()).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}
