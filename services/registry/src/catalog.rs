//! The catalogue: who is there, in which state, and who must be told.
//!
//! A state machine: [`Catalog::apply`] takes a moment and an event and returns effects as values. No IO, no clock,
//! no randomness, so the same events give the same catalogue anywhere, and several registries can later agree on
//! the events instead of on the state.
//!
//! Invariants, held by property tests:
//! - the revision grows with every change that anybody can see, and with nothing else;
//! - a list's revision is that of its last change; its dependents are told of each such change and of no other;
//! - an instance is there exactly from a `Register` or `Restore` to its removal: nothing else brings it back;
//! - memory is bounded by the instances, their wishes, and a fixed number of removed ones.
//!
//! Longer than most files here: every transition is in one place, so that the invariants can be read beside them;
//! what has a life of its own (lists, protection, one instance's record, reading) is in the modules below.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use hubspoke_protocol::{EVERY_SERVICE, Heartbeat, InstanceState, Load, ReasonKind, ServiceInfo, Status};

pub use self::event::{
    Applied, By, Change, Effect, Event, FlapPolicy, Joined, Outcome, Policy, ProtectionPolicy, Refusal,
    Saved, When,
};
use self::instance::Doubt;
pub use self::instance::{Instance, Record};
pub use self::key::Key;
pub use self::list::{List, Listed};
use self::protection::Protection;
pub use self::read::Protecting;
pub use self::time::Time;

mod event;
mod instance;
mod key;
mod list;
mod protection;
mod read;
mod time;

/// The catalogue. See the module's description.
#[derive(Debug)]
pub struct Catalog {
    policy: Policy,
    revision: u64,
    services: HashMap<Arc<str>, Service>,
    /// Dependents of every service.
    everywhere: BTreeSet<Key>,
    /// The newest revision of any list.
    newest_list: u64,
    /// The newest revision of any list whose service is no longer known: that of every such list from then on, so
    /// that no list's revision goes back when its service is forgotten or comes again.
    forgotten: u64,
    instances: usize,
    /// Instances whose last heartbeat failed.
    failing: usize,
    /// Instances whose removal self-protection holds back.
    held_back: usize,
    protection: Protection,
    /// Whether it was last announced that removals are held back.
    announced: bool,
    /// Removed instances, for a while, by the revision of their removal: oldest first.
    removed: BTreeMap<u64, Removed>,
}

#[derive(Debug, Default)]
struct Service {
    instances: BTreeMap<Arc<str>, Instance>,
    /// It has, or once had, an instance: it is a service, and not only a name that somebody requires.
    offered: bool,
    /// Who requires it by name.
    dependents: HashSet<Key>,
    list: Arc<List>,
    /// The revision of the list's last change; `list` is older where nobody has asked since.
    list_revision: u64,
    /// Its removed instances that are still shown, by address: where they stand among all those that are. None of
    /// them is in `instances`.
    removed: BTreeMap<Arc<str>, u64>,
}

#[derive(Debug)]
struct Removed {
    key: Key,
    at: Time,
    instance: Arc<Instance>,
}

impl Service {
    fn is_idle(&self) -> bool {
        self.instances.is_empty() && self.dependents.is_empty() && self.removed.is_empty()
    }

    fn list(&mut self) -> Arc<List> {
        if self.list.revision() != self.list_revision {
            let instances = self.instances.values().map(|instance| instance.listed.clone()).collect();
            self.list = Arc::new(List::new(self.list_revision, instances));
        }
        self.list.clone()
    }
}

impl Catalog {
    /// An empty catalogue.
    pub fn new(policy: Policy) -> Self {
        Self {
            protection: Protection::new(policy.protection.clone(), policy.interval),
            policy,
            revision: 0,
            services: HashMap::new(),
            everywhere: BTreeSet::new(),
            newest_list: 0,
            forgotten: 0,
            instances: 0,
            failing: 0,
            held_back: 0,
            announced: false,
            removed: BTreeMap::new(),
        }
    }

