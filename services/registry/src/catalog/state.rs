//! The state of the catalogue and its indexes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use hubspoke_protocol::{EVERY_SERVICE, ServiceInfo};

use super::counted::{self, InfoMemory};
use super::drains::StandingDrains;
use super::event::Refusal;
use super::host_index::HostIndex;
use super::instance::InstanceRecord;
use super::key::{Incarnation, InstanceKey};
use super::list::InstanceList;
use super::protection::SelfProtection;
use super::split::Split;
use super::time::Time;
use crate::config::Settings;

/// The catalogue: services with their instances, dependents and lists, under one revision.
#[derive(Debug)]
pub(crate) struct Catalog {
    pub(super) settings: Settings,
    pub(super) revision: u64,
    pub(super) services: HashMap<Arc<str>, ServiceEntry>,
    /// Dependents of every service (`*`).
    pub(super) wildcard_dependents: BTreeSet<InstanceKey>,
    /// Who asks for which host.
    pub(super) hosts: HostIndex,
    /// The newest revision of any list.
    pub(super) newest_list: u64,
    /// The newest list revision of any forgotten service. It is the list revision of all unknown services, so that
    /// the revision of a list never goes back when its service is forgotten or comes back.
    pub(super) forgotten: u64,
    /// The number of instances.
    pub(super) instances: usize,
    /// Instances whose last heartbeat was missed.
    pub(super) failing: usize,
    /// Instances whose removal self-protection holds back.
    pub(super) held_back: usize,
    pub(super) protection: SelfProtection,
    pub(super) drains: StandingDrains,
    /// What all registrations take up.
    pub(super) memory: InfoMemory,
    /// Whether removals were held back when that was last announced.
    pub(super) announced_protecting: bool,
    /// Removed instances that are still shown, by the revision of their removal: oldest first.
    pub(super) removed: BTreeMap<RemovalKey, RemovedInstance>,
    /// If a store decides what is in the catalogue: which part of it is this registry's to check and to notify.
    pub(super) split: Option<Split>,
    /// Instances that other registries find failing.
    pub(super) failing_elsewhere: usize,
}

#[derive(Debug, Default)]
pub(super) struct ServiceEntry {
    pub(super) instances: BTreeMap<Arc<str>, InstanceRecord>,
    /// It has or had an instance, so it is more than a required name.
    pub(super) offered: bool,
    /// Instances that require it by name.
    pub(super) dependents: HashSet<InstanceKey>,
    /// Built when it is read; older than `list_revision` until then.
    list: Arc<InstanceList>,
    /// The revision of the list's last change.
    pub(super) list_revision: u64,
    /// Its removed instances that are still shown: address → key in [`Catalog::removed`]. None of them is in
    /// `instances`.
    pub(super) removed: BTreeMap<Arc<str>, RemovalKey>,
}

/// A removal: its revision, and the instance, since a store may remove several at one revision.
pub(super) type RemovalKey = (u64, InstanceKey);

#[derive(Debug)]
pub(super) struct RemovedInstance {
    pub(super) key: InstanceKey,
    pub(super) at: Time,
    pub(super) instance: Arc<InstanceRecord>,
    /// Until when heartbeats are still sent to it, if they are.
    pub(super) recheck_until: Option<Time>,
}

impl ServiceEntry {
    pub(super) fn is_idle(&self) -> bool {
        self.instances.is_empty() && self.dependents.is_empty() && self.removed.is_empty()
    }

    pub(super) fn list(&mut self) -> Arc<InstanceList> {
        if self.list.revision != self.list_revision {
            let instances = self.instances.values().map(|instance| instance.listed.clone()).collect();
            self.list = Arc::new(InstanceList::new(self.list_revision, instances));
        }
        self.list.clone()
    }
}

