//! The catalogue behind one lock, with its epoch and clock.
//!
//! The lock is held for one event or one read, never across IO.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use hubspoke_protocol::Revision;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::catalog::{Catalog, Split, Time};
use crate::cluster::Cluster;
use crate::config::Settings;

/// Views of the whole catalogue rendered at once: a large one takes a worker's time and many megabytes.
pub(crate) const MAX_VIEWS: usize = 2;
/// Most memory of rendered views that clients have not read yet, in bytes. A single larger one is still sent.
pub(crate) const UNREAD_VIEWS: usize = 32 << 20;

/// The catalogue, shared by all tasks.
#[derive(Debug)]
pub(crate) struct SharedCatalog {
    catalog: Mutex<Catalog>,
    started: Instant,
    /// Set if several registries share the catalogue.
    cluster: OnceLock<Cluster>,
    /// Written while the catalogue is locked.
    epoch: AtomicU64,
    views: Semaphore,
    /// One permit per byte of [`UNREAD_VIEWS`].
    unread: Arc<Semaphore>,
}

/// A rendered view, which takes its bytes from the budget until it is dropped, which is when it has been written.
struct UnreadView {
    text: Vec<u8>,
    _permits: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for UnreadView {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

impl SharedCatalog {
    /// An empty catalogue.
    pub(crate) fn new(settings: Settings, epoch: u64) -> Self {
        Self {
            catalog: Mutex::new(Catalog::new(settings)),
            started: Instant::now(),
            cluster: OnceLock::new(),
            epoch: AtomicU64::new(epoch),
            views: Semaphore::new(MAX_VIEWS),
            unread: Arc::new(Semaphore::new(UNREAD_VIEWS)),
        }
    }

    /// Runs `access` on the locked catalogue, with the current time.
    pub(crate) fn with<T>(&self, access: impl FnOnce(&mut Catalog, Time) -> T) -> T {
        let mut catalog = self.catalog.lock();
        let millis = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        access(&mut catalog, Time::from_millis(millis))
    }

    /// Lets a store decide what is in the catalogue, which must be empty.
    pub(crate) fn share(&self, cluster: Cluster) {
        self.with(|catalog, _| catalog.share(Split::new(cluster.own.clone(), [])));
        let _ = self.cluster.set(cluster); // once
    }

    /// The registries that share the catalogue, if there can be several.
    pub(crate) fn cluster(&self) -> Option<&Cluster> {
        self.cluster.get()
    }

    /// The permit to hold while rendering a view of the whole catalogue.
    pub(crate) async fn view_permit(&self) -> Option<SemaphorePermit<'_>> {
        self.views.acquire().await.ok() // never closed
    }

    /// A rendered view as bytes that count until a client has read them. `None` if too much is unread already: clients
    /// that read nothing must not fill the memory with copies of the catalogue.
    pub(crate) fn unread(&self, text: Vec<u8>) -> Option<Bytes> {
        let size = u32::try_from(text.len().min(UNREAD_VIEWS)).ok()?;
        let permits = self.unread.clone().try_acquire_many_owned(size).ok()?;
        Some(Bytes::from_owner(UnreadView { text, _permits: permits }))
    }

    /// The newest revision.
    pub(crate) fn revision(&self) -> Revision {
        self.with(|catalog, _| self.revision_of(catalog.revision()))
    }

    /// Revision `n` of this epoch.
    pub(crate) fn revision_of(&self, n: u64) -> Revision {
        Revision { epoch: self.epoch(), n }
    }

    /// The epoch; 0 if the store has not been read yet.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Relaxed)
    }

    /// Starts another epoch. Call it while the catalogue is locked.
    pub(crate) fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unread_views_are_bounded_in_all() {
        let catalog = SharedCatalog::new(Settings::default(), 1);
        let view = |size| catalog.unread(vec![b'x'; size]);
        let held = [view(UNREAD_VIEWS / 2), view(UNREAD_VIEWS / 2)];
        assert!(held.iter().all(Option::is_some) && view(1).is_none());
        drop(held);
        let larger = view(UNREAD_VIEWS + 1);
        assert!(larger.is_some() && view(1).is_none());
        drop(larger);
        assert_eq!(view(3).unwrap(), "xxx");
    }
}
