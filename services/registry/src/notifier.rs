//! Pushes every change to the dependents that it concerns.
//!
//! Delivery is level-triggered: for each dependent the notifier knows what it has acknowledged, and sends the
//! difference to the current state. Changes are not queued, so a lost push loses nothing, a slow dependent gets only
//! the newest state, and memory is bounded by the dependents. Each dependent has at most one push in flight, hence in
//! order. Retries back off per dependent and share a few separate slots, so that they delay no other dependent.
//!
//! Lock order: the catalogue, then the dependents.

use std::sync::Arc;
use std::time::Duration;

use hubspoke_client::backoff;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::Instrument;

pub(crate) use self::dependents::AckGuard;
use self::dependents::{Delivery, DependentCounts, Dependents};
use self::send::{push_span, send};
use crate::catalog::{Catalog, Incarnation, InstanceList, Registration};
use crate::config::PushSettings;
use crate::exchange::MemberDialer;
use crate::instruments::Instruments;
use crate::shared::SharedCatalog;

mod dependents;
mod plan;
mod send;

/// Pause before a failed push is retried; doubles with each failure.
const BACKOFF: Duration = Duration::from_millis(100);
/// There is one slot for retries for this many other slots.
const RETRY_SHARE: usize = 16;

/// Pushes changes to dependents.
#[derive(Debug)]
pub(crate) struct Notifier {
    catalog: Arc<SharedCatalog>,
    dependents: Mutex<Dependents>,
    wake: Notify,
    slots: Semaphore,
    retry_slots: Semaphore,
    settings: PushSettings,
    instruments: Arc<Instruments>,
    dialer: MemberDialer,
}

impl Notifier {
    pub(crate) fn new(
        settings: PushSettings,
        catalog: Arc<SharedCatalog>,
        instruments: Arc<Instruments>,
        dialer: MemberDialer,
    ) -> Self {
        let retries = (settings.concurrency / RETRY_SHARE).max(1);
        Self {
            catalog,
            dependents: Mutex::default(),
            wake: Notify::new(),
            slots: Semaphore::new(settings.concurrency.min(Semaphore::MAX_PERMITS)),
            retry_slots: Semaphore::new(retries.min(Semaphore::MAX_PERMITS)),
            settings,
            instruments,
            dialer,
        }
    }

    /// A member registered or renewed, and is answered with these lists.
    pub(crate) fn registered(&self, registration: Registration, lists: &[(Arc<str>, Arc<InstanceList>)]) {
        // The reply is on its way, and a push must not overtake it.
        let not_before = Instant::now() + self.settings.coalesce;
        self.dependents.lock().registered(registration, lists, not_before);
    }

    /// A removed member is back, and may know these lists of removed instances. It is told what is true now.
    pub(crate) fn returned(&self, registration: Registration, removed: &[(Arc<str>, Arc<InstanceList>)]) {
        self.dependents.lock().returned(registration, removed);
        self.wake.notify_one();
    }

    /// A dependent is up to this registry from now on. The one before has told it all that was true at revision `since`,
    /// or, if it needs events, nobody knows what: these lists of removed instances too.
    pub(crate) fn taken_over(
        &self,
        registration: Registration,
        since: u64,
        removed: &[(Arc<str>, Arc<InstanceList>)],
    ) {
        self.dependents.lock().taken_over(registration, since, removed);
        self.wake.notify_one();
    }

    /// Another epoch begins at this revision. Members learn of it by their heartbeats, and renew.
    pub(crate) fn rebase(&self, revision: u64) {
        self.dependents.lock().rebase(revision);
    }

    /// Drops `ack` when all dependents have acknowledged the current list of a service, which has not changed just now.
    pub(crate) fn await_acknowledged(&self, catalog: &Catalog, name: &str, ack: AckGuard) {
        self.dependents.lock().await_acknowledged(catalog, name, ack);
    }

    /// An incarnation is gone: nothing more is sent to it, and no acknowledgement of it is awaited.
    pub(crate) fn removed(&self, of: &Incarnation) {
        self.dependents.lock().removed(of);
    }

    /// The list of a service has changed. `ack` is dropped when its dependents have acknowledged that.
    pub(crate) fn list_changed(&self, name: Arc<str>, ack: Option<AckGuard>) {
        self.dependents.lock().list_changed(name, ack);
        self.wake.notify_one();
    }

    /// The number of dependents, in all and by condition.
    pub(crate) fn counts(&self) -> DependentCounts {
        self.dependents.lock().counts()
    }

