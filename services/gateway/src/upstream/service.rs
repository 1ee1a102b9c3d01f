//! One service: its settings, its instances, and how many requests and retries it takes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::HeaderValue;
use hubspoke_protocol::{InstanceState, ServiceInfo};
use hubspoke_tls::Identity;
use parking_lot::Mutex;
use rand::Rng;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::hosts::{AskedHosts, HostClaim};
use super::instance::Instance;
use crate::balance::{self, Balance, PickTier, Weights};
use crate::config::{EjectConfig, EncodedSlash, GatewayConfig, RetryConfig, Sticky};
use crate::extras::Extras;
use crate::retry::RetryBudget;
use crate::stats::{DurationHistogram, ServiceStats};

/// How long requests wait for an instance after the service has had its last one. One that is gone for longer is not
/// being replaced.
const REMEMBERED: Duration = Duration::from_secs(60);

/// One public service, as of one table.
pub(crate) struct UpstreamService {
    pub(crate) name: Box<str>,
    pub(crate) settings: Arc<ServiceSettings>,
    pub(crate) instances: Vec<Arc<Instance>>,
    weights: Weights,
    /// Whether an instance speaks HTTP/2.
    h2: bool,
    /// `/NAME`, if it gets paths without that.
    prefix: Option<HeaderValue>,
    /// Whether an instance serves its member endpoints at its public address.
    guarded: bool,
    /// Hosts that its members ask for.
    asked_hosts: Arc<AskedHosts>,
    /// Since when it has had no instance that takes requests.
    empty_since: Option<Instant>,
    state: Arc<ServiceState>,
}

/// The part of a service that outlives its tables.
struct ServiceState {
    /// The gateway's identity, if instances speak TLS.
    identity: Option<Arc<Identity>>,
    stats: ServiceStats,
    in_flight: AtomicUsize,
    retry_budget: Mutex<RetryBudget>,
    /// Requests that wait for an instance.
    waiting: AtomicUsize,
    /// Notified by each new table.
    changed: Arc<Notify>,
}

/// The settings of a service: its own if it has any, otherwise the general ones.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ServiceSettings {
    pub(crate) balance: Balance,
    pub(crate) sticky: Option<Sticky>,
    pub(crate) pass_encoded_slash: bool,
    /// What it has beside its routes.
    pub(crate) extras: Option<Arc<Extras>>,
    /// `None` if its members decide.
    strip: Option<bool>,
    /// `None` if its members decide.
    hosts: Option<Vec<String>>,
    pub(crate) connect: Duration,
    pub(crate) first_byte: Duration,
    pub(crate) total: Duration,
    pub(crate) wait: Duration,
    pub(crate) idle: Duration,
    /// Bytes; 0 is no limit.
    pub(crate) body_size: u64,
    /// Bytes per second; 0 is no limit.
    pub(crate) body_rate: u64,
    pub(crate) in_flight: usize,
    pub(crate) waiting: usize,
    pub(crate) attempts: u32,
}

impl ServiceSettings {
    pub(super) fn of(service: &str, config: &GatewayConfig) -> Self {
        let own = config.services.get(service).cloned().unwrap_or_default();
        let (timeouts, limits) = (&config.timeouts, &config.limits);
        Self {
            balance: own.balance.unwrap_or(config.balance),
            extras: Extras::of(service, &own).unwrap_or_default(), // checked at the start
            sticky: own.sticky,
            strip: own.strip,
            hosts: own.hosts,
            pass_encoded_slash: own.encoded_slash == EncodedSlash::Pass,
            connect: own.connect.unwrap_or(timeouts.connect),
            first_byte: own.first_byte.unwrap_or(timeouts.first_byte),
            total: own.total.unwrap_or(timeouts.total),
            wait: own.wait.unwrap_or(timeouts.wait),
            idle: own.idle.unwrap_or(timeouts.idle),
            body_size: own.body_size.unwrap_or(limits.body_size).as_u64(),
            body_rate: own.body_rate.unwrap_or(limits.body_rate).as_u64(),
            in_flight: own.in_flight.unwrap_or(limits.in_flight),
            waiting: own.waiting.unwrap_or(limits.waiting),
            attempts: own.attempts.unwrap_or(config.retry.attempts),
        }
    }
}

