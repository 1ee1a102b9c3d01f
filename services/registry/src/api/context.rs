//! The state that handlers share.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use hubspoke_chassis::Problem;
use hubspoke_chassis::rights::{AccessControl, Denied, Right, Subject};
use hubspoke_chassis::server::ConnectionHandle;
use hubspoke_protocol::ServiceInfo;
use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::catalog::{CatalogEvent, Initiator, InstanceKey, Warnings};
use crate::dispatch::{Dispatcher, RegistrationReply};
use crate::quotas::{KnownService, OverQuota, Quotas};
use crate::store::Store;

/// Most registrations that wait for acknowledgements at once. Further ones are answered without waiting.
pub(crate) const MAX_WAITS: usize = 256;
/// Longest time that the reply to an operator's call waits until the snapshot file is written.
const SAVE_WAIT: Duration = Duration::from_secs(2);

/// The state of the routes.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) dispatcher: Arc<Dispatcher>,
    /// The store that this registry shares with others, if it does.
    pub(crate) store: Option<Arc<Store>>,
    pub(crate) access: Arc<Access>,
    /// The rights of each subject.
    pub(crate) rights: Arc<AccessControl>,
    /// The quota of each member.
    pub(crate) quotas: Quotas,
    /// How long a deregistration waits for acknowledgements of the dependents.
    pub(crate) deregister_wait: Duration,
    /// How long a heartbeat for another registry may take.
    pub(crate) probe_timeout: Duration,
    /// Whether the catalogue is written to a snapshot file.
    pub(crate) is_saved: bool,
    /// One permit per registration that may wait for acknowledgements.
    pub(crate) waits: Semaphore,
    /// Most watch streams at once.
    pub(crate) max_watchers: usize,
    /// Ends watch streams.
    pub(crate) shutdown: CancellationToken,
}

impl Api {
    /// Checks that the sender of a request may operate the registry.
    pub(super) async fn require_operator(
        &self,
        headers: &HeaderMap,
        connection: &ConnectionHandle,
    ) -> Result<(), Denied> {
        self.rights.require(Right::Operate, headers, Some(connection)).await.map(drop)
    }

    /// Checks a registration that changes the catalogue against the quotas of the member that sent it. Several at once
    /// may exceed them by their number.
    pub(super) fn check_quotas(
        &self,
        subject: &Subject,
        info: &ServiceInfo,
        is_new: bool,
    ) -> Result<(), OverQuota> {
        let Some((token, names)) = subject.member() else { return Ok(()) };
        self.dispatcher.catalog.with(|catalog, _| {
            self.quotas.check(token, names, info, is_new, |name| {
                let instances = catalog.instances_of(name);
                KnownService { instances: instances.unwrap_or(0), is_known: instances.is_some() }
            })
        })
    }

    /// The hosts that an instance asks for and does not have by its name: it needs the right to them.
    pub(super) fn foreign_hosts(&self, info: &ServiceInfo) -> Vec<String> {
        let mut asked = info.asked_hosts().peekable();
        if !self.rights.is_on() || asked.peek().is_none() {
            return Vec::new();
        }
        let gateways = self.dispatcher.catalog.with(|catalog, _| catalog.gateways_hosts());
        asked.filter(|host| !gateways.is_own(host, &info.name)).map(Cow::into_owned).collect()
    }

    /// Notes since when the service of an instance asks for its hosts, whatever the instance itself says.
    pub(super) fn stamp_hosts(&self, info: &mut ServiceInfo) {
        info.hosts_since.clear();
        if info.asked_hosts().next().is_some() {
            let wall = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
            info.hosts_since =
                self.dispatcher.catalog.with(|catalog, now| catalog.hosts_since(info, now, wall));
        }
    }

    /// The hosts that a registered instance asks for in vain.
    pub(super) fn host_warnings(&self, info: &ServiceInfo) -> Vec<String> {
        self.dispatcher.catalog.with(|catalog, _| catalog.host_warnings(info, &catalog.gateways_hosts()))
    }

    /// Deregisters an instance and waits, within bounds, until its dependents have acknowledged that.
    pub(super) async fn deregister(
        &self,
        key: InstanceKey,
        id: Option<String>,
        by: Initiator,
    ) -> Result<(), Problem> {
        if let Some(store) = &self.store {
            if let Some(revision) = store.deregister(&key, id.as_deref(), &by).await? {
                store.acknowledged(&key.name, revision, self.deregister_wait).await;
            }
            return Ok(());
        }
        let (ack, mut acknowledged) = mpsc::channel(1);
        self.dispatcher.apply(CatalogEvent::Deregister { key, id, by }, Some(ack))?;
        if tokio::time::timeout(self.deregister_wait, acknowledged.recv()).await.is_err() {
            tracing::debug!("some dependents did not acknowledge a deregistration in time");
        }
        Ok(())
    }

    /// Drains an address, or ends that. The decision lasts once this returns.
    pub(super) async fn drain(&self, key: InstanceKey, on: bool) -> Result<(), Problem> {
        match &self.store {
            Some(store) => store.drain(key, on).await?,
            None => drop(self.dispatcher.apply(CatalogEvent::Drain { key, on }, None)?),
        }
        self.saved().await;
        Ok(())
    }

    /// Switches self-protection. The decision lasts once this returns.
    pub(super) async fn set_protection(&self, on: bool) -> Result<(), Problem> {
        match &self.store {
            Some(store) => store.set_protection(on).await?,
            None => drop(self.dispatcher.apply(CatalogEvent::SetProtection(on), None)?),
        }
        self.saved().await;
        Ok(())
    }

    /// Waits, within bounds, until the snapshot file contains an operator's decision, so that not even a crash of the
    /// registry undoes it.
    pub(super) async fn saved(&self) {
        if self.is_saved && tokio::time::timeout(SAVE_WAIT, self.dispatcher.unsaved.saved()).await.is_err() {
            tracing::warn!("the snapshot file was not written in time; a crash may undo an operator's call");
        }
    }

    /// Registers an instance. Waits, if the client prefers that, until its dependents have acknowledged it.
    pub(super) async fn register(
        &self,
        info: ServiceInfo,
        warnings: Warnings,
        wait: Option<Duration>,
    ) -> Result<RegistrationReply, Problem> {
        if let Some(store) = &self.store {
            let reply = store.register(&info, &warnings).await?;
            let Some(wait) = wait else { return Ok(reply) };
            store.acknowledged(&info.name, reply.revision.n, wait).await;
            return Ok(store.register(&info, &warnings).await?);
        }
        let Some(wait) = wait else { return Ok(self.dispatcher.register(info, warnings, None)?) };
        let (ack, mut acknowledged) = mpsc::channel(1);
        let reply = self.dispatcher.register(info, warnings, Some(ack))?;
        if tokio::time::timeout(wait, acknowledged.recv()).await.is_err() {
            tracing::debug!("some dependents did not acknowledge a registration in time");
        }
        // Pushes may have reached the member meanwhile, so its lists must not be older.
        let current = reply.of.as_ref().and_then(|of| self.dispatcher.current_reply(of));
        Ok(current.unwrap_or(reply))
    }
}
