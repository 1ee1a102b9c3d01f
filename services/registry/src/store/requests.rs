//! Carries out what the catalogue asks for. If that fails, the catalogue asks again with the next heartbeat.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};

use super::calls::Store;
use super::ops;
use crate::catalog::{InstanceKey, Proposal};

/// Requests in progress.
const CONCURRENCY: usize = 512;

/// Returns only on errors.
///
/// # Errors
/// If one of its tasks panicked.
pub(super) async fn run(store: Arc<Store>) -> Result<(), JoinError> {
    let slots = Arc::new(Semaphore::new(CONCURRENCY));
    // One per instance.
    let (mut busy, mut in_flight) = (HashSet::new(), JoinSet::new());
    loop {
        tokio::select! {
            proposals = store.dispatcher.proposals.take() => for proposal in proposals {
                let key = proposal.key();
                if busy.insert(key.clone()) {
                    in_flight.spawn(carry_out(store.clone(), slots.clone(), key, proposal));
                }
            },
            Some(done) = in_flight.join_next() => drop(busy.remove(&done?)),
        }
    }
}

async fn carry_out(
    store: Arc<Store>,
    slots: Arc<Semaphore>,
    key: InstanceKey,
    proposal: Proposal,
) -> InstanceKey {
    let Ok(_slot) = slots.acquire().await else { return key };
    match proposal {
        Proposal::Remove(removal) => store.remove(removal).await,
        Proposal::Register(new) => {
            let _ = store.write(key.clone(), ops::register(&store.keys, &new, store.clock())).await;
        }
        Proposal::State(new) => drop(store.write(key.clone(), ops::set_state(&store.keys, &new)).await),
    }
    key
}
