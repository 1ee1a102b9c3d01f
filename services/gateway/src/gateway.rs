//! The state that all workers share: the table of services, the configuration, limits and counters.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::HeaderValue;
use hubspoke_chassis::Metrics;
use hubspoke_chassis::server::within_file_limit;
use hubspoke_chassis::telemetry::ServiceInstance;
use hubspoke_client::LoadCounters;
use hubspoke_client::directory::{DirectoryFollower, Settled, View};
use hubspoke_protocol::{GatewayHosts, UpstreamCount};
use hubspoke_tls::Identity;
use parking_lot::Mutex;
use rand::RngExt;

use crate::clients::Clients;
use crate::config::GatewayConfig;
use crate::error::{CLIENT_CLOSED, Cause, RequestFailure};
use crate::headers::ViaValues;
use crate::https::Https;
use crate::limits::ClientRates;
use crate::memory::Memory;
use crate::refusal_log::{Refusal, RefusalLog};
use crate::stats::{CauseCounters, DurationHistogram};
use crate::upstream::{Instance, ServiceTable, TableBuilder, UpstreamService};
use crate::upstream_counts;

/// How long the acknowledgement of a push waits for requests in flight at the instances that it removes.
const SETTLE_TIMEOUT: Duration = Duration::from_millis(100);

/// The state that all workers share.
pub(crate) struct Gateway {
    pub(crate) config: GatewayConfig,
    /// `None` without TLS towards clients.
    pub(crate) https: Option<Https>,
    /// The gateway's own registered name, which is never routed to.
    name: String,
    /// The hosts that it keeps or gives away.
    hosts: GatewayHosts,
    /// The gateway's own id: the `Hub-Instance` of responses that it makes itself.
    pub(crate) id: HeaderValue,
    /// The service that spans belong to.
    pub(crate) source: ServiceInstance,
    durations: DurationHistogram,
    /// For TLS with instances.
    identity: Option<Arc<Identity>>,
    pub(crate) vias: ViaValues,
    pub(crate) table: ArcSwap<ServiceTable>,
    /// Instances removed since the last push was acknowledged.
    removed: Mutex<Vec<Arc<Instance>>>,
    pub(crate) workers: usize,
    pub(crate) load: LoadCounters,
    pub(crate) rates: ClientRates,
    pub(crate) connections: AtomicUsize,
    pub(crate) clients: Clients,
    pub(crate) memory: Memory,
    /// Requests refused before a service was matched.
    pub(crate) refusals: CauseCounters,
    refusal_log: RefusalLog,
    /// HTTP/1 responses carry `Connection: close`.
    pub(crate) draining: AtomicBool,
    /// Where the next heartbeat goes on with the counts of instances.
    next_count: AtomicUsize,
    /// The zero of [`Gateway::millis`].
    epoch: Instant,
}

impl DirectoryFollower for Gateway {
    fn update(&self, view: &View) {
        let builder = TableBuilder {
            config: &self.config,
            own_name: &self.name,
            hosts: &self.hosts,
            workers: self.workers,
            durations: &self.durations,
            identity: self.identity.as_ref(),
        };
        let current = self.table.load_full();
        let next = Arc::new(builder.next(&current, view, Instant::now()));
        for refusal in
            next.refused_hosts().iter().filter(|refusal| !current.refused_hosts().contains(refusal))
        {
            tracing::warn!(
                service = %refusal.service,
                host = %refusal.host,
                error = &refusal.reason as &dyn std::error::Error,
                "the service's members ask for a host that it does not get"
            );
        }
        self.table.store(next.clone());
        next.services().for_each(|service| service.wake());
        let removed = current.removed(&next);
        removed.iter().for_each(|instance| instance.remove());
        self.removed.lock().extend(removed);
    }

    /// An instance that stops as soon as its deregistration is answered may close a connection with a request on it
    /// that it has not read. Within the timeout, short requests end and long ones have been read.
    fn settled(&self) -> Settled {
        let removed = std::mem::take(&mut *self.removed.lock());
        Box::pin(async move {
            let all = async {
                for instance in removed {
                    instance.drained().await;
                }
            };
            let _ = tokio::time::timeout(SETTLE_TIMEOUT, all).await; // longer requests continue
        })
    }
}

