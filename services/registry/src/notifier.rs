//! The notifier: tells every dependent of every change that concerns it.
//!
//! Delivery is by level, not by edge: for each dependent it is known what it has acknowledged, and what it is sent
//! is the difference from that to what is true now. So nothing is queued: a lost push leaves the difference where
//! it was, a slow dependent gets only the newest, an empty list is a list like any other, and memory is bounded
//! by the dependents. Each has at most one push under way, hence order; those that failed wait alone, each with
//! its own backoff, and share a small part of the places, so that they delay nobody.
//!
//! Lock order: the catalogue, then this.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hubspoke_protocol::ServiceInfo;
use rand::RngExt;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::Instrument;

use self::plan::{Acked, Plan};
use self::send::{send, span};
use crate::catalog::{Joined, Key, List};
use crate::config;
use crate::core::Core;
use crate::peer::Idle;

mod plan;
mod send;

/// Held by everything that still has to happen before a change is known to all; the receiver's end is the end of
/// that.
pub(crate) type Ack = mpsc::Sender<Infallible>;

/// Pause before a first failed push is tried again; doubles.
const BACKOFF: Duration = Duration::from_millis(100);
/// One in so many places is for dependents whose last push failed.
const SHARE_OF_RETRIES: usize = 16;
/// A connection is kept for the next push for this long: less than any server is known to keep it.
const KEEP_IDLE: Duration = Duration::from_secs(4);

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Notifier {
    state: Mutex<State>,
    wake: Notify,
    places: Semaphore,
    places_for_retries: Semaphore,
    settings: config::Push,
}

#[derive(Debug, Default)]
struct State {
    /// Services whose lists changed since the last round, and who waits for their dependents to know.
    dirty: HashMap<Arc<str>, Vec<Ack>>,
    dependents: HashMap<Key, Dependent>,
}

/// What is known of one dependent.
#[derive(Debug)]
struct Dependent {
    start: u64,
    info: Arc<ServiceInfo>,
    acked: Acked,
    /// A task is delivering; it goes on where `again` is set.
    busy: bool,
    again: bool,
    /// The last push failed.
    failing: bool,
    /// Pushes wait until then: the reply to its registration is still on its way to it.
    not_before: Instant,
    idle: Option<(Instant, Idle)>,
    /// Who waits for it to know a revision.
    waiting: Vec<(u64, Ack)>,
}

/// How many members are told of changes, are being told, and could not be told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) dependents: u64,
    pub(crate) queue: u64,
    pub(crate) behind: u64,
}

/// A delivery that can be done now.
struct Delivery {
    info: Arc<ServiceInfo>,
    plan: Plan,
    idle: Option<Idle>,
}

impl Notifier {
    pub(crate) fn new(settings: config::Push) -> Self {
        let retries = (settings.concurrency / SHARE_OF_RETRIES).max(1);
        Self {
            state: Mutex::default(),
            wake: Notify::new(),
            places: Semaphore::new(settings.concurrency.min(Semaphore::MAX_PERMITS)),
            places_for_retries: Semaphore::new(retries.min(Semaphore::MAX_PERMITS)),
            settings,
        }
    }

    /// A member registered or renewed, and is being answered with these lists.
    pub(crate) fn joined(&self, joined: Joined, lists: &[(Arc<str>, Arc<List>)]) {
        let mut state = self.lock();
        let Joined { key, start, info, revision } = joined;
        if info.required_services.is_empty() {
            state.dependents.remove(&key);
            return;
        }
        let acked = Acked::of_reply(&info, revision, lists);
        let not_before = Instant::now() + self.settings.coalesce;
        match state.dependents.get_mut(&key).filter(|known| known.start == start) {
            // What is under way now may arrive after the reply, so the reply can't be taken for the last word.
            Some(known) if known.busy && matches!(acked, Acked::Lists(_)) => known.info = info,
            Some(known) => {
                (known.info, known.acked) = (info, acked);
                known.release(revision);
            }
            None => {
                let (waiting, idle) = (Vec::new(), None);
                let (busy, again, failing) = (false, false, false);
                let dependent =
                    Dependent { start, info, acked, busy, again, failing, not_before, idle, waiting };
                state.dependents.insert(key, dependent);
            }
        }
    }

