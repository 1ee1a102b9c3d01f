//! Publishes to watchers, and keeps the last changes for those that reconnect.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use hubspoke_protocol::{Load, RegistriesView};
use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::event::{AnsweredHeartbeat, WatchEvent};
use crate::catalog::{Change, InstanceKey, Time};
use crate::shared::SharedCatalog;
use crate::view::{self, WallClock};

/// Events that a watcher may fall behind before it is disconnected.
pub(super) const BACKLOG: usize = 1024;
/// How often loads, self-protection and the registries are published.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Publishes events to all watchers.
#[derive(Debug)]
pub(crate) struct ChangeFeed {
    pub(super) catalog: Arc<SharedCatalog>,
    /// The last changes, at most `max_history`.
    history: Mutex<ChangeHistory>,
    max_history: usize,
    pub(super) events: broadcast::Sender<Arc<WatchEvent>>,
    /// The heartbeats answered since the last report.
    heartbeats: Mutex<HashMap<InstanceKey, AnsweredHeartbeat>>,
    protection_changed: AtomicBool,
    /// Someone has begun to watch since the last report.
    pub(super) has_new_watchers: AtomicBool,
    pub(super) watchers: AtomicUsize,
    pub(super) cut_off: AtomicU64,
}

/// The last changes.
#[derive(Debug, Default)]
struct ChangeHistory {
    changes: VecDeque<Arc<WatchEvent>>,
    /// All changes after this revision are here, and all of it too if it has several.
    complete_from: u64,
}

impl ChangeHistory {
    fn drop_oldest(&mut self) {
        let Some(revision) = self.changes.pop_front().and_then(|oldest| oldest.revision()) else { return };
        // A store makes several changes at one revision. With one of them gone, the others do not suffice.
        let next = self.changes.front().and_then(|next| next.revision());
        let is_one_of_several = self.complete_from >= revision || next == Some(revision);
        self.complete_from = revision + u64::from(is_one_of_several);
    }
}

impl ChangeFeed {
    pub(crate) fn new(max_history: usize, catalog: Arc<SharedCatalog>) -> Self {
        Self {
            catalog,
            history: Mutex::default(),
            max_history,
            events: broadcast::Sender::new(BACKLOG),
            heartbeats: Mutex::default(),
            protection_changed: AtomicBool::new(false),
            has_new_watchers: AtomicBool::new(false),
            watchers: AtomicUsize::new(0),
            cut_off: AtomicU64::new(0),
        }
    }

    /// Publishes a change. Must be called in the order of revisions.
    pub(crate) fn publish(&self, change: Change) {
        let event = Arc::new(WatchEvent::change(change));
        let mut history = self.history.lock();
        history.changes.push_back(event.clone());
        while history.changes.len() > self.max_history {
            history.drop_oldest();
        }
        self.send(event);
    }

    /// Another epoch begins at this revision: all watchers start anew.
    pub(crate) fn restart(&self, revision: u64) {
        *self.history.lock() = ChangeHistory { changes: VecDeque::new(), complete_from: revision };
        self.send(Arc::new(WatchEvent::Restarted));
    }

    /// Publishes self-protection with the next report.
    pub(crate) fn protection_changed(&self) {
        self.protection_changed.store(true, Relaxed);
    }

    /// Publishes self-protection now.
    pub(crate) fn publish_protection(&self) {
        self.send(Arc::new(WatchEvent::protection(&self.catalog)));
    }

    /// Publishes an answered heartbeat with the next report.
    pub(crate) fn heartbeat_answered(&self, key: InstanceKey, load: Option<Load>, at: Time) {
        if self.events.receiver_count() > 0 {
            self.heartbeats.lock().insert(key, AnsweredHeartbeat { at, load });
        }
    }

    /// The number of watchers.
    pub(crate) fn watchers(&self) -> usize {
        self.watchers.load(Relaxed)
    }

    /// The number of watchers disconnected since the start because they did not read.
    pub(crate) fn cut_off(&self) -> u64 {
        self.cut_off.load(Relaxed)
    }

    /// Publishes once a second the loads, self-protection and the registries, which change too often for an event each.
    /// Never returns.
    pub(crate) async fn report(&self) {
        let mut registries = None;
        loop {
            tokio::time::sleep(REPORT_INTERVAL).await;
            if self.protection_changed.swap(false, Relaxed) {
                self.publish_protection();
            }
            self.publish_registries(&mut registries);
            let heartbeats = std::mem::take(&mut *self.heartbeats.lock());
            if !heartbeats.is_empty() {
                let clock = self.catalog.with(|_, now| WallClock::new(now));
                self.send(Arc::new(WatchEvent::load(heartbeats, clock)));
            }
        }
    }

    /// Publishes the registries that share the store, if they differ from the `last` ones. Watchers that have just come may
    /// have missed those: they resumed, or had their snapshot at another moment.
    fn publish_registries(&self, last: &mut Option<RegistriesView>) {
        let Some(cluster) = self.catalog.cluster().filter(|_| self.events.receiver_count() > 0) else {
            return;
        };
        if self.has_new_watchers.swap(false, Relaxed) {
            *last = None;
        }
        let view = view::registries(&self.catalog, cluster);
        // The time is computed from an age, so its last digits vary.
        let is_known =
            |last: &RegistriesView| last.registries == view.registries && last.etcd_error == view.etcd_error;
        if !last.as_ref().is_some_and(is_known) {
            self.send(Arc::new(WatchEvent::registries(&view)));
            *last = Some(view);
        }
    }

    /// The changes after revision `n`, up to `newest`; `None` if some of them are no longer kept. If revision `n` has
    /// several changes, they are among them: the watcher may not have seen all of them.
    pub(super) fn since(&self, n: u64, newest: u64) -> Option<Vec<Arc<WatchEvent>>> {
        let history = self.history.lock();
        if !(history.complete_from..=newest).contains(&n) {
            return None;
        }
        let of_n = history.changes.iter().filter(|event| event.revision() == Some(n)).count();
        let first = if of_n > 1 { n } else { n + 1 };
        let is_missed = |event: &&Arc<WatchEvent>| event.revision().is_some_and(|revision| revision >= first);
        Some(history.changes.iter().filter(is_missed).cloned().collect())
    }

    fn send(&self, event: Arc<WatchEvent>) {
        // Fails only if nobody watches.
        let _ = self.events.send(event);
    }
}