    /// Takes in what happened.
    ///
    /// # Errors
    /// [`Refusal`], and then nothing has changed.
    pub fn apply(&mut self, now: Time, event: Event) -> Result<Applied, Refusal> {
        let mut effects = Vec::new();
        let held_back = self.held_back;
        let outcome = match event {
            Event::Register(info) => self.register(now, info, &mut effects)?,
            Event::Deregister { key, id, by } => {
                self.deregister(now, &key, id.as_deref(), by, &mut effects)?
            }
            Event::Heartbeat { key, start, answer } => match answer {
                Ok(beat) => self.alive(now, &key, start, beat, &mut effects),
                Err(why) => self.missed(now, &key, start, &why, &mut effects),
            },
            Event::Unasked { key, start } => self.unasked(key, start, &mut effects),
            Event::Drain { key, on } => self.drain(now, &key, on, &mut effects),
            Event::Protect(on) => self.protect(now, on, &mut effects),
            Event::Restore(saved) => self.restore(now, saved, &mut effects)?,
        };
        if outcome != Outcome::Unknown {
            self.announce(now, held_back, &mut effects);
        }
        Ok(Applied { outcome, effects })
    }

    /// Says what is new about self-protection. An episode ends by its bound without an event, so the first event
    /// afterwards says so, before its own effects.
    fn announce(&mut self, now: Time, held_back_before: usize, out: &mut Vec<Effect>) {
        let protecting = self.protection.until(now).is_some();
        if self.announced != protecting {
            self.announced = protecting;
            out.insert(0, Effect::Protecting(protecting));
        }
        if self.held_back != held_back_before {
            out.push(Effect::ProtectionChanged);
        }
    }

    fn register(&mut self, now: Time, info: ServiceInfo, out: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        let known = self.services.get_mut(info.name.as_str());
        let known = known.and_then(|service| service.instances.get_mut(info.addr.as_str()));
        match known {
            Some(known) if known.info.id() != info.id() => self.replace(now, info, out),
            Some(known) if *known.info == info && !known.is_restored() => {
                let (start, info) = (known.start, known.info.clone());
                let key = Key::new(&info.name, &info.addr);
                out.push(Effect::Joined(Joined { key, start, info, revision: self.revision }));
                Ok(Outcome::Unchanged)
            }
            Some(_) => self.renew(now, info, out),
            None => self.add(now, info, out),
        }
    }

    /// The first start at an address that is not in the catalogue.
    fn add(&mut self, now: Time, info: ServiceInfo, out: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        self.check_room(&info)?;
        let key = Key::new(&info.name, &info.addr);
        let mut instance = Instance::new(now, self.revision + 1, Arc::new(info));
        if let Some(before) = self.take_removed(&key) {
            instance.flaps = before.flaps;
            instance.reasons = before.reasons;
        }
        instance.note(now, ReasonKind::Registered, "");
        self.doubt_flapping(now, &mut instance);
        self.insert(key, instance, When::Spread, ReasonKind::Registered, out);
        self.settle(now);
        Ok(Outcome::Changed)
    }

    /// Another start at an address that is in the catalogue.
    fn replace(&mut self, now: Time, info: ServiceInfo, out: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        self.check_services(&info)?;
        let key = Key::new(&info.name, &info.addr);
        let Some(old) = self.take(&key, out) else { return Ok(Outcome::Unknown) };
        let mut instance = Instance::new(now, self.revision + 1, Arc::new(info));
        instance.reasons = old.reasons;
        instance.flaps = old.flaps;
        instance.flapped(now, self.policy.flap.limit);
        instance.note(now, ReasonKind::Replaced, &format!("the start before was {:?}", old.info.id()));
        self.doubt_flapping(now, &mut instance);
        self.insert(key, instance, When::Spread, ReasonKind::Replaced, out);
        Ok(Outcome::Changed)
    }

