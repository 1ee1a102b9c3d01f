//! Core members that were removed for missed heartbeats. Such a member need not renew, so it might never notice. It is
//! sent heartbeats for a while longer, and is back when it answers one.

use std::sync::Arc;

use hubspoke_protocol::{Heartbeat, ReasonKind};

use super::effect::{Effect, HeartbeatTiming, Registration};
use super::event::EventOutcome;
use super::instance::InstanceRecord;
use super::key::{Incarnation, InstanceKey};
use super::proposal::{NewRegistration, Proposal};
use super::state::RemovedInstance;
use super::transition::Transition;

impl Transition<'_> {
    /// Removes an instance that has missed its heartbeats. A core member is checked further.
    pub(super) fn remove_unresponsive(&mut self, key: &InstanceKey, why: &str) {
        if self.catalog.is_stored() {
            return self.propose_removal(key, why);
        }
        let recheck = self.catalog.settings.heartbeat.recheck;
        let is_core = self.catalog.registered(key).is_some_and(|info| info.id.is_none());
        if !is_core || recheck.is_zero() {
            self.remove(key, ReasonKind::Removed, why);
            return;
        }
        let detail =
            format!("{why}; comes back if it answers within {}", humantime::format_duration(recheck));
        self.remove(key, ReasonKind::Removed, &detail);
        self.recheck(key, HeartbeatTiming::Interval);
    }

    /// Sends further heartbeats to a removed instance, under the number of its removal.
    pub(super) fn recheck(&mut self, key: &InstanceKey, timing: HeartbeatTiming) {
        let (now, recheck) = (self.now, self.catalog.settings.heartbeat.recheck);
        let revision = self.catalog.revision;
        let is_ours = self.catalog.is_ours(key);
        let Some(removed) = self.catalog.get_removed(key) else { return };
        let until = removed.at + recheck;
        if now < until {
            removed.recheck_until = Some(until);
            if is_ours {
                self.schedule(Incarnation { key: key.clone(), number: revision }, timing);
            }
        }
    }

    /// A removed instance answered a heartbeat: it is back.
    pub(super) fn recheck_answered(&mut self, of: Incarnation, reply: Option<Heartbeat>) -> EventOutcome {
        let now = self.now;
        let Some(removed) = self.catalog.get_rechecked(&of) else { return EventOutcome::Unknown };
        if removed.recheck_until.is_some_and(|until| until <= now) || self.is_taken(removed) {
            return self.end_recheck(&of.key);
        }
        if self.catalog.is_stored() {
            let new = NewRegistration {
                info: Arc::clone(&removed.instance.info),
                warnings: removed.instance.warnings.clone(),
                registered: removed.instance.registered,
                returned: true,
                over: 0,
                same_start: false,
            };
            self.effects.push(Effect::Propose(Proposal::Register(new)));
            self.schedule(of, HeartbeatTiming::Interval);
            return EventOutcome::Unchanged;
        }
        let info = removed.instance.info.clone(); // counted already, so only the number of instances can be too high
        if self.catalog.check_room(&info).is_err() {
            self.schedule(of, HeartbeatTiming::Interval);
            return EventOutcome::Unchanged;
        }
        let Some(earlier) = self.catalog.take_removed(&of.key) else { return EventOutcome::Unknown };
        let mut instance = InstanceRecord::new(earlier.registered, self.next_revision(), info);
        instance.warnings = earlier.warnings.clone();
        instance.inherit(earlier);
        instance.answered(now, reply);
        instance.note(now, ReasonKind::Recovered, "answers again after it was removed");
        if self.catalog.take_drain(&of.key, now) {
            instance.stay_drained(now);
        }
        instance.suspect_if_flapping(now, &self.catalog.settings.flap);
        let (of, info) = self.insert(of.key, instance, HeartbeatTiming::Spread, ReasonKind::Recovered);
        let revision = self.catalog.revision;
        self.effects.push(Effect::Returned(Registration { of, info, revision }));
        self.settle_protection();
        EventOutcome::Changed
    }

    /// A removed instance missed a heartbeat again.
    pub(super) fn recheck_missed(&mut self, of: Incarnation) -> EventOutcome {
        let now = self.now;
        let Some(removed) = self.catalog.get_rechecked(&of) else { return EventOutcome::Unknown };
        if removed.recheck_until.is_some_and(|until| until <= now) {
            return self.end_recheck(&of.key);
        }
        self.schedule(of, HeartbeatTiming::Interval);
        EventOutcome::Unchanged
    }

    /// Sends no further heartbeats to a removed instance.
    pub(super) fn end_recheck(&mut self, key: &InstanceKey) -> EventOutcome {
        let removed = self.catalog.get_removed(key);
        if removed.and_then(|removed| removed.recheck_until.take()).is_some() {
            self.effects.push(Effect::DecisionChanged);
        }
        EventOutcome::Unchanged
    }

    /// Whether the address now belongs to another service. Two services of one process may share an address, but then
    /// both were registered before.
    fn is_taken(&self, removed: &RemovedInstance) -> bool {
        let registered_later = |instance: &InstanceRecord| instance.registered > removed.at;
        let mut services = self.catalog.services.values();
        services.any(|service| service.instances.get(&removed.key.addr).is_some_and(registered_later))
    }
}
