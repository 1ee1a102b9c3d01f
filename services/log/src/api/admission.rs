//! Which queries may read files: a bounded number at a time, in a way that no reader keeps the others out.
//!
//! Half of the places are kept from queries with a pattern, which take long. If all are taken, a query that has had
//! its fair share of time gives up its place to a new one.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A query that has lasted this long gives up its place if others want it.
pub(super) const FAIR_SHARE: Duration = Duration::from_secs(10);

/// Memory of a query, in bytes: a block with a long last line, entries that are sorted, and chunks that wait.
const QUERY_MEMORY: u32 = 6 << 20;
/// Memory of a compiled pattern, in bytes.
pub(crate) const PATTERN_MEMORY: u32 = 3 << 19;

/// The places of all queries. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct QueryAdmission {
    max: usize,
    memory: Arc<Semaphore>,
    admitted: Arc<Mutex<Vec<Place>>>,
}

/// The place of a running query.
#[derive(Debug, Clone)]
struct Place {
    since: Instant,
    pattern: bool,
    displaced: CancellationToken,
}

/// A query that may run. Dropping it frees its place.
#[derive(Debug)]
pub(super) struct AdmittedQuery {
    admitted: Arc<Mutex<Vec<Place>>>,
    since: Instant,
    displaced: CancellationToken,
    _memory: OwnedSemaphorePermit,
}

impl QueryAdmission {
    /// Admits `max` queries at a time, within the `memory` of all readers.
    pub(crate) fn new(max: usize, memory: Arc<Semaphore>) -> Self {
        Self { max, memory, admitted: Arc::default() }
    }

    /// Admits a query, with a pattern or without; `None` if there is no place or no memory for it.
    pub(super) fn admit(&self, pattern: bool) -> Option<Arc<AdmittedQuery>> {
        let bytes = QUERY_MEMORY + if pattern { PATTERN_MEMORY } else { 0 };
        let memory = Arc::clone(&self.memory).try_acquire_many_owned(bytes).ok()?;
        let now = Instant::now();
        let mut admitted = self.admitted.lock();
        let patterns = admitted.iter().filter(|place| place.pattern).count();
        // If there are too many with a pattern, another one only takes the place of one of those.
        let patterns_full = pattern && patterns >= (self.max / 2).max(1);
        if patterns_full || admitted.len() >= self.max {
            // The oldest first: places are in the order of admission.
            let had_its_share =
                |place: &Place| now - place.since >= FAIR_SHARE && (place.pattern || !patterns_full);
            let at = admitted.iter().position(had_its_share)?;
            admitted.remove(at).displaced.cancel();
        }
        let displaced = CancellationToken::new();
        admitted.push(Place { since: now, pattern, displaced: displaced.clone() });
        Some(Arc::new(AdmittedQuery {
            admitted: Arc::clone(&self.admitted),
            since: now,
            displaced,
            _memory: memory,
        }))
    }
}

impl AdmittedQuery {
    /// Cancelled when the query must give up its place.
    pub(super) fn displaced(&self) -> &CancellationToken {
        &self.displaced
    }

    /// When it was admitted.
    pub(super) fn since(&self) -> Instant {
        self.since
    }
}

impl Drop for AdmittedQuery {
    fn drop(&mut self) {
        // Cancelled places have been removed; the token tells the others apart.
        self.displaced.cancel();
        self.admitted.lock().retain(|place| !place.displaced.is_cancelled());
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn with_room(max: usize) -> QueryAdmission {
        QueryAdmission::new(max, Arc::new(Semaphore::new(64 << 20)))
    }

    #[test]
    fn a_query_without_memory_is_not_admitted() {
        let memory = Arc::new(Semaphore::new(14 << 20));
        let admission = QueryAdmission::new(8, Arc::clone(&memory));
        let first = admission.admit(true).unwrap();
        assert!(admission.admit(true).is_none());
        let _second = admission.admit(false).unwrap();
        assert!(admission.admit(false).is_none());
        drop(first);
        assert!(admission.admit(true).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn half_of_the_places_are_for_queries_without_a_pattern() {
        let admission = with_room(4);
        let _searches = [admission.admit(true).unwrap(), admission.admit(true).unwrap()];
        assert!(admission.admit(true).is_none());
        let plain = [admission.admit(false).unwrap(), admission.admit(false).unwrap()];
        assert!(admission.admit(false).is_none());
        drop(plain);
        assert!(admission.admit(true).is_none());
        assert!(admission.admit(false).is_some());
        assert!(with_room(1).admit(true).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_query_gives_up_its_place_once_it_has_had_its_share() {
        let admission = with_room(2);
        let first = admission.admit(true).unwrap();
        advance(FAIR_SHARE / 2).await;
        let second = admission.admit(false).unwrap();
        assert!(admission.admit(false).is_none());
        advance(FAIR_SHARE / 2).await;
        let third = admission.admit(false).unwrap();
        assert!(first.displaced().is_cancelled() && !second.displaced().is_cancelled());
        // Its place is gone already; dropping it frees no other.
        drop(first);
        assert!(admission.admit(false).is_none());
        advance(FAIR_SHARE).await;
        // There is no pattern to displace, but a place.
        let fourth = admission.admit(true).unwrap();
        assert!(second.displaced().is_cancelled() && !third.displaced().is_cancelled());
        drop((third, fourth));
        assert_eq!(admission.admitted.lock().len(), 0);
    }
}
