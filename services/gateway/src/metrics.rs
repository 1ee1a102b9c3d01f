//! What the gateway counts: plain atomics on the hot path, read by instruments only when somebody asks for `/metrics`.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use hubspoke_chassis::Metrics;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{BoundHistogram, Histogram, Meter};

use crate::config::RetryConfig;
use crate::error::Cause;
use crate::gateway::Gateway;
use crate::retry::Budget;
use crate::upstream::{Instance, Service};

/// Bucket bounds of request durations, in seconds: those of OpenTelemetry's semantic conventions, and finer ones below,
/// where a gateway's requests mostly are.
const BOUNDS: [f64; 18] = [
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0,
    7.5, 10.0,
];

/// Series of one instrument: the registry's own limit of services, or some thousand instances with several statuses.
/// Room for all is set aside, some 33 bytes each.
const MOST_SERIES: usize = 20_000;

/// Where the durations of requests are recorded: per service, with the service's name looked up once. Recording
/// takes some 60 ns; with the name in hand each time it would be six times as much.
#[derive(Debug, Clone)]
pub(crate) struct Durations(Histogram<f64>);

impl Durations {
    pub(crate) fn new(meter: &Meter) -> Self {
        let histogram = meter.f64_histogram("hub.gateway.request.duration").with_unit("s");
        let histogram = histogram.with_description("Duration of requests, to the reply's last byte");
        Self(histogram.with_boundaries(BOUNDS.to_vec()).build())
    }
}

/// What is counted of a service, for as long as the gateway runs.
pub(crate) struct ServiceStats {
    pub(crate) requests: AtomicU64,
    in_flight: AtomicUsize,
    causes: [AtomicU64; Cause::ALL.len()],
    retries: AtomicU64,
    ejections: AtomicU64,
    duration: BoundHistogram<f64>,
    budget: Mutex<Budget>,
}

impl ServiceStats {
    pub(crate) fn new(service: &str, retry: &RetryConfig, durations: &Durations) -> Self {
        Self {
            requests: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            causes: [const { AtomicU64::new(0) }; Cause::ALL.len()],
            retries: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
            duration: durations.0.bind(&[KeyValue::new("service", service.to_owned())]),
            budget: Mutex::new(Budget::new(retry)),
        }
    }

    /// Counts a request as in flight until the guard is dropped; `None` where there are `max` already.
    pub(crate) fn begin(self: &Arc<Self>, max: usize) -> Option<ServiceInFlight> {
        let guard = ServiceInFlight(self.clone());
        self.requests.fetch_add(1, Relaxed);
        (self.in_flight.fetch_add(1, Relaxed) < max).then_some(guard)
    }

    pub(crate) fn failed(&self, cause: Cause) {
        if let Some(count) = self.causes.get(cause as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn took(&self, duration: Duration) {
        self.duration.record(duration.as_secs_f64());
    }

    /// Takes a retry out of the budget.
    pub(crate) fn may_retry(&self, now: Instant, config: &RetryConfig) -> bool {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        budget.spend(now, self.requests.load(Relaxed), config)
    }

    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    /// One of its instances was ejected.
    pub(crate) fn ejected(&self) {
        self.ejections.fetch_add(1, Relaxed);
    }
}

impl fmt::Debug for ServiceStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceStats").field("requests", &self.requests).finish_non_exhaustive()
    }
}

/// One request in flight to a service.
#[derive(Debug)]
pub(crate) struct ServiceInFlight(Arc<ServiceStats>);

impl Drop for ServiceInFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// What is counted of an instance, for as long as it is registered: replies by status.
#[derive(Default)]
pub(crate) struct InstanceStats {
    /// By the hundred; made when the first of a hundred comes.
    classes: [OnceLock<Box<[AtomicU64; 100]>>; 5],
    failures: AtomicU64,
    picks: AtomicU64,
    opened: AtomicU64,
}

impl InstanceStats {
    /// It was chosen for a request.
    pub(crate) fn picked(&self) {
        self.picks.fetch_add(1, Relaxed);
    }

