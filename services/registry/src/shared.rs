//! The catalogue behind one lock, with its epoch and clock.
//!
//! The lock is held for one event or one read, never across IO.

use hubspoke_protocol::Revision;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::catalog::{Catalog, Time};
use crate::config::Settings;

/// Views of the whole catalogue rendered at once: a large one takes a worker's time and many megabytes.
const MAX_VIEWS: usize = 2;

/// The catalogue, shared by all tasks.
#[derive(Debug)]
pub(crate) struct SharedCatalog {
    catalog: Mutex<Catalog>,
    started: Instant,
    epoch: u64,
    views: Semaphore,
}

impl SharedCatalog {
    /// An empty catalogue.
    pub(crate) fn new(settings: Settings, epoch: u64) -> Self {
        Self {
            catalog: Mutex::new(Catalog::new(settings)),
            started: Instant::now(),
            epoch,
            views: Semaphore::new(MAX_VIEWS),
        }
    }

    /// Runs `access` on the locked catalogue, with the current time.
    pub(crate) fn with<T>(&self, access: impl FnOnce(&mut Catalog, Time) -> T) -> T {
        let mut catalog = self.catalog.lock();
        let millis = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        access(&mut catalog, Time::from_millis(millis))
    }

    /// The permit to hold while rendering a view of the whole catalogue.
    pub(crate) async fn view_permit(&self) -> Option<SemaphorePermit<'_>> {
        self.views.acquire().await.ok() // never closed
    }

    /// The newest revision.
    pub(crate) fn revision(&self) -> Revision {
        self.revision_of(self.with(|catalog, _| catalog.revision()))
    }

    /// Revision `n` of this epoch.
    pub(crate) fn revision_of(&self, n: u64) -> Revision {
        Revision { epoch: self.epoch, n }
    }
}
