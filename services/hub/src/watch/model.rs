//! The state of `hub watch`: the instances with their rates, the events so far, and whether the registry is
//! connected. Pure: updates and the time are parameters.

use std::collections::{BTreeMap, VecDeque};

use hubspoke_protocol::{
    CatalogView, ChangeView, InstanceState, InstanceView, LoadView, ProtectionView, Reason, ReasonKind,
    Revision,
};
use jiff::{SignedDuration, Timestamp};

use super::samples::Samples;
use crate::catalog_update::CatalogUpdate;
use crate::describe;

const MAX_EVENTS: usize = 200;
/// Most reasons in the history of one instance.
const MAX_REASONS: usize = 50;
/// How long removed instances are shown.
const SHOW_REMOVED: SignedDuration = SignedDuration::from_secs(60);
/// An instance whose last heartbeat is older than another's by more than this is left out of the shares.
const MAX_LAG: SignedDuration = SignedDuration::from_secs(20);
/// Most rates in the history of one service; there is one per second.
const MAX_RATES: usize = 120;

/// A connection shorter than this does not end an outage.
const LASTING: SignedDuration = SignedDuration::from_secs(2);
const REGISTRY: &str = "registry";
const REACHABLE: &str = "reachable again";
const UNREACHABLE: &str = "unreachable";

/// The registry converts its clock to wall-clock time in each reply, so equal times may differ slightly.
const SAME_TIME: SignedDuration = SignedDuration::from_millis(50);

/// Service name and address, which identify an instance.
pub(super) type RowKey = (String, String);

/// The catalogue with its recent past.
#[derive(Debug, Clone, Default)]
pub(super) struct WatchModel {
    pub(super) rows: BTreeMap<RowKey, Row>,
    /// The newest first.
    pub(super) events: VecDeque<PastEvent>,
    pub(super) feed: FeedState,
    pub(super) revision: Option<Revision>,
    pub(super) protection: Option<ProtectionView>,
    /// Requests per second of each service, one value per second.
    rates: BTreeMap<String, VecDeque<f64>>,
}

/// One instance.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) view: InstanceView,
    pub(super) samples: Samples,
}

/// Something that happened to an instance or to the registry.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PastEvent {
    /// By the registry's clock, or by ours if it happened to the connection.
    pub(super) at: Timestamp,
    /// The instance that it happened to.
    key: Option<RowKey>,
    /// `SERVICE/ID`, or `registry`.
    pub(super) subject: String,
    pub(super) what: String,
    pub(super) detail: String,
    /// An operator should look into it.
    pub(super) trouble: bool,
}

/// How current the model is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum FeedState {
    /// Nothing has been received yet.
    #[default]
    Connecting,
    /// It is current.
    Live,
    /// It is as it was before the registry became unreachable.
    Stale { since: Timestamp, reason: String },
}

impl Row {
    fn new(view: InstanceView, now: Timestamp) -> Self {
        let mut row = Self { view, samples: Samples::default() };
        row.sample(now);
        row
    }

    fn sample(&mut self, now: Timestamp) {
        let at = self.view.last_heartbeat.as_ref().and_then(|at| at.parse().ok());
        if let (Some(at), Some(load)) = (at, self.view.load) {
            self.samples.add(at, load.requests, now);
        }
    }

    /// Requests per second between the last two heartbeats; `None` if it reports none, or was removed.
    pub(super) fn known_rate(&self) -> Option<f64> {
        self.samples.rate().filter(|_| !self.is_removed())
    }

    /// The same for sorting and adding up.
    pub(super) fn rate(&self) -> f64 {
        self.known_rate().unwrap_or(0.0)
    }

    /// How often it has come back after it was failing or removed.
    pub(super) fn flaps(&self) -> usize {
        let mut down = false;
        let mut flaps = 0;
        for reason in &self.view.reasons {
            match reason.kind {
                ReasonKind::MissedHeartbeat | ReasonKind::HeldBack | ReasonKind::Removed => down = true,
                ReasonKind::Recovered | ReasonKind::Registered | ReasonKind::Replaced => {
                    flaps += usize::from(std::mem::take(&mut down));
                }
                _ => {}
            }
        }
        flaps
    }

    pub(super) fn is_removed(&self) -> bool {
        self.view.state == InstanceState::Removed
    }

    fn removed_at(&self) -> Option<Timestamp> {
        let last = self.view.reasons.last().filter(|_| self.is_removed())?;
        last.at.parse().ok()
    }
}

