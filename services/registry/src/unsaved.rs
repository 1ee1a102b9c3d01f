//! Whether the snapshot file is out of date, and who waits until it is not.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// The state of the snapshot file. Writes are numbered from 1.
#[derive(Debug, Default)]
pub(crate) struct Unsaved {
    changed: Notify,
    urgent: Notify,
    begun: AtomicU64,
    ended: watch::Sender<u64>,
}

impl Unsaved {
    /// The catalogue has changed.
    pub(crate) fn changed(&self) {
        self.changed.notify_one();
    }

    /// Completes when everything up to now has been written, or the write has failed. Never without a task that writes.
    pub(crate) async fn saved(&self) {
        let mut ended = self.ended.subscribe();
        // A write that has begun may have read the catalogue before the change.
        let next = self.begun.load(SeqCst) + 1;
        self.urgent.notify_one();
        self.changed.notify_one();
        let _ = ended.wait_for(|ended| *ended >= next).await; // the sender is in `self`
    }

    /// Completes when a write is due: `delay` after a change, or at once if somebody waits for it.
    pub(crate) async fn due(&self, delay: Duration) {
        self.changed.notified().await;
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = self.urgent.notified() => {}
        }
    }

    /// A write begins; returns its number.
    pub(crate) fn begin(&self) -> u64 {
        self.begun.fetch_add(1, SeqCst) + 1
    }

    /// A write has ended.
    pub(crate) fn end(&self, number: u64) {
        self.ended.send_replace(number);
    }
}
