//! Deregistration, draining, and the self-protection switch.

use std::sync::Arc;

use hubspoke_protocol::ReasonKind;

use super::effect::Effect;
use super::event::{EventOutcome, Initiator, Refusal};
use super::key::InstanceKey;
use super::transition::Transition;

impl Transition<'_> {
    pub(super) fn deregister(
        &mut self,
        key: &InstanceKey,
        id: Option<&str>,
        by: &Initiator,
    ) -> Result<EventOutcome, Refusal> {
        let Some(instance) = self.catalog.get(key) else { return Ok(self.deregister_removed(key, by)) };
        let current = instance.info.instance_id();
        if id.is_some_and(|id| id != instance.info.id() && id != current) {
            return Err(Refusal::OlderStart { key: key.clone(), current: current.into_owned() });
        }
        self.remove(key, ReasonKind::Deregistered, by.detail());
        self.settle_protection();
        Ok(EventOutcome::Changed)
    }

    /// A removed instance that is still checked is not to come back.
    fn deregister_removed(&mut self, key: &InstanceKey, by: &Initiator) -> EventOutcome {
        let now = self.now;
        let Some(removed) = self.catalog.get_removed(key) else { return EventOutcome::Unknown };
        if removed.recheck_until.is_some() {
            Arc::make_mut(&mut removed.instance).note(now, ReasonKind::Deregistered, by.detail());
            self.end_recheck(key);
        }
        EventOutcome::Unchanged
    }

    pub(super) fn drain(&mut self, key: &InstanceKey, on: bool) -> EventOutcome {
        let Some(instance) = self.catalog.get_mut(key) else { return self.drain_absent(key, on) };
        if instance.drained == on {
            return EventOutcome::Unchanged;
        }
        instance.drained = on;
        let kind = if on { ReasonKind::Draining } else { ReasonKind::Undrained };
        instance.note(self.now, kind, "by an operator");
        self.changed(key, kind)
    }

    /// A drained address without an instance waits for the next one.
    fn drain_absent(&mut self, key: &InstanceKey, on: bool) -> EventOutcome {
        let (now, is_drained) = (self.now, self.catalog.drains.contains(key));
        let removed = self.catalog.get_removed(key);
        if removed.is_none() && !is_drained {
            return EventOutcome::Unknown;
        }
        if is_drained == on {
            return EventOutcome::Unchanged;
        }
        if let Some(removed) = removed {
            let kind = if on { ReasonKind::Draining } else { ReasonKind::Undrained };
            Arc::make_mut(&mut removed.instance).note(now, kind, "by an operator");
        }
        if on {
            self.catalog.drains.insert(key.clone(), now);
        } else {
            self.catalog.take_drain(key, now);
        }
        self.effects.push(Effect::DecisionChanged);
        EventOutcome::Changed
    }

    pub(super) fn set_protection(&mut self, on: bool) -> EventOutcome {
        if self.catalog.protection.enabled() == on {
            return EventOutcome::Unchanged;
        }
        self.catalog.protection.set_enabled(on);
        self.effects.extend([Effect::ProtectionChanged, Effect::DecisionChanged]);
        if !on {
            for key in self.held_back() {
                self.remove_unresponsive(&key, "self-protection was switched off");
            }
        }
        EventOutcome::Changed
    }

    fn held_back(&self) -> Vec<InstanceKey> {
        let mut keys = Vec::new();
        for (name, service) in &self.catalog.services {
            let held_back = service.instances.iter().filter(|(_, instance)| instance.is_held_back());
            keys.extend(held_back.map(|(addr, _)| InstanceKey { name: name.clone(), addr: addr.clone() }));
        }
        keys.sort(); // independent of the hash map's order
        keys
    }
}
