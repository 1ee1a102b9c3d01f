//! Exports what the shared count does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry::metrics::Meter;

use crate::counter::CountStats;

type Value = fn(&CountStats) -> &AtomicU64;

const COUNTERS: [(&str, &str, &str, Value); 4] = [
    (
        "hub.visit.count.writes",
        "{write}",
        "Writes to the shared count; fewer than visits if visits share them",
        |stats| &stats.writes,
    ),
    ("hub.visit.count.conflicts", "{write}", "Writes repeated because another replica was first", |stats| {
        &stats.conflicts
    }),
    (
        "hub.visit.count.failures",
        "{attempt}",
        "Attempts to count that etcd has refused or not answered",
        |stats| &stats.failures,
    ),
    ("hub.visit.count.lost", "{number}", "Numbers that no visit has got", |stats| &stats.lost),
];

/// Registers the instruments.
pub(crate) fn register(meter: &Meter, stats: &Arc<CountStats>) {
    for (name, unit, description, value) in COUNTERS {
        let stats = Arc::downgrade(stats);
        let counter = meter.u64_observable_counter(name).with_unit(unit).with_description(description);
        counter
            .with_callback(move |observer| {
                if let Some(stats) = stats.upgrade() {
                    observer.observe(value(&stats).load(Ordering::Relaxed), &[]);
                }
            })
            .build();
    }
}
