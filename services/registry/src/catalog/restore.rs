//! What the snapshot file of an earlier run contained.

use hubspoke_protocol::ReasonKind;

use super::effect::{Effect, HeartbeatTiming};
use super::event::{EventOutcome, Refusal, SavedInstance};
use super::instance::Suspicion;
use super::key::InstanceKey;
use super::time::Time;
use super::transition::Transition;

impl Transition<'_> {
    pub(super) fn restore(&mut self, saved: SavedInstance) -> Result<EventOutcome, Refusal> {
        let key = InstanceKey::new(&saved.info.name, &saved.info.addr);
        if self.catalog.get(&key).is_some() {
            return Ok(EventOutcome::Unchanged);
        }
        self.catalog.check_room(&saved.info)?;
        let mut instance = self.record(saved.info);
        instance.registered = saved.registered;
        if let Some(earlier) = self.catalog.take_removed(&key) {
            instance.inherit(earlier);
        }
        instance.suspicion = Some(Suspicion::Restored(self.now + self.catalog.settings.restore_grace));
        instance.note(self.now, ReasonKind::Restored, "");
        if self.catalog.take_drain(&key, self.now) || saved.drained {
            instance.stay_drained(self.now);
        }
        let (of, info) = self.insert(key, instance, HeartbeatTiming::Soon, ReasonKind::Restored);
        self.registered(of, info);
        Ok(EventOutcome::Changed)
    }

    /// A core member that was removed for missed heartbeats at the time `at`.
    pub(super) fn restore_removed(
        &mut self,
        saved: SavedInstance,
        at: Time,
    ) -> Result<EventOutcome, Refusal> {
        let key = InstanceKey::new(&saved.info.name, &saved.info.addr);
        if self.catalog.get(&key).is_some() || self.catalog.get_removed(&key).is_some() {
            return Ok(EventOutcome::Unchanged);
        }
        self.catalog.check_room(&saved.info)?;
        let mut instance = self.record(saved.info);
        instance.registered = saved.registered;
        instance.note(at, ReasonKind::Removed, "before the registry restarted");
        self.catalog.service(key.name.clone()).offered = true;
        self.list_removed(&key, instance, ReasonKind::Restored, at);
        self.recheck(&key, HeartbeatTiming::Soon);
        Ok(EventOutcome::Changed)
    }

    pub(super) fn restore_decisions(
        &mut self,
        drains: Vec<(InstanceKey, Time)>,
        protection: Option<bool>,
    ) -> EventOutcome {
        for (key, since) in drains {
            self.catalog.drains.insert(key, since);
        }
        if let Some(on) = protection {
            self.catalog.protection.set_enabled(on);
            self.effects.push(Effect::ProtectionChanged);
        }
        EventOutcome::Changed
    }
}
