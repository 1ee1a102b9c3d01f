//! What the registry counts of itself, and its metrics.

use std::sync::{Arc, Weak};
use std::time::Duration;

use hubspoke_chassis::Metrics;
use hubspoke_protocol::{InstanceState, ReasonKind};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter};

use crate::config::Limits;
use crate::core::Core;

/// Bucket bounds of calls to members, in seconds: on one network they take a millisecond, and their timeouts are
/// some seconds.
const BOUNDS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
/// Those of its instruments that have series per service.
const HEARTBEAT_DURATION: &str = "hub.registry.heartbeat.duration";
const INSTANCES: &str = "hub.registry.instances";
/// Why an instance left the catalogue, in the metrics.
const REMOVALS: [(ReasonKind, &str); 3] = [
    (ReasonKind::Removed, "heartbeat"),
    (ReasonKind::Deregistered, "deregistered"),
    (ReasonKind::Replaced, "replaced"),
];
const STATES: [(InstanceState, &str); 3] = [
    (InstanceState::Passing, "passing"),
    (InstanceState::Suspect, "suspect"),
    (InstanceState::Draining, "draining"),
];

/// What is recorded as it happens.
#[derive(Debug)]
pub(crate) struct Stats {
    heartbeats: Histogram<f64>,
    pushes: Histogram<f64>,
    removals: Counter<u64>,
}

impl Stats {
    pub(crate) fn new(metrics: &Metrics, limits: &Limits) -> Self {
        metrics.allow_series(HEARTBEAT_DURATION, limits.services.saturating_mul(2)); // by outcome
        let meter = &metrics.meter();
        let duration = |name: &'static str, description: &'static str| {
            let histogram = meter.f64_histogram(name).with_unit("s").with_description(description);
            histogram.with_boundaries(BOUNDS.to_vec()).build()
        };
        let stats = Self {
            heartbeats: duration(HEARTBEAT_DURATION, "Duration of heartbeats"),
            pushes: duration("hub.registry.push.duration", "Duration of pushes to dependents"),
            removals: meter
                .u64_counter("hub.registry.removals")
                .with_unit("{instance}")
                .with_description("Instances that left the catalogue")
                .build(),
        };
        // From the start there is a zero to compare the first removal with.
        for (_, reason) in REMOVALS {
            stats.removals.add(0, &[KeyValue::new("reason", reason)]);
        }
        stats
    }

    /// A heartbeat has an outcome.
    pub(crate) fn heartbeat(&self, service: &str, good: bool, took: Duration) {
        let attributes = [KeyValue::new("service", service.to_owned()), outcome(good)];
        self.heartbeats.record(took.as_secs_f64(), &attributes);
    }

    /// A delivery to a dependent has an outcome.
    pub(crate) fn push(&self, good: bool, took: Duration) {
        self.pushes.record(took.as_secs_f64(), &[outcome(good)]);
    }

    /// An instance has left the catalogue.
    pub(crate) fn left(&self, why: ReasonKind) {
        if let Some((_, reason)) = REMOVALS.into_iter().find(|(kind, _)| *kind == why) {
            self.removals.add(1, &[KeyValue::new("reason", reason)]);
        }
    }
}

fn outcome(good: bool) -> KeyValue {
    KeyValue::new("outcome", if good { "ok" } else { "failed" })
}