    /// The same start with another wish or other facts, or one that was known from a snapshot file only.
    fn renew(&mut self, now: Time, info: ServiceInfo, out: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        self.check_services(&info)?;
        let key = Key::new(&info.name, &info.addr);
        let Some(instance) = self.get_mut(&key) else { return Ok(Outcome::Unknown) };
        let was_restored = instance.is_restored();
        let facts = instance.info.public() != info.public();
        let before = instance.info.clone();
        instance.info = Arc::new(info);
        if was_restored {
            instance.doubt = None;
            instance.note(now, ReasonKind::Recovered, "it renewed its registration");
        }
        let (start, info) = (instance.start, instance.info.clone());
        if !facts {
            // The push key alone: no change for anybody else, but lists must not hold the old info for ever.
            instance.listed = Arc::new(Listed::new(info.clone(), instance.listed.state()));
        }
        if before.required_services != info.required_services {
            self.unsubscribe(&key, &before);
            self.subscribe(&key, &info);
        }
        if was_restored || facts {
            let kind = if was_restored { ReasonKind::Recovered } else { ReasonKind::Registered };
            self.changed(&key, kind, out);
        }
        out.push(Effect::Joined(Joined { key, start, info, revision: self.revision }));
        Ok(Outcome::Changed)
    }

    fn restore(&mut self, now: Time, saved: Saved, out: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        let key = Key::new(&saved.info.name, &saved.info.addr);
        if self.get(&key).is_some() {
            return Ok(Outcome::Unchanged); // it was faster than the file
        }
        self.check_room(&saved.info)?;
        let mut instance = Instance::new(saved.registered, self.revision + 1, saved.info);
        if let Some(before) = self.take_removed(&key) {
            instance.flaps = before.flaps;
            instance.reasons = before.reasons;
        }
        instance.drained = saved.drained;
        instance.doubt = Some(Doubt::Restored(now + self.policy.restore_grace));
        instance.note(now, ReasonKind::Restored, "");
        self.insert(key, instance, When::Soon, ReasonKind::Restored, out);
        Ok(Outcome::Changed)
    }

    fn deregister(
        &mut self,
        now: Time,
        key: &Key,
        id: Option<&str>,
        by: By,
        out: &mut Vec<Effect>,
    ) -> Result<Outcome, Refusal> {
        let Some(instance) = self.get(key) else { return Ok(Outcome::Unknown) };
        let current = instance.info.id();
        if id.is_some_and(|id| id != current) {
            return Err(Refusal::OlderStart { key: key.clone(), current: current.to_owned() });
        }
        let detail = if by == By::Operator { "by an operator" } else { "" };
        self.remove(now, key, ReasonKind::Deregistered, detail, out);
        self.settle(now);
        Ok(Outcome::Changed)
    }

    fn alive(
        &mut self,
        now: Time,
        key: &Key,
        start: u64,
        beat: Option<Heartbeat>,
        out: &mut Vec<Effect>,
    ) -> Outcome {
        let Some(instance) = self.started(key, start) else { return Outcome::Unknown };
        let before = instance.state();
        instance.last_heartbeat = Some(now);
        // Who says nothing serves.
        instance.draining = beat.is_some_and(|beat| beat.status == Status::Draining);
        if let Some(beat) = beat {
            instance.load = Some(Load { requests: beat.requests, in_flight: beat.in_flight });
        }
        out.push(Effect::Heard { key: key.clone(), load: instance.load });
        let was_failing = instance.misses > 0;
        instance.misses = 0;
        let was_held_back = instance.doubt == Some(Doubt::HeldBack);
        // Those that were restored were all asked at once; from here on they are spread.
        let next = if instance.is_restored() { When::Spread } else { When::Interval };
        instance.doubt = match instance.doubt {
            Some(Doubt::Flapping(until)) if now < until => instance.doubt,
            _ => None,
        };
        let after = instance.state();
        let kind = match (before, after) {
            (before, after) if before == after => ReasonKind::Recovered,
            (_, InstanceState::Draining) => ReasonKind::Draining,
            (InstanceState::Draining, _) => ReasonKind::Undrained,
            _ => ReasonKind::Recovered,
        };
        if was_failing || before != after {
            let detail = if kind == ReasonKind::Recovered { "it answers heartbeats" } else { "it says so" };
            instance.note(now, kind, detail);
        }
        out.push(Effect::Beat { key: key.clone(), start, when: next });
        self.failing -= usize::from(was_failing);
        self.held_back -= usize::from(was_held_back);
        self.settle(now);
        if before == after {
            return Outcome::Unchanged;
        }
        self.changed(key, kind, out);
        Outcome::Changed
    }