/// One request in flight to a service; it counts until this is dropped.
pub(crate) struct Admission(Arc<ServiceState>);

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// One request that waits for an instance; it counts until this is dropped.
pub(crate) struct WaitSlot(Arc<ServiceState>);

impl WaitSlot {
    /// Completes when there is another table; it need not be polled before that.
    pub(crate) fn changed(&self) -> OwnedNotified {
        self.0.changed.clone().notified_owned()
    }
}

impl Drop for WaitSlot {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

impl UpstreamService {
    pub(super) fn new(
        name: &str,
        infos: &[Arc<ServiceInfo>],
        config: &GatewayConfig,
        workers: usize,
        durations: &DurationHistogram,
        identity: Option<Arc<Identity>>,
        now: Instant,
    ) -> Self {
        let service = Self {
            name: name.into(),
            settings: Arc::new(ServiceSettings::of(name, config)),
            instances: Vec::new(),
            weights: Weights::default(),
            h2: false,
            prefix: None,
            guarded: true,
            asked_hosts: Arc::default(),
            empty_since: None,
            state: Arc::new(ServiceState {
                identity,
                stats: ServiceStats::new(name, durations),
                in_flight: AtomicUsize::new(0),
                retry_budget: Mutex::new(RetryBudget::new(&config.retry)),
                waiting: AtomicUsize::new(0),
                changed: Arc::default(),
            }),
        };
        service.with_instances(infos, workers, now)
    }

    /// The same service with the instances that are registered now; those that it has already stay.
    pub(super) fn with_instances(&self, infos: &[Arc<ServiceInfo>], workers: usize, now: Instant) -> Self {
        let known: HashMap<_, _> =
            self.instances.iter().map(|instance| ((&*instance.addr, &*instance.id), instance)).collect();
        let instances: Vec<_> = infos
            .iter()
            .map(|info| match known.get(&(info.addr.as_str(), info.id())) {
                Some(instance) if instance.matches(info) => {
                    instance.set_state(info.state());
                    Arc::clone(instance)
                }
                _ => Arc::new(Instance::new(info, workers, self.state.identity.clone())),
            })
            .collect();
        let takes_requests =
            |info: &Arc<ServiceInfo>| matches!(info.state(), InstanceState::Passing | InstanceState::Suspect);
        let is_empty = !infos.iter().any(takes_requests);
        // While nobody is there, what was asked for before counts.
        let is_replaced = infos.is_empty() && self.is_remembered(now);
        let asked_hosts = if is_replaced { self.asked_hosts.clone() } else { asked_hosts(infos) };
        let asks_to_strip = match is_replaced {
            true => self.prefix.is_some(),
            false => {
                infos.iter().any(|info| info.meta.get("route.strip").is_some_and(|strip| strip == "true"))
            }
        };
        let prefix = self.settings.strip.unwrap_or(asks_to_strip).then(|| prefix(&self.name));
        let weights: Vec<u32> = instances.iter().map(|instance| instance.weight()).collect();
        Self {
            name: self.name.clone(),
            settings: self.settings.clone(),
            weights: Weights::new(&weights),
            h2: instances.iter().any(|instance| instance.speaks_h2()),
            prefix: prefix.flatten(),
            guarded: infos.is_empty() || infos.iter().any(|info| info.control_addr() == info.addr),
            asked_hosts,
            empty_since: is_empty.then(|| self.empty_since.unwrap_or(now)),
            instances,
            state: self.state.clone(),
        }
    }

    /// Counts a request, and admits it unless too many are in flight.
    pub(crate) fn admit(&self) -> Option<Admission> {
        let admission = Admission(self.state.clone());
        self.stats().requests.count();
        (self.state.in_flight.fetch_add(1, Relaxed) < self.settings.in_flight).then_some(admission)
    }

