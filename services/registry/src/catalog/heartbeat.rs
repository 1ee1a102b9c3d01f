//! Results of heartbeats: answered, missed, or not sent.

use hubspoke_protocol::{Heartbeat, InstanceState, ReasonKind};

use super::effect::{Effect, HeartbeatTiming};
use super::event::EventOutcome;
use super::instance::Suspicion;
use super::key::{Incarnation, InstanceKey};
use super::time::Time;
use super::transition::Transition;

impl Transition<'_> {
    pub(super) fn heartbeat_answered(&mut self, of: Incarnation, reply: Option<Heartbeat>) -> EventOutcome {
        let now = self.now;
        if !self.catalog.is_ours(&of.key) {
            return EventOutcome::Unknown;
        }
        let Some(instance) = self.catalog.get_incarnation(&of) else {
            return self.recheck_answered(of, reply);
        };
        let before = instance.state();
        let is_first = instance.last_heartbeat.is_none();
        instance.answered(now, reply);
        self.effects.push(Effect::HeartbeatAnswered {
            key: of.key.clone(),
            load: instance.load,
            at: now,
            own: true,
        });
        let was_failing = std::mem::take(&mut instance.misses) > 0;
        let was_held_back = instance.is_held_back();
        // The first was sent at once; from here on they are spread.
        let timing = if is_first { HeartbeatTiming::Spread } else { HeartbeatTiming::Interval };
        instance.suspicion = match instance.suspicion {
            Some(Suspicion::Flapping(until)) if now < until => instance.suspicion,
            _ => None,
        };
        let after = instance.state();
        let (kind, detail) = match (before, after) {
            (before, after) if before == after => (ReasonKind::Recovered, "answered a heartbeat"),
            (_, InstanceState::Draining) => (ReasonKind::Draining, "reported by the instance"),
            (InstanceState::Draining, _) => (ReasonKind::Undrained, "reported by the instance"),
            _ => (ReasonKind::Recovered, "answered a heartbeat"),
        };
        if was_failing || before != after {
            instance.note(now, kind, detail);
        }
        self.catalog.failing -= usize::from(was_failing);
        self.catalog.held_back -= usize::from(was_held_back);
        let key = of.key.clone();
        self.schedule(of, timing);
        self.settle_protection();
        if before == after { EventOutcome::Unchanged } else { self.changed(&key, kind) }
    }

    pub(super) fn heartbeat_missed(&mut self, of: Incarnation, why: &str) -> EventOutcome {
        let now = self.now;
        if !self.catalog.is_ours(&of.key) {
            return EventOutcome::Unknown;
        }
        let Some(instance) = self.catalog.get_incarnation(&of) else { return self.recheck_missed(of) };
        let is_first = instance.misses == 0;
        let is_unanswered = instance.last_heartbeat.is_none() && instance.suspicion.is_none();
        if is_first {
            instance.failing_since = now;
            instance.note(now, ReasonKind::MissedHeartbeat, why);
        }
        instance.misses = instance.misses.saturating_add(1);
        let (misses, since, suspicion) = (instance.misses, instance.failing_since, instance.suspicion);
        let catalog = &mut *self.catalog;
        catalog.failing += usize::from(is_first);
        let key = of.key.clone();
        if misses < catalog.settings.heartbeat.attempts.max(1) {
            self.schedule(of, HeartbeatTiming::Gap);
            return if is_unanswered { self.suspect_new(&key, why) } else { EventOutcome::Unchanged };
        }
        if let Some(Suspicion::Restored(until) | Suspicion::Silent(until)) = suspicion
            && now < until
        {
            self.schedule(of, HeartbeatTiming::Interval);
            return self.suspect_restored(&key, until, why);
        }
        let failing = catalog.failing + catalog.failing_elsewhere;
        if catalog.protection.holds_back(now, since, catalog.instances, failing) {
            self.schedule(of, HeartbeatTiming::Interval);
            return self.hold_back(&key, why);
        }
        let why = format!("{misses} heartbeats missed, last: {why}");
        if catalog.is_stored() {
            // Until the store has removed it, it may answer.
            self.propose_removal(&key, &why);
            self.schedule(of, HeartbeatTiming::Interval);
            return EventOutcome::Unchanged;
        }
        let limit = catalog.settings.flap.limit;
        if let Some(instance) = catalog.get_mut(&key) {
            instance.count_flap(now, limit);
        }
        self.remove_unresponsive(&key, &why);
        self.catalog.protection.count_removal(now);
        self.settle_protection();
        EventOutcome::Changed
    }

    /// Not a miss: the heartbeat is scheduled again.
    pub(super) fn heartbeat_not_sent(&mut self, of: Incarnation) -> EventOutcome {
        if self.catalog.get_incarnation(&of).is_none() && self.catalog.get_rechecked(&of).is_none() {
            return EventOutcome::Unknown;
        }
        self.schedule(of, HeartbeatTiming::Gap);
        EventOutcome::Unchanged
    }

    /// An instance that has answered no heartbeat yet is suspect until it does.
    fn suspect_new(&mut self, key: &InstanceKey, why: &str) -> EventOutcome {
        let Some(instance) = self.catalog.get_mut(key) else { return EventOutcome::Unknown };
        let before = instance.state();
        instance.suspicion = Some(Suspicion::Unanswered);
        instance.note(self.now, ReasonKind::HeldBack, &format!("has not answered yet: {why}"));
        let after = instance.state();
        if before == after { EventOutcome::Unchanged } else { self.changed(key, ReasonKind::HeldBack) }
    }

    /// A restored instance has used up its attempts: it is not removed before its grace ends, but dependents now see
    /// it as suspect.
    fn suspect_restored(&mut self, key: &InstanceKey, until: Time, why: &str) -> EventOutcome {
        let is_news = |suspicion| matches!(suspicion, Some(Suspicion::Restored(_)));
        let instance = self.catalog.get_mut(key).filter(|instance| is_news(instance.suspicion));
        let Some(instance) = instance else { return EventOutcome::Unchanged };
        instance.suspicion = Some(Suspicion::Silent(until));
        let detail = format!("no answer since the registry restarted: {why}");
        instance.note(self.now, ReasonKind::HeldBack, &detail);
        self.changed(key, ReasonKind::HeldBack)
    }

    /// Self-protection holds back the removal of an instance.
    fn hold_back(&mut self, key: &InstanceKey, why: &str) -> EventOutcome {
        let Some(instance) = self.catalog.get_mut(key) else { return EventOutcome::Unknown };
        if instance.is_held_back() {
            return EventOutcome::Unchanged;
        }
        let before = instance.state();
        instance.suspicion = Some(Suspicion::HeldBack);
        instance.note(self.now, ReasonKind::HeldBack, why);
        let after = instance.state();
        self.catalog.held_back += 1;
        if before == after { EventOutcome::Unchanged } else { self.changed(key, ReasonKind::HeldBack) }
    }
}
