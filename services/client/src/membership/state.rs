//! What the registration loop and the routes of a member share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use hubspoke_protocol::{Revision, ServiceInfo};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::registry::RegistryError;
use crate::directory::{Applied, Directory};
use crate::load::LoadCounters;

pub(super) struct MemberState {
    /// The body of the last registration: with addresses and push key.
    pub(super) registered: Mutex<Arc<ServiceInfo>>,
    pub(super) push_key: String,
    pub(super) directory: Directory,
    pub(super) load: LoadCounters,
    /// The registry's last answer had no revision.
    pub(super) core_only: AtomicBool,
    pub(super) joined: watch::Sender<bool>,
    /// Why the last registration or renewal failed; `None` if it succeeded.
    pub(super) failing: watch::Sender<Option<Arc<RegistryError>>>,
    /// The directory is out of date: renew now.
    pub(super) behind: Notify,
    pub(super) last_heartbeat: Mutex<Instant>,
}

impl MemberState {
    pub(super) fn new(info: ServiceInfo, load: LoadCounters) -> Self {
        Self {
            registered: Mutex::new(Arc::new(info)),
            push_key: format!("{:032x}", rand::random::<u128>()),
            directory: Directory::default(),
            load,
            core_only: AtomicBool::new(false),
            joined: watch::Sender::new(false),
            failing: watch::Sender::new(None),
            behind: Notify::new(),
            last_heartbeat: Mutex::new(Instant::now()),
        }
    }

    /// Compares in a time that does not depend on where the first difference is.
    pub(super) fn is_push_key(&self, key: &[u8]) -> bool {
        let own = self.push_key.as_bytes();
        own.len() == key.len() && own.iter().zip(key).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }

    pub(super) fn is_joined(&self) -> bool {
        *self.joined.borrow()
    }

    pub(super) fn is_core_only(&self) -> bool {
        self.core_only.load(Relaxed)
    }

    /// Notes a heartbeat. `revision` is the newest that concerns this member, as the registry sees it.
    pub(super) fn on_heartbeat(&self, revision: Option<Revision>) {
        *self.last_heartbeat.lock() = Instant::now();
        let Some(newest) = revision else { return };
        let known = self.directory.view().revision();
        if !known.is_some_and(|known| known.epoch == newest.epoch && known.n >= newest.n) {
            self.behind.notify_one();
        }
    }

    /// Completes when a push may be acknowledged.
    pub(super) async fn on_push(&self, applied: Applied) {
        if applied == Applied::OtherEpoch {
            self.behind.notify_one();
        }
        self.directory.settled().await;
    }
}