    fn missed(&mut self, now: Time, key: &Key, start: u64, why: &str, out: &mut Vec<Effect>) -> Outcome {
        let attempts = self.policy.attempts.max(1);
        let known = self.instances;
        let Some(instance) = self.started(key, start) else { return Outcome::Unknown };
        let newly = instance.misses == 0;
        if newly {
            instance.failing_since = now;
            instance.note(now, ReasonKind::MissedHeartbeat, why);
        }
        instance.misses = instance.misses.saturating_add(1);
        let (misses, since, doubt) = (instance.misses, instance.failing_since, instance.doubt);
        self.failing += usize::from(newly);
        let beat = |when| Effect::Beat { key: key.clone(), start, when };
        if misses < attempts {
            out.push(beat(When::Gap));
            return Outcome::Unchanged;
        }
        if let Some(Doubt::Restored(until) | Doubt::Silent(until)) = doubt
            && now < until
        {
            out.push(beat(When::Interval));
            return self.silent(now, key, start, until, why, out);
        }
        if self.protection.holds_back(now, since, known, self.failing) {
            out.push(beat(When::Interval));
            return self.hold_back(now, key, start, why, out);
        }
        let detail = format!("{misses} heartbeats missed, the last: {why}");
        let limit = self.policy.flap.limit;
        if let Some(instance) = self.started(key, start) {
            instance.flapped(now, limit);
        }
        self.remove(now, key, ReasonKind::Removed, &detail, out);
        self.protection.lost(now);
        self.settle(now);
        Outcome::Changed
    }

    /// A restored instance has used up its attempts: it keeps its grace, but callers use it last.
    fn silent(
        &mut self,
        now: Time,
        key: &Key,
        start: u64,
        until: Time,
        why: &str,
        out: &mut Vec<Effect>,
    ) -> Outcome {
        let restored = self.started(key, start).filter(|of| matches!(of.doubt, Some(Doubt::Restored(_))));
        let Some(instance) = restored else { return Outcome::Unchanged };
        instance.doubt = Some(Doubt::Silent(until));
        instance.note(now, ReasonKind::HeldBack, &format!("not heard since the restart: {why}"));
        self.changed(key, ReasonKind::HeldBack, out);
        Outcome::Changed
    }

    /// Says nothing about the instance: it is asked again.
    fn unasked(&mut self, key: Key, start: u64, out: &mut Vec<Effect>) -> Outcome {
        if self.started(&key, start).is_none() {
            return Outcome::Unknown;
        }
        out.push(Effect::Beat { key, start, when: When::Gap });
        Outcome::Unchanged
    }

    fn hold_back(&mut self, now: Time, key: &Key, start: u64, why: &str, out: &mut Vec<Effect>) -> Outcome {
        let Some(instance) = self.started(key, start) else { return Outcome::Unknown };
        let before = instance.state();
        if instance.doubt == Some(Doubt::HeldBack) {
            return Outcome::Unchanged;
        }
        instance.doubt = Some(Doubt::HeldBack);
        instance.note(now, ReasonKind::HeldBack, why);
        let after = instance.state();
        self.held_back += 1;
        if before == after {
            return Outcome::Unchanged;
        }
        self.changed(key, ReasonKind::HeldBack, out);
        Outcome::Changed
    }

    fn drain(&mut self, now: Time, key: &Key, on: bool, out: &mut Vec<Effect>) -> Outcome {
        let Some(instance) = self.get_mut(key) else { return Outcome::Unknown };
        if instance.drained == on {
            return Outcome::Unchanged;
        }
        instance.drained = on;
        let kind = if on { ReasonKind::Draining } else { ReasonKind::Undrained };
        instance.note(now, kind, "by an operator");
        self.changed(key, kind, out);
        Outcome::Changed
    }

