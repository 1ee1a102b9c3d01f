//! One instance with its state and history.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hubspoke_protocol::{InstanceState, Load, ReasonKind, ServiceInfo};

use super::list::Listed;
use super::{FlapPolicy, Time};

/// Reasons kept per instance: enough for the story of a bad hour, bounded for ever.
const MAX_REASONS: usize = 8;
/// Longest detail of a reason, in bytes.
const MAX_DETAIL: usize = 200;

/// One instance. Fields are as the catalogue left them; nothing here sends anything.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Which start: the revision at which it registered.
    pub start: u64,
    /// What it registered, its push key included.
    pub info: Arc<ServiceInfo>,
    /// The same as dependents see it.
    pub(super) listed: Arc<Listed>,
    /// When this start registered.
    pub registered: Time,
    /// When it last answered a heartbeat.
    pub last_heartbeat: Option<Time>,
    /// What that answer said of its load.
    pub load: Option<Load>,
    /// Failed heartbeats in a row.
    pub(super) misses: u32,
    /// When the first of them failed.
    pub(super) failing_since: Time,
    /// Why it may not be what it seems.
    pub(super) doubt: Option<Doubt>,
    /// An operator drained it.
    pub(super) drained: bool,
    /// It says of itself that it drains.
    pub(super) draining: bool,
    /// When it was removed or replaced of late; bounded by the flap limit.
    pub(super) flaps: VecDeque<Time>,
    /// The last reasons for change, oldest first; shared by those who only look at them.
    pub reasons: Arc<VecDeque<Record>>,
}

/// Why an instance is suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Known from a snapshot file only; not removed before that time. It was passing when it was written down, so
    /// callers go on with it: the registry doubts its own memory, not the instance.
    Restored(Time),
    /// The same, and it has used up its attempts since: the instance is doubted too.
    Silent(Time),
    /// It fails, with most others: the registry may be what is wrong.
    HeldBack,
    /// It came and went too often; suspect until then at least.
    Flapping(Time),
}

/// One reason for change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When.
    pub at: Time,
    /// What happened.
    pub kind: ReasonKind,
    /// More, for people.
    pub detail: Arc<str>,
}

impl Instance {
    pub(super) fn new(now: Time, start: u64, info: Arc<ServiceInfo>) -> Self {
        Self {
            start,
            listed: Arc::new(Listed::new(info.clone(), InstanceState::Passing)),
            info,
            registered: now,
            last_heartbeat: None,
            load: None,
            misses: 0,
            failing_since: now,
            doubt: None,
            drained: false,
            draining: false,
            flaps: VecDeque::new(),
            reasons: Arc::default(),
        }
    }

    /// Whether it is known from a snapshot file only.
    pub(super) fn is_restored(&self) -> bool {
        matches!(self.doubt, Some(Doubt::Restored(_) | Doubt::Silent(_)))
    }

    /// Whether callers should use it, as people are told.
    pub fn state(&self) -> InstanceState {
        if self.drained || self.draining {
            InstanceState::Draining
        } else if self.doubt.is_some() {
            InstanceState::Suspect
        } else {
            InstanceState::Passing
        }
    }

    /// The same as its dependents are told.
    pub(super) fn listed_state(&self) -> InstanceState {
        match (self.state(), self.doubt) {
            (InstanceState::Suspect, Some(Doubt::Restored(_))) => InstanceState::Passing,
            (state, _) => state,
        }
    }

    /// Makes what dependents see true again; says whether that is a change for them.
    pub(super) fn relist(&mut self) -> bool {
        let same_info = Arc::ptr_eq(self.listed.info(), &self.info);
        if same_info && self.listed.state() == self.listed_state() {
            return false;
        }
        self.listed = Arc::new(Listed::new(self.info.clone(), self.listed_state()));
        true
    }

    pub(super) fn note(&mut self, at: Time, kind: ReasonKind, detail: &str) {
        let reasons = Arc::make_mut(&mut self.reasons);
        while reasons.len() >= MAX_REASONS {
            reasons.pop_front();
        }
        let cut = detail.floor_char_boundary(MAX_DETAIL);
        reasons.push_back(Record { at, kind, detail: detail[..cut].into() });
    }

    /// Counts a removal or replacement. One more than the limit is all that need be remembered.
    pub(super) fn flapped(&mut self, now: Time, limit: usize) {
        self.flaps.push_back(now);
        while self.flaps.len() > limit + 1 {
            self.flaps.pop_front();
        }
    }

    /// Whether it came and went too often: until when it is suspect.
    pub(super) fn flapping(&self, now: Time, policy: &FlapPolicy) -> Option<Time> {
        let recent = |at: &&Time| now.since(**at) < policy.window;
        let count = self.flaps.iter().filter(recent).count();
        (count > policy.limit && policy.hold > Duration::ZERO).then(|| now + policy.hold)
    }
}
