//! The lanes to all log instances, and the tasks that run them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reqwest::StatusCode;
use tokio::task::JoinSet;

use super::AttemptError;
use super::lane::{Lane, Runner};
use super::post::{Item, Poster, takes_batches};
use hubspoke_protocol::ServiceInfo;

type Outcome = Result<StatusCode, AttemptError>;
/// Lanes that are kept although nobody uses them; instances come and go.
const IDLE_LANES: usize = 64;

#[derive(Debug)]
pub(super) struct Lanes {
    pub(super) poster: Poster,
    by_addr: Mutex<HashMap<String, Arc<Lane<Item, Outcome>>>>,
    /// Ended when the last client is dropped.
    runners: Mutex<JoinSet<()>>,
}

impl Lanes {
    pub(super) fn new(poster: Poster) -> Self {
        Self { poster, by_addr: Mutex::default(), runners: Mutex::default() }
    }

    /// Sends one entry to an instance, with others where many are on their way to it.
    pub(super) async fn send(&self, instance: &ServiceInfo, item: Item) -> Outcome {
        if !takes_batches(instance) {
            return self.poster.text(&instance.addr, &item).await;
        }
        let (outcome, runner) = self.lane(&instance.addr).enter(item);
        if let Some(runner) = runner {
            let mut runners = locked(&self.runners);
            while let Some(ended) = runners.try_join_next() {
                if let Err(error) = ended {
                    tracing::error!(%error, "a task that sends log entries died");
                }
            }
            runners.spawn(run(self.poster.clone(), instance.addr.clone(), runner));
        }
        // No outcome: the runner died, which is told above.
        outcome.await.unwrap_or(Err(AttemptError::TimedOut))
    }

    fn lane(&self, addr: &str) -> Arc<Lane<Item, Outcome>> {
        let mut lanes = locked(&self.by_addr);
        if let Some(lane) = lanes.get(addr) {
            return Arc::clone(lane);
        }
        if lanes.len() >= IDLE_LANES {
            lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
        }
        Arc::clone(lanes.entry(addr.to_owned()).or_default())
    }
}

/// Sends what waits until nothing does.
async fn run(poster: Poster, addr: String, mut runner: Runner<Item, Outcome>) {
    while let Some(mut group) = runner.next(|item| item.text.len()) {
        if group.len() == 1
            && let Some(alone) = group.pop()
        {
            // A sender that has gone away does not mind.
            let _ = alone.outcome.send(poster.text(&addr, &alone.entry).await);
            continue;
        }
        let outcomes = poster.batch(&addr, group.iter().map(|waiting| &waiting.entry), None).await;
        for (waiting, outcome) in group.into_iter().zip(outcomes) {
            let _ = waiting.outcome.send(outcome);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