    fn protect(&mut self, now: Time, on: bool, out: &mut Vec<Effect>) -> Outcome {
        if self.protection.enabled() == on {
            return Outcome::Unchanged;
        }
        self.protection.set_enabled(on);
        out.push(Effect::ProtectionChanged);
        if !on {
            for key in self.keys_held_back() {
                self.remove(now, &key, ReasonKind::Removed, "self-protection was switched off", out);
            }
        }
        Outcome::Changed
    }

    fn keys_held_back(&self) -> Vec<Key> {
        let all = self.services.iter().flat_map(|(name, service)| {
            service.instances.iter().map(move |(addr, instance)| (name, addr, instance))
        });
        let held = all.filter(|(_, _, instance)| instance.doubt == Some(Doubt::HeldBack));
        let mut keys: Vec<_> =
            held.map(|(name, addr, _)| Key { name: name.clone(), addr: addr.clone() }).collect();
        keys.sort(); // a hash map's order is no order
        keys
    }

    /// Ends an episode of self-protection that its reason has left. Called at whatever shows that it may have, so
    /// that the next episode is one of its own.
    fn settle(&mut self, now: Time) {
        self.protection.settle(now, self.instances, self.failing);
    }

    fn doubt_flapping(&self, now: Time, instance: &mut Instance) {
        if let Some(until) = instance.flapping(now, &self.policy.flap) {
            instance.doubt = Some(Doubt::Flapping(until));
            let hold = self.policy.flap.hold.as_secs();
            instance.note(
                now,
                ReasonKind::HeldBack,
                &format!("it came and went too often: suspect for {hold} s"),
            );
        }
    }

    fn check_room(&self, info: &ServiceInfo) -> Result<(), Refusal> {
        if self.instances >= self.policy.max_instances {
            return Err(Refusal::TooManyInstances(self.instances));
        }
        self.check_services(info)
    }

    /// Whether there is room for the services that it would make known.
    fn check_services(&self, info: &ServiceInfo) -> Result<(), Refusal> {
        let required =
            info.required_services.iter().filter(|name| *name != EVERY_SERVICE && **name != info.name);
        let new =
            required.chain([&info.name]).filter(|name| !self.services.contains_key(name.as_str())).count();
        if new > 0 && self.services.len() + new > self.policy.max_services {
            return Err(Refusal::TooManyServices(self.services.len()));
        }
        Ok(())
    }

    fn insert(
        &mut self,
        key: Key,
        mut instance: Instance,
        when: When,
        kind: ReasonKind,
        out: &mut Vec<Effect>,
    ) {
        instance.relist();
        let (start, info) = (instance.start, instance.info.clone());
        self.subscribe(&key, &info);
        let service = self.service(key.name.clone());
        service.offered = true;
        service.instances.insert(key.addr.clone(), instance);
        self.instances += 1;
        self.list_changed(&key, kind, out);
        out.push(Effect::Beat { key: key.clone(), start, when });
        out.push(Effect::Joined(Joined { key, start, info, revision: self.revision }));
    }

    /// Takes an instance out of the index, without a trace or a revision of its own.
    fn take(&mut self, key: &Key, out: &mut Vec<Effect>) -> Option<Instance> {
        let instance = self.services.get_mut(&key.name)?.instances.remove(&key.addr)?;
        self.instances -= 1;
        self.failing -= usize::from(instance.misses > 0);
        self.held_back -= usize::from(instance.doubt == Some(Doubt::HeldBack));
        self.unsubscribe(key, &instance.info);
        out.push(Effect::Left { key: key.clone(), start: instance.start });
        Some(instance)
    }

    fn remove(&mut self, now: Time, key: &Key, kind: ReasonKind, detail: &str, out: &mut Vec<Effect>) {
        let Some(mut instance) = self.take(key, out) else { return };
        instance.note(now, kind, detail);
        let instance = Arc::new(instance);
        self.bump_list(&key.name, out);
        if let Some(service) = self.services.get_mut(&key.name) {
            service.removed.insert(key.addr.clone(), self.revision);
        }
        self.removed.insert(self.revision, Removed { key: key.clone(), at: now, instance: instance.clone() });
        out.push(Effect::Change(Change { revision: self.revision, kind, instance, gone: true }));
        self.forget_removed(now);
    }

