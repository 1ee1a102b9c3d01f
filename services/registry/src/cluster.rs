//! The current knowledge about etcd and the other registries.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

/// Past revisions that are remembered.
const MAX_PAST: usize = 1024;

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
    past: Mutex<Past>,
}

impl Status {
    pub(crate) fn new() -> Self {
        let error = Some("it was not reached yet".to_owned());
        Self {
            etcd: RwLock::new(EtcdStatus { since: Instant::now(), error }),
            applied: watch::Sender::default(),
            registries: RwLock::default(),
            past: Mutex::default(),
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

    /// A revision was applied now.
    pub(crate) fn note_past(&self, revision: u64) {
        self.past.lock().note(revision);
    }

    /// The newest revision that was applied so long ago, or the oldest one that is remembered.
    pub(crate) fn revision_before(&self, ago: Duration) -> Option<u64> {
        self.past.lock().since(ago)
    }

    /// Past revisions mean nothing any more.
    pub(crate) fn forget_past(&self) {
        self.past.lock().forget();
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

/// Which revisions were applied when.
#[derive(Debug, Default)]
struct Past(VecDeque<(Instant, u64)>);

impl Past {
    fn note(&mut self, revision: u64) {
        self.0.push_back((Instant::now(), revision));
        if self.0.len() > MAX_PAST {
            self.0.pop_front();
        }
    }

    /// The newest revision that was applied so long ago, or the oldest one that is remembered.
    fn since(&self, ago: Duration) -> Option<u64> {
        let old = self.0.iter().rev().find(|(at, _)| at.elapsed() >= ago);
        old.or(self.0.front()).map(|(_, revision)| *revision)
    }

    fn forget(&mut self) {
        self.0.clear();
    }
}