    /// A start is gone: nothing more is sent to it, nobody waits for it.
    pub(crate) fn left(&self, key: &Key, start: u64) {
        let mut state = self.lock();
        if state.dependents.get(key).is_some_and(|known| known.start == start) {
            state.dependents.remove(key);
        }
    }

    /// The list of a service has changed.
    pub(crate) fn list_changed(&self, name: Arc<str>, ack: Option<Ack>) {
        self.lock().dirty.entry(name).or_default().extend(ack);
        self.wake.notify_one();
    }

    /// Delivers until it is dropped.
    ///
    /// # Errors
    /// Where one of its tasks died.
    pub(crate) async fn run(core: Arc<Core>) -> Result<(), JoinError> {
        let mut deliveries = Deliveries { under_way: JoinSet::new(), next_round: Instant::now() };
        loop {
            deliveries.step(&core).await?;
        }
    }

    /// Who has to be told, and is not being told already.
    fn round(&self, core: &Core) -> Vec<(Key, u64)> {
        core.read(|catalog, _| {
            let mut state = self.lock();
            let dirty = std::mem::take(&mut state.dirty);
            let mut due = Vec::new();
            for (name, acks) in dirty {
                let revision = catalog.list_revision(&name);
                for key in catalog.dependents(&name) {
                    let Some(dependent) = state.dependents.get_mut(&key) else { continue };
                    dependent.waiting.retain(|(_, ack)| !ack.is_closed());
                    dependent.waiting.extend(acks.iter().map(|ack| (revision, ack.clone())));
                    if dependent.busy {
                        dependent.again = true;
                    } else {
                        dependent.busy = true;
                        due.push((key, dependent.start));
                    }
                }
            }
            due
        })
    }

    /// What to send to a dependent now. Where there is nothing, its delivery is over.
    fn next(&self, core: &Core, key: &Key, start: u64) -> Option<Delivery> {
        core.read(|catalog, _| {
            let mut state = self.lock();
            let dependent = state.dependents.get_mut(key).filter(|known| known.start == start)?;
            dependent.again = false;
            let plan = plan::plan(catalog, &dependent.info, &dependent.acked, |n| core.revision_of(n));
            let Some(plan) = plan else {
                dependent.busy = false;
                dependent.waiting.clear();
                return None;
            };
            let kept = dependent.idle.take().filter(|(since, _)| since.elapsed() < KEEP_IDLE);
            Some(Delivery { info: dependent.info.clone(), plan, idle: kept.map(|(_, idle)| idle) })
        })
    }

    /// Takes note of what was acknowledged; says whether there may be more to send.
    fn delivered(&self, key: &Key, start: u64, plan: Plan, done: usize, idle: Option<Idle>) -> bool {
        let mut state = self.lock();
        let Some(dependent) = state.dependents.get_mut(key).filter(|known| known.start == start) else {
            return false;
        };
        dependent.idle = idle.map(|idle| (Instant::now(), idle));
        dependent.failing = done < plan.calls.len();
        if done < plan.calls.len() {
            dependent.acked = dependent.acked.after(&plan, done);
            return true;
        }
        dependent.release(plan.revision);
        match (&mut dependent.acked, plan.then) {
            // A renewal may have told it more meanwhile.
            (Acked::Revision(known), Acked::Revision(then)) => *known = then.max(*known),
            (acked, then) => *acked = then,
        }
        dependent.busy = dependent.again;
        dependent.again
    }

    fn not_before(&self, key: &Key, start: u64) -> Option<Instant> {
        let state = self.lock();
        state.dependents.get(key).filter(|known| known.start == start).map(|known| known.not_before)
    }

