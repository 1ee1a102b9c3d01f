//! Publishes to watchers, and keeps the last changes for those that reconnect.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use hubspoke_protocol::Load;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::event::{AnsweredHeartbeat, WatchEvent};
use crate::catalog::{Change, InstanceKey};
use crate::shared::SharedCatalog;

/// Events that a watcher may fall behind before it is disconnected.
pub(super) const BACKLOG: usize = 1024;
/// How often loads and self-protection are published.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Publishes events to all watchers.
#[derive(Debug)]
pub(crate) struct ChangeFeed {
    pub(super) catalog: Arc<SharedCatalog>,
    /// The last changes, at most `max_history`.
    history: Mutex<VecDeque<Arc<WatchEvent>>>,
    max_history: usize,
    pub(super) events: broadcast::Sender<Arc<WatchEvent>>,
    /// The heartbeats answered since the last report.
    heartbeats: Mutex<HashMap<InstanceKey, AnsweredHeartbeat>>,
    protection_changed: AtomicBool,
    pub(super) watchers: AtomicUsize,
    pub(super) cut_off: AtomicU64,
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
            watchers: AtomicUsize::new(0),
            cut_off: AtomicU64::new(0),
        }
    }

    /// Publishes a change. Must be called in the order of revisions.
    pub(crate) fn publish(&self, change: Change) {
        let event = Arc::new(WatchEvent::change(change));
        let mut history = self.history.lock();
        history.push_back(event.clone());
        while history.len() > self.max_history {
            history.pop_front();
        }
        self.send(event);
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
    pub(crate) fn heartbeat_answered(&self, key: InstanceKey, load: Option<Load>) {
        if self.events.receiver_count() > 0 {
            self.heartbeats.lock().insert(key, AnsweredHeartbeat { at: Timestamp::now(), load });
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

    /// Publishes once a second the loads and self-protection, which change too often for an event each. Never returns.
    pub(crate) async fn report(&self) {
        loop {
            tokio::time::sleep(REPORT_INTERVAL).await;
            if self.protection_changed.swap(false, Relaxed) {
                self.publish_protection();
            }
            let heartbeats = std::mem::take(&mut *self.heartbeats.lock());
            if !heartbeats.is_empty() {
                self.send(Arc::new(WatchEvent::load(heartbeats)));
            }
        }
    }

    /// The changes after revision `n`, up to `newest`; `None` if some of them are no longer kept.
    pub(super) fn since(&self, n: u64, newest: u64) -> Option<Vec<Arc<WatchEvent>>> {
        let history = self.history.lock();
        let is_newer = |event: &&Arc<WatchEvent>| event.revision().is_some_and(|revision| revision > n);
        let newer: Vec<_> = history.iter().filter(is_newer).cloned().collect();
        // Changes have consecutive revisions, so a gap shows in their number.
        let missed = newest.checked_sub(n)?;
        (u64::try_from(newer.len()) == Ok(missed)).then_some(newer)
    }

    fn send(&self, event: Arc<WatchEvent>) {
        // Fails only if nobody watches.
        let _ = self.events.send(event);
    }
}
