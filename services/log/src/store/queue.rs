//! The bounded queue between requests and the writer.
//!
//! Bounded by bytes, and what the writer has taken counts until it is written, so that memory stays bounded
//! however slow the disk. Nothing waits here for room: a full queue refuses at once.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::{AppendError, Receipt};
use crate::entry::Batch;

/// One request's entries on their way to the writer.
pub(super) struct Submission {
    pub(super) batch: Batch,
    pub(super) at: Timestamp,
    /// `None` where the sender was told already (`ack = "queued"`).
    pub(super) reply: Option<oneshot::Sender<Result<Receipt, AppendError>>>,
}

impl Submission {
    /// Tells the sender; one that has gone away does not mind.
    pub(super) fn answer(self, outcome: Result<Receipt, AppendError>) {
        if let Some(reply) = self.reply {
            let _ = reply.send(outcome);
        }
    }
}

pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    limit: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Submission>,
    /// Of what waits and what the writer has taken.
    bytes: usize,
    /// The writer sleeps and must be woken.
    idle: bool,
    closed: bool,
}

/// What the writer finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Work; the bytes to give back with [`Queue::release`].
    Group { bytes: usize },
    /// Nothing came in time.
    Idle,
    /// Nothing will come any more.
    Closed,
}

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        Self { state: Mutex::default(), filled: Condvar::new(), limit }
    }

    /// Adds work, or says at once why not. One submission larger than the whole queue passes where it is alone.
    pub(super) fn push(&self, submission: Submission) -> Result<(), AppendError> {
        let weight = submission.batch.weight();
        let mut state = self.lock();
        if state.closed {
            return Err(AppendError::Closed);
        }
        if state.bytes > 0 && state.bytes + weight > self.limit {
            return Err(AppendError::QueueFull);
        }
        state.bytes += weight;
        state.waiting.push_back(submission);
        let wake = std::mem::take(&mut state.idle);
        drop(state);
        if wake {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Moves all that waits into `group`, which must be empty; waits for something up to `patience`.
    pub(super) fn take(&self, group: &mut VecDeque<Submission>, patience: Duration) -> Taken {
        let mut state = self.lock();
        if state.waiting.is_empty() && !state.closed {
            state.idle = true;
            let (woken, _) = self
                .filled
                .wait_timeout_while(state, patience, |state| state.waiting.is_empty() && !state.closed)
                .unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle = false;
            if !state.waiting.is_empty() && !state.closed {
                // On a busy core, let the requests that are ready join this group: fewer, larger writes.
                drop(state);
                std::thread::yield_now();
                state = self.lock();
            }
        }
        if state.waiting.is_empty() {
            return if state.closed { Taken::Closed } else { Taken::Idle };
        }
        std::mem::swap(&mut state.waiting, group);
        Taken::Group { bytes: group.iter().map(|submission| submission.batch.weight()).sum() }
    }

    /// Gives back the room of what is written or refused.
    pub(super) fn release(&self, bytes: usize) {
        let mut state = self.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
    }

    /// Refuses new work; what waits is still written.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    /// Refuses new work, and what waits too: for a writer that ends before its time.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for submission in waiting {
            submission.answer(Err(AppendError::Closed));
        }
    }

    /// Bytes waiting or being written.
    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; if something did, the state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Origin;

    fn submission(len: usize) -> (Submission, oneshot::Receiver<Result<Receipt, AppendError>>) {
        let (reply, receiver) = oneshot::channel();
        let batch = Batch::one(&Origin::default(), &vec![b'x'; len], None);
        (Submission { batch, at: Timestamp::UNIX_EPOCH, reply: Some(reply) }, receiver)
    }

    #[test]
    fn what_the_writer_holds_counts_until_released() {
        let queue = Queue::new(3_000);
        queue.push(submission(1_000).0).unwrap();
        queue.push(submission(1_000).0).unwrap();
        assert_eq!(queue.push(submission(1_000).0), Err(AppendError::QueueFull));
        let mut group = VecDeque::new();
        let Taken::Group { bytes } = queue.take(&mut group, Duration::ZERO) else { panic!("no group") };
        assert_eq!(group.len(), 2);
        assert_eq!(queue.push(submission(1_000).0), Err(AppendError::QueueFull));
        queue.release(bytes);
        assert_eq!(queue.bytes(), 0);
        queue.push(submission(9_000).0).unwrap();
    }

    #[test]
    fn a_closed_queue_hands_out_the_rest_and_then_ends() {
        let queue = Queue::new(3_000);
        queue.push(submission(1).0).unwrap();
        queue.close();
        assert_eq!(queue.push(submission(1).0), Err(AppendError::Closed));
        let mut group = VecDeque::new();
        assert!(matches!(queue.take(&mut group, Duration::from_secs(9)), Taken::Group { .. }));
        group.clear();
        assert_eq!(queue.take(&mut group, Duration::from_secs(9)), Taken::Closed);
    }

    #[test]
    fn an_abandoned_queue_answers_everybody() {
        let queue = Queue::new(3_000);
        let (waiting, mut receiver) = submission(1);
        queue.push(waiting).unwrap();
        queue.abandon();
        assert_eq!(receiver.try_recv().unwrap(), Err(AppendError::Closed));
    }
}
