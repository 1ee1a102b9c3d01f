//! Read access: lists for replies and pushes, the dependents of a service, the view, metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hubspoke_protocol::{EVERY_SERVICE, InstanceState, ServiceInfo};

use super::event::{SavedCatalog, SavedInstance};
use super::hosts;
use super::instance::InstanceRecord;
use super::key::{Incarnation, InstanceKey};
use super::list::InstanceList;
use super::state::{Catalog, ServiceEntry};
use super::time::Time;

/// The state of self-protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProtectionStatus {
    /// Whether it may hold back removals.
    pub(crate) enabled: bool,
    /// Until when it holds them back, if it does.
    pub(crate) until: Option<Time>,
    /// Instances whose removal is held back.
    pub(crate) held_back: usize,
}

impl Catalog {
    /// The revision of the newest change.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// The number of known services: those that have instances, had some recently, or are required.
    pub(crate) fn services(&self) -> usize {
        self.services.len()
    }

    /// The number of instances in each of these states, per service that has any.
    pub(crate) fn census<const N: usize>(&self, states: [InstanceState; N]) -> Vec<(Arc<str>, [u64; N])> {
        let count = |(name, service): (&Arc<str>, &ServiceEntry)| {
            let mut counts = [0; N];
            for instance in service.instances.values() {
                if let Some(i) = states.iter().position(|state| *state == instance.state()) {
                    counts[i] += 1;
                }
            }
            (name.clone(), counts)
        };
        // A name that is only required may be invented by its dependents.
        self.services.iter().filter(|(_, service)| !service.instances.is_empty()).map(count).collect()
    }

    /// The number of instances whose last heartbeat was missed.
    pub(crate) fn failing(&self) -> usize {
        self.failing
    }

    /// The list of one service; empty if the service is unknown.
    pub(crate) fn list(&mut self, name: &str) -> Arc<InstanceList> {
        let unknown = || Arc::new(InstanceList::new(self.forgotten, Vec::new()));
        self.services.get_mut(name).map_or_else(unknown, ServiceEntry::list)
    }

    /// The revision of one service's list. Does not build the list.
    pub(crate) fn list_revision(&self, name: &str) -> u64 {
        self.services.get(name).map_or(self.forgotten, |service| service.list_revision)
    }

    /// The lists of all services that a member requires. `*` stands for every service that has or had an instance.
    pub(crate) fn lists(&mut self, info: &ServiceInfo) -> Vec<(Arc<str>, Arc<InstanceList>)> {
        self.lists_since(info, None)
    }

    /// Those of its lists that have changed since a revision. `None` if they do not suffice: a member that requires
    /// every service may know one that was forgotten since, and only the full set of its lists shows that.
    pub(crate) fn changed_lists(
        &mut self,
        info: &ServiceInfo,
        since: u64,
    ) -> Option<Vec<(Arc<str>, Arc<InstanceList>)>> {
        let requires_all = info.required_services.iter().any(|name| name == EVERY_SERVICE);
        let is_complete = !requires_all || self.forgotten <= since;
        is_complete.then(|| self.lists_since(info, Some(since)))
    }

    fn lists_since(&mut self, info: &ServiceInfo, since: Option<u64>) -> Vec<(Arc<str>, Arc<InstanceList>)> {
        let is_due = |revision: u64| since.is_none_or(|since| revision > since);
        if info.required_services.iter().any(|name| name == EVERY_SERVICE) {
            let all = self.services.iter_mut().filter(|(_, service)| service.offered);
            let all = all.filter(|(_, service)| is_due(service.list_revision));
            let mut all: Vec<_> = all.map(|(name, service)| (name.clone(), service.list())).collect();
            all.sort_by(|a, b| a.0.cmp(&b.0));
            return all;
        }
        let mut lists = Vec::with_capacity(info.required_services.len());
        for name in &info.required_services {
            let list = self.list(name);
            if is_due(list.revision) {
                lists.push((Arc::from(name.as_str()), list));
            }
        }
        lists
    }

