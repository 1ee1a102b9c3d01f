//! What `/metrics` shows of the store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use opentelemetry::metrics::Meter;

use crate::store::{Stats, Store};

type Count = fn(&Stats) -> &AtomicU64;
type Gauge = fn(&Store) -> u64;

const COUNTS: [(&str, &str, Count); 5] = [
    ("hub.log.entries", "Entries stored", |stats| &stats.entries),
    ("hub.log.written", "Bytes of entries stored", |stats| &stats.bytes),
    ("hub.log.writes", "Writes to the file; fewer than entries where groups form", |stats| &stats.writes),
    ("hub.log.entries.failed", "Entries that the disk refused", |stats| &stats.failed),
    ("hub.log.entries.duplicate", "Entries that were stored before, by their key", |stats| &stats.duplicates),
];

const GAUGES: [(&str, &str, Gauge); 4] = [
    ("hub.log.queue", "Bytes that wait to be written", |store| store.queued_bytes() as u64),
    ("hub.log.stored", "Bytes of all files", Store::stored_bytes),
    ("hub.log.tails", "Those who follow", |store| store.followers() as u64),
    ("hub.log.healthy", "1 where the last write went well", |store| u64::from(store.healthy())),
];

/// Shows `store` for as long as it lives.
pub(crate) fn register(meter: &Meter, store: &Arc<Store>) {
    for (name, description, count) in COUNTS {
        let store = Arc::downgrade(store);
        let counter = meter.u64_observable_counter(name).with_description(description);
        counter
            .with_callback(move |observer| {
                with(&store, |store| observer.observe(count(store.stats()).load(Ordering::Relaxed), &[]))
            })
            .build();
    }
    for (name, description, value) in GAUGES {
        let store = Arc::downgrade(store);
        let gauge = meter.u64_observable_gauge(name).with_description(description);
        gauge
            .with_callback(move |observer| with(&store, |store| observer.observe(value(store), &[])))
            .build();
    }
}

fn with(store: &Weak<Store>, observe: impl FnOnce(&Store)) {
    if let Some(store) = store.upgrade() {
        observe(&store);
    }
}