impl Catalog {
    /// An empty catalogue.
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            protection: SelfProtection::new(settings.protection.clone(), settings.heartbeat.interval),
            settings,
            revision: 0,
            services: HashMap::new(),
            wildcard_dependents: BTreeSet::new(),
            hosts: HostIndex::default(),
            newest_list: 0,
            forgotten: 0,
            instances: 0,
            failing: 0,
            held_back: 0,
            announced_protecting: false,
            drains: StandingDrains::default(),
            memory: InfoMemory::default(),
            removed: BTreeMap::new(),
            split: None,
            failing_elsewhere: 0,
        }
    }

    pub(super) fn get(&self, key: &InstanceKey) -> Option<&InstanceRecord> {
        self.services.get(&key.name)?.instances.get(&key.addr)
    }

    pub(super) fn get_mut(&mut self, key: &InstanceKey) -> Option<&mut InstanceRecord> {
        self.services.get_mut(&key.name)?.instances.get_mut(&key.addr)
    }

    pub(super) fn get_incarnation(&mut self, of: &Incarnation) -> Option<&mut InstanceRecord> {
        self.get_mut(&of.key).filter(|instance| instance.incarnation == of.number)
    }

    /// The service, which is added if it is unknown.
    pub(super) fn service(&mut self, name: impl Into<Arc<str>>) -> &mut ServiceEntry {
        let unknown = || ServiceEntry { list_revision: self.forgotten, ..ServiceEntry::default() };
        self.services.entry(name.into()).or_insert_with(unknown)
    }

    /// Lets a store decide what is in the catalogue, which must be empty.
    pub(crate) fn share(&mut self, split: Split) {
        self.split = Some(split);
    }

    /// The store has another history from now on, in which this is the newest revision. All lists are of it.
    pub(crate) fn rebase(&mut self, revision: u64) {
        (self.revision, self.newest_list, self.forgotten) = (revision, revision, revision);
        for service in self.services.values_mut() {
            service.list_revision = revision;
            service.list = Arc::default();
        }
    }

    /// The store has changed up to this revision, visibly or not.
    pub(crate) fn advance(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    /// Ends the wait of a drain for an instance; returns whether it is still in force.
    pub(super) fn take_drain(&mut self, key: &InstanceKey, now: Time) -> bool {
        let is_stored = self.is_stored();
        self.drains.take(key, now, is_stored)
    }

    /// Whether a store decides what is in the catalogue.
    pub(super) fn is_stored(&self) -> bool {
        self.split.is_some()
    }

    /// Whether it is up to this registry to send heartbeats and pushes to an instance.
    pub(super) fn is_ours(&self, key: &InstanceKey) -> bool {
        self.split.as_ref().is_none_or(|split| split.is_ours(&key.name, &key.addr))
    }

    /// Whether there is room for another instance and the services that it adds.
    pub(super) fn check_room(&self, info: &ServiceInfo) -> Result<(), Refusal> {
        if self.instances >= self.settings.limits.instances {
            return Err(Refusal::TooManyInstances(self.instances));
        }
        self.check_content(info)
    }

    /// Whether there is room for what a registration says, and for the services that it adds.
    pub(super) fn check_content(&self, info: &ServiceInfo) -> Result<(), Refusal> {
        let max = self.settings.limits.memory.as_u64();
        if (self.memory.used() + counted::size(info)) as u64 > max {
            return Err(Refusal::TooMuchMemory(self.settings.limits.memory));
        }
        let required =
            info.required_services.iter().filter(|name| *name != EVERY_SERVICE && **name != info.name);
        let new =
            required.chain([&info.name]).filter(|name| !self.services.contains_key(name.as_str())).count();
        if new > 0 && self.services.len() + new > self.settings.limits.services {
            return Err(Refusal::TooManyServices(self.services.len()));
        }
        Ok(())
    }

    pub(super) fn subscribe(&mut self, key: &InstanceKey, info: &ServiceInfo) {
        for name in &info.required_services {
            if name == EVERY_SERVICE {
                self.wildcard_dependents.insert(key.clone());
            } else {
                self.service(name.as_str()).dependents.insert(key.clone());
            }
        }
    }

    pub(super) fn unsubscribe(&mut self, key: &InstanceKey, info: &ServiceInfo) {
        self.wildcard_dependents.remove(key);
        for name in &info.required_services {
            if let Some(service) = self.services.get_mut(name.as_str()) {
                service.dependents.remove(key);
            }
            if *name != *key.name {
                self.forget_if_idle(name);
            }
        }
    }

    /// The removed instance at this address, if it is still shown or checked.
    pub(super) fn get_removed(&mut self, key: &InstanceKey) -> Option<&mut RemovedInstance> {
        let removal = self.services.get(&key.name)?.removed.get(&key.addr)?;
        self.removed.get_mut(removal)
    }

    /// The removed instance to which heartbeats are sent under this number.
    pub(super) fn get_rechecked(&self, of: &Incarnation) -> Option<&RemovedInstance> {
        self.removed.get(&(of.number, of.key.clone())).filter(|removed| removed.recheck_until.is_some())
    }

    /// Takes a removed instance out of the history, for the next one at its address.
    pub(super) fn take_removed(&mut self, key: &InstanceKey) -> Option<InstanceRecord> {
        let removal = self.services.get_mut(&key.name)?.removed.remove(&key.addr)?;
        self.removed.remove(&removal).map(|removed| Arc::unwrap_or_clone(removed.instance))
    }

    /// Forgets removed instances that were shown and checked for long enough, or that are too many.
    pub(super) fn forget_removed(&mut self, now: Time) {
        let (max, keep) = (self.settings.history.removed_max, self.settings.history.removed_for);
        while let Some((_, oldest)) = self.removed.first_key_value() {
            let until = oldest.recheck_until.unwrap_or(oldest.at).max(oldest.at + keep);
            if self.removed.len() <= max && now < until {
                return;
            }
            let Some((_, oldest)) = self.removed.pop_first() else { return };
            if let Some(service) = self.services.get_mut(&oldest.key.name) {
                service.removed.remove(&oldest.key.addr);
            }
            self.forget_if_idle(&oldest.key.name);
        }
    }

    fn forget_if_idle(&mut self, name: &str) {
        if self.services.get(name).is_some_and(ServiceEntry::is_idle) {
            let idle = self.services.remove(name);
            self.forgotten = self.forgotten.max(idle.map_or(0, |service| service.list_revision));
        }
    }
}