    fn take_removed(&mut self, key: &Key) -> Option<Instance> {
        let at = self.services.get_mut(&key.name)?.removed.remove(&key.addr)?;
        self.removed.remove(&at).map(|removed| Arc::unwrap_or_clone(removed.instance))
    }

    /// Forgets removed instances that were shown for long enough, or that are too many.
    fn forget_removed(&mut self, now: Time) {
        let (most, keep) = (self.policy.removed_max, self.policy.removed_for);
        while let Some((_, oldest)) = self.removed.first_key_value() {
            if self.removed.len() <= most && now.since(oldest.at) < keep {
                return;
            }
            let Some((_, Removed { key: Key { name, addr }, .. })) = self.removed.pop_first() else { return };
            if let Some(service) = self.services.get_mut(&name) {
                service.removed.remove(&addr);
            }
            self.drop_idle(&name);
        }
    }

    fn subscribe(&mut self, key: &Key, info: &ServiceInfo) {
        for name in &info.required_services {
            if name == EVERY_SERVICE {
                self.everywhere.insert(key.clone());
            } else {
                self.service(name.as_str()).dependents.insert(key.clone());
            }
        }
    }

    fn unsubscribe(&mut self, key: &Key, info: &ServiceInfo) {
        self.everywhere.remove(key);
        for name in &info.required_services {
            if let Some(service) = self.services.get_mut(name.as_str()) {
                service.dependents.remove(key);
            }
            if *name != *key.name {
                self.drop_idle(name);
            }
        }
    }

    /// A service, known from here on.
    fn service(&mut self, name: impl Into<Arc<str>>) -> &mut Service {
        let unknown = || Service { list_revision: self.forgotten, ..Service::default() };
        self.services.entry(name.into()).or_insert_with(unknown)
    }

    fn drop_idle(&mut self, name: &str) {
        if self.services.get(name).is_some_and(Service::is_idle) {
            let idle = self.services.remove(name);
            self.forgotten = self.forgotten.max(idle.map_or(0, |service| service.list_revision));
        }
    }

    /// An instance is not what it was: a new revision, and its dependents are told where they can see it.
    fn changed(&mut self, key: &Key, kind: ReasonKind, out: &mut Vec<Effect>) {
        if self.get_mut(key).is_some_and(Instance::relist) {
            self.list_changed(key, kind, out);
        } else {
            self.revision += 1;
            self.tell(key, kind, out);
        }
    }

    fn list_changed(&mut self, key: &Key, kind: ReasonKind, out: &mut Vec<Effect>) {
        self.bump_list(&key.name, out);
        self.tell(key, kind, out);
    }

    fn bump_list(&mut self, name: &Arc<str>, out: &mut Vec<Effect>) {
        self.revision += 1;
        self.newest_list = self.revision;
        if let Some(service) = self.services.get_mut(name) {
            service.list_revision = self.revision;
        }
        out.push(Effect::ListChanged(name.clone()));
    }

    fn tell(&self, key: &Key, kind: ReasonKind, out: &mut Vec<Effect>) {
        if let Some(instance) = self.get(key) {
            let instance = Arc::new(instance.clone());
            out.push(Effect::Change(Change { revision: self.revision, kind, instance, gone: false }));
        }
    }

    fn get(&self, key: &Key) -> Option<&Instance> {
        self.services.get(&key.name)?.instances.get(&key.addr)
    }

    fn get_mut(&mut self, key: &Key) -> Option<&mut Instance> {
        self.services.get_mut(&key.name)?.instances.get_mut(&key.addr)
    }

    fn started(&mut self, key: &Key, start: u64) -> Option<&mut Instance> {
        self.get_mut(key).filter(|instance| instance.start == start)
    }
}

#[cfg(test)]
mod tests;
