//! Exports the store's counters and gauges.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use opentelemetry::metrics::Meter;

use crate::store::{Store, StoreStats};

type CounterValue = fn(&StoreStats) -> &AtomicU64;
type GaugeValue = fn(&Store) -> u64;

const COUNTERS: [(&str, &str, &str, CounterValue); 5] = [
    ("hub.log.entries", "{entry}", "Entries stored", |stats| &stats.entries),
    ("hub.log.written", "By", "Bytes of stored entries", |stats| &stats.bytes),
    ("hub.log.writes", "{write}", "Writes to the file; fewer than entries if group commit works", |stats| {
        &stats.writes
    }),
    ("hub.log.entries.failed", "{entry}", "Entries that could not be written", |stats| &stats.failed),
    (
        "hub.log.entries.duplicate",
        "{entry}",
        "Entries of batches that were already stored, by key",
        |stats| &stats.duplicates,
    ),
];

const GAUGES: [(&str, &str, &str, GaugeValue); 4] = [
    ("hub.log.queue", "By", "Bytes that wait to be written", |store| store.queued_bytes() as u64),
    ("hub.log.stored", "By", "Bytes of all files", Store::stored_bytes),
    ("hub.log.tails", "{reader}", "Followers", |store| store.followers() as u64),
    ("hub.log.healthy", "", "1 if the last write succeeded", |store| u64::from(store.healthy())),
];

/// Bucket bounds of the number of submissions per commit.
const SIZES: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];
/// Bucket bounds of commit durations in seconds, from a page cache's to a bad disk's.
const DURATIONS: [f64; 12] =
    [0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5];

/// Registers the instruments. They report for as long as `store` lives.
pub(crate) fn register(meter: &Meter, store: &Arc<Store>) {
    observe_commits(meter, store);
    for (name, unit, description, value) in COUNTERS {
        let store = Arc::downgrade(store);
        let counter = meter.u64_observable_counter(name).with_unit(unit).with_description(description);
        counter
            .with_callback(move |observer| {
                with(&store, |store| observer.observe(value(store.stats()).load(Ordering::Relaxed), &[]))
            })
            .build();
    }
    for (name, unit, description, value) in GAUGES {
        let store = Arc::downgrade(store);
        let gauge = meter.u64_observable_gauge(name).with_unit(unit).with_description(description);
        gauge
            .with_callback(move |observer| with(&store, |store| observer.observe(value(store), &[])))
            .build();
    }
}

fn observe_commits(meter: &Meter, store: &Store) {
    let sizes = meter
        .u64_histogram("hub.log.commit.size")
        .with_unit("{submission}")
        .with_description("Texts and batches stored by one commit")
        .with_boundaries(SIZES.to_vec())
        .build();
    let durations = |name, description| {
        let histogram = meter.f64_histogram(name).with_unit("s").with_description(description);
        histogram.with_boundaries(DURATIONS.to_vec()).build()
    };
    let commits = durations(
        "hub.log.commit.duration",
        "Duration of commits: the write, and the sync if senders wait for it",
    );
    let syncs = durations("hub.log.sync.duration", "Duration of the syncs that are part of commits");
    store.stats().on_commit.set(move |commit| {
        sizes.record(commit.submissions as u64, &[]);
        commits.record(commit.duration.as_secs_f64(), &[]);
        if let Some(sync) = commit.sync {
            syncs.record(sync.as_secs_f64(), &[]);
        }
    });
}

fn with(store: &Weak<Store>, observe: impl FnOnce(&Store)) {
    if let Some(store) = store.upgrade() {
        observe(&store);
    }
}