    /// `/NAME`, if that is removed from paths.
    pub(crate) fn prefix(&self) -> Option<&HeaderValue> {
        self.prefix.as_ref()
    }

    /// Whether paths of member endpoints lead to them.
    pub(crate) fn is_guarded(&self) -> bool {
        self.guarded
    }

    /// The hosts that it would have.
    pub(super) fn host_claim(&self) -> HostClaim<'_> {
        HostClaim { service: &self.name, given: self.settings.hosts.as_deref(), asked: &self.asked_hosts }
    }

    /// Whether it has an instance, or had one not long ago, or is new.
    pub(crate) fn is_remembered(&self, now: Instant) -> bool {
        self.empty_since.is_none_or(|since| now.saturating_duration_since(since) < REMEMBERED)
    }

    /// Whether it has no instance that takes requests.
    pub(crate) fn is_empty(&self) -> bool {
        self.empty_since.is_some()
    }

    /// Counts a request that waits for an instance, unless too many wait.
    pub(crate) fn wait(&self) -> Option<WaitSlot> {
        let slot = WaitSlot(self.state.clone());
        (self.state.waiting.fetch_add(1, Relaxed) < self.settings.waiting).then_some(slot)
    }

    /// Requests that wait for an instance.
    pub(crate) fn waiting(&self) -> usize {
        self.state.waiting.load(Relaxed)
    }

    /// Wakes the requests that wait: the table that this is in is in place.
    pub(crate) fn wake(&self) {
        self.state.changed.notify_waiters();
    }

    /// Takes a retry out of the budget, if one is left.
    pub(crate) fn may_retry(&self, now: Instant, config: &RetryConfig) -> bool {
        self.state.retry_budget.lock().spend(now, self.stats().requests.get(), config)
    }

    /// An instance for a request that has already been to `tried`.
    pub(crate) fn pick(
        &self,
        tried: &[Arc<Instance>],
        key: Option<&[u8]>,
        now: Instant,
        eject: &EjectConfig,
        rng: &mut impl Rng,
    ) -> Option<Arc<Instance>> {
        let tier = |i: usize| match self.instances.get(i) {
            Some(instance) if tried.iter().any(|other| Arc::ptr_eq(other, instance)) => PickTier::Never,
            Some(instance) => match instance.tier(now, eject) {
                // Its trial request has ended without a verdict: the client left, or was at fault.
                PickTier::Ejected if instance.in_flight() == 0 => {
                    instance.tier(now, &EjectConfig { max: Duration::ZERO, ..eject.clone() })
                }
                tier => tier,
            },
            None => PickTier::Never,
        };
        let index = match key {
            Some(key) => {
                let id = |i: usize| self.instances.get(i).map_or("", |instance| &*instance.id);
                balance::pick_by_key(key, &self.weights, tier, id)
            }
            None => {
                let in_flight = |i: usize| self.instances.get(i).map_or(0, |instance| instance.in_flight());
                balance::pick(self.settings.balance, &self.weights, tier, in_flight, rng)
            }
        };
        let instance = self.instances.get(index?)?;
        instance.picked(now);
        Some(instance.clone())
    }

    pub(crate) fn stats(&self) -> &ServiceStats {
        &self.state.stats
    }

    /// Whether an instance speaks HTTP/2.
    pub(crate) fn speaks_h2(&self) -> bool {
        self.h2
    }

    /// Requests in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.state.in_flight.load(Relaxed)
    }

    /// How many instances are ejected.
    pub(crate) fn ejected(&self) -> usize {
        self.instances.iter().filter(|instance| instance.is_ejected()).count()
    }
}

fn prefix(service: &str) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("/{service}")).ok()
}

fn asked_hosts(infos: &[Arc<ServiceInfo>]) -> Arc<AskedHosts> {
    let mut asked = AskedHosts::new();
    for info in infos {
        for host in info.asked_hosts() {
            let since = info.hosts_since.get(&*host).copied().unwrap_or(u64::MAX);
            let first = asked.entry(Box::from(&*host)).or_insert(since);
            *first = since.min(*first);
        }
    }
    asked.into()
}
