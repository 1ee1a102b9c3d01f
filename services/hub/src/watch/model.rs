//! What a watcher knows: the instances with their rates, what has happened, and whether the registry is there.
//! Pure: events in, the time as a parameter. How it is sorted and shown is not this module's affair.

use std::collections::{BTreeMap, VecDeque};

use hubspoke_protocol::{
    CatalogView, ChangeView, InstanceState, InstanceView, LoadView, ProtectionView, Reason, ReasonKind,
    Revision,
};
use jiff::{SignedDuration, Timestamp};

use super::feed::Update;
use super::samples::Samples;

/// Happenings that are kept.
const MAX_HAPPENINGS: usize = 200;
/// Reasons that are kept of one instance.
const MAX_REASONS: usize = 50;
/// Removed instances are shown for so long.
const SHOW_REMOVED: SignedDuration = SignedDuration::from_secs(60);
/// An instance whose last heartbeat is so much older than another's does not hold up what is known of shares.
const UNHEARD: SignedDuration = SignedDuration::from_secs(20);
/// Rates of a service, one a second, that are kept.
const MAX_HISTORY: usize = 120;

/// Service name and address: what makes an instance.
pub(super) type Key = (String, String);

/// What a watcher knows.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    pub(super) rows: BTreeMap<Key, Row>,
    /// The newest first.
    pub(super) happenings: VecDeque<Happening>,
    pub(super) link: Link,
    pub(super) revision: Option<Revision>,
    pub(super) protection: Option<ProtectionView>,
    /// Requests per second of each service, one value a second.
    history: BTreeMap<String, VecDeque<f64>>,
}

/// One instance.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) view: InstanceView,
    pub(super) samples: Samples,
}

/// Something that happened to an instance, or (without one) to the registry.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Happening {
    pub(super) at: Timestamp,
    pub(super) what: String,
    /// `service/instance`, or `registry`.
    pub(super) whom: String,
    pub(super) detail: String,
    pub(super) grave: bool,
}

/// Whether the registry is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Link {
    /// Nothing has come yet.
    #[default]
    Connecting,
    /// What is shown is how it is.
    Live,
    /// What is shown is how it was.
    Away { since: Timestamp, why: String },
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

    /// How often it has come back after it was thought dead.
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

    /// When it was removed.
    fn removed_at(&self) -> Option<Timestamp> {
        let last = self.view.reasons.last().filter(|_| self.is_removed())?;
        last.at.parse().ok()
    }
}

impl Model {
    /// The stream is open again. What was known still holds, unless a snapshot says otherwise.
    pub(super) fn open(&mut self, now: Timestamp) {
        if let Link::Away { .. } = self.link {
            self.happened(now, "registry".to_owned(), "is back".to_owned(), String::new(), false);
        }
        self.link = Link::Live;
    }

    /// The stream is not open.
    pub(super) fn away(&mut self, why: String, now: Timestamp) {
        match &mut self.link {
            Link::Away { why: known, .. } => *known = why,
            Link::Connecting | Link::Live => {
                self.happened(now, "registry".to_owned(), "is away".to_owned(), why.clone(), true);
                self.link = Link::Away { since: now, why };
            }
        }
    }

    /// Takes in what the registry says.
    pub(super) fn apply(&mut self, update: Update, now: Timestamp) {
        match update {
            Update::Snapshot(catalog) => self.snapshot(catalog, now),
            Update::Change(change) => self.change(*change, now),
            Update::Load(load) => self.load(load, now),
            Update::Protection(protection) => {
                let said = crate::admin::said(&protection);
                self.happened(now, "registry".to_owned(), said.trim_end().to_owned(), String::new(), true);
                self.protection = Some(protection);
            }
        }
    }

    fn snapshot(&mut self, catalog: CatalogView, now: Timestamp) {
        let other_epoch = self.revision.is_some_and(|known| known.epoch != catalog.revision.epoch);
        if other_epoch {
            let what = "has lost its state; members register again".to_owned();
            self.happened(now, "registry".to_owned(), what, String::new(), true);
        }
        self.link = Link::Live;
        self.revision = Some(catalog.revision);
        self.protection = catalog.protection;
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

    /// A change tells only its own reason; those before it are known already.
    fn change(&mut self, change: ChangeView, now: Timestamp) {
        self.revision = Some(change.revision);
        let mut view = change.instance;
        let key = (view.info.name.clone(), view.info.addr.clone());
        let detail = view.reasons.last().map(|reason| reason.detail.clone()).unwrap_or_default();
        let (what, grave) = said(change.kind);
        self.happened(now, format!("{}/{}", view.info.name, view.info.id()), what.to_owned(), detail, grave);
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
            for (addr, heard) in instances {
                let Some(row) = self.rows.get_mut(&(service.clone(), addr)) else { continue };
                row.view.last_heartbeat = Some(heard.last_heartbeat);
                row.view.load = heard.load.or(row.view.load);
                row.sample(now);
            }
        }
    }

