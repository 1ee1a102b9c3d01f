//! The keys below a prefix, and every change to them exactly once, whatever happens to connections and members.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::client::Etcd;
use crate::error::Error;
use crate::history::Position;
use crate::update::{Snapshot, Update};

use self::session::{Ended, Session};

mod progress;
mod session;

/// Updates that wait for the owner; then the stream waits, too.
const QUEUE: usize = 64;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// A stream that has lasted so long did not fail for what the one before it did.
const GOOD: Duration = Duration::from_secs(10);

/// A list that is watched, by a task of its own that ends when this is dropped.
///
/// The first update is a [`Snapshot`], as soon as etcd can be reached. Then each revision that changes one of the keys
/// comes once, whole and in order. A stream that breaks, is cancelled, loses its leader or falls silent is replaced, and
/// continues after the last revision; if that is compacted or the cluster has another history, a new snapshot comes.
#[derive(Debug)]
pub struct Watch {
    updates: mpsc::Receiver<Update>,
    _task: AbortOnDropHandle<()>,
}

impl Watch {
    /// Starts to list and watch the keys with a prefix.
    pub fn start(etcd: &Etcd, prefix: impl Into<Bytes>) -> Self {
        Self::spawn(etcd.clone(), prefix.into())
    }

    fn spawn(etcd: Etcd, prefix: Bytes) -> Self {
        let (sender, updates) = mpsc::channel(QUEUE);
        let task = AbortOnDropHandle::new(tokio::spawn(run(etcd, prefix, sender)));
        Self { updates, _task: task }
    }

    /// The next update. Cancelling this loses none.
    pub async fn next(&mut self) -> Update {
        match self.updates.recv().await {
            Some(update) => update,
            // The task ends with its runtime only.
            None => std::future::pending().await,
        }
    }
}

async fn run(etcd: Etcd, prefix: Bytes, updates: mpsc::Sender<Update>) {
    let mut position: Option<Position> = None;
    let mut other_history = false;
    let mut failures = 0;
    loop {
        if position.is_none() {
            match etcd.list(&prefix, None).await {
                Ok(listing) => {
                    position = Some(Position::of_list(&listing));
                    let (revision, cluster_id, kvs) = (listing.revision, listing.cluster_id, listing.kvs);
                    let snapshot = Snapshot { revision, cluster_id, kvs, other_history };
                    other_history = false;
                    if updates.send(Update::Snapshot(snapshot)).await.is_err() {
                        return;
                    }
                }
                Err(Error::Compacted) => {}
                Err(error) => {
                    if updates.send(Update::Lost { error }).await.is_err() {
                        return;
                    }
                }
            }
        }
        if let Some(at) = &mut position {
            let opened = Instant::now();
            match Session::open(&etcd, &prefix, at, &updates).await {
                Ended::Unused => return,
                Ended::Compacted => position = None,
                Ended::OtherHistory => {
                    position = None;
                    other_history = true;
                }
                Ended::Failed(error) => {
                    if opened.elapsed() > GOOD {
                        failures = 0;
                    }
                    if updates.send(Update::Lost { error }).await.is_err() {
                        return;
                    }
                }
            }
        }
        tokio::time::sleep(pause(failures)).await;
        failures += 1;
    }
}

fn pause(failures: u32) -> Duration {
    use rand::RngExt;
    let longest = (FIRST_PAUSE * 2u32.saturating_pow(failures)).min(MAX_PAUSE);
    longest.mul_f64(rand::rng().random_range(0.5..1.0))
}
