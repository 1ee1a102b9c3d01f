//! Group commits: writes that wait go to etcd together, as one transaction of guarded transactions, so that each has an
//! outcome of its own.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use hubspoke_etcd::{Error, Etcd, MAX_OPS, Op, OpResult, Txn, TxnReply};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

/// Writes that wait at most. Further ones are refused.
const QUEUE: usize = 8192;
/// How long a write may wait and take.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_millis(900);
/// Transactions in flight: the next is on its way while etcd syncs one.
const IN_FLIGHT: usize = 4;
/// Most bytes of one transaction; etcd takes 1.5 MiB by default.
const MAX_BYTES: usize = 1 << 20;

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Its guards held, so it was done.
    pub(super) done: bool,
    /// The revision of what was written, by this or, if it was not done, by others: whoever has seen that is up to date.
    /// 0 if there is none.
    pub(super) revision: u64,
}

/// Why nothing is known of a write. It may have been done nevertheless.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("too many writes wait for etcd")]
    Busy,
    #[error("etcd did not answer in time")]
    Late,
    #[error(transparent)]
    Etcd(#[from] Error),
}

/// One write that waits.
struct Write {
    /// The key that it is about: two writes about one key can't be in one transaction.
    subject: String,
    txn: Txn,
    deadline: Instant,
    reply: oneshot::Sender<Result<Outcome, WriteError>>,
}

/// Hands writes to the task that commits them.
#[derive(Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Write>,
}

/// The task that commits writes.
pub(super) struct Commits {
    etcd: Etcd,
    queue: mpsc::Receiver<Write>,
}

impl Writer {
    pub(super) fn new(etcd: Etcd) -> (Self, Commits) {
        let (sender, queue) = mpsc::channel(QUEUE);
        (Self { queue: sender }, Commits { etcd: etcd.within(WRITE_TIMEOUT), queue })
    }

    /// Writes, within [`WRITE_TIMEOUT`].
    ///
    /// # Errors
    /// [`WriteError`] if the outcome is not known by then.
    pub(super) async fn write(&self, subject: String, txn: Txn) -> Result<Outcome, WriteError> {
        let (reply, outcome) = oneshot::channel();
        let deadline = Instant::now() + WRITE_TIMEOUT;
        self.queue.try_send(Write { subject, txn, deadline, reply }).map_err(|_| WriteError::Busy)?;
        let outcome = tokio::time::timeout_at(deadline, outcome).await;
        outcome.ok().and_then(Result::ok).unwrap_or(Err(WriteError::Late))
    }
}

impl Commits {
    /// Commits writes until there can be no more.
    ///
    /// # Errors
    /// If one of its tasks panicked.
    pub(super) async fn run(mut self) -> Result<(), JoinError> {
        let (mut waiting, mut in_flight) = (VecDeque::new(), JoinSet::new());
        let mut received = Vec::new();
        loop {
            tokio::select! {
                Some(ended) = in_flight.join_next() => ended?,
                count = self.queue.recv_many(&mut received, MAX_OPS), if waiting.len() < MAX_OPS => {
                    if count == 0 {
                        return Ok(());
                    }
                    waiting.extend(received.drain(..));
                }
            }
            while in_flight.len() < IN_FLIGHT && !waiting.is_empty() {
                let batch = next_batch(&mut waiting, Instant::now());
                if !batch.is_empty() {
                    in_flight.spawn(commit(self.etcd.clone(), batch));
                }
            }
        }
    }
}

/// Takes the writes for one transaction. Those that nobody waits for any more are dropped.
fn next_batch(waiting: &mut VecDeque<Write>, now: Instant) -> Vec<Write> {
    let (mut batch, mut later) = (Vec::new(), VecDeque::new());
    let mut subjects = HashSet::new();
    let (mut most_ops, mut bytes) = (0, 0);
    while let Some(write) = waiting.pop_front() {
        if write.deadline <= now || write.reply.is_closed() {
            continue;
        }
        let ops = most_ops.max(write.txn.ops());
        let size = bytes + write.txn.encoded_len();
        // etcd counts the operations of a nested transaction on top of those around it.
        if !batch.is_empty() && (batch.len() + 1 + ops > MAX_OPS || size > MAX_BYTES) {
            later.push_back(write);
            break;
        }
        if !subjects.insert(write.subject.clone()) {
            later.push_back(write);
            continue;
        }
        (most_ops, bytes) = (ops, size);
        batch.push(write);
    }
    later.append(waiting);
    *waiting = later;
    batch
}

