//! The store, for calls: each is planned by the catalogue, written, and answered once this registry has seen that.

use std::sync::Arc;
use std::time::Duration;

use hubspoke_etcd::{Config, Etcd, InvalidConfig, Lease, LeaseState, Txn};
use hubspoke_protocol::ServiceInfo;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::error::StoreError;
use super::keys::{Keys, Subject};
use super::sync::Sync;
use super::writer::{Commits, Outcome, WRITE_TIMEOUT, WriteError, Writer};
use super::{ops, record};
use crate::catalog::{Initiator, InstanceKey, NewRemoval, SavedCatalog, Warnings};
use crate::cluster::{Cluster, RegistryRecord, Status};
use crate::dispatch::stored::RegistrationPlan;
use crate::dispatch::{Dispatcher, RegistrationReply};
use crate::peers::{Opinion, Peers};
use crate::view::WallClock;

/// How often a write is tried again if somebody else has changed the same meanwhile.
const TRIES: usize = 8;
/// Pause before that.
const PAUSE: Duration = Duration::from_millis(10);

/// The store, for calls.
#[derive(Debug)]
pub(crate) struct Store {
    /// The id of this registry, another one at each start.
    pub(super) id: Arc<str>,
    pub(super) keys: Keys,
    pub(super) etcd: Etcd,
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(crate) status: Arc<Status>,
    pub(super) writer: Writer,
    pub(crate) peers: Arc<Peers>,
    lease: watch::Sender<LeaseState>,
    /// Cancelled once the key of this registry is gone.
    pub(super) closed: CancellationToken,
}

/// What the tasks of the store own.
pub(crate) struct StoreTasks {
    pub(super) commits: Commits,
    pub(super) sync: Sync,
}

impl Store {
    /// A store in etcd. Nothing is read yet. If there is no catalogue in it, `first` is written.
    ///
    /// # Errors
    /// If the configuration is invalid.
    pub(crate) fn new(
        config: &Config,
        dispatcher: Arc<Dispatcher>,
        first: SavedCatalog,
        peers: impl FnOnce(Arc<str>, Arc<Status>) -> Peers,
    ) -> Result<(Self, StoreTasks), InvalidConfig> {
        let etcd = Etcd::new(config.clone())?;
        let id: Arc<str> = format!("{:016x}", rand::random::<u64>()).into();
        let keys = Keys::new(etcd.key("registry/"));
        let status = Arc::new(Status::new());
        dispatcher.catalog.share(Cluster { own: id.clone(), status: status.clone() });
        let (writer, commits) = Writer::new(etcd.clone());
        let peers = Arc::new(peers(id.clone(), status.clone()));
        let sync = Sync {
            etcd: etcd.clone(),
            keys: keys.clone(),
            dispatcher: dispatcher.clone(),
            status: status.clone(),
            peers: peers.clone(),
            first: ops::import(&keys, first, dispatcher.catalog.with(|_, now| WallClock::new(now))),
        };
        let lease = watch::Sender::new(LeaseState::Lost);
        let store = Self {
            id,
            keys,
            etcd,
            dispatcher,
            status,
            writer,
            peers,
            lease,
            closed: CancellationToken::new(),
        };
        Ok((store, StoreTasks { commits, sync }))
    }

    /// Completes when others have been told to take over.
    pub(crate) fn closed(&self) -> WaitForCancellationFutureOwned {
        self.closed.clone().cancelled_owned()
    }

