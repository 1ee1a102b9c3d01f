//! One instance with its state and history.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hubspoke_protocol::{Heartbeat, InstanceState, Load, ReasonKind, Status};

use super::counted::CountedInfo;
use super::list::ListedInstance;
use super::time::Time;
use crate::config::FlapSettings;

/// History entries kept per instance.
const MAX_REASONS: usize = 8;
/// Longest detail of a history entry, in bytes.
pub(crate) const MAX_DETAIL: usize = 200;
/// Gateways whose counts are kept per instance.
const MAX_GATEWAYS: usize = 8;

/// What is odd about a registration, for people. Bounded by whoever checks registrations.
pub(crate) type Warnings = Option<Arc<[String]>>;

/// One instance. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct InstanceRecord {
    /// The number of the incarnation: the revision at which it registered.
    pub(crate) incarnation: u64,
    /// Its registration, including the push key.
    pub(crate) info: CountedInfo,
    /// What is odd about its registration.
    pub(crate) warnings: Warnings,
    /// The instance as its dependents see it.
    pub(super) listed: Arc<ListedInstance>,
    /// When this incarnation registered.
    pub(crate) registered: Time,
    /// When it last answered a heartbeat.
    pub(crate) last_heartbeat: Option<Time>,
    /// Its load as last reported by itself, or else as gateways count it.
    pub(crate) load: Option<Load>,
    /// What each gateway, by its address, has counted.
    counted: Vec<(Arc<str>, Load)>,
    /// Consecutive missed heartbeats.
    pub(super) misses: u32,
    /// When the first of them was missed.
    pub(super) failing_since: Time,
    /// Why it is suspect, if it is.
    pub(super) suspicion: Option<Suspicion>,
    /// An operator drains it.
    pub(super) drained: bool,
    /// It reports that it drains.
    pub(super) draining: bool,
    /// Recent removals and replacements, for flap damping.
    pub(super) flaps: VecDeque<Time>,
    /// Its state as the store has it, if there is a store.
    pub(super) recorded: Option<InstanceState>,
    /// The revision of its registration in the store; 0 if it is not there.
    pub(super) stored: u64,
    /// Its history, oldest entry first.
    pub(crate) reasons: Arc<VecDeque<HistoryEntry>>,
}

/// Why an instance is suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suspicion {
    /// Restored from a snapshot file and not heard from since; not removed before this time. Its dependents still
    /// see it as passing, as it was when the file was written.
    Restored(Time),
    /// The same, but it has used up its attempts since, so its dependents see it as suspect.
    Silent(Time),
    /// It has missed its first heartbeat and answered none yet.
    Unanswered,
    /// It fails together with most others, so self-protection holds its removal back.
    HeldBack,
    /// It was removed or replaced too often; suspect until this time at least.
    Flapping(Time),
}

/// One entry of an instance's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HistoryEntry {
    /// When it happened.
    pub(crate) at: Time,
    /// What happened.
    pub(crate) kind: ReasonKind,
    /// Details for people; may be empty.
    pub(crate) detail: Arc<str>,
}

impl InstanceRecord {
    pub(super) fn new(now: Time, incarnation: u64, info: CountedInfo) -> Self {
        Self {
            incarnation,
            listed: Arc::new(ListedInstance::new(info.clone(), InstanceState::Passing)),
            info,
            warnings: None,
            registered: now,
            last_heartbeat: None,
            load: None,
            counted: Vec::new(),
            misses: 0,
            failing_since: now,
            suspicion: None,
            drained: false,
            draining: false,
            flaps: VecDeque::new(),
            recorded: None,
            stored: 0,
            reasons: Arc::default(),
        }
    }

    /// Takes over the history of the address from an earlier incarnation.
    pub(super) fn inherit(&mut self, earlier: Self) {
        self.flaps = earlier.flaps;
        self.reasons = earlier.reasons;
    }

    /// An operator drains its address, and goes on doing so for this incarnation.
    pub(super) fn stay_drained(&mut self, now: Time) {
        self.drained = true;
        self.note(now, ReasonKind::Draining, "still drained by an operator");
    }