    /// A second has gone by.
    pub(super) fn second(&mut self, now: Timestamp) {
        self.forget_removed(now);
        // While the registry is away, what is shown is how it was.
        if self.link == Link::Live {
            self.rows.values_mut().for_each(|row| row.samples.age(now));
        }
        let mut rates: BTreeMap<String, f64> = BTreeMap::new();
        for ((service, _), row) in &self.rows {
            *rates.entry(service.clone()).or_default() += row.rate();
        }
        self.history.retain(|service, _| rates.contains_key(service));
        for (service, rate) in rates {
            let history = self.history.entry(service).or_default();
            history.push_back(rate);
            history.drain(..history.len().saturating_sub(MAX_HISTORY));
        }
    }

    /// Requests per second of a service, one value a second, the oldest first.
    pub(super) fn history(&self, service: &str) -> impl DoubleEndedIterator<Item = f64> {
        self.history.get(service).into_iter().flatten().copied()
    }

    fn forget_removed(&mut self, now: Timestamp) {
        let old = |row: &Row| row.removed_at().is_some_and(|at| now.duration_since(at) > SHOW_REMOVED);
        self.rows.retain(|_, row| !old(row));
    }

    fn happened(&mut self, at: Timestamp, whom: String, what: String, detail: String, grave: bool) {
        self.happenings.push_front(Happening { at, what, whom, detail, grave });
        self.happenings.truncate(MAX_HAPPENINGS);
    }
}

impl Row {
    /// Requests per second just now; none of a removed instance.
    pub(super) fn rate(&self) -> f64 {
        if self.is_removed() { 0.0 } else { self.samples.rate().unwrap_or(0.0) }
    }
}

/// Each instance's share of its service's requests, over the longest time within the last minute that the counters of
/// all of them are known for: heartbeats come at different times, and load that changes between them would else show as
/// an uneven share. Nothing for an instance that is not heard of.
pub(super) fn shares(rows: &[&Row]) -> Vec<Option<f64>> {
    let takes_part = |row: &&Row| matches!(row.view.state, InstanceState::Passing | InstanceState::Draining);
    let spans = || {
        let spans = rows.iter().copied().filter(takes_part).filter_map(|row| row.samples.span());
        spans.filter(|(first, last)| first < last) // one that has just joined
    };
    let newest = spans().map(|(_, last)| last).max();
    let is_heard = |last: Timestamp| newest.is_some_and(|newest| newest.duration_since(last) <= UNHEARD);
    let from = spans().filter(|span| is_heard(span.1)).map(|(first, _)| first).max();
    let to = spans().filter(|span| is_heard(span.1)).map(|(_, last)| last).min();
    let count = |row: &&Row| row.samples.between(from?, to?).filter(|_| from < to && takes_part(row));
    let counts: Vec<Option<f64>> = rows.iter().map(count).collect();
    let total: f64 = counts.iter().flatten().sum();
    counts.into_iter().map(|count| count.filter(|_| total > 0.0).map(|count| count / total)).collect()
}

/// What happened, in words, and whether somebody should look at it.
pub(crate) fn said(kind: ReasonKind) -> (&'static str, bool) {
    match kind {
        ReasonKind::Registered => ("registered", false),
        ReasonKind::Replaced => ("replaced by another start", false),
        ReasonKind::MissedHeartbeat => ("missed a heartbeat", true),
        ReasonKind::Recovered => ("recovered", false),
        ReasonKind::Removed => ("removed", true),
        ReasonKind::Deregistered => ("deregistered", false),
        ReasonKind::HeldBack => ("kept as suspect", true),
        ReasonKind::Restored => ("restored", false),
        ReasonKind::Draining => ("draining", false),
        ReasonKind::Undrained => ("takes requests again", false),
    }
}

#[cfg(test)]
pub(super) mod tests;
