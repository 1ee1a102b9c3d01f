//! The bounded queue between requests and the writer.
//!
//! It is bounded by bytes. A group that the writer has taken counts until it is written, so memory stays
//! bounded however slow the disk is. A full queue refuses at once; no sender waits for room.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::receipt::{AppendError, Receipt};
use crate::entry::{Batch, BatchId};

/// One request's entries on their way to the writer.
pub(super) struct Submission {
    pub(super) batch: Batch,
    /// If the batch has a key.
    pub(super) id: Option<BatchId>,
    /// When it arrived.
    pub(super) at: Timestamp,
    /// `None` if the sender already has its answer ([`AckMode::Queued`](super::AckMode::Queued)).
    pub(super) reply: Option<ReceiptSender>,
}

/// The channel for the answer to the sender of a submission.
pub(super) type ReceiptSender = oneshot::Sender<Result<Receipt, AppendError>>;

impl Submission {
    /// Answers the sender, if it still waits.
    pub(super) fn answer(self, outcome: Result<Receipt, AppendError>) {
        if let Some(reply) = self.reply {
            let _ = reply.send(outcome);
        }
    }
}

pub(super) struct AppendQueue {
    state: Mutex<AppendQueueState>,
    filled: Condvar,
    max_bytes: usize,
}

#[derive(Default)]
struct AppendQueueState {
    waiting: VecDeque<Submission>,
    /// Weight of what waits and of what the writer has taken.
    bytes: usize,
    /// The writer sleeps and must be woken.
    writer_sleeps: bool,
    closed: bool,
}

/// The result of [`AppendQueue::take`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// A group to write; pass `bytes` to [`AppendQueue::release`] afterwards.
    Group { bytes: usize },
    /// Nothing came in time.
    TimedOut,
    /// Closed and empty.
    Closed,
}

impl AppendQueue {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { state: Mutex::default(), filled: Condvar::new(), max_bytes }
    }

    /// Adds a submission or refuses it at once. An empty queue takes one of any size.
    ///
    /// `clock` is read when its place is certain: so the times of arrival are in the order of the sequence numbers,
    /// which readers that sort by time rely on.
    pub(super) fn push(
        &self,
        batch: Batch,
        id: Option<BatchId>,
        reply: Option<ReceiptSender>,
        clock: impl FnOnce() -> Timestamp,
    ) -> Result<(), AppendError> {
        let weight = batch.weight();
        let mut state = self.state.lock();
        if state.closed {
            return Err(AppendError::Closed);
        }
        if state.bytes > 0 && state.bytes + weight > self.max_bytes {
            return Err(AppendError::QueueFull);
        }
        state.bytes += weight;
        state.waiting.push_back(Submission { batch, id, at: clock(), reply });
        let wake = std::mem::take(&mut state.writer_sleeps);
        drop(state);
        if wake {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Moves everything that waits into `group`, which must be empty. Waits up to `timeout` for the first
    /// submission.
    pub(super) fn take(&self, group: &mut VecDeque<Submission>, timeout: Duration) -> Taken {
        let mut state = self.state.lock();
        if state.waiting.is_empty() && !state.closed {
            state.writer_sleeps = true;
            let empty = |state: &mut AppendQueueState| state.waiting.is_empty() && !state.closed;
            self.filled.wait_while_for(&mut state, empty, timeout);
            state.writer_sleeps = false;
            if !state.waiting.is_empty() && !state.closed {
                // On a busy core, let requests that are ready join this group: fewer, larger writes.
                drop(state);
                std::thread::yield_now();
                state = self.state.lock();
            }
        }
        if state.waiting.is_empty() {
            return if state.closed { Taken::Closed } else { Taken::TimedOut };
        }
        std::mem::swap(&mut state.waiting, group);
        Taken::Group { bytes: group.iter().map(|submission| submission.batch.weight()).sum() }
    }

    /// Gives back the room of a group that is written or refused.
    pub(super) fn release(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
    }

    /// Refuses new submissions; those that wait are still written.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_one();
    }

    /// Refuses new submissions and those that wait: the writer has ended.
    pub(super) fn abandon(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for submission in waiting {
            submission.answer(Err(AppendError::Closed));
        }
    }

    /// Bytes that wait or are being written.
    pub(super) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::EntryMeta;

    fn push(queue: &AppendQueue, len: usize) -> Result<(), AppendError> {
        let batch = Batch::one(&EntryMeta::default(), &vec![b'x'; len], None);
        queue.push(batch, None, None, Timestamp::now)
    }

    #[test]
    fn times_of_arrival_are_in_the_order_of_the_queue() {
        let queue = AppendQueue::new(usize::MAX);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| push(&queue, 1).unwrap()));
            }
        });
        let mut group = VecDeque::new();
        queue.take(&mut group, Duration::ZERO);
        assert_eq!(group.len(), 40_000);
        assert!(group.iter().is_sorted_by_key(|submission| submission.at));
    }

    #[test]
    fn a_group_counts_until_it_is_released() {
        let queue = AppendQueue::new(3_000);
        push(&queue, 1_000).unwrap();
        push(&queue, 1_000).unwrap();
        assert_eq!(push(&queue, 1_000), Err(AppendError::QueueFull));
        let mut group = VecDeque::new();
        let Taken::Group { bytes } = queue.take(&mut group, Duration::ZERO) else { panic!("no group") };
        assert_eq!(group.len(), 2);
        assert_eq!(push(&queue, 1_000), Err(AppendError::QueueFull));
        queue.release(bytes);
        assert_eq!(queue.bytes(), 0);
        push(&queue, 9_000).unwrap();
    }

    #[test]
    fn a_closed_queue_hands_out_the_rest_and_then_ends() {
        let queue = AppendQueue::new(3_000);
        push(&queue, 1).unwrap();
        queue.close();
        assert_eq!(push(&queue, 1), Err(AppendError::Closed));
        let mut group = VecDeque::new();
        assert!(matches!(queue.take(&mut group, Duration::from_secs(9)), Taken::Group { .. }));
        group.clear();
        assert_eq!(queue.take(&mut group, Duration::from_secs(9)), Taken::Closed);
    }

    #[test]
    fn an_abandoned_queue_answers_every_sender() {
        let queue = AppendQueue::new(3_000);
        let (reply, mut receiver) = oneshot::channel();
        let batch = Batch::one(&EntryMeta::default(), b"x", None);
        queue.push(batch, None, Some(reply), Timestamp::now).unwrap();
        queue.abandon();
        assert_eq!(receiver.try_recv().unwrap(), Err(AppendError::Closed));
    }
}
