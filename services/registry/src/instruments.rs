//! Durations of heartbeats and pushes, and the count of removals.

use std::time::Duration;

use hubspoke_chassis::Metrics;
use hubspoke_chassis::telemetry::ServiceInstance;
use hubspoke_protocol::ReasonKind;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram};

use crate::config::Limits;

/// Bucket bounds of calls to members, in seconds. On one network a call takes about a millisecond, and timeouts are a
/// few seconds.
const BOUNDS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
const HEARTBEAT_DURATION: &str = "hub.registry.heartbeat.duration";
/// The `reason` attribute of removals.
const REMOVALS: [(ReasonKind, &str); 3] = [
    (ReasonKind::Removed, "heartbeat"),
    (ReasonKind::Deregistered, "deregistered"),
    (ReasonKind::Replaced, "replaced"),
];

/// The registry's histograms and counters.
#[derive(Debug)]
pub(crate) struct Instruments {
    /// The service that spans belong to.
    pub(crate) span_owner: ServiceInstance,
    heartbeats: Histogram<f64>,
    pushes: Histogram<f64>,
    removals: Counter<u64>,
}

impl Instruments {
    pub(crate) fn new(metrics: &Metrics, limits: &Limits) -> Self {
        // One series per service and outcome.
        metrics.allow_series(HEARTBEAT_DURATION, limits.services.saturating_mul(2));
        let meter = &metrics.meter();
        let duration = |name: &'static str, description: &'static str| {
            let histogram = meter.f64_histogram(name).with_unit("s").with_description(description);
            histogram.with_boundaries(BOUNDS.to_vec()).build()
        };
        let instruments = Self {
            span_owner: metrics.instance().clone(),
            heartbeats: duration(HEARTBEAT_DURATION, "Duration of heartbeats"),
            pushes: duration("hub.registry.push.duration", "Duration of pushes to dependents"),
            removals: meter
                .u64_counter("hub.registry.removals")
                .with_unit("{instance}")
                .with_description("Instances that left the catalogue")
                .build(),
        };
        // Start at zero, so that the first removal shows as an increase.
        for (_, reason) in REMOVALS {
            instruments.removals.add(0, &[KeyValue::new("reason", reason)]);
        }
        instruments
    }

    /// Records a heartbeat.
    pub(crate) fn record_heartbeat(&self, service: &str, ok: bool, duration: Duration) {
        let attributes = [KeyValue::new("service", service.to_owned()), outcome(ok)];
        self.heartbeats.record(duration.as_secs_f64(), &attributes);
    }

    /// Records a delivery to a dependent.
    pub(crate) fn record_push(&self, ok: bool, duration: Duration) {
        self.pushes.record(duration.as_secs_f64(), &[outcome(ok)]);
    }

    /// Counts an instance that left the catalogue.
    pub(crate) fn count_removal(&self, kind: ReasonKind) {
        if let Some((_, reason)) = REMOVALS.into_iter().find(|(removal, _)| *removal == kind) {
            self.removals.add(1, &[KeyValue::new("reason", reason)]);
        }
    }
}

fn outcome(ok: bool) -> KeyValue {
    KeyValue::new("outcome", if ok { "ok" } else { "failed" })
}
