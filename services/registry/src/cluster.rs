//! What is known about etcd and the other registries at the moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

/// The live registries, by id.
pub(crate) type Registries = BTreeMap<Arc<str>, RegistryRecord>;

/// A live registry, as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RegistryRecord {
    /// `host:port` at which other registries reach it.
    pub(crate) addr: String,
    /// The version of its program.
    #[serde(default)]
    pub(crate) version: String,
}

/// Whether etcd answers.
#[derive(Debug, Clone)]
pub(crate) struct EtcdStatus {
    /// Since when it answers, or does not.
    pub(crate) since: Instant,
    /// Why it does not, if it does not.
    pub(crate) error: Option<String>,
}

/// How far this registry has applied what is in etcd.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// 0 if nothing was read yet.
    pub(crate) epoch: u64,
    pub(crate) revision: u64,
}

/// This registry among those that share the store.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    /// Its id.
    pub(crate) own: Arc<str>,
    pub(crate) status: Arc<Status>,
}

/// The state of the connection to etcd.
#[derive(Debug)]
pub(crate) struct Status {
    etcd: RwLock<EtcdStatus>,
    pub(crate) applied: watch::Sender<Applied>,
    registries: RwLock<Arc<Registries>>,
}

impl Status {
    pub(crate) fn new() -> Self {
        let error = Some("it was not reached yet".to_owned());
        Self {
            etcd: RwLock::new(EtcdStatus { since: Instant::now(), error }),
            applied: watch::Sender::default(),
            registries: RwLock::default(),
        }
    }

    pub(crate) fn etcd(&self) -> EtcdStatus {
        self.etcd.read().clone()
    }

    /// Whether etcd answers.
    pub(crate) fn is_up(&self) -> bool {
        self.etcd.read().error.is_none()
    }

    /// Whether the catalogue has been read from etcd at least once.
    pub(crate) fn is_listed(&self) -> bool {
        self.applied.borrow().epoch != 0
    }

    /// Completes when the catalogue has been read from etcd.
    pub(crate) async fn listed(&self) {
        let mut applied = self.applied.subscribe();
        let _ = applied.wait_for(|applied| applied.epoch != 0).await; // the sender is in `self`
    }

    /// The live registries as etcd has them, this one included.
    pub(crate) fn registries(&self) -> Arc<Registries> {
        self.registries.read().clone()
    }

    pub(crate) fn set_registries(&self, registries: Registries) {
        *self.registries.write() = Arc::new(registries);
    }

    pub(crate) fn answers(&self) {
        let mut etcd = self.etcd.write();
        if etcd.error.take().is_some() {
            let seconds = etcd.since.elapsed().as_secs();
            etcd.since = Instant::now();
            drop(etcd);
            tracing::info!(seconds, "etcd answers");
        }
    }

    pub(crate) fn fails(&self, error: &hubspoke_etcd::Error) {
        let text = hubspoke_chassis::with_causes(error);
        let mut etcd = self.etcd.write();
        if etcd.error.replace(text).is_none() {
            etcd.since = Instant::now();
            drop(etcd);
            let error = error as &dyn std::error::Error;
            tracing::warn!(
                error,
                "etcd does not answer: new registrations are refused and nobody is removed; all else goes on"
            );
        }
    }
}
