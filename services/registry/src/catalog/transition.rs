//! The steps that every change of the catalogue is made of.

use std::sync::Arc;

use hubspoke_protocol::{InstanceState, ReasonKind, ServiceInfo};

use super::effect::{Change, Effect, HeartbeatTiming, Registration};
use super::event::EventOutcome;
use super::instance::InstanceRecord;
use super::key::{Incarnation, InstanceKey};
use super::state::{Catalog, RemovedInstance};
use super::stored_change::StoredMark;
use super::time::Time;

/// One event being applied: the catalogue, the time, and the effects so far.
pub(super) struct Transition<'a> {
    pub(super) catalog: &'a mut Catalog,
    pub(super) now: Time,
    pub(super) effects: Vec<Effect>,
    /// The revision of the change, if a store made it.
    pub(super) at: Option<u64>,
    /// What the store says about the registration that is applied.
    pub(super) mark: Option<StoredMark>,
}

impl<'a> Transition<'a> {
    pub(super) fn new(catalog: &'a mut Catalog, now: Time) -> Self {
        Self { catalog, now, effects: Vec::new(), at: None, mark: None }
    }

    /// The revision of the next visible change.
    pub(super) fn next_revision(&self) -> u64 {
        self.at.unwrap_or(self.catalog.revision + 1)
    }

    /// The record of a new incarnation.
    pub(super) fn record(&self, info: impl Into<Arc<ServiceInfo>>) -> InstanceRecord {
        let info = self.catalog.memory.count(info);
        let mut record = InstanceRecord::new(self.now, self.next_revision(), info);
        if let Some(mark) = self.mark {
            record.registered = mark.registered;
            record.stored = mark.number;
        }
        if self.catalog.is_stored() {
            record.recorded = Some(InstanceState::Passing);
        }
        record
    }

    /// Adds an instance. The caller announces its registration.
    pub(super) fn insert(
        &mut self,
        key: InstanceKey,
        mut instance: InstanceRecord,
        timing: HeartbeatTiming,
        kind: ReasonKind,
    ) -> (Incarnation, Arc<ServiceInfo>) {
        instance.relist();
        let (number, info) = (instance.incarnation, Arc::clone(&instance.info));
        self.catalog.subscribe(&key, &info);
        self.catalog.hosts.insert(&key, &info);
        let service = self.catalog.service(key.name.clone());
        service.offered = true;
        service.instances.insert(key.addr.clone(), instance);
        self.catalog.instances += 1;
        self.list_changed(&key.name);
        self.publish(&key, kind);
        let of = Incarnation { key, number };
        if self.catalog.is_ours(&of.key) {
            self.schedule(of.clone(), timing);
        }
        (of, info)
    }

    /// Takes an instance out of the index, without a new revision or history entry.
    pub(super) fn take(&mut self, key: &InstanceKey) -> Option<InstanceRecord> {
        let instance = self.catalog.services.get_mut(&key.name)?.instances.remove(&key.addr)?;
        self.catalog.instances -= 1;
        self.catalog.failing -= usize::from(instance.misses > 0);
        self.catalog.held_back -= usize::from(instance.is_held_back());
        self.catalog.unsubscribe(key, &instance.info);
        self.catalog.hosts.remove(key, &instance.info);
        self.effects.push(Effect::Removed(Incarnation { key: key.clone(), number: instance.incarnation }));
        Some(instance)
    }

    /// Removes an instance and keeps it among the removed ones.
    pub(super) fn remove(&mut self, key: &InstanceKey, kind: ReasonKind, detail: &str) {
        let Some(mut instance) = self.take(key) else { return };
        instance.note(self.now, kind, detail);
        if instance.drained {
            self.catalog.drains.insert(key.clone(), self.now);
        }
        self.list_removed(key, instance, kind, self.now);
    }

    /// Puts an instance among the removed ones.
    pub(super) fn list_removed(
        &mut self,
        key: &InstanceKey,
        instance: InstanceRecord,
        kind: ReasonKind,
        at: Time,
    ) {
        let instance = Arc::new(instance);
        self.list_changed(&key.name);
        let revision = self.catalog.revision;
        if let Some(service) = self.catalog.services.get_mut(&key.name) {
            service.removed.insert(key.addr.clone(), (revision, key.clone()));
        }
        let removed =
            RemovedInstance { key: key.clone(), at, instance: instance.clone(), recheck_until: None };
        self.catalog.removed.insert((revision, key.clone()), removed);
        self.effects.push(Effect::Change(Change { revision, kind, instance, removed: true }));
        self.catalog.forget_removed(self.now);
    }

    /// Publishes a change of an instance, to its dependents too if they can see it.
    pub(super) fn changed(&mut self, key: &InstanceKey, kind: ReasonKind) -> EventOutcome {
        if self.catalog.get_mut(key).is_some_and(InstanceRecord::relist) {
            self.list_changed(&key.name);
        } else {
            self.catalog.revision = self.next_revision();
        }
        self.publish(key, kind);
        EventOutcome::Changed
    }

    pub(super) fn registered(&mut self, of: Incarnation, info: Arc<ServiceInfo>) {
        if !self.catalog.is_ours(&of.key) {
            return;
        }
        let revision = self.catalog.revision;
        let registration = Registration { of, info, revision };
        self.effects.push(match self.mark {
            Some(mark) if mark.returned => Effect::Returned(registration),
            _ => Effect::Registered(registration),
        });
    }

    pub(super) fn schedule(&mut self, to: Incarnation, timing: HeartbeatTiming) {
        self.effects.push(Effect::SendHeartbeat { to, timing });
    }

    /// Ends an episode of self-protection whose cause is gone. Called at every event that may show that, so that
    /// the next outage begins a new episode.
    pub(super) fn settle_protection(&mut self) {
        let failing = self.catalog.failing + self.catalog.failing_elsewhere;
        self.catalog.protection.settle(self.now, self.catalog.instances, failing);
    }

    /// Announces what has changed about self-protection. An episode reaches its time bound without an event, so the
    /// first event afterwards announces it, before its own effects.
    pub(super) fn announce_protection(&mut self, held_back_before: usize) {
        let protecting = self.catalog.protection.until(self.now).is_some();
        if self.catalog.announced_protecting != protecting {
            self.catalog.announced_protecting = protecting;
            self.effects.insert(0, Effect::Protecting(protecting));
        }
        if self.catalog.held_back != held_back_before {
            self.effects.push(Effect::ProtectionChanged);
        }
    }

    fn list_changed(&mut self, name: &Arc<str>) {
        self.catalog.revision = self.next_revision();
        self.catalog.newest_list = self.catalog.revision;
        if let Some(service) = self.catalog.services.get_mut(name) {
            service.list_revision = self.catalog.revision;
        }
        self.effects.push(Effect::ListChanged(name.clone()));
    }

    fn publish(&mut self, key: &InstanceKey, kind: ReasonKind) {
        if let Some(instance) = self.catalog.get(key) {
            let (revision, instance) = (self.catalog.revision, Arc::new(instance.clone()));
            self.effects.push(Effect::Change(Change { revision, kind, instance, removed: false }));
        }
    }
}