    /// A connection to it was made.
    pub(crate) fn opened(&self) {
        self.opened.fetch_add(1, Relaxed);
    }

    pub(crate) fn replied(&self, status: u16) {
        let class = usize::from(status / 100).checked_sub(1).and_then(|class| self.classes.get(class));
        let Some(class) = class else { return };
        let counts = class.get_or_init(|| Box::new([const { AtomicU64::new(0) }; 100]));
        if let Some(count) = counts.get(usize::from(status % 100)) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Relaxed);
    }

    fn by_status(&self) -> impl Iterator<Item = (usize, u64)> {
        self.classes
            .iter()
            .enumerate()
            .flat_map(|(class, counts)| {
                let counts = counts.get().map(|counts| counts.iter()).into_iter().flatten();
                counts.enumerate().map(move |(i, count)| ((class + 1) * 100 + i, count.load(Relaxed)))
            })
            .filter(|(_, count)| *count > 0)
    }
}

/// Lets instruments that have series per service or instance have as many as a large catalogue needs; they are to be
/// made after this. Beyond that, what is counted is counted together.
pub(crate) fn allow_series(metrics: &Metrics) {
    const OF_SERVICES: [&str; 8] = [
        "hub.gateway.ejected",
        "hub.gateway.ejections",
        "hub.gateway.failures",
        "hub.gateway.in_flight",
        "hub.gateway.instances",
        "hub.gateway.request.duration",
        "hub.gateway.requests",
        "hub.gateway.retries",
    ];
    const OF_INSTANCES: [&str; 5] = [
        "hub.gateway.connections.opened",
        "hub.gateway.instance_failures",
        "hub.gateway.picks",
        "hub.gateway.pooled",
        "hub.gateway.replies",
    ];
    OF_SERVICES.into_iter().chain(OF_INSTANCES).for_each(|name| metrics.allow_series(name, MOST_SERIES));
}

/// Makes the instruments. They hold the gateway weakly: a stopped one shows nothing.
pub(crate) fn instruments(meter: &Meter, gateway: &Arc<Gateway>) {
    let make = Make { meter, gateway: Arc::downgrade(gateway) };
    make.counter("replies", "{reply}", "Replies of instances by status", |gateway, show| {
        per_instance(gateway, |instance, labels| {
            for (status, count) in instance.stats.by_status() {
                let status = KeyValue::new("status", i64::try_from(status).unwrap_or_default());
                show(count, &[labels, std::slice::from_ref(&status)].concat());
            }
        });
    });
    make.counter("picks", "{pick}", "Choices of an instance for an attempt", |gateway, show| {
        per_instance(gateway, |instance, labels| show(instance.stats.picks.load(Relaxed), labels));
    });
    make.counter("instance_failures", "{attempt}", "Failed attempts by instance", |gateway, show| {
        per_instance(gateway, |instance, labels| show(instance.stats.failures.load(Relaxed), labels));
    });
    make.counter(
        "connections.opened",
        "{connection}",
        "Connections made to instances; all other attempts used one again",
        |gateway, show| {
            per_instance(gateway, |instance, labels| show(instance.stats.opened.load(Relaxed), labels));
        },
    );
    make.counter("failures", "{request}", "Requests answered by the gateway itself", |gateway, show| {
        per_service(gateway, |service, label| {
            for (cause, count) in Cause::ALL.iter().zip(&service.stats.causes) {
                let count = count.load(Relaxed);
                if count > 0 {
                    show(count, &[label.clone(), KeyValue::new("cause", cause.name())]);
                }
            }
        });
    });
    make.counter("refusals", "{request}", "Requests refused before a service was known", |gateway, show| {
        for (cause, count) in Cause::ALL.iter().zip(&gateway.refusals) {
            let count = count.load(Relaxed);
            if count > 0 {
                show(count, &[KeyValue::new("cause", cause.name())]);
            }
        }
    });
    make.counter("requests", "{request}", "Requests by service", |gateway, show| {
        per_service(gateway, |service, label| show(service.stats.requests.load(Relaxed), &[label]));
    });
    make.counter("retries", "{attempt}", "Attempts after the first", |gateway, show| {
        per_service(gateway, |service, label| show(service.stats.retries.load(Relaxed), &[label]));
    });
    make.counter("ejections", "{ejection}", "Instances put out of use for a while", |gateway, show| {
        per_service(gateway, |service, label| show(service.stats.ejections.load(Relaxed), &[label]));
    });
    make.gauge("in_flight", "{request}", "Requests in flight by service", |gateway, show| {
        per_service(gateway, |service, label| show(service.stats.in_flight.load(Relaxed) as u64, &[label]));
    });
    make.gauge("ejected", "{instance}", "Ejected instances by service", |gateway, show| {
        per_service(gateway, |service, label| show(service.ejected() as u64, &[label]));
    });
    make.gauge("instances", "{instance}", "Instances by service", |gateway, show| {
        per_service(gateway, |service, label| show(service.instances.len() as u64, &[label]));
    });
    make.gauge("pooled", "{connection}", "Idle connections by instance", |gateway, show| {
        per_instance(gateway, |instance, labels| show(instance.idle_connections() as u64, labels));
    });
    make.gauge("connections", "{connection}", "Clients' connections", |gateway, show| {
        show(gateway.connections.load(Relaxed) as u64, &[]);
    });
}

