//! A count that all replicas share, in a key of etcd.
//!
//! All visits that wait share one compare-and-put. It is sent after they have begun, and they are answered after it was
//! applied, so a visit that begins after another was answered has a higher number, whichever replicas they are at.
//! Replicas take turns, see [`turns`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hubspoke_etcd::{Compare, Error as EtcdError, Etcd, KeyValue, Op, Txn};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use self::ledger::{Ledger, Slot};
use self::record::{InvalidCount, Record};
use self::turns::Turns;

mod ledger;
mod record;
mod turns;

/// Visits that wait at once.
const MAX_WAITING: usize = 10_000;
/// Visits that wait while etcd has been failing for longer than a visit waits. Others fail at once: thousands that wait for
/// nothing would use up the connections of this replica and of the gateways, heartbeats included.
const MAX_HOPEFUL: usize = 16;
/// Attempts within the time that a visit waits.
const ATTEMPTS: u32 = 3;
/// Of the time that a visit waits, one part of so many is the longest pause for another replica's turn.
const LONGEST_TURN: u32 = 5;
/// Pause after a failed attempt.
const PAUSE: Duration = Duration::from_millis(50);

/// Why there is no number.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SharedCountError {
    /// Too many visits wait already.
    #[error("{MAX_WAITING} visits are waiting for a number")]
    TooManyWaiting,
    /// No number in time.
    #[error("no number within {0:?}")]
    TooSlow(Duration),
    /// No number in time, because of this.
    #[error("no number within {0:?}")]
    Failing(Duration, #[source] Failure),
}

/// Why the count can't be taken at present.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// etcd fails.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// Somebody has written something else into the key.
    #[error("the count can't be read from etcd")]
    Invalid(#[from] InvalidCount),
}

/// What a shared count has done so far.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct CountStats {
    /// Writes that were applied.
    pub writes: AtomicU64,
    /// Writes that were not, because another replica was first.
    pub conflicts: AtomicU64,
    /// Attempts that failed or got no answer.
    pub failures: AtomicU64,
    /// Numbers that nobody has got.
    pub lost: AtomicU64,
    /// The count, as this replica has seen it last.
    pub count: AtomicU64,
    failing: Mutex<Option<Failing>>,
}

/// The count can't be taken at present.
#[derive(Debug, Clone)]
struct Failing {
    since: Instant,
    /// The last failure. Without visits there are no attempts, and nothing is known.
    last: Instant,
    why: Failure,
}

impl Failing {
    /// Whether it has been so for as long as a visit waits, and still is.
    fn is_lasting(&self, limit: Duration) -> bool {
        self.since.elapsed() >= limit && self.last.elapsed() < limit
    }
}

/// The handle of the task that counts.
#[derive(Debug)]
pub(super) struct SharedCount {
    slots: mpsc::UnboundedSender<Slot>,
    waiting: Semaphore,
    limit: Duration,
    etcd: Etcd,
    key: Arc<str>,
    stats: Arc<CountStats>,
    task: JoinHandle<()>,
}

impl SharedCount {
    pub(super) fn start(etcd: Etcd, key: String) -> Self {
        let key: Arc<str> = key.into();
        let limit = etcd.limit();
        let (slots, queue) = mpsc::unbounded_channel(); // bounded by `waiting`
        let stats = Arc::new(CountStats::default());
        let writer = format!("{:016x}", rand::random::<u64>());
        let counting = Counting {
            etcd: etcd.within(limit / ATTEMPTS),
            key: key.clone(),
            mark: format!("{key}/waiting").into(),
            turns: Turns::new(writer.clone(), limit / LONGEST_TURN),
            ledger: Ledger::new(writer),
            stats: stats.clone(),
        };
        let task = tokio::spawn(counting.run(queue));
        Self { slots, waiting: Semaphore::new(MAX_WAITING), limit, etcd, key, stats, task }
    }

    pub(super) async fn next(&self) -> Result<u64, SharedCountError> {
        let _place = self.waiting.try_acquire().map_err(|_| SharedCountError::TooManyWaiting)?;
        let waiting = MAX_WAITING - self.waiting.available_permits();
        if waiting > MAX_HOPEFUL
            && let Some(failing) = self.stats.failing.lock().as_ref().filter(|it| it.is_lasting(self.limit))
        {
            return Err(SharedCountError::Failing(self.limit, failing.why.clone()));
        }
        let (slot, mut number) = oneshot::channel();
        let _ = self.slots.send(slot); // fails if the task has died; then nobody answers
        if let Ok(Ok(number)) = timeout(self.limit, &mut number).await {
            return Ok(number);
        }
        // It may come at this moment, and would be lost.
        number.close();
        number.try_recv().map_err(|_| match self.stats.failing.lock().clone() {
            Some(Failing { why, .. }) => SharedCountError::Failing(self.limit, why),
            None => SharedCountError::TooSlow(self.limit),
        })
    }

