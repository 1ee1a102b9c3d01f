//! What the registry counts of itself, and its metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use crate::core::Core;

/// Counters since the start.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    heartbeats: Outcomes,
    pushes: Outcomes,
}

#[derive(Debug, Default)]
struct Outcomes {
    good: AtomicU64,
    failed: AtomicU64,
}

impl Outcomes {
    fn count(&self, good: bool) {
        let counter = if good { &self.good } else { &self.failed };
        counter.fetch_add(1, Relaxed);
    }
}

impl Stats {
    /// A heartbeat has an outcome.
    pub(crate) fn heartbeat(&self, good: bool) {
        self.heartbeats.count(good);
    }

    /// A delivery to a dependent has an outcome.
    pub(crate) fn push(&self, good: bool) {
        self.pushes.count(good);
    }
}

/// Shows the catalogue and the counters as metrics.
pub(crate) fn show(meter: &Meter, core: &Arc<Core>) {
    gauge(meter, core, "instances", "Instances in the catalogue", |core| {
        core.read(|catalog, _| catalog.len() as u64)
    });
    gauge(meter, core, "services", "Services that are known", |core| {
        core.read(|catalog, _| catalog.services() as u64)
    });
    gauge(meter, core, "instances.failing", "Instances whose last heartbeat failed", |core| {
        core.read(|catalog, _| catalog.failing() as u64)
    });
    gauge(meter, core, "instances.held_back", "Instances whose removal self-protection holds back", |core| {
        core.read(|catalog, now| catalog.protecting(now).held_back as u64)
    });
    gauge(meter, core, "protecting", "1 while the registry suspects itself", |core| {
        core.read(|catalog, now| u64::from(catalog.protecting(now).until.is_some()))
    });
    gauge(meter, core, "revision", "Changes in this epoch", |core| core.revision().n);
    gauge(meter, core, "watchers", "Watch streams", |core| core.watch.watchers() as u64);
    let weak = Arc::downgrade(core);
    meter
        .u64_observable_counter("hubspoke.registry.watchers.cut_off")
        .with_description("Watchers that were cut off because they did not read")
        .with_callback(move |to| with(&weak, |core| to.observe(core.watch.cut_off(), &[])))
        .build();
    outcomes(meter, core, "heartbeats", "Heartbeats, by outcome", |stats| &stats.heartbeats);
    outcomes(meter, core, "pushes", "Deliveries to dependents, by outcome", |stats| &stats.pushes);
}

fn gauge(
    meter: &Meter,
    core: &Arc<Core>,
    name: &str,
    description: &'static str,
    value: impl Fn(&Core) -> u64 + Send + Sync + 'static,
) {
    let weak = Arc::downgrade(core);
    meter
        .u64_observable_gauge(format!("hubspoke.registry.{name}"))
        .with_description(description)
        .with_callback(move |to| with(&weak, |core| to.observe(value(core), &[])))
        .build();
}

fn outcomes(
    meter: &Meter,
    core: &Arc<Core>,
    name: &str,
    description: &'static str,
    of: impl Fn(&Stats) -> &Outcomes + Send + Sync + 'static,
) {
    let weak = Arc::downgrade(core);
    meter
        .u64_observable_counter(format!("hubspoke.registry.{name}"))
        .with_description(description)
        .with_callback(move |to| {
            with(&weak, |core| {
                let Outcomes { good, failed } = of(&core.stats);
                to.observe(good.load(Relaxed), &[KeyValue::new("outcome", "good")]);
                to.observe(failed.load(Relaxed), &[KeyValue::new("outcome", "failed")]);
            });
        })
        .build();
}

/// The metrics must not keep a registry alive that has ended.
fn with(core: &Weak<Core>, look: impl FnOnce(&Core)) {
    if let Some(core) = core.upgrade() {
        look(&core);
    }
}
