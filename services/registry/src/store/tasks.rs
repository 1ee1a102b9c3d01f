//! The tasks of the store.

use std::pin::pin;
use std::sync::Arc;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::calls::Store;
pub(crate) use super::calls::StoreTasks;
use super::{janitor, requests};
use crate::cluster::RegistryRecord;

/// Runs with this registry known to others as `own`, until `stop`: then they take over at once. Returns on errors.
///
/// # Errors
/// If a task panicked.
pub(crate) async fn run(
    store: Arc<Store>,
    tasks: StoreTasks,
    own: RegistryRecord,
    stop: CancellationToken,
) -> Result<(), JoinError> {
    let StoreTasks { commits, sync } = tasks;
    let mut running = JoinSet::new();
    running.spawn(commits.run());
    running.spawn(async move {
        sync.run().await;
        Ok(())
    });
    running.spawn(requests::run(store.clone()));
    running.spawn(janitor::run(store.clone()));
    running.spawn(store.peers.clone().run());
    let mut held = pin!(store.hold_lease(own, &stop));
    loop {
        tokio::select! {
            // Calls in progress may still write.
            () = &mut held, if !store.closed.is_cancelled() => store.closed.cancel(),
            Some(ended) = running.join_next() => return ended.and_then(|result| result),
        }
    }
}
