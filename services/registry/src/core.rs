//! What the registry's parts share: the catalogue behind one lock, and the way from its effects to those who act
//! on them.
//!
//! The lock is held for one event or one read, never over IO; effects are handed on while it is held, through
//! queues that never wait, so that nobody sees changes in another order than the catalogue made them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hubspoke_chassis::Metrics;
use hubspoke_chassis::telemetry::Source;
use hubspoke_protocol::{ReasonKind, Revision, ServiceInfo};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, mpsc};
use tokio::time::Instant;

use crate::catalog::{
    Applied, Catalog, Change, Effect, Event, Joined, Key, List, Outcome, Refusal, Saved, Time,
};
use crate::config::Settings;
use crate::heartbeat::Order;
use crate::notifier::{Ack, Notifier};
use crate::stats::Stats;
use crate::watch::Watch;

/// Views of the whole catalogue made at once: a big one takes a worker's time and many megabytes.
const MOST_VIEWS: usize = 2;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Core {
    catalog: Mutex<Catalog>,
    started: Instant,
    epoch: u64,
    beats: mpsc::UnboundedSender<Order>,
    pub(crate) notifier: Notifier,
    pub(crate) watch: Watch,
    pub(crate) stats: Stats,
    /// Whose spans those of heartbeats and pushes are.
    pub(crate) source: Source,
    /// Something has changed that the snapshot file should hold.
    pub(crate) unsaved: Notify,
    /// See [`Core::turn`].
    views: Semaphore,
}

/// What a registration is answered with, all of one revision.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) lists: Vec<(Arc<str>, Arc<List>)>,
    pub(crate) revision: Revision,
}

impl Core {
    /// An empty catalogue of a new epoch, and the heartbeats that it will order.
    pub(crate) fn new(
        settings: &Settings,
        epoch: u64,
        metrics: &Metrics,
    ) -> (Self, mpsc::UnboundedReceiver<Order>) {
        // Bounded by the catalogue: at most one order per instance is under way, and one when it leaves.
        let (beats, orders) = mpsc::unbounded_channel();
        let core = Self {
            catalog: Mutex::new(Catalog::new(settings.policy())),
            started: Instant::now(),
            epoch,
            beats,
            notifier: Notifier::new(settings.push.clone()),
            watch: Watch::new(settings.history.changes),
            stats: Stats::new(metrics, &settings.limits),
            source: metrics.source().clone(),
            unsaved: Notify::new(),
            views: Semaphore::new(MOST_VIEWS),
        };
        (core, orders)
    }

    /// Takes in a registration or renewal.
    pub(crate) fn register(&self, info: ServiceInfo) -> Result<Registered, Refusal> {
        let mut catalog = self.lock();
        let applied = catalog.apply(self.now(), Event::Register(info))?;
        let (_, joined, said) = self.route(applied, None);
        let revision = self.revision_of(catalog.revision());
        let mut lists = Vec::new();
        if let Some(joined) = joined {
            lists = catalog.lists(&joined.info);
            self.notifier.joined(joined, &lists);
        }
        drop(catalog);
        self.say(&said);
        Ok(Registered { lists, revision })
    }

    /// Takes in any other event. `ack` is dropped when all dependents know of what it changed.
    pub(crate) fn apply(&self, event: Event, ack: Option<Ack>) -> Result<Outcome, Refusal> {
        let mut catalog = self.lock();
        let applied = catalog.apply(self.now(), event)?;
        let (outcome, _, said) = self.route(applied, ack);
        drop(catalog);
        self.say(&said);
        Ok(outcome)
    }

    /// Takes in what a snapshot file held; says how many instances that were.
    pub(crate) fn restore(&self, saved: impl FnOnce(Time) -> Vec<Saved>) -> usize {
        let mut catalog = self.lock();
        let now = self.now();
        let (mut all, mut refused) = (Vec::new(), Vec::new());
        for saved in saved(now) {
            let key = Key::new(&saved.info.name, &saved.info.addr);
            match catalog.apply(now, Event::Restore(saved)) {
                Ok(applied) => all.extend(self.route(applied, None).1),
                // The limits are lower than they were.
                Err(why) => refused.push((key, why)),
            }
        }
        let count = all.len();
        // Its dependents are taken to know what the file knew: those that read revisions see the new epoch in
        // their next heartbeat, and the others go on with what they have.
        for joined in all {
            let lists = catalog.lists(&joined.info);
            self.notifier.joined(joined, &lists);
        }
        drop(catalog);
        for (key, why) in refused {
            tracing::warn!(service = %key.name, addr = %key.addr, %why, "not restored");
        }
        count
    }

