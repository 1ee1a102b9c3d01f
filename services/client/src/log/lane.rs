//! One log instance's lane: while a request is under way, further entries wait and then go together.
//!
//! So an entry meets no delay while there is little to do, and under load many entries share a request. Each entry
//! has picked its instance by itself before it comes here, so the balance stays that of independent picks. Only
//! for instances that say that they take batches; others get a request for each entry.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Requests under way to one instance before entries begin to wait: the second one hides the first one's way.
const WIDTH: usize = 2;
/// Entries that go together, at the most.
pub(super) const TOGETHER: usize = 500;
/// Bytes that go together: well below what a log instance takes.
pub(super) const TOGETHER_BYTES: usize = 1 << 20;

/// The waiting entries of one instance. `T` is what an entry is to its sender, `R` the outcome.
#[derive(Debug)]
pub(super) struct Lane<T, R> {
    state: Mutex<State<T, R>>,
}

#[derive(Debug)]
struct State<T, R> {
    under_way: usize,
    waiting: Vec<Waiting<T, R>>,
}

#[derive(Debug)]
pub(super) struct Waiting<T, R> {
    pub(super) entry: T,
    pub(super) outcome: oneshot::Sender<R>,
}

impl<T, R> Default for Lane<T, R> {
    fn default() -> Self {
        Self { state: Mutex::new(State { under_way: 0, waiting: Vec::new() }) }
    }
}

impl<T, R> Lane<T, R> {
    /// Adds an entry. Where a request may be under way for it, somebody must now run the [`Runner`].
    pub(super) fn enter(self: &Arc<Self>, entry: T) -> (oneshot::Receiver<R>, Option<Runner<T, R>>) {
        let (outcome, receiver) = oneshot::channel();
        let mut state = self.lock();
        state.waiting.push(Waiting { entry, outcome });
        let free = state.under_way < WIDTH;
        if free {
            state.under_way += 1;
        }
        drop(state);
        (receiver, free.then(|| Runner { lane: Arc::clone(self), over: false }))
    }

    fn lock(&self) -> MutexGuard<'_, State<T, R>> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to have a request under way, and the duty to go on while entries wait.
pub(super) struct Runner<T, R> {
    lane: Arc<Lane<T, R>>,
    over: bool,
}

impl<T, R> Runner<T, R> {
    /// What goes together next, by the size of each entry in bytes; `None` where nothing waits. Entries whose
    /// senders have given up are left out.
    pub(super) fn next(&mut self, size: impl Fn(&T) -> usize) -> Option<Vec<Waiting<T, R>>> {
        let mut state = self.lane.lock();
        state.waiting.retain(|waiting| !waiting.outcome.is_closed());
        if state.waiting.is_empty() {
            // In the same step, so that the next to come finds the lane free.
            state.under_way -= 1;
            self.over = true;
            return None;
        }
        let mut bytes = 0;
        let fits = |waiting: &&Waiting<T, R>| {
            bytes += size(&waiting.entry);
            bytes <= TOGETHER_BYTES
        };
        // One alone goes, however large.
        let count = state.waiting.iter().take(TOGETHER).take_while(fits).count().max(1);
        Some(state.waiting.drain(..count).collect())
    }
}

impl<T, R> Drop for Runner<T, R> {
    fn drop(&mut self) {
        if !self.over {
            self.lane.lock().under_way -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Texts = Arc<Lane<&'static str, u32>>;

    fn texts(runner: &mut Runner<&'static str, u32>) -> Vec<&'static str> {
        runner
            .next(|text| text.len())
            .map_or(Vec::new(), |group| group.iter().map(|waiting| waiting.entry).collect())
    }

    #[test]
    fn entries_wait_only_behind_requests_that_are_under_way() {
        let lane = Texts::default();
        let (_a, first) = lane.enter("a");
        let (mut first, _second) = (first.unwrap(), lane.enter("b"));
        assert_eq!(texts(&mut first), ["a", "b"], "who is first takes what is there");
        let (_d, third) = lane.enter("d");
        assert!(third.is_none(), "as many under way as may be");
        let (gone, _) = lane.enter("gone");
        drop(gone);
        assert_eq!(texts(&mut first), ["d"]);
        assert!(texts(&mut first).is_empty());
        assert!(lane.enter("e").1.is_some(), "the lane is free again");
    }

    #[test]
    fn a_large_entry_goes_alone_and_a_group_has_bounds() {
        let lane: Arc<Lane<usize, ()>> = Arc::default();
        let mut receivers = Vec::new();
        let mut runner = None;
        for size in [TOGETHER_BYTES + 1, TOGETHER_BYTES, 1, 1] {
            let (receiver, first) = lane.enter(size);
            receivers.push(receiver);
            runner = runner.or(first);
        }
        let mut runner = runner.unwrap();
        let mut sizes =
            || runner.next(|size| *size).unwrap().iter().map(|waiting| waiting.entry).collect::<Vec<_>>();
        assert_eq!(sizes(), [TOGETHER_BYTES + 1]);
        assert_eq!(sizes(), [TOGETHER_BYTES]);
        assert_eq!(sizes(), [1, 1]);
    }

    #[test]
    fn a_runner_that_dies_frees_the_lane() {
        let lane = Texts::default();
        let (_a, runner) = lane.enter("a");
        drop(runner);
        let (_b, runner) = lane.enter("b");
        assert_eq!(texts(&mut runner.unwrap()), ["a", "b"]);
    }
}