type Show<'a> = dyn FnMut(u64, &[KeyValue]) + 'a;

struct Make<'a> {
    meter: &'a Meter,
    gateway: Weak<Gateway>,
}

impl Make<'_> {
    fn counter(
        &self,
        name: &str,
        unit: &'static str,
        what: &'static str,
        read: impl Fn(&Gateway, &mut Show<'_>) + Send + Sync + 'static,
    ) {
        let gateway = self.gateway.clone();
        self.meter
            .u64_observable_counter(format!("hub.gateway.{name}"))
            .with_unit(unit)
            .with_description(what)
            .with_callback(move |observer| {
                if let Some(gateway) = gateway.upgrade() {
                    read(&gateway, &mut |value, labels| observer.observe(value, labels));
                }
            })
            .build();
    }

    fn gauge(
        &self,
        name: &str,
        unit: &'static str,
        what: &'static str,
        read: impl Fn(&Gateway, &mut Show<'_>) + Send + Sync + 'static,
    ) {
        let gateway = self.gateway.clone();
        self.meter
            .u64_observable_gauge(format!("hub.gateway.{name}"))
            .with_unit(unit)
            .with_description(what)
            .with_callback(move |observer| {
                if let Some(gateway) = gateway.upgrade() {
                    read(&gateway, &mut |value, labels| observer.observe(value, labels));
                }
            })
            .build();
    }
}

fn per_service(gateway: &Gateway, mut show: impl FnMut(&Service, KeyValue)) {
    for service in gateway.table.load().services() {
        show(service, KeyValue::new("service", service.name.to_string()));
    }
}

fn per_instance(gateway: &Gateway, mut show: impl FnMut(&Instance, &[KeyValue])) {
    for instance in gateway.table.load().instances() {
        let label = instance.label.to_str().unwrap_or_default().to_owned();
        let service = KeyValue::new("service", instance.service.to_string());
        show(instance, &[service, KeyValue::new("instance", label)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_services_are_told_apart() {
        let metrics = Metrics::new("gateway", "gateway-1").unwrap();
        allow_series(&metrics);
        let durations = Durations::new(&metrics.meter());
        let stats: Vec<_> = (0..2_500)
            .map(|n| ServiceStats::new(&format!("service-{n}"), &RetryConfig::default(), &durations))
            .collect();
        stats.iter().for_each(|of| of.took(Duration::from_millis(1)));
        let text = metrics.render();
        let counts =
            text.lines().filter(|line| line.starts_with("hub_gateway_request_duration_seconds_count{"));
        assert_eq!(counts.count(), 2_500);
        assert!(!text.contains("overflow"));
    }
}
