//! The state that the writer thread and the callers of the store share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::files::{FileList, FilesSnapshot};
use super::options::StoreOptions;
use super::queue::AppendQueue;
use super::recover::RecoveredLog;
use super::ring::Ring;
use super::stats::StoreStats;

pub(super) struct StoreShared {
    pub(super) queue: AppendQueue,
    pub(super) ring: Arc<Ring>,
    pub(super) files: Arc<FileList>,
    /// Sequence number of the last committed entry.
    pub(super) last_seq: watch::Sender<u64>,
    /// Whether the last write succeeded.
    healthy: AtomicBool,
    pub(super) stats: StoreStats,
    pub(super) writer_ended: watch::Sender<bool>,
}

impl StoreShared {
    pub(super) fn new(options: &StoreOptions, log: &RecoveredLog) -> Self {
        let files = FilesSnapshot {
            closed: log.closed.clone(),
            active: Arc::clone(&log.active.file),
            committed_len: log.active.len,
        };
        Self {
            queue: AppendQueue::new(options.queue_bytes),
            ring: Arc::new(Ring::new(options.ring_bytes, log.last_seq)),
            files: Arc::new(FileList::new(files)),
            last_seq: watch::Sender::new(log.last_seq),
            healthy: AtomicBool::new(true),
            stats: StoreStats::default(),
            writer_ended: watch::Sender::new(false),
        }
    }

    pub(super) fn healthy(&self) -> bool {
        self.healthy.load(Ordering::Acquire)
    }

    pub(super) fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::Release);
    }
}
