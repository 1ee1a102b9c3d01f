//! A batcher per log instance: while requests to the instance are in flight, further entries queue and then share the
//! next request.
//!
//! An entry is not delayed while there is little load, and under load many entries share a request. Each entry picks
//! its instance before it comes here, so the balance between instances is that of independent picks. Only instances
//! that take batches have a batcher; the others get one request per entry.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Requests in flight to one instance before entries begin to queue: with two, one travels while the other is stored.
const MAX_IN_FLIGHT: usize = 2;
/// Most entries in a batch.
pub(super) const MAX_BATCH: usize = 500;
/// Most bytes in a batch: well below what a log instance accepts.
pub(super) const MAX_BATCH_BYTES: usize = 1 << 20;

/// The queued entries of one instance. `T` is an entry, `R` its outcome.
#[derive(Debug)]
pub(super) struct Batcher<T, R>(Mutex<BatcherState<T, R>>);

#[derive(Debug)]
struct BatcherState<T, R> {
    in_flight: usize,
    queued: Vec<QueuedEntry<T, R>>,
}

#[derive(Debug)]
pub(super) struct QueuedEntry<T, R> {
    pub(super) entry: T,
    pub(super) outcome: oneshot::Sender<R>,
}

impl<T, R> Default for Batcher<T, R> {
    fn default() -> Self {
        Self(Mutex::new(BatcherState { in_flight: 0, queued: Vec::new() }))
    }
}

impl<T, R> Batcher<T, R> {
    /// Queues an entry. With a [`Worker`], the caller must run it, since no other one may be left to send the entry.
    pub(super) fn push(self: &Arc<Self>, entry: T) -> (oneshot::Receiver<R>, Option<Worker<T, R>>) {
        let (outcome, receiver) = oneshot::channel();
        let mut state = self.0.lock();
        state.queued.push(QueuedEntry { entry, outcome });
        let free = state.in_flight < MAX_IN_FLIGHT;
        state.in_flight += usize::from(free);
        (receiver, free.then(|| Worker { batcher: Arc::clone(self), finished: false }))
    }
}

/// The permit to have one request in flight, and the duty to continue while entries are queued.
pub(super) struct Worker<T, R> {
    batcher: Arc<Batcher<T, R>>,
    finished: bool,
}

impl<T, R> Worker<T, R> {
    /// The next batch, given the size of an entry in bytes; `None` if nothing is queued, which ends the worker.
    /// Entries whose senders have given up are dropped.
    pub(super) fn next_batch(&mut self, size: impl Fn(&T) -> usize) -> Option<Vec<QueuedEntry<T, R>>> {
        let mut state = self.batcher.0.lock();
        state.queued.retain(|queued| !queued.outcome.is_closed());
        if state.queued.is_empty() {
            // Under the same lock, so that the next entry gets a worker.
            state.in_flight -= 1;
            self.finished = true;
            return None;
        }
        let count = batch_len(state.queued.iter().map(|queued| size(&queued.entry)));
        Some(state.queued.drain(..count).collect())
    }
}

impl<T, R> Drop for Worker<T, R> {
    fn drop(&mut self) {
        if !self.finished {
            self.batcher.0.lock().in_flight -= 1;
        }
    }
}

/// How many of the first entries, by their sizes in bytes, make up a batch. An entry that is too large for one is a
/// batch by itself.
pub(super) fn batch_len(sizes: impl ExactSizeIterator<Item = usize>) -> usize {
    let waiting = sizes.len();
    let mut bytes = 0;
    let fits = |size: &usize| {
        bytes += size;
        bytes <= MAX_BATCH_BYTES
    };
    sizes.take(MAX_BATCH).take_while(fits).count().max(1).min(waiting)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Texts = Arc<Batcher<&'static str, u32>>;

    fn texts(worker: &mut Worker<&'static str, u32>) -> Vec<&'static str> {
        let batch = worker.next_batch(|text| text.len()).unwrap_or_default();
        batch.iter().map(|queued| queued.entry).collect()
    }

    #[test]
    fn entries_queue_only_behind_requests_in_flight() {
        let batcher = Texts::default();
        let (_a, first) = batcher.push("a");
        let (mut first, _second) = (first.unwrap(), batcher.push("b"));
        assert_eq!(texts(&mut first), ["a", "b"], "the first worker takes all that is queued");
        let (_d, third) = batcher.push("d");
        assert!(third.is_none(), "no more than two requests in flight");
        let (abandoned, _) = batcher.push("abandoned");
        drop(abandoned);
        assert_eq!(texts(&mut first), ["d"]);
        assert!(texts(&mut first).is_empty());
        assert!(batcher.push("e").1.is_some(), "one of two requests is over");
    }

    #[test]
    fn a_batch_is_bounded_and_an_oversized_entry_is_sent_by_itself() {
        let batcher: Arc<Batcher<usize, ()>> = Arc::default();
        let mut receivers = Vec::new();
        let mut worker = None;
        for size in [MAX_BATCH_BYTES + 1, MAX_BATCH_BYTES, 1, 1] {
            let (receiver, first) = batcher.push(size);
            receivers.push(receiver);
            worker = worker.or(first);
        }
        let mut worker = worker.unwrap();
        let mut sizes = || {
            let batch = worker.next_batch(|size| *size).unwrap();
            batch.iter().map(|queued| queued.entry).collect::<Vec<_>>()
        };
        assert_eq!(sizes(), [MAX_BATCH_BYTES + 1]);
        assert_eq!(sizes(), [MAX_BATCH_BYTES]);
        assert_eq!(sizes(), [1, 1]);
    }

    #[test]
    fn a_worker_that_is_dropped_frees_its_permit() {
        let batcher = Texts::default();
        let (_a, worker) = batcher.push("a");
        drop(worker);
        let (_b, worker) = batcher.push("b");
        assert_eq!(texts(&mut worker.unwrap()), ["a", "b"]);
    }
}
