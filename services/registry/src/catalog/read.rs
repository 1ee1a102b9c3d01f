//! What others may read of the catalogue: lists for replies and pushes, the dependents of a service, the view.

use std::collections::BTreeMap;
use std::sync::Arc;

use hubspoke_protocol::{EVERY_SERVICE, InstanceState, ServiceInfo};

use super::{Catalog, Instance, Key, List, Saved, Service, Time};

/// Self-protection as people are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protecting {
    /// Whether it may hold back removals.
    pub enabled: bool,
    /// Until when it does; `None` where it does not.
    pub until: Option<Time>,
    /// Instances whose removal is held back.
    pub held_back: usize,
}

impl Catalog {
    /// The newest change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Instances in it.
    pub fn len(&self) -> usize {
        self.instances
    }

    /// Whether it holds no instance.
    pub fn is_empty(&self) -> bool {
        self.instances == 0
    }

    /// Services that are known: they have instances, had some of late, or are required.
    pub fn services(&self) -> usize {
        self.services.len()
    }

    /// How many instances of each known service are in each of these states.
    pub fn census<const N: usize>(&self, states: [InstanceState; N]) -> Vec<(Arc<str>, [u64; N])> {
        let count = |(name, service): (&Arc<str>, &Service)| {
            let mut counts = [0; N];
            for instance in service.instances.values() {
                if let Some(i) = states.iter().position(|state| *state == instance.state()) {
                    counts[i] += 1;
                }
            }
            (name.clone(), counts)
        };
        self.services.iter().map(count).collect()
    }

    /// Instances whose last heartbeat failed.
    pub fn failing(&self) -> usize {
        self.failing
    }

    /// The list of one service; empty where it is not known.
    pub fn list(&mut self, name: &str) -> Arc<List> {
        let unknown = || Arc::new(List::new(self.forgotten, Vec::new()));
        self.services.get_mut(name).map_or_else(unknown, Service::list)
    }

    /// The revision of one service's list, without making the list.
    pub fn list_revision(&self, name: &str) -> u64 {
        self.services.get(name).map_or(self.forgotten, |service| service.list_revision)
    }

    /// The lists of everything that a member requires, by name. `*` stands for every service that is known.
    pub fn lists(&mut self, info: &ServiceInfo) -> Vec<(Arc<str>, Arc<List>)> {
        self.lists_since(info, None)
    }

    /// Those lists that have changed since a revision; `None` where they can't say all that has: a member that
    /// requires every service may know one that has been forgotten since. The whole of its lists tells it.
    pub fn changed_lists(&mut self, info: &ServiceInfo, since: u64) -> Option<Vec<(Arc<str>, Arc<List>)>> {
        let requires_all = info.required_services.iter().any(|name| name == EVERY_SERVICE);
        let tells_all = !requires_all || self.forgotten <= since;
        tells_all.then(|| self.lists_since(info, Some(since)))
    }

    fn lists_since(&mut self, info: &ServiceInfo, since: Option<u64>) -> Vec<(Arc<str>, Arc<List>)> {
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
            if is_due(list.revision()) {
                lists.push((Arc::from(name.as_str()), list));
            }
        }
        lists
    }

    /// The newest change of any list that a member requires.
    pub fn newest_for(&self, info: &ServiceInfo) -> u64 {
        let of = |name: &String| {
            if name == EVERY_SERVICE {
                return self.newest_list;
            }
            self.list_revision(name)
        };
        info.required_services.iter().map(of).max().unwrap_or(0)
    }

    /// Who must be told of a change of a service's list.
    pub fn dependents(&self, name: &str) -> Vec<Key> {
        let by_name = self.services.get(name).into_iter().flat_map(|service| &service.dependents);
        let named = by_name.filter(|key| !self.everywhere.contains(key));
        named.chain(&self.everywhere).cloned().collect()
    }

    /// The start that is registered, and what it registered.
    pub fn registered(&self, key: &Key) -> Option<(u64, Arc<ServiceInfo>)> {
        self.get(key).map(|instance| (instance.start, instance.info.clone()))
    }

    /// The instance of a service with that address or that `Id`.
    pub fn find(&self, name: &str, addr_or_id: &str) -> Option<Key> {
        let service = self.services.get(name)?;
        let by_id = || service.instances.iter().find(|(_, instance)| instance.info.id() == addr_or_id);
        let (addr, _) = service.instances.get_key_value(addr_or_id).or_else(by_id)?;
        let (name, _) = self.services.get_key_value(name)?;
        Some(Key { name: name.clone(), addr: addr.clone() })
    }

    /// Known services, these or all, with their instances and those removed of late, all sorted by address. Cloning
    /// an instance is cheap, so that the caller can render them when it no longer holds the catalogue.
    pub fn snapshot(&self, now: Time, only: Option<&[String]>) -> BTreeMap<Arc<str>, Vec<(Instance, bool)>> {
        let shown = |(name, service): (&Arc<str>, &Service)| (name.clone(), self.shown(now, service));
        match only {
            None => self.services.iter().map(shown).collect(),
            Some(names) => {
                let known = names.iter().filter_map(|name| self.services.get_key_value(name.as_str()));
                known.map(shown).collect()
            }
        }
    }

    fn shown(&self, now: Time, service: &Service) -> Vec<(Instance, bool)> {
        let live = service.instances.values().map(|instance| (instance.clone(), false));
        let removed = service.removed.values().filter_map(|at| self.removed.get(at));
        let fresh = removed.filter(|removed| now.since(removed.at) < self.policy.removed_for);
        let mut all: Vec<_> =
            live.chain(fresh.map(|removed| (Instance::clone(&removed.instance), true))).collect();
        all.sort_by(|(a, _), (b, _)| a.info.addr.cmp(&b.info.addr));
        all
    }

    /// What a snapshot file must hold.
    pub fn saved(&self) -> Vec<Saved> {
        let all = self.services.values().flat_map(|service| service.instances.values());
        let save = |instance: &Instance| Saved {
            info: instance.info.clone(),
            registered: instance.registered,
            drained: instance.drained,
        };
        all.map(save).collect()
    }

    /// Self-protection as it stands.
    pub fn protecting(&self, now: Time) -> Protecting {
        let until = self.protection.until(now);
        Protecting { enabled: self.protection.enabled(), until, held_back: self.held_back }
    }
}