    pub(super) async fn last(&self) -> u64 {
        let read = self.etcd.within(self.limit / ATTEMPTS).get(&*self.key).await;
        let record = read.ok().flatten().and_then(|kv| Record::parse(&kv.value).ok());
        record.map_or_else(|| self.stats.count.load(Ordering::Relaxed), |record| record.count)
    }

    pub(super) fn stats(&self) -> Arc<CountStats> {
        self.stats.clone()
    }
}

impl Drop for SharedCount {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task.
struct Counting {
    etcd: Etcd,
    key: Arc<str>,
    /// The key in which a replica asks for its turn.
    mark: Arc<str>,
    turns: Turns,
    ledger: Ledger,
    stats: Arc<CountStats>,
}

impl Counting {
    async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Slot>) {
        loop {
            if self.ledger.is_idle() {
                let Some(slot) = queue.recv().await else { return };
                self.ledger.push(slot);
            }
            while let Ok(slot) = queue.try_recv() {
                self.ledger.push(slot);
            }
            let result = self.step().await;
            self.stats.count.store(self.ledger.count(), Ordering::Relaxed);
            let failed = result.is_err();
            self.report(result.err());
            if failed {
                self.stats.failures.fetch_add(1, Ordering::Relaxed);
                sleep(PAUSE).await;
            }
        }
    }

    /// Reads the key or writes it, once.
    async fn step(&mut self) -> Result<(), Failure> {
        if self.ledger.needs_base() {
            let found = self.etcd.get(&*self.key).await?;
            return self.found(found.as_ref());
        }
        let Some(put) = self.ledger.next() else { return Ok(()) };
        let mut txn = Txn::new()
            .when(Compare::mod_revision(&*self.key, put.revision))
            .then(Op::put(&*self.key, put.record.to_string()))
            .then(Op::get(&*self.mark))
            .or_else(Op::get(&*self.key));
        if let Some(mark) = self.turns.mark() {
            txn = txn.or_else(Op::put(&*self.mark, mark));
        }
        let sent = Instant::now();
        match self.etcd.txn(txn).await {
            Ok(reply) if reply.succeeded => {
                self.stats.writes.fetch_add(1, Ordering::Relaxed);
                self.ledger.applied(put, reply.revision);
                let pause = self.turns.won(reply.first_read().map(|kv| (&*kv.value, kv.mod_revision)));
                if !pause.is_zero() {
                    sleep(pause).await;
                }
                Ok(())
            }
            Ok(reply) => {
                self.stats.conflicts.fetch_add(1, Ordering::Relaxed);
                self.turns.lost(sent.elapsed());
                self.found(reply.first_read())
            }
            Err(error @ EtcdError::OutcomeUnknown(_)) => Err(error.into()),
            Err(error) => {
                self.ledger.not_applied();
                Err(error.into())
            }
        }
    }

    fn found(&mut self, kv: Option<&KeyValue>) -> Result<(), Failure> {
        let (record, revision) = match kv {
            Some(kv) => (Record::parse(&kv.value)?, kv.mod_revision),
            None => (Record::default(), 0),
        };
        let (_, lost) = self.ledger.found(record, revision);
        if lost > 0 {
            self.stats.lost.fetch_add(lost, Ordering::Relaxed);
            tracing::warn!(
                numbers = lost,
                "numbers were taken for visits that have failed meanwhile; the count has a gap"
            );
        }
        Ok(())
    }

    /// Logs the first failure and its end.
    fn report(&self, failure: Option<Failure>) {
        let mut failing = self.stats.failing.lock();
        match (&*failing, &failure) {
            (None, Some(failure)) => {
                let error = failure as &dyn std::error::Error;
                tracing::warn!(
                    key = &*self.key,
                    error,
                    "can't count visits at present; they wait, then fail"
                );
            }
            (Some(_), None) => tracing::info!(key = &*self.key, "visits are counted again"),
            _ => {}
        }
        let last = Instant::now();
        let since = failing.as_ref().map_or(last, |failing| failing.since);
        *failing = failure.map(|why| Failing { since, last, why });
    }
}