    /// Delivers changes. Returns only on errors.
    ///
    /// # Errors
    /// If one of its tasks panicked.
    pub(crate) async fn run(self: Arc<Self>) -> Result<(), JoinError> {
        let mut deliveries = Deliveries { in_flight: JoinSet::new(), next_round: Instant::now() };
        loop {
            deliveries.step(&self).await?;
        }
    }
}

/// The deliveries in flight, and when the next ones may start.
struct Deliveries {
    in_flight: JoinSet<()>,
    next_round: Instant,
}

impl Deliveries {
    /// Reaps one delivery, or starts those that are due.
    async fn step(&mut self, notifier: &Arc<Notifier>) -> Result<(), JoinError> {
        tokio::select! {
            // Reap first: a round may start one delivery per dependent, so reaping only one between two rounds would
            // let ended ones pile up for as long as changes keep coming.
            biased;
            Some(ended) = self.in_flight.join_next() => ended?,
            () = notifier.wake.notified() => {
                // A single change goes out at once; further ones within the coalescing time go out together.
                tokio::time::sleep_until(self.next_round).await;
                self.next_round = Instant::now() + notifier.settings.coalesce;
                let due = notifier.catalog.with(|catalog, _| notifier.dependents.lock().due(catalog));
                for to in due {
                    self.in_flight.spawn(deliver(notifier.clone(), to));
                }
            }
        }
        Ok(())
    }
}

/// Pushes to one dependent until it has acknowledged everything, or is gone.
async fn deliver(notifier: Arc<Notifier>, to: Incarnation) {
    let not_before = notifier.dependents.lock().not_before(&to);
    let Some(not_before) = not_before else { return };
    tokio::time::sleep_until(not_before).await;
    let mut failures: u32 = 0;
    loop {
        let slots = if failures == 0 { &notifier.slots } else { &notifier.retry_slots };
        let Ok(slot) = slots.acquire().await else { return };
        let next = notifier.catalog.with(|catalog, _| {
            notifier.dependents.lock().next(catalog, &to, |n| notifier.catalog.revision_of(n))
        });
        let Some(Delivery { info, plan, idle }) = next else { return };
        let revision = notifier.catalog.revision_of(plan.revision);
        let span = push_span(&notifier.instruments.span_owner, &info, plan.requests.first());
        let began = Instant::now();
        let sending =
            send(&notifier.dialer, &info, &plan.requests, revision, idle, notifier.settings.timeout);
        let (acknowledged, idle, error) = sending.instrument(span).await;
        drop(slot);
        notifier.instruments.record_push(error.is_none(), began.elapsed());
        let more = notifier.dependents.lock().delivered(&to, plan, acknowledged, idle);
        match error {
            None if more => failures = 0,
            None => return,
            Some(reason) => {
                if failures == 0 {
                    tracing::warn!(service = %to.key.name, addr = %to.key.addr, reason, "push failed; retrying");
                }
                failures = failures.saturating_add(1);
                tokio::time::sleep(backoff(failures, BACKOFF, notifier.settings.backoff_max)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hubspoke_chassis::Metrics;
    use hubspoke_protocol::ServiceInfo;

    use super::*;
    use crate::config::Settings;
    use crate::dispatch::Dispatcher;

    #[tokio::test]
    async fn ended_deliveries_do_not_pile_up_while_changes_keep_coming() {
        const DEPENDENTS: usize = 50;
        let mut settings = Settings::default();
        settings.push.coalesce = Duration::ZERO;
        let metrics = Metrics::new("registry", "test").unwrap();
        let (dispatcher, _commands) = Dispatcher::new(&settings, 1, &metrics, MemberDialer::default());
        for i in 0..DEPENDENTS {
            let required_services = vec!["log".to_owned()];
            let info = ServiceInfo::new("visit", format!("127.0.0.1:{}", i + 1));
            dispatcher.register(ServiceInfo { required_services, ..info }, None, None).unwrap();
        }
        let mut deliveries = Deliveries { in_flight: JoinSet::new(), next_round: Instant::now() };
        for _ in 0..1000 {
            // The list is the same as before, so each delivery ends as soon as it runs.
            dispatcher.notifier.list_changed("log".into(), None);
            deliveries.step(&dispatcher.notifier).await.unwrap();
            assert!(deliveries.in_flight.len() <= DEPENDENTS, "{}", deliveries.in_flight.len());
            tokio::task::yield_now().await;
        }
    }
}
