//! Counters of services and instances: atomics on the hot path, read when `/metrics` is scraped.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{BoundHistogram, Histogram, Meter};

use crate::error::Cause;

/// Bucket bounds of request durations in seconds: those of OpenTelemetry's semantic conventions, and finer ones below,
/// where most of a gateway's requests are.
const BOUNDS: [f64; 18] = [
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0,
    7.5, 10.0,
];

/// The histogram of request durations. Each service binds its name once: recording then takes some 60 ns, a sixth of
/// what it takes with labels.
pub(crate) struct DurationHistogram(Histogram<f64>);

impl DurationHistogram {
    pub(crate) fn new(meter: &Meter) -> Self {
        let histogram = meter.f64_histogram("hub.gateway.request.duration").with_unit("s");
        let histogram = histogram.with_description("Request duration until the last byte of the response");
        Self(histogram.with_boundaries(BOUNDS.to_vec()).build())
    }
}

/// A number that only grows.
#[derive(Default)]
pub(crate) struct EventCounter(AtomicU64);

impl EventCounter {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One counter per [`Cause`].
pub(crate) struct CauseCounters([EventCounter; Cause::ALL.len()]);

impl CauseCounters {
    pub(crate) const fn new() -> Self {
        Self([const { EventCounter::new() }; Cause::ALL.len()])
    }

    pub(crate) fn count(&self, cause: Cause) {
        if let Some(counter) = self.0.get(cause as usize) {
            counter.count();
        }
    }

    /// The causes that have been counted.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Cause, u64)> {
        let counts = self.0.iter().map(EventCounter::get);
        Cause::ALL.iter().copied().zip(counts).filter(|(_, count)| *count > 0)
    }
}

/// The counters of a service. They last as long as the gateway runs.
pub(crate) struct ServiceStats {
    pub(crate) requests: EventCounter,
    pub(crate) retries: EventCounter,
    pub(crate) waits: EventCounter,
    pub(crate) ejections: EventCounter,
    /// Requests that the gateway answered itself, with an error.
    pub(crate) failures: CauseCounters,
    duration: BoundHistogram<f64>,
}

impl ServiceStats {
    pub(crate) fn new(service: &str, durations: &DurationHistogram) -> Self {
        Self {
            requests: EventCounter::new(),
            retries: EventCounter::new(),
            waits: EventCounter::new(),
            ejections: EventCounter::new(),
            failures: CauseCounters::new(),
            duration: durations.0.bind(&[KeyValue::new("service", service.to_owned())]),
        }
    }

    pub(crate) fn record_duration(&self, duration: Duration) {
        self.duration.record(duration.as_secs_f64());
    }
}

/// The counters of an instance. They last as long as its registration.
#[derive(Default)]
pub(crate) struct InstanceStats {
    pub(crate) picks: EventCounter,
    pub(crate) failures: EventCounter,
    pub(crate) connections_opened: EventCounter,
    /// Responses by status, a table per class (1xx to 5xx), allocated on the first response of that class.
    classes: [OnceLock<Box<[EventCounter; 100]>>; 5],
}

impl InstanceStats {
    pub(crate) fn count_response(&self, status: u16) {
        let class = usize::from(status / 100).checked_sub(1).and_then(|class| self.classes.get(class));
        let Some(class) = class else { return };
        let counters = class.get_or_init(|| Box::new([const { EventCounter::new() }; 100]));
        if let Some(counter) = counters.get(usize::from(status % 100)) {
            counter.count();
        }
    }

    /// The statuses that have been counted.
    pub(crate) fn responses(&self) -> impl Iterator<Item = (i64, u64)> {
        let counts = self.classes.iter().map(|class| class.get().map(|counts| counts.iter()));
        (1..)
            .zip(counts)
            .flat_map(|(class, counts)| (class * 100..).zip(counts.into_iter().flatten()))
            .map(|(status, counter)| (status, counter.get()))
            .filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_counted_by_status() {
        let stats = InstanceStats::default();
        [200, 200, 100, 599, 404, 0, 99, 600].into_iter().for_each(|status| stats.count_response(status));
        assert!(stats.responses().eq([(100, 1), (200, 2), (404, 1), (599, 1)]));
    }
}
