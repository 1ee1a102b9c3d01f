//! The batchers of all log instances, and the tasks that run them.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use hubspoke_protocol::ServiceInfo;
use parking_lot::Mutex;
use reqwest::StatusCode;
use tokio::task::JoinSet;

use super::batcher::{Batcher, Worker};
use super::error::AttemptError;
use super::post::{PendingEntry, Poster, takes_batches};

type Outcome = Result<StatusCode, AttemptError>;

/// Batchers that may exist before idle ones are dropped: instances come and go.
const MAX_IDLE: usize = 64;

/// Sends entries to the instances that their senders have picked.
#[derive(Debug)]
pub(super) struct Batchers {
    pub(super) poster: Poster,
    by_addr: Mutex<HashMap<String, Arc<Batcher<PendingEntry, Outcome>>>>,
    /// Aborted when the last client is dropped.
    workers: Mutex<JoinSet<()>>,
}

impl Batchers {
    pub(super) fn new(poster: Poster) -> Self {
        Self { poster, by_addr: Mutex::default(), workers: Mutex::default() }
    }

    /// Sends one entry to an instance, with others in a batch if many are sent to it.
    pub(super) async fn send(&self, instance: &ServiceInfo, entry: PendingEntry) -> Outcome {
        if !takes_batches(instance) {
            return self.poster.text(&instance.addr, &entry).await;
        }
        let (outcome, worker) = self.batcher(&instance.addr).push(entry);
        if let Some(worker) = worker {
            let mut workers = self.workers.lock();
            while let Some(ended) = workers.try_join_next() {
                if let Err(error) = ended {
                    tracing::error!(error = &error as &dyn Error, "a task that sends log entries died");
                }
            }
            workers.spawn(work(self.poster.clone(), instance.addr.clone(), worker));
        }
        // No outcome: the worker died, which is logged above.
        outcome.await.unwrap_or(Err(AttemptError::TimedOut))
    }

    fn batcher(&self, addr: &str) -> Arc<Batcher<PendingEntry, Outcome>> {
        let mut batchers = self.by_addr.lock();
        if let Some(batcher) = batchers.get(addr) {
            return Arc::clone(batcher);
        }
        if batchers.len() >= MAX_IDLE {
            batchers.retain(|_, batcher| Arc::strong_count(batcher) > 1);
        }
        Arc::clone(batchers.entry(addr.to_owned()).or_default())
    }
}

/// Sends batches until nothing is queued. A sender that has given up does not read its outcome.
async fn work(poster: Poster, addr: String, mut worker: Worker<PendingEntry, Outcome>) {
    while let Some(mut batch) = worker.next_batch(|entry| entry.text.len()) {
        if batch.len() == 1
            && let Some(single) = batch.pop()
        {
            let _ = single.outcome.send(poster.text(&addr, &single.entry).await);
            continue;
        }
        let outcomes = poster.batch(&addr, batch.iter().map(|queued| &queued.entry), None).await;
        for (queued, outcome) in batch.into_iter().zip(outcomes) {
            let _ = queued.outcome.send(outcome);
        }
    }
}
