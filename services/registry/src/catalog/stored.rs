//! Changes that a store has made. It decides what is in the catalogue then, so nothing here is refused, and all
//! registries that share it come to the same lists. Heartbeats lead to proposals, which come back as such changes.

use std::sync::Arc;

use hubspoke_protocol::{Heartbeat, InstanceState, Load, ReasonKind};

use super::effect::{Effect, HeartbeatTiming, Registration};
use super::event::{EventOutcome, Refusal};
use super::instance::Suspicion;
use super::key::{Incarnation, InstanceKey};
use super::proposal::{NewRegistration, NewRemoval, NewState, Proposal};
use super::split::Split;
use super::stored_change::{Departure, StoredChange, StoredMark, StoredRegistration, StoredState};
use super::time::Time;
use super::transition::Transition;

impl Transition<'_> {
    pub(super) fn stored(&mut self, revision: u64, change: StoredChange) -> Result<EventOutcome, Refusal> {
        self.at = Some(revision);
        Ok(match change {
            StoredChange::Registered(new) => return self.stored_registration(new),
            StoredChange::Removed(key, why) => self.stored_removal(&key, why),
            StoredChange::Lost(key) => self.lost(&key),
            StoredChange::State(key, state) => self.stored_state(&key, state),
            StoredChange::Drain(key, on) => self.stored_drain(&key, on),
            StoredChange::Protection(on) => {
                self.set_protection(on.unwrap_or(self.catalog.settings.protection.enabled))
            }
        })
    }

    fn stored_registration(&mut self, new: StoredRegistration) -> Result<EventOutcome, Refusal> {
        let StoredRegistration { info, warnings, registered, returned, number, listed } = new;
        let key = InstanceKey::new(&info.name, &info.addr);
        if let Some(known) = self.catalog.get_mut(&key)
            && known.info.id() == info.id()
        {
            known.stored = number;
            if **known.info == *info {
                known.warnings = warnings;
                return Ok(EventOutcome::Unchanged);
            }
        }
        self.mark = Some(StoredMark { registered, returned, number, listed });
        self.register(Arc::unwrap_or_clone(info), warnings)?;
        self.reconcile(&key);
        Ok(EventOutcome::Changed)
    }

    fn stored_removal(&mut self, key: &InstanceKey, why: Departure) -> EventOutcome {
        let (now, limit) = (self.now, self.catalog.settings.flap.limit);
        let missed = why.kind == ReasonKind::Removed;
        let Some(instance) = self.catalog.get_mut(key) else { return self.departed(key, why) };
        let is_core = instance.info.id.is_none();
        if missed {
            instance.count_flap(now, limit);
        }
        self.remove(key, why.kind, &why.detail);
        if missed {
            self.catalog.protection.count_removal(now);
            if is_core {
                self.recheck(key, HeartbeatTiming::Interval);
            }
        }
        self.settle_protection();
        EventOutcome::Changed
    }

    /// An instance that this registry does not have was removed: a while ago, or once more.
    fn departed(&mut self, key: &InstanceKey, why: Departure) -> EventOutcome {
        let now = self.now;
        if let Some(removed) = self.catalog.get_removed(key) {
            if why.kind == ReasonKind::Deregistered && removed.recheck_until.is_some() {
                Arc::make_mut(&mut removed.instance).note(now, why.kind, &why.detail);
                self.end_recheck(key);
            }
            return EventOutcome::Unchanged;
        }
        let Some(info) = why.info.filter(|_| now.since(why.at) < self.catalog.settings.history.removed_for)
        else {
            return EventOutcome::Unknown;
        };
        let is_checked = why.kind == ReasonKind::Removed && info.id.is_none();
        let mut instance = self.record(info);
        instance.registered = why.registered;
        instance.note(why.at, why.kind, &why.detail);
        self.catalog.service(key.name.clone()).offered = true;
        self.list_removed(key, instance, why.kind, why.at);
        if is_checked {
            self.recheck(key, HeartbeatTiming::Soon);
        }
        EventOutcome::Changed
    }

    fn lost(&mut self, key: &InstanceKey) -> EventOutcome {
        let Some(instance) = self.catalog.get_mut(key) else { return EventOutcome::Unknown };
        instance.stored = 0;
        self.reconcile(key);
        EventOutcome::Unchanged
    }

    fn stored_state(&mut self, key: &InstanceKey, new: StoredState) -> EventOutcome {
        let (now, is_ours) = (self.now, self.catalog.is_ours(key));
        let Some(instance) = self.catalog.get_mut(key) else { return EventOutcome::Unknown };
        let before = instance.state();
        if !is_ours || instance.last_heartbeat.is_none() {
            // The judgement of whoever was in charge stands until there is an own one.
            instance.draining = new.state == InstanceState::Draining;
            instance.suspicion = (new.state == InstanceState::Suspect).then_some(Suspicion::Unanswered);
        }
        if instance.recorded == Some(new.state) {
            return EventOutcome::Unchanged;
        }
        instance.recorded = Some(new.state);
        let last = instance.reasons.back();
        if last.is_none_or(|last| last.kind != new.kind || *last.detail != *new.detail) {
            instance.note(now, new.kind, &new.detail);
        }
        let after = instance.state();
        if before == after { EventOutcome::Unchanged } else { self.changed(key, new.kind) }
    }

    fn stored_drain(&mut self, key: &InstanceKey, on: bool) -> EventOutcome {
        if on && self.catalog.get(key).is_none() && self.catalog.get_removed(key).is_none() {
            self.catalog.drains.insert(key.clone(), self.now);
            return EventOutcome::Changed;
        }
        self.drain(key, on)
    }

    /// The set of instances that this registry is in charge of has changed.
    pub(super) fn split(&mut self, split: Split) -> EventOutcome {
        let before = self.catalog.split.replace(split.clone());
        let moved = |key: &InstanceKey| {
            let was = before.as_ref().is_none_or(|before| before.is_ours(&key.name, &key.addr));
            let is = split.is_ours(&key.name, &key.addr);
            (was != is).then_some(is)
        };
        let mut effects = Vec::new();
        let revision = self.catalog.revision;
        for (name, service) in &mut self.catalog.services {
            for (addr, instance) in &mut service.instances {
                let key = InstanceKey { name: name.clone(), addr: addr.clone() };
                let Some(is_ours) = moved(&key) else { continue };
                // Nobody is removed because of a takeover: misses are counted anew.
                self.catalog.failing -= usize::from(std::mem::take(&mut instance.misses) > 0);
                if instance.is_held_back() {
                    self.catalog.held_back -= 1;
                    instance.suspicion = Some(Suspicion::Unanswered);
                }
                let of = Incarnation { key, number: instance.incarnation };
                if is_ours {
                    let info = Arc::clone(&instance.info);
                    effects.push(Effect::TakenOver(Registration { of: of.clone(), info, revision }));
                    effects.push(Effect::SendHeartbeat { to: of, timing: HeartbeatTiming::Soon });
                } else {
                    effects.push(Effect::Released(of));
                }
            }
        }
        for ((number, key), removed) in &self.catalog.removed {
            let of = Incarnation { key: key.clone(), number: *number };
            match moved(key).filter(|_| removed.recheck_until.is_some()) {
                Some(true) => {
                    effects.push(Effect::SendHeartbeat { to: of, timing: HeartbeatTiming::Soon });
                }
                Some(false) => effects.push(Effect::Released(of)),
                None => {}
            }
        }
        self.effects.extend(effects);
        EventOutcome::Unchanged
    }

    /// This registry could not reach the instance, but another one could.
    pub(super) fn vouched(&mut self, key: &InstanceKey, over: u64, reply: Option<Heartbeat>) -> EventOutcome {
        let now = self.now;
        let instance = self.catalog.get_mut(key).filter(|instance| instance.stored == over);
        let Some(instance) = instance else { return EventOutcome::Unknown };
        instance.answered(now, reply);
        let was_failing = std::mem::take(&mut instance.misses) > 0;
        let was_held_back = instance.is_held_back();
        if !matches!(instance.suspicion, Some(Suspicion::Flapping(until)) if now < until) {
            instance.suspicion = None;
        }
        instance.note(now, ReasonKind::Recovered, "answers another registry, though not this one");
        self.catalog.failing -= usize::from(was_failing);
        self.catalog.held_back -= usize::from(was_held_back);
        self.settle_protection();
        self.reconcile(key);
        EventOutcome::Unchanged
    }

    /// The state of an instance as the registry in charge knows it.
    pub(super) fn heard(&mut self, key: InstanceKey, id: &str, at: Time, load: Option<Load>) -> EventOutcome {
        if self.catalog.is_ours(&key) {
            return EventOutcome::Unchanged;
        }
        let instance = self.catalog.get_mut(&key).filter(|instance| instance.info.id() == id);
        let Some(instance) = instance else { return EventOutcome::Unknown };
        if instance.last_heartbeat.is_some_and(|last| last >= at) {
            return EventOutcome::Unchanged;
        }
        instance.last_heartbeat = Some(at);
        instance.load = load.or(instance.load);
        self.effects.push(Effect::HeartbeatAnswered { key, load: instance.load, at, own: false });
        EventOutcome::Unchanged
    }

    /// Asks the store for what it should have about an instance, if that differs from what it has. Done at each
    /// heartbeat, so that nothing is lost if the store can't be reached.
    pub(super) fn reconcile(&mut self, key: &InstanceKey) {
        if !self.catalog.is_stored() || !self.catalog.is_ours(key) {
            return;
        }
        let Some(instance) = self.catalog.get(key) else { return };
        let state = instance.judged();
        if instance.stored == 0 {
            let new = NewRegistration {
                info: Arc::clone(&instance.info),
                warnings: instance.warnings.clone(),
                registered: instance.registered,
                returned: false,
                over: 0,
                same_start: true,
            };
            self.effects.push(Effect::Propose(Proposal::Register(new)));
        } else if instance.recorded != Some(state) {
            let (kind, detail) = match (state, instance.recorded) {
                (InstanceState::Draining, _) => (ReasonKind::Draining, "reported by the instance"),
                (InstanceState::Suspect, _) => {
                    let last = instance.reasons.back().filter(|last| last.kind == ReasonKind::HeldBack);
                    (ReasonKind::HeldBack, last.map_or("", |last| &*last.detail))
                }
                (_, Some(InstanceState::Draining)) => (ReasonKind::Undrained, "reported by the instance"),
                _ => (ReasonKind::Recovered, "answered a heartbeat"),
            };
            let (of, detail) = (instance.stored, detail.to_owned());
            let new = NewState { key: key.clone(), of, state, kind, detail };
            self.effects.push(Effect::Propose(Proposal::State(new)));
        }
    }

    /// Asks the store for the removal of an instance that has missed its heartbeats.
    pub(super) fn propose_removal(&mut self, key: &InstanceKey, why: &str) {
        let Some(instance) = self.catalog.get(key) else { return };
        let new = NewRemoval {
            key: key.clone(),
            info: Arc::clone(&instance.info),
            registered: instance.registered,
            over: instance.stored,
            kind: ReasonKind::Removed,
            detail: why.to_owned(),
        };
        self.effects.push(Effect::Propose(Proposal::Remove(new)));
    }
}