    /// The newest revision of any list that a member requires.
    pub(crate) fn newest_for(&self, info: &ServiceInfo) -> u64 {
        let of = |name: &String| {
            if name == EVERY_SERVICE {
                return self.newest_list;
            }
            self.list_revision(name)
        };
        info.required_services.iter().map(of).max().unwrap_or(0)
    }

    /// The number of instances of a service; `None` if the catalogue does not have the name.
    pub(crate) fn instances_of(&self, name: &str) -> Option<usize> {
        self.services.get(name).map(|service| service.instances.len())
    }

    /// The dependents of a service.
    pub(crate) fn dependents(&self, name: &str) -> Vec<InstanceKey> {
        let by_name = self.services.get(name).into_iter().flat_map(|service| &service.dependents);
        let named = by_name.filter(|key| !self.wildcard_dependents.contains(key));
        named.chain(&self.wildcard_dependents).cloned().collect()
    }

    /// The registration of an instance.
    pub(crate) fn registered(&self, key: &InstanceKey) -> Option<&Arc<ServiceInfo>> {
        self.get(key).map(|instance| &*instance.info)
    }

    /// The same, if the registered incarnation is this one.
    pub(crate) fn registered_as(&self, of: &Incarnation) -> Option<&Arc<ServiceInfo>> {
        self.get(&of.key).filter(|instance| instance.incarnation == of.number).map(|instance| &*instance.info)
    }

    /// The registration of the incarnation to which a heartbeat is to be sent, and whether it was removed and is only
    /// checked for its return.
    pub(crate) fn to_check(&self, of: &Incarnation) -> Option<(&Arc<ServiceInfo>, bool)> {
        let registered = self.registered_as(of).map(|info| (info, false));
        registered.or_else(|| self.get_rechecked(of).map(|removed| (&*removed.instance.info, true)))
    }

    /// Lists of the instances that were removed lately, of the services that a member requires: what it may still know
    /// wrongly after it was away.
    pub(crate) fn removed_lists(&self, info: &ServiceInfo) -> Vec<(Arc<str>, Arc<InstanceList>)> {
        let requires_all = info.required_services.iter().any(|name| name == EVERY_SERVICE);
        let is_required = |name: &str| requires_all || info.required_services.iter().any(|it| it == name);
        let required = self.services.iter().filter(|(name, _)| is_required(name));
        let listed = |service: &ServiceEntry| {
            let removed = service.removed.values().filter_map(|revision| self.removed.get(revision));
            removed.map(|removed| removed.instance.listed.clone()).collect()
        };
        required
            .map(|(name, service)| (name.clone(), Arc::new(InstanceList::new(0, listed(service)))))
            .collect()
    }

    /// The instance of a service with this address or id, or the only one whose id begins with this. An address also
    /// stands for a removed instance that is still shown, and for a drained one.
    pub(crate) fn find(&self, name: &str, addr_or_id: &str) -> Option<InstanceKey> {
        let drained = || Some(InstanceKey::new(name, addr_or_id)).filter(|key| self.drains.contains(key));
        let Some((name, service)) = self.services.get_key_value(name) else { return drained() };
        let by_addr = service.instances.get_key_value(addr_or_id).map(|(addr, _)| addr);
        let removed = || service.removed.get_key_value(addr_or_id).map(|(addr, _)| addr);
        let addr = by_addr.or_else(removed).or_else(|| by_id(service, addr_or_id));
        addr.map(|addr| InstanceKey { name: name.clone(), addr: addr.clone() }).or_else(drained)
    }