/// Shows the catalogue and what is under way as metrics.
pub(crate) fn show(metrics: &Metrics, limits: &Limits, core: &Arc<Core>) {
    metrics.allow_series(INSTANCES, limits.services.saturating_mul(STATES.len()));
    let meter = &metrics.meter();
    let weak = Arc::downgrade(core);
    meter
        .u64_observable_gauge(INSTANCES)
        .with_unit("{instance}")
        .with_description("Instances in the catalogue")
        .with_callback(move |to| {
            with(&weak, |core| {
                let states = STATES.map(|(state, _)| state);
                let census = core.read(|catalog, _| catalog.census(states));
                // Names that are only required are callers' to invent, and have nothing to count.
                for (service, counts) in
                    census.into_iter().filter(|(_, counts)| counts.iter().any(|n| *n > 0))
                {
                    for ((_, name), count) in STATES.into_iter().zip(counts) {
                        let service = KeyValue::new("service", service.to_string());
                        to.observe(count, &[service, KeyValue::new("state", name)]);
                    }
                }
            });
        })
        .build();
    gauge(meter, core, "services", "{service}", "Services that are known", |core| {
        core.read(|catalog, _| catalog.services() as u64)
    });
    gauge(meter, core, "instances.failing", "{instance}", "Instances whose last heartbeat failed", |core| {
        core.read(|catalog, _| catalog.failing() as u64)
    });
    gauge(
        meter,
        core,
        "instances.held_back",
        "{instance}",
        "Instances whose removal self-protection holds back",
        |core| core.read(|catalog, now| catalog.protecting(now).held_back as u64),
    );
    gauge(meter, core, "protecting", "", "1 while the registry suspects itself", |core| {
        core.read(|catalog, now| u64::from(catalog.protecting(now).until.is_some()))
    });
    gauge(meter, core, "revision", "{change}", "Changes in this epoch", |core| core.revision().n);
    gauge(meter, core, "dependents", "{dependent}", "Members that are told of changes", |core| {
        core.notifier.load().dependents
    });
    gauge(
        meter,
        core,
        "dependents.behind",
        "{dependent}",
        "Members whose last push failed: they don't know all, or did not say so",
        |core| core.notifier.load().behind,
    );
    gauge(meter, core, "push.queue", "{dependent}", "Members that are being told, or wait for it", |core| {
        core.notifier.load().queue
    });
    gauge(meter, core, "watchers", "{watcher}", "Watch streams", |core| core.watch.watchers() as u64);
    let weak = Arc::downgrade(core);
    meter
        .u64_observable_counter("hub.registry.watchers.cut_off")
        .with_unit("{watcher}")
        .with_description("Watchers that were cut off because they did not read")
        .with_callback(move |to| with(&weak, |core| to.observe(core.watch.cut_off(), &[])))
        .build();
}

fn gauge(
    meter: &Meter,
    core: &Arc<Core>,
    name: &str,
    unit: &'static str,
    description: &'static str,
    value: impl Fn(&Core) -> u64 + Send + Sync + 'static,
) {
    let weak = Arc::downgrade(core);
    meter
        .u64_observable_gauge(format!("hub.registry.{name}"))
        .with_unit(unit)
        .with_description(description)
        .with_callback(move |to| with(&weak, |core| to.observe(value(core), &[])))
        .build();
}

/// The metrics must not keep a registry alive that has ended.
fn with(core: &Weak<Core>, look: impl FnOnce(&Core)) {
    if let Some(core) = core.upgrade() {
        look(&core);
    }
}

#[cfg(test)]
mod tests {
    use hubspoke_protocol::ServiceInfo;

    use super::*;
    use crate::Settings;

    #[tokio::test]
    async fn as_many_services_as_the_catalogue_takes_are_told_apart_and_only_those_with_instances() {
        let (settings, metrics) = (Settings::default(), Metrics::new("registry", "registry-1").unwrap());
        let (core, _orders) = Core::new(&settings, 1, &metrics);
        let core = Arc::new(core);
        show(&metrics, &settings.limits, &core);
        for n in 0..2_500 {
            let info = ServiceInfo {
                name: format!("service-{n}"),
                addr: "127.0.0.1:1".to_owned(),
                required_services: vec![format!("nobody-{n}")],
                ..ServiceInfo::default()
            };
            core.register(info).unwrap();
            core.stats.heartbeat(&format!("service-{n}"), true, Duration::from_millis(1));
        }
        let text = metrics.render();
        let series = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!(series("hub_registry_instances{"), 2_500 * STATES.len());
        assert_eq!(series("hub_registry_heartbeat_duration_seconds_count{"), 2_500);
        assert!(!text.contains("overflow") && !text.contains("nobody"));
    }
}