    /// Registers or renews. A renewal needs no write.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn register(
        &self,
        info: &ServiceInfo,
        warnings: &Warnings,
    ) -> Result<RegistrationReply, StoreError> {
        let deadline = Instant::now() + WRITE_TIMEOUT;
        for _ in 0..TRIES {
            self.check_read()?;
            let new = match self.dispatcher.plan_registration(info, warnings)? {
                RegistrationPlan::Known(reply) => return Ok(reply),
                RegistrationPlan::Write(new) => new,
            };
            let key = InstanceKey::new(&info.name, &info.addr);
            let outcome = self.write(key, ops::register(&self.keys, &new, self.clock())).await?;
            self.applied(outcome.revision, deadline).await?;
            if !outcome.done {
                sleep(PAUSE).await; // what has happened is on its way
            }
        }
        Err(StoreError::Contended)
    }

    /// Deregisters. Returns the revision of the removal, if there was something to remove.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn deregister(
        &self,
        key: &InstanceKey,
        id: Option<&str>,
        by: &Initiator,
    ) -> Result<Option<u64>, StoreError> {
        let deadline = Instant::now() + WRITE_TIMEOUT;
        let mut is_current = false;
        for _ in 0..TRIES {
            self.check_read()?;
            let removal = match self.dispatcher.plan_deregistration(key, id, by) {
                Ok(Some(removal)) => removal,
                // It may have registered at another registry a moment ago.
                Ok(None) | Err(_) if !is_current => {
                    self.catch_up(key, deadline).await?;
                    is_current = true;
                    continue;
                }
                Ok(None) => return Ok(None),
                Err(refusal) => return Err(refusal.into()),
            };
            let txn = ops::remove(&self.keys, &removal, None, self.clock());
            let outcome = self.write(key.clone(), txn).await?;
            self.applied(outcome.revision, deadline).await?;
            if outcome.done {
                return Ok(Some(outcome.revision));
            }
            sleep(PAUSE).await;
        }
        Err(StoreError::Contended)
    }

    /// Drains an address, or ends that.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn drain(&self, key: InstanceKey, on: bool) -> Result<(), StoreError> {
        let txn = ops::drain(&self.keys, &key, on);
        self.decide(self.keys.key(&Subject::Drain(key)), txn).await
    }

    /// Switches self-protection.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn set_protection(&self, on: bool) -> Result<(), StoreError> {
        self.decide(self.keys.key(&Subject::Protection), ops::set_protection(&self.keys, on)).await
    }

    /// Waits until the dependents of all registries have acknowledged a service's list of this revision.
    pub(crate) async fn acknowledged(&self, name: &str, revision: u64, within: Duration) {
        let own = self.dispatcher.acknowledged(name);
        let others = self.peers.acknowledged(name, revision, within);
        if tokio::time::timeout(within, async { tokio::join!(own, others) }).await.is_err() {
            tracing::debug!("some dependents did not acknowledge a change in time");
        }
    }

    /// Waits until this registry has applied a revision.
    ///
    /// # Errors
    /// [`StoreError::Write`] if it has not by the deadline.
    pub(crate) async fn applied(&self, revision: u64, deadline: Instant) -> Result<(), StoreError> {
        let mut applied = self.status.applied.subscribe();
        let seen = applied.wait_for(|applied| applied.revision >= revision);
        match tokio::time::timeout_at(deadline, seen).await {
            Ok(_) => Ok(()),
            Err(_) => Err(StoreError::Write(WriteError::Late)),
        }
    }

    /// Waits until this registry has seen all that was written about an instance before this call.
    async fn catch_up(&self, key: &InstanceKey, deadline: Instant) -> Result<(), StoreError> {
        let outcome = self.write(key.clone(), ops::look(&self.keys, key)).await?;
        self.applied(outcome.revision, deadline).await
    }

    async fn decide(&self, key: String, txn: Txn) -> Result<(), StoreError> {
        self.check_read()?;
        let deadline = Instant::now() + WRITE_TIMEOUT;
        let outcome = self.writer.write(key, txn).await?;
        self.applied(outcome.revision, deadline).await
    }

    pub(super) async fn write(&self, key: InstanceKey, txn: Txn) -> Result<Outcome, WriteError> {
        self.writer.write(self.keys.key(&Subject::Instance(key)), txn).await
    }

    /// Removes an instance that has missed its heartbeats, if no other registry can reach it, and only with proof that
    /// this registry is not cut off.
    pub(super) async fn remove(&self, removal: NewRemoval) {
        let Some(lease) = self.may_remove() else { return };
        let (key, over) = (removal.key.clone(), removal.over);
        if let Opinion::Alive(reply) = self.peers.second_opinion(&key).await {
            self.dispatcher.vouched(key, over, reply);
            return;
        }
        let own = Subject::Registry(self.id.clone());
        let txn = ops::remove(&self.keys, &removal, Some((&own, lease)), self.clock());
        let _ = self.write(key, txn).await; // it is proposed again if it was not done
    }

    /// The lease, if this registry is in touch with etcd, so that it may judge others.
    fn may_remove(&self) -> Option<i64> {
        self.lease.borrow().held().filter(|_| self.status.is_up())
    }

    /// Keeps the key of this registry until `stop`, once it is ready to do its part.
    pub(super) async fn hold_lease(&self, own: RegistryRecord, stop: &CancellationToken) {
        if stop.run_until_cancelled(self.status.listed()).await.is_none() {
            return;
        }
        let key = self.keys.key(&Subject::Registry(self.id.clone()));
        let lease = Lease::start(&self.etcd, key, record::write(&own));
        let mut state = lease.state();
        let follow = async {
            while state.changed().await.is_ok() {
                self.lease.send_replace(*state.borrow_and_update());
            }
        };
        let _ = stop.run_until_cancelled(follow).await;
        self.lease.send_replace(LeaseState::Lost);
        lease.close().await;
    }

    fn check_read(&self) -> Result<(), StoreError> {
        if self.status.is_listed() { Ok(()) } else { Err(StoreError::NotRead) }
    }

    pub(super) fn clock(&self) -> WallClock {
        self.dispatcher.catalog.with(|_, now| WallClock::new(now))
    }
}
