//! Deletes from etcd the removals that are no longer shown, and the drains that nobody needs any more.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::RngExt;
use tokio::task::JoinError;

use super::calls::Store;
use super::keys::Subject;
use super::{drains, ops, read};
use crate::catalog::InstanceKey;

/// How often one of the registries looks for them, about.
const INTERVAL: Duration = Duration::from_secs(60);

/// Never returns.
pub(super) async fn run(store: Arc<Store>) -> Result<(), JoinError> {
    loop {
        let pause = INTERVAL.mul_f64(rand::rng().random_range(0.5..1.5));
        tokio::time::sleep(pause).await;
        // One of them is enough, and which one does not matter.
        let is_first = store.status.registries().first_key_value().is_some_and(|(id, _)| *id == store.id);
        if is_first && store.status.is_up() {
            sweep_removals(&store).await;
            sweep_drains(&store).await;
        }
    }
}

async fn sweep_removals(store: &Store) {
    let keep = store.dispatcher.catalog.with(|catalog, _| catalog.keeps_removals_for());
    let ago = SignedDuration::try_from(keep).unwrap_or(SignedDuration::MAX);
    let Ok(limit) = Timestamp::now().checked_sub(ago) else { return };
    let prefix = format!("{}removed/", store.keys.prefix());
    let Ok(listing) = store.etcd.list(prefix, None).await else { return };
    for (key, written_at) in read::removals_before(&store.keys, &listing.kvs, limit) {
        let txn = ops::forget(&store.keys, &key, written_at);
        if store.writer.write(store.keys.key(&Subject::Removed(key)), txn).await.is_err() {
            return; // next time
        }
    }
}

async fn sweep_drains(store: &Store) {
    let prefix = format!("{}drains/", store.keys.prefix());
    let Ok(listing) = store.etcd.list(prefix, None).await else { return };
    let due = store.dispatcher.catalog.with(|catalog, _| {
        let has_instance = |key: &InstanceKey| catalog.registered(key).is_some();
        drains::due(&store.keys, &listing.kvs, has_instance, Timestamp::now())
    });
    for upkeep in due {
        let subject = store.keys.key(&Subject::Drain(upkeep.key.clone()));
        if store.writer.write(subject, ops::keep_up(&store.keys, upkeep)).await.is_err() {
            return; // next time
        }
    }
}
