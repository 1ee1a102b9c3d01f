//! What the writer thread and the callers of the store share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::files::FileList;
use super::queue::AppendQueue;
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
    pub(super) fn new(queue: AppendQueue, ring: Ring, files: FileList, last_seq: u64) -> Self {
        Self {
            queue,
            ring: Arc::new(ring),
            files: Arc::new(files),
            last_seq: watch::Sender::new(last_seq),
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
