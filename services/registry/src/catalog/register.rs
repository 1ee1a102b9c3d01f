//! Registrations: new instances, replacements and renewals.

use std::sync::Arc;

use hubspoke_protocol::{ReasonKind, ServiceInfo};

use super::effect::HeartbeatTiming;
use super::event::{EventOutcome, Refusal};
use super::instance::Warnings;
use super::key::{Incarnation, InstanceKey};
use super::list::ListedInstance;
use super::transition::Transition;

impl Transition<'_> {
    /// Whether there is room for another instance. If a store has taken it, that is decided.
    fn check_room(&self, info: &ServiceInfo) -> Result<(), Refusal> {
        if self.at.is_some() { Ok(()) } else { self.catalog.check_room(info) }
    }

    fn check_content(&self, info: &ServiceInfo) -> Result<(), Refusal> {
        if self.at.is_some() { Ok(()) } else { self.catalog.check_content(info) }
    }

    pub(super) fn register(
        &mut self,
        info: ServiceInfo,
        warnings: Warnings,
    ) -> Result<EventOutcome, Refusal> {
        let key = InstanceKey::new(&info.name, &info.addr);
        match self.catalog.get_mut(&key) {
            Some(known) if known.info.id() != info.id() => self.replace(key, info, warnings),
            Some(known) if **known.info == info && !known.is_restored() => {
                known.warnings = warnings;
                let (number, info) = (known.incarnation, Arc::clone(&known.info));
                self.registered(Incarnation { key, number }, info);
                Ok(EventOutcome::Unchanged)
            }
            Some(_) => self.renew(key, info, warnings),
            None => self.add(key, info, warnings),
        }
    }

    /// An instance at an address that is not in the catalogue.
    fn add(
        &mut self,
        key: InstanceKey,
        info: ServiceInfo,
        warnings: Warnings,
    ) -> Result<EventOutcome, Refusal> {
        self.check_room(&info)?;
        let mut instance = self.record(info);
        instance.warnings = warnings;
        if let Some(earlier) = self.catalog.take_removed(&key) {
            instance.inherit(earlier);
        }
        let (kind, detail, timing) = match self.mark {
            Some(mark) if mark.returned => {
                (ReasonKind::Recovered, "answers again after it was removed", HeartbeatTiming::Spread)
            }
            Some(mark) if mark.listed => (ReasonKind::Registered, "", HeartbeatTiming::Soon),
            _ => (ReasonKind::Registered, "", HeartbeatTiming::Now),
        };
        instance.note(self.now, kind, detail);
        if self.catalog.take_drain(&key, self.now) {
            instance.stay_drained(self.now);
        }
        instance.suspect_if_flapping(self.now, &self.catalog.settings.flap);
        let (of, info) = self.insert(key, instance, timing, kind);
        self.registered(of, info);
        self.settle_protection();
        Ok(EventOutcome::Changed)
    }

    /// Another process at an address that is in the catalogue.
    fn replace(
        &mut self,
        key: InstanceKey,
        info: ServiceInfo,
        warnings: Warnings,
    ) -> Result<EventOutcome, Refusal> {
        self.check_content(&info)?;
        let Some(earlier) = self.take(&key) else { return Ok(EventOutcome::Unknown) };
        let mut instance = self.record(info);
        instance.warnings = warnings;
        let detail = format!("previous Id: {:?}", earlier.info.instance_id());
        let drained = earlier.drained;
        instance.inherit(earlier);
        instance.count_flap(self.now, self.catalog.settings.flap.limit);
        instance.note(self.now, ReasonKind::Replaced, &detail);
        if drained {
            instance.stay_drained(self.now);
        }
        instance.suspect_if_flapping(self.now, &self.catalog.settings.flap);
        let (of, info) = self.insert(key, instance, HeartbeatTiming::Now, ReasonKind::Replaced);
        self.registered(of, info);
        Ok(EventOutcome::Changed)
    }

    /// The same process with something changed, or the first renewal of a restored instance.
    fn renew(
        &mut self,
        key: InstanceKey,
        info: ServiceInfo,
        warnings: Warnings,
    ) -> Result<EventOutcome, Refusal> {
        self.check_content(&info)?;
        let now = self.now;
        let info = self.catalog.memory.count(info);
        let Some(instance) = self.catalog.get_mut(&key) else { return Ok(EventOutcome::Unknown) };
        instance.warnings = warnings;
        let was_restored = instance.is_restored();
        let is_visible = instance.info.public() != info.public();
        let before = std::mem::replace(&mut instance.info, info);
        if was_restored {
            instance.suspicion = None;
            instance.note(now, ReasonKind::Recovered, "renewed its registration");
        }
        let (number, info) = (instance.incarnation, instance.info.clone());
        if !is_visible {
            // Only the push key differs. Dependents see no change, but lists must not keep the old info alive.
            instance.listed = Arc::new(ListedInstance::new(info.clone(), instance.listed.state));
        }
        self.catalog.hosts.remove(&key, &before);
        self.catalog.hosts.insert(&key, &info);
        if before.required_services != info.required_services {
            self.catalog.unsubscribe(&key, &before);
            self.catalog.subscribe(&key, &info);
        }
        if was_restored || is_visible {
            self.changed(&key, if was_restored { ReasonKind::Recovered } else { ReasonKind::Registered });
        }
        self.registered(Incarnation { key, number }, Arc::clone(&info));
        Ok(EventOutcome::Changed)
    }
}