    /// Whether it has not been heard from since it was restored from a snapshot file.
    pub(super) fn is_restored(&self) -> bool {
        matches!(self.suspicion, Some(Suspicion::Restored(_) | Suspicion::Silent(_)))
    }

    /// Whether self-protection holds its removal back.
    pub(super) fn is_held_back(&self) -> bool {
        self.suspicion == Some(Suspicion::HeldBack)
    }

    /// It answered a heartbeat. Without a body, or without a status in it, it counts as serving.
    pub(super) fn answered(&mut self, now: Time, reply: Option<Heartbeat>) {
        self.last_heartbeat = Some(now);
        self.draining = reply.is_some_and(|reply| reply.status == Status::Draining);
        // A load that is not reported is unknown, not none.
        let own = reply.and_then(|reply| reply.load());
        self.load = own.or_else(|| self.counted_load()).or(self.load);
    }

    /// A gateway has sent this much to it.
    pub(super) fn count(&mut self, gateway: &Arc<str>, load: Load) {
        if let Some((_, known)) = self.counted.iter_mut().find(|(known, _)| known == gateway) {
            *known = load;
        } else if self.counted.len() < MAX_GATEWAYS {
            self.counted.push((gateway.clone(), load));
        }
    }

    /// What all gateways have counted; `None` if there is none.
    fn counted_load(&self) -> Option<Load> {
        let loads = self.counted.iter().map(|(_, load)| *load);
        loads.reduce(|sum, load| Load {
            requests: sum.requests.saturating_add(load.requests),
            in_flight: sum.in_flight.zip(load.in_flight).map(|(sum, load)| sum.saturating_add(load)),
        })
    }

    /// Its state, as shown to people.
    pub(crate) fn state(&self) -> InstanceState {
        match self.recorded {
            _ if self.drained => InstanceState::Draining,
            Some(recorded) => recorded,
            None => self.judged(),
        }
    }

    /// Its state by its own heartbeats, whatever operators have decided.
    pub(super) fn judged(&self) -> InstanceState {
        if self.draining {
            InstanceState::Draining
        } else if self.suspicion.is_some() {
            InstanceState::Suspect
        } else {
            InstanceState::Passing
        }
    }

    /// Its state, as its dependents see it.
    pub(super) fn listed_state(&self) -> InstanceState {
        match (self.state(), self.suspicion) {
            (InstanceState::Suspect, Some(Suspicion::Restored(_))) => InstanceState::Passing,
            (state, _) => state,
        }
    }

    /// Updates what dependents see; returns whether that has changed.
    pub(super) fn relist(&mut self) -> bool {
        let same_info = Arc::ptr_eq(&self.listed.info, &self.info);
        if same_info && self.listed.state == self.listed_state() {
            return false;
        }
        self.listed = Arc::new(ListedInstance::new(self.info.clone(), self.listed_state()));
        true
    }

    /// Adds an entry to the history.
    pub(super) fn note(&mut self, at: Time, kind: ReasonKind, detail: &str) {
        let reasons = Arc::make_mut(&mut self.reasons);
        while reasons.len() >= MAX_REASONS {
            reasons.pop_front();
        }
        let cut = detail.floor_char_boundary(MAX_DETAIL);
        reasons.push_back(HistoryEntry { at, kind, detail: detail[..cut].into() });
    }

    /// Counts a removal or replacement. Older ones than the last `limit + 1` do not matter.
    pub(super) fn count_flap(&mut self, now: Time, limit: usize) {
        self.flaps.push_back(now);
        while self.flaps.len() > limit + 1 {
            self.flaps.pop_front();
        }
    }

    /// Makes it suspect if it was removed or replaced too often.
    pub(super) fn suspect_if_flapping(&mut self, now: Time, settings: &FlapSettings) {
        let recent = |at: &&Time| now.since(**at) < settings.window;
        if self.flaps.iter().filter(recent).count() <= settings.limit || settings.hold == Duration::ZERO {
            return;
        }
        self.suspicion = Some(Suspicion::Flapping(now + settings.hold));
        let detail = format!("removed or replaced too often; suspect for {} s", settings.hold.as_secs());
        self.note(now, ReasonKind::HeldBack, &detail);
    }
}