    /// All services, or those in `only`, with their instances sorted by address; `true` marks removed ones. Returns
    /// copies, which are cheap, so that callers can render them without holding the lock.
    pub(crate) fn snapshot(
        &self,
        now: Time,
        only: Option<&[String]>,
    ) -> BTreeMap<Arc<str>, Vec<(InstanceRecord, bool)>> {
        let gateways = self.gateways_hosts();
        let shown = |(name, service): (&Arc<str>, &ServiceEntry)| {
            let mut instances = self.shown(now, service);
            for (instance, _) in instances.iter_mut().filter(|(_, removed)| !removed) {
                hosts::add(&mut instance.warnings, self.host_warnings(&instance.info, &gateways));
            }
            (name.clone(), instances)
        };
        match only {
            None => self.services.iter().map(shown).collect(),
            Some(names) => {
                let known = names.iter().filter_map(|name| self.services.get_key_value(name.as_str()));
                known.map(shown).collect()
            }
        }
    }

    fn shown(&self, now: Time, service: &ServiceEntry) -> Vec<(InstanceRecord, bool)> {
        let live = service.instances.values().map(|instance| (instance.clone(), false));
        let removed = service.removed.values().filter_map(|at| self.removed.get(at));
        let fresh = removed.filter(|removed| now.since(removed.at) < self.settings.history.removed_for);
        let mut all: Vec<_> =
            live.chain(fresh.map(|removed| (InstanceRecord::clone(&removed.instance), true))).collect();
        all.sort_by(|(a, _), (b, _)| a.info.addr.cmp(&b.info.addr));
        all
    }

    /// What the snapshot file stores.
    pub(crate) fn saved(&self) -> SavedCatalog {
        let save = |instance: &InstanceRecord| SavedInstance {
            info: Arc::clone(&instance.info),
            registered: instance.registered,
            drained: instance.drained,
        };
        let instances = self.services.values().flat_map(|service| service.instances.values());
        let checked = self.removed.values().filter(|removed| removed.recheck_until.is_some());
        SavedCatalog {
            instances: instances.map(save).collect(),
            removed: checked.map(|removed| (save(&removed.instance), removed.at)).collect(),
            drains: self.drains.iter().map(|(key, since)| (key.clone(), since)).collect(),
            protection: self.protection.decision(),
        }
    }

    /// Another registry to ask about an instance, if several share a store.
    pub(crate) fn second(&self, key: &InstanceKey) -> Option<Arc<str>> {
        self.split.as_ref().and_then(|split| split.second(&key.name, &key.addr)).cloned()
    }

    /// How many of the instances are up to each registry, if several share a store.
    pub(crate) fn shares(&self) -> BTreeMap<Arc<str>, usize> {
        let mut shares = BTreeMap::new();
        if let Some(split) = &self.split {
            shares.extend(split.ids().iter().map(|id| (id.clone(), 0)));
            for (name, service) in &self.services {
                for addr in service.instances.keys() {
                    *shares.entry(split.owner(name, addr).clone()).or_insert(0) += 1;
                }
            }
        }
        shares
    }

    /// How long removed instances are shown or checked.
    pub(crate) fn keeps_removals_for(&self) -> Duration {
        self.settings.history.removed_for.max(self.settings.heartbeat.recheck)
    }

    /// The state of self-protection.
    pub(crate) fn protection(&self, now: Time) -> ProtectionStatus {
        let until = self.protection.until(now);
        ProtectionStatus { enabled: self.protection.enabled(), until, held_back: self.held_back }
    }
}

/// The address of the instance with this id, or of the only one whose id begins with it. One that may be dead gives way
/// to one that is not: a later run of it.
fn by_id<'a>(service: &'a ServiceEntry, wanted: &str) -> Option<&'a Arc<str>> {
    let (mut alive, mut suspect) = (Vec::new(), Vec::new());
    for (addr, instance) in &service.instances {
        let id = instance.info.instance_id();
        if id == wanted {
            return Some(addr);
        }
        if !wanted.is_empty() && id.starts_with(wanted) {
            let like = if instance.state() == InstanceState::Suspect { &mut suspect } else { &mut alive };
            like.push(addr);
        }
    }
    let like = if alive.is_empty() { suspect } else { alive };
    if let [addr] = like[..] { Some(addr) } else { None }
}