impl Gateway {
    /// Counts for the next heartbeat, of instances that know only the core protocol: those report no load.
    pub(crate) fn upstream_counts(&self) -> Vec<UpstreamCount> {
        let table = self.table.load();
        let is_core =
            |instance: &&Arc<Instance>| instance.id == instance.addr && instance.stats.picks.get() > 0;
        let all = table.instances().filter(is_core).map(|instance| instance.count()).collect();
        let (counts, next) = upstream_counts::next(all, self.next_count.load(Relaxed));
        self.next_count.store(next, Relaxed);
        counts
    }

    pub(crate) fn new(
        mut config: GatewayConfig,
        https: Option<Https>,
        name: &str,
        load: LoadCounters,
        metrics: &Metrics,
    ) -> Self {
        // A client's connection may need another one to an instance. The control port must not run out of files.
        config.limits.connections = within_file_limit(config.limits.connections, 2);
        let id = &*metrics.instance().id;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let workers = if config.workers == 0 { cores } else { config.workers };
        Self {
            rates: ClientRates::new(config.limits.client_rate, config.limits.client_burst),
            name: name.to_owned(),
            hosts: config.gateway_hosts(name),
            id: HeaderValue::from_str(id).unwrap_or_else(|_| HeaderValue::from_static("gateway")),
            source: metrics.instance().clone(),
            durations: DurationHistogram::new(&metrics.meter()),
            identity: None,
            vias: ViaValues::new(id),
            table: ArcSwap::default(),
            removed: Mutex::default(),
            workers,
            load,
            connections: AtomicUsize::new(0),
            clients: Clients::new(&config.limits, config.tls.connections),
            memory: Memory::new(&config.limits),
            refusals: CauseCounters::new(),
            refusal_log: RefusalLog::new(),
            draining: AtomicBool::new(false),
            next_count: AtomicUsize::new(0),
            epoch: Instant::now(),
            https,
            config,
        }
    }

    /// The same, with TLS to instances if there is an identity.
    pub(crate) fn with_identity(self, identity: Option<Arc<Identity>>) -> Self {
        Self { identity, ..self }
    }

    /// An attempt at an instance failed: counts it, and ejects the instance if it has failed too often.
    pub(crate) fn instance_failed(&self, service: &UpstreamService, instance: &Instance) {
        let config = &self.config.eject;
        instance.stats.failures.count();
        let may_eject = crate::eject::may_eject(service.ejected(), service.instances.len(), config);
        if let Some(duration) = instance.failed(Instant::now(), config, may_eject, &mut rand::rng()) {
            service.stats().ejections.count();
            instance.close_idle();
            tracing::warn!(
                service = %service.name,
                instance = %instance.id,
                duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
                "instance ejected after consecutive failures"
            );
        }
    }

    /// A request was refused before a service was matched.
    pub(crate) fn refused(&self, cause: Cause) {
        self.refusals.count(cause);
    }

    /// A request could not be read, or its connection was one too many. `answered`: the client got a response.
    pub(crate) fn refused_unread(&self, client: IpAddr, failure: &RequestFailure, answered: bool) {
        self.refused(failure.cause);
        let status = answered.then(|| failure.cause.status().as_u16());
        self.log_refusal(client, status, failure.cause.name(), failure.detail.as_deref());
    }

    /// A client closed its connection within a request's head.
    pub(crate) fn closed_in_head(&self, client: IpAddr) {
        self.log_refusal(client, None, CLIENT_CLOSED, Some("the connection was closed within the head"));
    }

    fn log_refusal(&self, client: IpAddr, status: Option<u16>, cause: &'static str, detail: Option<&str>) {
        if self.is_sampled() {
            self.refusal_log.log(Refusal { client, status, cause, detail }, Instant::now());
        }
    }

    /// Whether to write the next request to the access log.
    pub(crate) fn is_sampled(&self) -> bool {
        let share = self.config.access_log;
        share > 0.0 && (share >= 1.0 || rand::rng().random_bool(share))
    }

    /// Whether this is the address of a trusted proxy.
    pub(crate) fn is_trusted(&self, ip: IpAddr) -> bool {
        self.config.trusted_proxies.iter().any(|net| net.contains(&ip))
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Milliseconds since the start.
    pub(crate) fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }

    /// Sums up the refusals that have no line of their own in the access log.
    pub(crate) fn sweep_refusals(&self, now: Instant) {
        self.refusal_log.sum_up(now);
    }

    /// Closes this worker's connections to instances that have been idle for too long.
    pub(crate) fn sweep_pools(&self, worker: usize, now: Instant) {
        for instance in self.table.load().instances() {
            if let Some(pool) = instance.pool(worker) {
                pool.sweep(now, self.config.timeouts.pool_idle);
            }
        }
    }
}