    /// For the metrics.
    pub(crate) fn load(&self) -> Load {
        let state = self.lock();
        let count = |is: fn(&Dependent) -> bool| state.dependents.values().filter(|of| is(of)).count() as u64;
        Load {
            dependents: state.dependents.len() as u64,
            queue: count(|dependent| dependent.busy),
            behind: count(|dependent| dependent.failing),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The loop's state.
struct Deliveries {
    under_way: JoinSet<()>,
    next_round: Instant,
}

impl Deliveries {
    /// Takes out one delivery that has ended, or begins those that are due.
    async fn step(&mut self, core: &Arc<Core>) -> Result<(), JoinError> {
        let notifier = &core.notifier;
        tokio::select! {
            // Those that have ended come first: a round adds up to one for each dependent, so taking out one at a
            // time beside it would let them pile up for as long as changes keep coming.
            biased;
            Some(ended) = self.under_way.join_next() => ended?,
            () = notifier.wake.notified() => {
                // What changes within a moment goes out together; what changes alone goes out at once.
                tokio::time::sleep_until(self.next_round).await;
                self.next_round = Instant::now() + notifier.settings.coalesce;
                for (key, start) in notifier.round(core) {
                    self.under_way.spawn(deliver(core.clone(), key, start));
                }
            }
        }
        Ok(())
    }
}

impl Dependent {
    /// It knows everything up to a revision: those who waited for that need not wait for it any longer.
    fn release(&mut self, revision: u64) {
        self.waiting.retain(|(until, ack)| *until > revision && !ack.is_closed());
    }
}

/// Tells one dependent until it knows everything, or is gone.
async fn deliver(core: Arc<Core>, key: Key, start: u64) {
    let notifier = &core.notifier;
    let Some(not_before) = notifier.not_before(&key, start) else { return };
    tokio::time::sleep_until(not_before).await;
    let mut failures: u32 = 0;
    loop {
        let places = if failures == 0 { &notifier.places } else { &notifier.places_for_retries };
        let Ok(place) = places.acquire().await else { return };
        let Some(Delivery { info, plan, idle }) = notifier.next(&core, &key, start) else { return };
        let revision = core.revision_of(plan.revision);
        let span = span(&core.source, &info, plan.calls.first());
        let began = Instant::now();
        let sending = send(&info, &plan.calls, revision, idle, notifier.settings.timeout);
        let (done, idle, error) = sending.instrument(span).await;
        drop(place);
        core.stats.push(error.is_none(), began.elapsed());
        let more = notifier.delivered(&key, start, plan, done, idle);
        match error {
            None if more => failures = 0,
            None => return,
            Some(error) => {
                if failures == 0 {
                    tracing::warn!(service = %key.name, addr = %key.addr, error, "push failed; trying again");
                }
                failures = failures.saturating_add(1);
                tokio::time::sleep(backoff(failures, notifier.settings.backoff_max)).await;
            }
        }
    }
}

fn backoff(failures: u32, most: Duration) -> Duration {
    let doubled = BACKOFF.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(most).mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    #[tokio::test]
    async fn deliveries_that_have_ended_do_not_pile_up_while_changes_keep_coming() {
        const DEPENDENTS: usize = 50;
        let mut settings = Settings::default();
        settings.push.coalesce = Duration::ZERO;
        let metrics = hubspoke_chassis::Metrics::new("registry", "test").unwrap();
        let (core, _orders) = Core::new(&settings, 1, &metrics);
        let core = Arc::new(core);
        for i in 0..DEPENDENTS {
            let required_services = vec!["log".to_owned()];
            let info = ServiceInfo::new("visit", format!("127.0.0.1:{}", i + 1));
            core.register(ServiceInfo { required_services, ..info }).unwrap();
        }
        let mut deliveries = Deliveries { under_way: JoinSet::new(), next_round: Instant::now() };
        for _ in 0..1000 {
            // There is nothing new to tell, so each delivery ends as soon as it runs.
            core.notifier.list_changed("log".into(), None);
            deliveries.step(&core).await.unwrap();
            assert!(deliveries.under_way.len() <= DEPENDENTS, "{}", deliveries.under_way.len());
            tokio::task::yield_now().await;
        }
    }
}
