//! Deregistration, draining, and the self-protection switch.

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
        by: Initiator,
    ) -> Result<EventOutcome, Refusal> {
        let Some(instance) = self.catalog.get(key) else { return Ok(EventOutcome::Unknown) };
        let current = instance.info.id();
        if id.is_some_and(|id| id != current) {
            return Err(Refusal::OlderStart { key: key.clone(), current: current.to_owned() });
        }
        let detail = if by == Initiator::Operator { "by an operator" } else { "" };
        self.remove(key, ReasonKind::Deregistered, detail);
        self.settle_protection();
        Ok(EventOutcome::Changed)
    }

    pub(super) fn drain(&mut self, key: &InstanceKey, on: bool) -> EventOutcome {
        let Some(instance) = self.catalog.get_mut(key) else { return EventOutcome::Unknown };
        if instance.drained == on {
            return EventOutcome::Unchanged;
        }
        instance.drained = on;
        let kind = if on { ReasonKind::Draining } else { ReasonKind::Undrained };
        instance.note(self.now, kind, "by an operator");
        self.changed(key, kind)
    }

    pub(super) fn set_protection(&mut self, on: bool) -> EventOutcome {
        if self.catalog.protection.enabled() == on {
            return EventOutcome::Unchanged;
        }
        self.catalog.protection.set_enabled(on);
        self.effects.push(Effect::ProtectionChanged);
        if !on {
            for key in self.held_back() {
                self.remove(&key, ReasonKind::Removed, "self-protection was switched off");
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
