//! Counters and commit durations of the store; `metrics` exports them.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Counters since the start.
#[derive(Default)]
#[non_exhaustive]
pub struct StoreStats {
    /// Entries stored.
    pub entries: AtomicU64,
    /// Bytes of stored entries.
    pub bytes: AtomicU64,
    /// Writes to the file; fewer than entries if group commit works.
    pub writes: AtomicU64,
    /// Entries that could not be written.
    pub failed: AtomicU64,
    /// Entries of batches that were stored before, by key.
    pub duplicates: AtomicU64,
    /// Called with each commit.
    pub(crate) on_commit: CommitObserver,
}

/// One group commit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CommitSample {
    /// Texts and batches that it stored.
    pub(crate) submissions: usize,
    /// The write, and the sync if there was one.
    pub(crate) duration: Duration,
    /// The sync alone.
    pub(crate) sync: Option<Duration>,
}

/// A callback for commits, set at most once.
#[derive(Default)]
pub(crate) struct CommitObserver(OnceLock<Box<dyn Fn(CommitSample) + Send + Sync>>);

impl CommitObserver {
    /// Sets the callback, unless there is one. The writer calls it, so it must be quick.
    pub(crate) fn set(&self, observe: impl Fn(CommitSample) + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(observe));
    }

    pub(super) fn record(&self, commit: CommitSample) {
        if let Some(observe) = self.0.get() {
            observe(commit);
        }
    }
}