impl PastEvent {
    fn of(view: &InstanceView, reason: &Reason, now: Timestamp) -> Self {
        Self {
            at: reason.at.parse().unwrap_or(now),
            key: Some((view.info.name.clone(), view.info.addr.clone())),
            subject: describe::name(view),
            what: reason.kind.to_string(),
            detail: reason.detail.clone(),
            trouble: describe::is_trouble(reason.kind),
        }
    }
}

impl WatchModel {
    /// The stream is connected. The model stays as it is until a snapshot replaces it.
    pub(super) fn connected(&mut self, now: Timestamp) {
        if let FeedState::Stale { .. } = self.feed {
            self.registry_event(now, REACHABLE, String::new(), false);
        }
        self.feed = FeedState::Live;
    }

    /// The stream is not connected.
    pub(super) fn disconnected(&mut self, reason: String, now: Timestamp) {
        self.undo_reachable_again(now);
        match &mut self.feed {
            FeedState::Stale { reason: known, .. } => *known = reason,
            FeedState::Connecting | FeedState::Live => {
                self.registry_event(now, UNREACHABLE, reason.clone(), true);
                self.feed = FeedState::Stale { since: now, reason };
            }
        }
    }

    /// A registry that stops accepts connections and ends them at once, which does not end the outage.
    fn undo_reachable_again(&mut self, now: Timestamp) {
        let at = self.events.iter().position(|event| event.subject == REGISTRY && event.what == REACHABLE);
        let Some(at) = at.filter(|at| now.duration_since(self.events[*at].at) < LASTING) else { return };
        let began =
            self.events.iter().skip(at).find(|event| event.subject == REGISTRY && event.what == UNREACHABLE);
        if let Some(since) = began.map(|event| event.at) {
            self.feed = FeedState::Stale { since, reason: String::new() };
            self.events.remove(at);
        }
    }

    pub(super) fn apply(&mut self, update: CatalogUpdate, now: Timestamp) {
        match update {
            CatalogUpdate::Snapshot(catalog) => self.snapshot(catalog, now),
            CatalogUpdate::Change(change) => self.change(*change, now),
            CatalogUpdate::Load(load) => self.load(load, now),
            CatalogUpdate::Protection(protection) => {
                self.registry_event(now, &describe::protection(&protection), String::new(), true);
                self.protection = Some(protection);
            }
        }
    }

    fn snapshot(&mut self, catalog: CatalogView, now: Timestamp) {
        let other_epoch = self.revision.is_some_and(|known| known.epoch != catalog.revision.epoch);
        if other_epoch {
            self.registry_event(now, "restarted; members are registering again", String::new(), true);
        }
        self.feed = FeedState::Live;
        self.revision = Some(catalog.revision);
        self.protection = catalog.protection;
        self.add_missed(&catalog.services, now);
        let mut before = std::mem::take(&mut self.rows);
        for view in catalog.services.into_values().flatten() {
            let key = (view.info.name.clone(), view.info.addr.clone());
            let row = match before.remove(&key).filter(|row| row.view.info.id() == view.info.id()) {
                Some(mut row) => {
                    row.view = view;
                    row.sample(now);
                    row
                }
                None => Row::new(view, now),
            };
            self.rows.insert(key, row);
        }
        self.forget_removed(now);
    }

    /// Adds what happened before the first snapshot, or while the stream was away.
    fn add_missed(&mut self, services: &BTreeMap<String, Vec<InstanceView>>, now: Timestamp) {
        let mut newest: BTreeMap<RowKey, Timestamp> = BTreeMap::new();
        for event in &self.events {
            if let Some(key) = &event.key {
                newest.entry(key.clone()).and_modify(|at| *at = event.at.max(*at)).or_insert(event.at);
            }
        }
        let mut missed = Vec::new();
        for view in services.values().flatten() {
            let known = newest.get(&(view.info.name.clone(), view.info.addr.clone()));
            for reason in &view.reasons {
                let event = PastEvent::of(view, reason, now);
                if known.is_none_or(|known| event.at.duration_since(*known) > SAME_TIME) {
                    missed.push(event);
                }
            }
        }
        self.events.extend(missed);
        self.events.make_contiguous().sort_by_key(|event| std::cmp::Reverse(event.at));
        self.events.truncate(MAX_EVENTS);
    }

