//! What the gateway counts: plain atomics on the hot path, read by instruments only when somebody asks for `/metrics`.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use crate::config::RetryConfig;
use crate::error::Cause;
use crate::gateway::Gateway;
use crate::retry::Budget;
use crate::upstream::{Instance, Service};

/// Upper bounds of the buckets of request durations, in microseconds.
const BOUNDS: [u64; 16] = [
    250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 75_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// What is counted of a service, for as long as the gateway runs.
pub(crate) struct ServiceStats {
    pub(crate) requests: AtomicU64,
    in_flight: AtomicUsize,
    causes: [AtomicU64; Cause::ALL.len()],
    retries: AtomicU64,
    durations: [AtomicU64; BOUNDS.len() + 1],
    duration_sum_us: AtomicU64,
    budget: Mutex<Budget>,
}

impl ServiceStats {
    pub(crate) fn new(retry: &RetryConfig) -> Self {
        Self {
            requests: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            causes: [const { AtomicU64::new(0) }; Cause::ALL.len()],
            retries: AtomicU64::new(0),
            durations: [const { AtomicU64::new(0) }; BOUNDS.len() + 1],
            duration_sum_us: AtomicU64::new(0),
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
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|&bound| bound < us);
        if let Some(count) = self.durations.get(bucket) {
            count.fetch_add(1, Relaxed);
        }
        self.duration_sum_us.fetch_add(us, Relaxed);
    }

    /// Takes a retry out of the budget.
    pub(crate) fn may_retry(&self, now: Instant, config: &RetryConfig) -> bool {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        budget.spend(now, self.requests.load(Relaxed), config)
    }

    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
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
}

impl InstanceStats {
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

/// Makes the instruments. They hold the gateway weakly: a stopped one shows nothing.
pub(crate) fn instruments(meter: &Meter, gateway: &Arc<Gateway>) {
    let weak = Arc::downgrade(gateway);
    counter(meter, "hub.gateway.replies", "Replies of instances by status", &weak, |gateway, show| {
        per_instance(gateway, |instance, labels| {
            for (status, count) in instance.stats.by_status() {
                let status = KeyValue::new("status", i64::try_from(status).unwrap_or_default());
                show(count, &[labels, std::slice::from_ref(&status)].concat());
            }
        });
    });
    counter(meter, "hub.gateway.instance_failures", "Failed attempts by instance", &weak, |gateway, show| {
        per_instance(gateway, |instance, labels| show(instance.stats.failures.load(Relaxed), labels));
    });
    counter(
        meter,
        "hub.gateway.failures",
        "Requests answered by the gateway itself",
        &weak,
        |gateway, show| {
            per_service(gateway, |service, label| {
                for (cause, count) in Cause::ALL.iter().zip(&service.stats.causes) {
                    let count = count.load(Relaxed);
                    if count > 0 {
                        show(count, &[label.clone(), KeyValue::new("cause", cause.name())]);
                    }
                }
            });
        },
    );
    counter(
        meter,
        "hub.gateway.refusals",
        "Requests refused before a service was known",
        &weak,
        |gateway, show| {
            for (cause, count) in Cause::ALL.iter().zip(&gateway.refusals) {
                let count = count.load(Relaxed);
                if count > 0 {
                    show(count, &[KeyValue::new("cause", cause.name())]);
                }
            }
        },
    );
    counter(meter, "hub.gateway.requests", "Requests by service", &weak, |gateway, show| {
        per_service(gateway, |service, label| show(service.stats.requests.load(Relaxed), &[label]));
    });
    counter(meter, "hub.gateway.retries", "Attempts after the first", &weak, |gateway, show| {
        per_service(gateway, |service, label| show(service.stats.retries.load(Relaxed), &[label]));
    });
    // Buckets as a counter with `le`, cumulative, as histogram_quantile wants them: recording each request into a
    // histogram instrument would cost a tenth of the request.
    counter(
        meter,
        "hub.gateway.duration_bucket",
        "Requests by duration, cumulative",
        &weak,
        |gateway, show| {
            per_service(gateway, |service, label| {
                let mut sum = 0;
                for (i, count) in service.stats.durations.iter().enumerate() {
                    sum += count.load(Relaxed);
                    let bound = BOUNDS.get(i).map(|&us| (us as f64 / 1e6).to_string());
                    let le = KeyValue::new("le", bound.unwrap_or_else(|| "+Inf".to_owned()));
                    show(sum, &[label.clone(), le]);
                }
            });
        },
    );
    counter(meter, "hub.gateway.duration_sum_us", "Time spent on requests", &weak, |gateway, show| {
        per_service(gateway, |service, label| show(service.stats.duration_sum_us.load(Relaxed), &[label]));
    });
    gauge(meter, "hub.gateway.in_flight", "Requests in flight by service", &weak, |gateway, show| {
        per_service(gateway, |service, label| show(service.stats.in_flight.load(Relaxed) as u64, &[label]));
    });
    gauge(meter, "hub.gateway.ejected", "Ejected instances by service", &weak, |gateway, show| {
        per_service(gateway, |service, label| show(service.ejected() as u64, &[label]));
    });
    gauge(meter, "hub.gateway.instances", "Instances by service", &weak, |gateway, show| {
        per_service(gateway, |service, label| show(service.instances.len() as u64, &[label]));
    });
    gauge(meter, "hub.gateway.pooled", "Idle connections by instance", &weak, |gateway, show| {
        per_instance(gateway, |instance, labels| show(instance.idle_connections() as u64, labels));
    });
    gauge(meter, "hub.gateway.connections", "Clients' connections", &weak, |gateway, show| {
        show(gateway.connections.load(Relaxed) as u64, &[]);
    });
}

type Show<'a> = dyn FnMut(u64, &[KeyValue]) + 'a;

fn counter(
    meter: &Meter,
    name: &'static str,
    what: &'static str,
    gateway: &Weak<Gateway>,
    read: impl Fn(&Gateway, &mut Show<'_>) + Send + Sync + 'static,
) {
    let gateway = gateway.clone();
    meter
        .u64_observable_counter(name)
        .with_description(what)
        .with_callback(move |observer| {
            if let Some(gateway) = gateway.upgrade() {
                read(&gateway, &mut |value, labels| observer.observe(value, labels));
            }
        })
        .build();
}

fn gauge(
    meter: &Meter,
    name: &'static str,
    what: &'static str,
    gateway: &Weak<Gateway>,
    read: impl Fn(&Gateway, &mut Show<'_>) + Send + Sync + 'static,
) {
    let gateway = gateway.clone();
    meter
        .u64_observable_gauge(name)
        .with_description(what)
        .with_callback(move |observer| {
            if let Some(gateway) = gateway.upgrade() {
                read(&gateway, &mut |value, labels| observer.observe(value, labels));
            }
        })
        .build();
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
