//! What `/metrics` shows of the store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use opentelemetry::metrics::{Histogram, Meter};

use crate::store::{Stats, Store};

type Count = fn(&Stats) -> &AtomicU64;
type Gauge = fn(&Store) -> u64;

const COUNTS: [(&str, &str, &str, Count); 5] = [
    ("hub.log.entries", "{entry}", "Entries stored", |stats| &stats.entries),
    ("hub.log.written", "By", "Bytes of entries stored", |stats| &stats.bytes),
    ("hub.log.writes", "{write}", "Writes to the file; fewer than entries where groups form", |stats| {
        &stats.writes
    }),
    ("hub.log.entries.failed", "{entry}", "Entries that the disk refused", |stats| &stats.failed),
    ("hub.log.entries.duplicate", "{entry}", "Entries that were stored before, by their key", |stats| {
        &stats.duplicates
    }),
];

const GAUGES: [(&str, &str, &str, Gauge); 4] = [
    ("hub.log.queue", "By", "Bytes that wait to be written", |store| store.queued_bytes() as u64),
    ("hub.log.stored", "By", "Bytes of all files", Store::stored_bytes),
    ("hub.log.tails", "{reader}", "Those who follow", |store| store.followers() as u64),
    ("hub.log.healthy", "", "1 where the last write went well", |store| u64::from(store.healthy())),
];

/// Bucket bounds of the number of texts or batches that one commit stores.
const SIZES: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];
/// Bucket bounds of the duration of a commit, in seconds: from a page cache's to a bad disk's.
const DURATIONS: [f64; 12] =
    [0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5];

/// What is recorded of each commit.
#[derive(Debug)]
pub(crate) struct Commits {
    size: Histogram<u64>,
    duration: Histogram<f64>,
    syncs: Histogram<f64>,
}

impl Commits {
    fn new(meter: &Meter) -> Self {
        Self {
            size: meter
                .u64_histogram("hub.log.commit.size")
                .with_unit("{submission}")
                .with_description("Texts and batches that one commit stored")
                .with_boundaries(SIZES.to_vec())
                .build(),
            duration: meter
                .f64_histogram("hub.log.commit.duration")
                .with_unit("s")
                .with_description("Duration of commits: the write, and the sync where senders wait for it")
                .with_boundaries(DURATIONS.to_vec())
                .build(),
            syncs: meter
                .f64_histogram("hub.log.sync.duration")
                .with_unit("s")
                .with_description("Duration of syncs that senders wait for, as part of a commit")
                .with_boundaries(DURATIONS.to_vec())
                .build(),
        }
    }

    pub(crate) fn record(&self, submissions: usize, took: Duration, synced: Option<Duration>) {
        self.size.record(submissions as u64, &[]);
        self.duration.record(took.as_secs_f64(), &[]);
        if let Some(synced) = synced {
            self.syncs.record(synced.as_secs_f64(), &[]);
        }
    }
}

/// Shows `store` for as long as it lives.
pub(crate) fn register(meter: &Meter, store: &Arc<Store>) {
    // Set once: a store has one meter.
    let _ = store.stats().commits.set(Commits::new(meter));
    for (name, unit, description, count) in COUNTS {
        let store = Arc::downgrade(store);
        let counter = meter.u64_observable_counter(name).with_unit(unit).with_description(description);
        counter
            .with_callback(move |observer| {
                with(&store, |store| observer.observe(count(store.stats()).load(Ordering::Relaxed), &[]))
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

fn with(store: &Weak<Store>, observe: impl FnOnce(&Store)) {
    if let Some(store) = store.upgrade() {
        observe(&store);
    }
}
