//! What all workers share: the table of services, the configuration, limits and counters.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::HeaderValue;
use hubspoke_chassis::Metrics;
use hubspoke_chassis::telemetry::Source;
use hubspoke_client::LoadCounters;
use hubspoke_client::directory::{Follower, Settled, View};
use rand::RngExt;

use crate::config::GatewayConfig;
use crate::error::Cause;
use crate::limits::{ClientConnections, ClientRates};
use crate::metrics::Durations;
use crate::upstream::{Instance, Make, Service, Table};

/// How long a push waits for the requests in flight at the instances that it has removed.
const SETTLING: Duration = Duration::from_millis(100);

/// What all workers share.
pub(crate) struct Gateway {
    pub(crate) config: GatewayConfig,
    /// The gateway's own registered name, which is never routed to.
    pub(crate) name: String,
    /// The gateway's own id: in `Hub-Instance` where it answers itself, and in `Via`.
    pub(crate) id: HeaderValue,
    /// For spans.
    pub(crate) source: Source,
    pub(crate) durations: Durations,
    pub(crate) vias: Vias,
    pub(crate) table: ArcSwap<Table>,
    /// Instances that have gone since the last push was acknowledged.
    leaving: Mutex<Vec<Arc<Instance>>>,
    pub(crate) workers: usize,
    pub(crate) load: LoadCounters,
    pub(crate) rates: ClientRates,
    pub(crate) connections: AtomicUsize,
    pub(crate) client_connections: ClientConnections,
    /// Requests refused before a service was known, by cause.
    pub(crate) refusals: [AtomicU64; Cause::ALL.len()],
    /// Replies ask clients to open no further request on their connection.
    pub(crate) draining: AtomicBool,
    /// Times of connections are counted from here.
    pub(crate) epoch: Instant,
}

/// This gateway's entry in `Via`, by the version of the request that came.
#[derive(Debug)]
pub(crate) struct Vias {
    pub(crate) pseudonym: String,
    v10: HeaderValue,
    v11: HeaderValue,
    v2: HeaderValue,
}

impl Vias {
    fn new(pseudonym: &str) -> Self {
        let via = |version: &str| {
            HeaderValue::from_str(&format!("{version} {pseudonym}"))
                .unwrap_or_else(|_| HeaderValue::from_static("1.1 gateway"))
        };
        Self { pseudonym: pseudonym.to_owned(), v10: via("1.0"), v11: via("1.1"), v2: via("2.0") }
    }

    pub(crate) fn of(&self, version: http::Version) -> &HeaderValue {
        match version {
            http::Version::HTTP_2 => &self.v2,
            http::Version::HTTP_10 => &self.v10,
            _ => &self.v11,
        }
    }
}

impl Follower for Gateway {
    fn take(&self, view: &View) {
        let make = Make { workers: self.workers, durations: &self.durations };
        let before = self.table.load_full();
        let next = Arc::new(before.next(view, &self.config, &self.name, &make));
        self.table.store(next.clone());
        let left: Vec<_> = before.left(&next).cloned().collect();
        left.iter().for_each(|instance| instance.close());
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner).extend(left);
    }

    /// An instance that stops as soon as its deregistration is answered may close a connection on which a request is
    /// that it has not read yet. What is short ends before it is told; what is long it has read by then.
    fn settled(&self) -> Settled {
        let leaving = std::mem::take(&mut *self.leaving.lock().unwrap_or_else(PoisonError::into_inner));
        Box::pin(async move {
            let all = async {
                for instance in leaving {
                    instance.left().await;
                }
            };
            let _ = tokio::time::timeout(SETTLING, all).await; // what lasts longer goes on
        })
    }
}

impl Gateway {
    pub(crate) fn new(config: GatewayConfig, name: &str, load: LoadCounters, metrics: &Metrics) -> Self {
        crate::metrics::allow_series(metrics);
        let id = &*metrics.source().instance;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let workers = if config.workers == 0 { cores } else { config.workers };
        Self {
            rates: ClientRates::new(config.limits.client_rate, config.limits.client_burst),
            name: name.to_owned(),
            id: HeaderValue::from_str(id).unwrap_or_else(|_| HeaderValue::from_static("gateway")),
            source: metrics.source().clone(),
            durations: Durations::new(&metrics.meter()),
            vias: Vias::new(id),
            table: ArcSwap::default(),
            leaving: Mutex::default(),
            workers,
            load,
            connections: AtomicUsize::new(0),
            client_connections: ClientConnections::new(config.limits.client_connections),
            refusals: [const { AtomicU64::new(0) }; Cause::ALL.len()],
            draining: AtomicBool::new(false),
            epoch: Instant::now(),
            config,
        }
    }

    /// An attempt at an instance failed.
    pub(crate) fn instance_failed(&self, service: &Service, instance: &Instance) {
        let config = &self.config.eject;
        instance.stats.failed();
        let others = service.ejected();
        let may = crate::eject::may_eject(others, service.instances.len(), config);
        if let Some(lasts) = instance.failed(Instant::now(), config, may, &mut rand::rng()) {
            service.stats.ejected();
            instance.close_idle();
            tracing::warn!(
                service = %service.name,
                instance = %instance.id,
                lasts_ms = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX),
                "instance ejected: too many failures in a row"
            );
        }
    }

    /// A request was refused before a service was known.
    pub(crate) fn refused(&self, cause: Cause) {
        if let Some(count) = self.refusals.get(cause as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Whether the next request is in the access log's sample.
    pub(crate) fn is_sampled(&self) -> bool {
        let share = self.config.access_log;
        share > 0.0 && (share >= 1.0 || rand::rng().random_bool(share))
    }

    /// Whether this is the address of a proxy of ours.
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

    /// Closes connections of one worker that nobody needs any more.
    pub(crate) fn sweep_pools(&self, worker: usize, now: Instant) {
        let max_idle: Duration = self.config.timeouts.pool_idle;
        for instance in self.table.load().instances() {
            if let Some(pool) = instance.pool(worker) {
                pool.sweep(now, max_idle);
            }
        }
    }
}