    /// Looks at the catalogue.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&mut Catalog, Time) -> T) -> T {
        look(&mut self.lock(), self.now())
    }

    /// Whoever makes a view of the whole catalogue holds this meanwhile.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.views.acquire().await.ok() // it is never closed
    }

    /// The newest revision.
    pub(crate) fn revision(&self) -> Revision {
        self.revision_of(self.lock().revision())
    }

    /// A revision of this epoch.
    pub(crate) fn revision_of(&self, n: u64) -> Revision {
        Revision { epoch: self.epoch, n }
    }

    fn now(&self) -> Time {
        let millis = self.started.elapsed().as_millis();
        Time::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
    }

    fn lock(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands on what is to be done. Called while the catalogue is locked.
    fn route(&self, applied: Applied, ack: Option<Ack>) -> (Outcome, Option<Joined>, Vec<Said>) {
        let mut there = None;
        let mut to_log = Vec::new();
        for effect in applied.effects {
            match effect {
                Effect::ListChanged(name) => self.notifier.list_changed(name, ack.clone()),
                Effect::Joined(joined) => there = Some(joined),
                Effect::Left { key, start } => {
                    self.notifier.left(&key, start);
                    self.order(Order::Forget { key, start });
                }
                Effect::Beat { key, start, when } => self.order(Order::Beat { key, start, when }),
                Effect::Change(change) => {
                    if change.gone {
                        self.stats.left(change.kind);
                    }
                    self.unsaved.notify_one();
                    self.watch.publish(change.clone());
                    to_log.push(Said::Change(change));
                }
                Effect::Heard { key, load } => self.watch.heard(key, load),
                Effect::Protecting(on) => to_log.push(Said::Protecting(on)),
                Effect::ProtectionChanged => self.watch.protection_changed(),
            }
        }
        (applied.outcome, there, to_log)
    }

    /// Says what has changed; not while the catalogue is locked, since whoever reads the log may be slow.
    fn say(&self, said: &[Said]) {
        for said in said {
            match said {
                Said::Change(change) => log_change(change),
                Said::Protecting(true) => tracing::warn!(
                    "most instances fail at once: suspecting the registry's own network, holding back removals"
                ),
                Said::Protecting(false) => tracing::warn!("no longer holding back removals"),
            }
            if matches!(said, Said::Protecting(_)) {
                self.watch.publish_protection(self);
            }
        }
    }

    fn order(&self, order: Order) {
        // Fails only where the registry is stopping.
        let _ = self.beats.send(order);
    }
}

/// What is worth a line in the log.
enum Said {
    Change(Change),
    Protecting(bool),
}

fn log_change(change: &Change) {
    let (info, revision) = (&change.instance.info, change.revision);
    let reason =
        change.instance.reasons.back().map(|reason| &*reason.detail).filter(|detail| !detail.is_empty());
    let (service, instance, addr) = (&info.name, info.id(), &info.addr);
    match change.kind {
        ReasonKind::Removed | ReasonKind::HeldBack => {
            tracing::warn!(service, instance, addr, revision, reason, "{}", said(change.kind));
        }
        _ => tracing::info!(service, instance, addr, revision, reason, "{}", said(change.kind)),
    }
}

fn said(kind: ReasonKind) -> &'static str {
    match kind {
        ReasonKind::Registered => "registered",
        ReasonKind::Replaced => "replaced by another start",
        ReasonKind::MissedHeartbeat => "missed a heartbeat",
        ReasonKind::Recovered => "passing again",
        ReasonKind::Removed => "removed",
        ReasonKind::Deregistered => "deregistered",
        ReasonKind::HeldBack => "suspect",
        ReasonKind::Restored => "restored",
        ReasonKind::Draining => "draining",
        ReasonKind::Undrained => "no longer draining",
    }
}
