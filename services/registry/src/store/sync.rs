//! Applies to the catalogue what etcd has and what changes there.
//!
//! Revisions are etcd's, so all registries have the same. An epoch is a history of one cluster: if the cluster gets
//! another one, because it was restored from an older backup or emptied, the generation is written anew, and with it
//! the epoch is another one.

use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hubspoke_etcd::{Change, Compare, Etcd, Op, Snapshot, Txn, Update, Watch};
use tokio::time::sleep;

use super::keys::{Keys, Subject};
use super::read::{self, Surroundings};
use crate::cluster::{Applied, Status};
use crate::dispatch::Dispatcher;
use crate::peers::Peers;

/// Pause before etcd is read anew.
const PAUSE: Duration = Duration::from_millis(100);
/// Instances that are written with one transaction at the first start.
const IMPORTED_AT_ONCE: usize = 32;

/// The task that follows etcd.
pub(super) struct Sync {
    pub(super) etcd: Etcd,
    pub(super) keys: Keys,
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) status: Arc<Status>,
    pub(super) peers: Arc<Peers>,
    /// What is written to an etcd that has no catalogue yet.
    pub(super) first: Vec<Txn>,
}

/// What one watch has reported so far.
struct Followed {
    surroundings: Surroundings,
    epoch: u64,
}

impl Sync {
    /// Follows etcd. Never returns.
    pub(super) async fn run(self) {
        loop {
            self.follow().await;
            sleep(PAUSE).await;
        }
    }

    /// Returns if all must be read anew.
    async fn follow(&self) {
        let mut watch = Watch::start(&self.etcd, self.keys.prefix().to_owned());
        let mut followed: Option<Followed> = None;
        loop {
            match watch.next().await {
                Update::Snapshot(snapshot) => match self.read(snapshot).await {
                    Some(new) => followed = Some(new),
                    None => return,
                },
                Update::Changes { revision, changes } => {
                    let Some(followed) = &mut followed else { return };
                    if !self.apply(followed, revision, &changes) {
                        return;
                    }
                }
                Update::Alive { revision } => {
                    self.status.answers();
                    if let Some(followed) = &followed {
                        self.applied(followed.epoch, number(revision));
                    }
                }
                Update::Lost { error } => self.status.fails(&error),
            }
        }
    }

    /// Makes the catalogue what etcd has. `None` if it must be read anew, because the generation is written first.
    async fn read(&self, snapshot: Snapshot) -> Option<Followed> {
        let surroundings = Surroundings::of(&self.keys, &snapshot.kvs);
        let known = surroundings.generation.as_ref();
        let generation = match known {
            Some((generation, _)) if !snapshot.other_history => generation.clone(),
            _ => {
                let over = known.map_or(0, |(_, revision)| *revision);
                let is_first = over == 0 && !self.status.is_listed();
                if self.write_generation(over).await && is_first {
                    self.import().await;
                }
                return None;
            }
        };
        let epoch = epoch(snapshot.cluster_id, self.keys.prefix(), &generation);
        let revision = number(snapshot.revision);
        self.status.answers();
        if self.status.applied.borrow().epoch != epoch {
            self.status.forget_past();
        }
        self.peers.set_registries(&surroundings.registries, revision);
        self.dispatcher.listed(epoch, revision, |now| read::listing(&self.keys, &snapshot.kvs, now));
        self.applied(epoch, revision);
        Some(Followed { surroundings, epoch })
    }

    /// Returns whether to go on.
    fn apply(&self, followed: &mut Followed, revision: i64, changes: &[Change]) -> bool {
        let generation = followed.surroundings.generation.clone();
        if followed.surroundings.apply(&self.keys, changes) {
            if followed.surroundings.generation != generation {
                tracing::warn!("etcd has another history: reading it anew");
                return false;
            }
            self.peers.set_registries(&followed.surroundings.registries, 0);
        }
        let revision = number(revision);
        self.dispatcher.stored(revision, |now| read::changes(&self.keys, changes, now));
        self.applied(followed.epoch, revision);
        true
    }

    fn applied(&self, epoch: u64, revision: u64) {
        self.status.note_past(revision);
        self.status.applied.send_replace(Applied { epoch, revision });
    }

    /// Writes the catalogue that this registry had in memory. What others have written meanwhile is newer.
    async fn import(&self) {
        for txns in self.first.chunks(IMPORTED_AT_ONCE) {
            let all = txns.iter().cloned().fold(Txn::new(), |all, txn| all.then(Op::txn(txn)));
            if let Err(error) = self.etcd.txn(all).await {
                return self.status.fails(&error); // members renew
            }
        }
        let count = self.first.len();
        tracing::info!(count, "wrote the snapshot file's catalogue to etcd, which had none");
    }

    /// Begins another generation, in place of the one that was written at this revision. Returns whether that was done
    /// by this registry.
    async fn write_generation(&self, over: i64) -> bool {
        let key = self.keys.key(&Subject::Generation);
        let guard = if over == 0 { Compare::absent(&key) } else { Compare::mod_revision(&key, over) };
        let txn = Txn::new().when(guard).then(Op::put(&key, format!("{:016x}", rand::random::<u64>())));
        match self.etcd.txn(txn).await {
            Ok(reply) => {
                if reply.succeeded && over > 0 {
                    tracing::warn!("etcd has another history than before: a new epoch begins");
                }
                reply.succeeded
            }
            Err(error) => {
                self.status.fails(&error);
                false
            }
        }
    }
}

/// The epoch: the same in all registries that share a history. Never 0.
#[expect(
    deprecated,
    reason = "unlike the other hashers of std, it is always the same: SipHash 2-4 with a zero key"
)]
fn epoch(cluster_id: u64, prefix: &str, generation: &Bytes) -> u64 {
    let mut hasher = std::hash::SipHasher::new();
    hasher.write_u64(cluster_id);
    hasher.write(prefix.as_bytes());
    hasher.write(generation);
    hasher.finish().max(1)
}

fn number(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}