    /// A change carries only its own reason; the model has those before it.
    fn change(&mut self, change: ChangeView, now: Timestamp) {
        self.revision = Some(change.revision);
        let mut view = change.instance;
        let key = (view.info.name.clone(), view.info.addr.clone());
        match view.reasons.last() {
            Some(reason) => self.push_event(PastEvent::of(&view, reason, now)),
            None => {
                let reason = Reason { at: String::new(), kind: change.kind, detail: String::new() };
                self.push_event(PastEvent::of(&view, &reason, now));
            }
        }
        let Some(row) = self.rows.get_mut(&key) else {
            self.rows.insert(key, Row::new(view, now));
            return;
        };
        let mut reasons = std::mem::take(&mut row.view.reasons);
        let new = |reason: &Reason| !reasons.contains(reason);
        let added: Vec<_> = view.reasons.drain(..).filter(new).collect();
        reasons.extend(added);
        reasons.drain(..reasons.len().saturating_sub(MAX_REASONS));
        view.reasons = reasons;
        if row.view.info.id() != view.info.id() {
            row.samples = Samples::default();
        }
        row.view = view;
        row.sample(now);
    }

    fn load(&mut self, load: LoadView, now: Timestamp) {
        for (service, instances) in load.services {
            for (addr, heartbeat) in instances {
                let Some(row) = self.rows.get_mut(&(service.clone(), addr)) else { continue };
                row.view.last_heartbeat = Some(heartbeat.last_heartbeat);
                row.view.load = heartbeat.load.or(row.view.load);
                row.sample(now);
            }
        }
    }

    /// Called every second.
    pub(super) fn tick(&mut self, now: Timestamp) {
        self.forget_removed(now);
        // Without a registry nothing expires: the screen shows the last known state.
        if self.feed == FeedState::Live {
            self.rows.values_mut().for_each(|row| row.samples.expire(now));
        }
        let mut rates: BTreeMap<String, f64> = BTreeMap::new();
        for ((service, _), row) in &self.rows {
            *rates.entry(service.clone()).or_default() += row.rate();
        }
        self.rates.retain(|service, _| rates.contains_key(service));
        for (service, rate) in rates {
            let history = self.rates.entry(service).or_default();
            history.push_back(rate);
            history.drain(..history.len().saturating_sub(MAX_RATES));
        }
    }

    /// Requests per second of a service, one value per second, the oldest first.
    pub(super) fn rates(&self, service: &str) -> impl DoubleEndedIterator<Item = f64> {
        self.rates.get(service).into_iter().flatten().copied()
    }

    fn forget_removed(&mut self, now: Timestamp) {
        let old = |row: &Row| row.removed_at().is_some_and(|at| now.duration_since(at) > SHOW_REMOVED);
        self.rows.retain(|_, row| !old(row));
    }

    fn registry_event(&mut self, at: Timestamp, what: &str, detail: String, trouble: bool) {
        let subject = REGISTRY.to_owned();
        self.push_event(PastEvent { at, key: None, subject, what: what.to_owned(), detail, trouble });
    }

    fn push_event(&mut self, event: PastEvent) {
        let place = self.events.iter().position(|known| known.at <= event.at).unwrap_or(self.events.len());
        self.events.insert(place, event);
        self.events.truncate(MAX_EVENTS);
    }
}

/// Each row's share of the requests of all, over the longest span within the last minute for which the
/// counters of all are known. (Heartbeats come at different times, so load that changes between them would
/// otherwise show as an uneven share.) `None` for an instance that sends no heartbeats.
pub(super) fn shares(rows: &[&Row]) -> Vec<Option<f64>> {
    let takes_part = |row: &&Row| matches!(row.view.state, InstanceState::Passing | InstanceState::Draining);
    let spans = || {
        let spans = rows.iter().copied().filter(takes_part).filter_map(|row| row.samples.span());
        spans.filter(|(first, last)| first < last) // not one that has just joined
    };
    let newest = spans().map(|(_, last)| last).max();
    let is_current = |last: Timestamp| newest.is_some_and(|newest| newest.duration_since(last) <= MAX_LAG);
    let from = spans().filter(|span| is_current(span.1)).map(|(first, _)| first).max();
    let to = spans().filter(|span| is_current(span.1)).map(|(_, last)| last).min();
    let count = |row: &&Row| row.samples.between(from?, to?).filter(|_| from < to && takes_part(row));
    let counts: Vec<Option<f64>> = rows.iter().map(count).collect();
    let total: f64 = counts.iter().flatten().sum();
    counts.into_iter().map(|count| count.filter(|_| total > 0.0).map(|count| count / total)).collect()
}

#[cfg(test)]
pub(super) mod tests;