async fn commit(etcd: Etcd, batch: Vec<Write>) {
    let (mut txns, mut replies) = (Vec::new(), Vec::new());
    for write in batch {
        txns.push(write.txn);
        replies.push(write.reply);
    }
    let outcomes = match send(&etcd, &txns).await {
        // Perhaps one of them, or their number, is too much for it.
        Err(WriteError::Etcd(Error::Refused(_))) if txns.len() > 1 => {
            let mut outcomes = Vec::new();
            for txn in &txns {
                outcomes.push(send(&etcd, std::slice::from_ref(txn)).await.map(|one| one[0]));
            }
            outcomes
        }
        Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error); txns.len()],
    };
    for (reply, outcome) in replies.into_iter().zip(outcomes) {
        let _ = reply.send(outcome); // nobody waits any more
    }
}

/// Sends writes as one transaction; returns the outcome of each.
async fn send(etcd: &Etcd, txns: &[Txn]) -> Result<Vec<Outcome>, WriteError> {
    if let [one] = txns {
        let reply = etcd.txn(one.clone()).await?;
        return Ok(vec![Outcome::of(&reply, reply.revision)]);
    }
    let all = txns.iter().cloned().fold(Txn::new(), |all, txn| all.then(Op::txn(txn)));
    let reply = etcd.txn(all).await?;
    let nothing = Outcome { done: false, revision: 0 };
    let mut outcomes: Vec<_> = reply
        .results
        .iter()
        .map(|result| match result {
            OpResult::Txn(nested) => Outcome::of(nested, reply.revision),
            _ => nothing,
        })
        .collect();
    outcomes.resize(txns.len(), nothing);
    Ok(outcomes)
}

impl Outcome {
    /// What a transaction has done at the revision `at`, if it has written anything.
    fn of(reply: &TxnReply, at: i64) -> Self {
        let mut revision = 0;
        for result in &reply.results {
            match result {
                OpResult::Put => revision = at,
                OpResult::Deleted(count) if *count > 0 => revision = at,
                OpResult::Read { kvs, .. } => {
                    let newest = kvs.iter().map(|kv| kv.mod_revision).max().unwrap_or(0);
                    revision = revision.max(newest);
                }
                OpResult::Deleted(_) | OpResult::Txn(_) => {}
            }
        }
        Self { done: reply.succeeded, revision: u64::try_from(revision).unwrap_or(0) }
    }
}

#[cfg(test)]
mod tests {
    use hubspoke_etcd::Compare;

    use super::*;

    fn write(subject: &str, size: usize) -> (Write, oneshot::Receiver<Result<Outcome, WriteError>>) {
        let (reply, outcome) = oneshot::channel();
        let txn = Txn::new().when(Compare::absent(subject)).then(Op::put(subject, vec![b'x'; size]));
        let deadline = Instant::now() + WRITE_TIMEOUT;
        (Write { subject: subject.to_owned(), txn, deadline, reply }, outcome)
    }

    #[tokio::test]
    async fn a_batch_keeps_etcds_limits_and_has_one_write_per_key() {
        let (writes, mut outcomes): (VecDeque<_>, Vec<_>) =
            (0..300).map(|n| write(&format!("k{}", n % 200), 10)).unzip();
        let mut waiting = writes;
        drop(outcomes.remove(0)); // nobody waits for the first
        let mut sizes = Vec::new();
        while !waiting.is_empty() {
            let batch = next_batch(&mut waiting, Instant::now());
            let subjects: HashSet<_> = batch.iter().map(|write| &write.subject).collect();
            assert_eq!(subjects.len(), batch.len());
            assert!(batch.len() < MAX_OPS);
            sizes.push(batch.len());
        }
        assert_eq!(sizes.iter().sum::<usize>(), 299);
        assert_eq!(sizes[0], MAX_OPS - 1);
    }

    #[tokio::test]
    async fn a_batch_is_bounded_in_bytes_and_late_writes_are_dropped() {
        let (writes, _outcomes): (VecDeque<_>, Vec<_>) =
            (0..5).map(|n| write(&format!("k{n}"), MAX_BYTES / 2)).unzip();
        let mut waiting = writes;
        assert_eq!(next_batch(&mut waiting, Instant::now()).len(), 1);
        assert_eq!(waiting.len(), 4);
        assert!(next_batch(&mut waiting, Instant::now() + 2 * WRITE_TIMEOUT).is_empty());
        assert!(waiting.is_empty());
    }
}
