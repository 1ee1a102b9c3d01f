//! What must hold after each step of a random test.

use super::*;

/// A model of what surrounds the catalogue, built from its effects.
#[derive(Default)]
pub(super) struct Model {
    now: i64,
    /// The registered incarnations.
    live: BTreeSet<Incarnation>,
    /// Heartbeats in flight or scheduled: one per registered instance.
    heartbeats: BTreeSet<Incarnation>,
    /// Whether self-protection was last announced as active.
    protecting: bool,
    /// The lists that each dependent has, by service name.
    known: BTreeMap<InstanceKey, BTreeMap<String, String>>,
}

type Lists = BTreeMap<String, (u64, String)>;

fn lists(catalog: &mut Catalog) -> Lists {
    let mut text = |name: &&str| {
        let list = catalog.list(name);
        let json = String::from_utf8(list.json().to_vec()).unwrap();
        ((*name).to_owned(), (list.revision, json))
    };
    NAMES[..4].iter().map(&mut text).collect()
}

impl Catalog {
    /// The addresses that an operator drains.
    fn drained(&self) -> BTreeSet<InstanceKey> {
        let mut drained: BTreeSet<_> = self.drains.iter().map(|(key, _)| key.clone()).collect();
        for (name, service) in &self.services {
            let instances = service.instances.iter().filter(|(_, instance)| instance.drained);
            drained.extend(instances.map(|(addr, _)| InstanceKey { name: name.clone(), addr: addr.clone() }));
        }
        drained
    }
}

impl Model {
    fn event(&self, step: &Step) -> Option<CatalogEvent> {
        Some(match step {
            Step::Register { name, addr, id, required, fact } => {
                let mut info = info(*name, *addr, some_id(*id), required);
                if *fact {
                    info.meta.insert("zone".into(), "x".into());
                }
                registration(info)
            }
            Step::Deregister { name, addr, id, operator } => CatalogEvent::Deregister {
                key: key(*name, *addr),
                id: id.and_then(some_id).map(|id| format!("id-{id}")),
                by: if *operator { Initiator::Operator } else { Initiator::Instance(String::new()) },
            },
            Step::Result { which, answer: a } => {
                CatalogEvent::Heartbeat { of: self.nth_heartbeat(*which)?, result: answer(*a) }
            }
            Step::NotSent(which) => CatalogEvent::HeartbeatNotSent(self.nth_heartbeat(*which)?),
            Step::LateResult { name, addr, number, answer: a } => {
                let of = Incarnation { key: key(*name, *addr), number: *number };
                (!self.heartbeats.contains(&of))
                    .then(|| CatalogEvent::Heartbeat { of, result: answer(*a) })?
            }
            Step::Drain { name, addr, on } => CatalogEvent::Drain { key: key(*name, *addr), on: *on },
            Step::Protect(on) => CatalogEvent::SetProtection(*on),
            Step::Restore { name, addr, id, required, removed } => {
                let saved = SavedInstance {
                    info: info(*name, *addr, some_id(*id), required).into(),
                    registered: Time::from_millis(-1000),
                    drained: *removed % 2 == 0,
                };
                match removed {
                    0..2 => CatalogEvent::Restore(saved),
                    _ => CatalogEvent::RestoreRemoved(
                        SavedInstance { info: info(*name, *addr, None, required).into(), ..saved },
                        Time::from_millis(self.now - 500),
                    ),
                }
            }
            Step::Wait(_) => return None,
        })
    }

    fn nth_heartbeat(&self, n: usize) -> Option<Incarnation> {
        self.heartbeats.iter().nth(n.checked_rem(self.heartbeats.len())?).cloned()
    }

    pub(super) fn step(&mut self, catalog: &mut Catalog, step: &Step) {
        if let Step::Wait(millis) = step {
            self.now += i64::from(*millis);
            return;
        }
        let Some(event) = self.event(step) else { return };
        let is_late = matches!(step, Step::LateResult { .. });
        if let CatalogEvent::Heartbeat { of, .. } | CatalogEvent::HeartbeatNotSent(of) = &event {
            self.heartbeats.remove(of);
        }
        let may_add = match &event {
            CatalogEvent::Register(..) | CatalogEvent::Restore(_) => true,
            CatalogEvent::Heartbeat { of, result: Ok(_) } => catalog.get_rechecked(of).is_some(),
            _ => false,
        };
        let kept_drained = catalog.drained();
        let is_undrain = matches!(event, CatalogEvent::Drain { on: false, .. });
        let (before, revision) = (lists(catalog), catalog.revision());
        let result = catalog.apply(Time::from_millis(self.now), event);
        let after = lists(catalog);
        let Ok(applied) = result else {
            assert_eq!((before, revision), (after, catalog.revision()), "a refused event changes nothing");
            return;
        };
        assert!(!is_late || applied.effects.is_empty(), "an unexpected result changes nothing");
        let protecting = catalog.protection(Time::from_millis(self.now)).until.is_some();
        let before_keys: BTreeSet<_> = self.live.iter().map(|of| of.key.clone()).collect();
        self.follow(catalog, &applied, revision, &before, &after);
        assert!(
            applied.outcome == Unknown || protecting == self.protecting,
            "its current state is announced"
        );
        let was_added = self.live.iter().any(|of| !before_keys.contains(&of.key));
        assert!(may_add || !was_added, "only a registration or an answer after a removal adds an instance");
        let drained = catalog.drained();
        assert!(is_undrain || kept_drained.is_subset(&drained), "only an operator ends a drain");
    }

    fn follow(
        &mut self,
        catalog: &mut Catalog,
        applied: &EventResult,
        revision: u64,
        before: &Lists,
        after: &Lists,
    ) {
        let mut changed = BTreeSet::new();
        let mut last = revision;
        for effect in &applied.effects {
            match effect {
                Effect::Released(_) | Effect::TakenOver(_) | Effect::Propose(_) => {
                    panic!("only with a store")
                }
                Effect::ListChanged(name) => {
                    changed.insert(name.to_string());
                }
                // One that has returned is told everything.
                Effect::Registered(registration) | Effect::Returned(registration) => {
                    self.live.insert(registration.of.clone());
                    assert_eq!(registration.revision, catalog.revision(), "a reply has the newest revision");
                    let lists = catalog.lists(&registration.info).into_iter();
                    let lists = lists.map(|(name, list)| {
                        (name.to_string(), String::from_utf8(list.json().to_vec()).unwrap())
                    });
                    self.known.insert(registration.of.key.clone(), lists.collect());
                }
                Effect::Removed(of) => {
                    assert!(self.live.remove(of), "only what is registered is removed");
                    self.heartbeats.remove(of);
                    self.known.remove(&of.key);
                }
                Effect::SendHeartbeat { to, .. } => {
                    assert!(self.heartbeats.insert(to.clone()), "one heartbeat at a time");
                }
                Effect::Change(change) => {
                    assert!(change.revision > last, "each change has its own revision");
                    last = change.revision;
                }
                Effect::Protecting(on) => {
                    assert_ne!(self.protecting, *on, "announced once");
                    self.protecting = *on;
                }
                Effect::ProtectionChanged | Effect::DecisionChanged | Effect::HeartbeatAnswered { .. } => {}
            }
        }
        assert_eq!(last, catalog.revision(), "the revision grows with changes only");
        // Required services, push keys and the self-protection switch change without a revision.
        assert!(last == revision || applied.outcome == Changed, "a new revision is a change");
        for (name, (revision_before, json_before)) in before {
            let (revision_after, json_after) = &after[name];
            assert!(revision_before <= revision_after, "a list's revision never goes back");
            if json_before != json_after {
                assert!(changed.contains(name), "dependents of {name} are notified");
            }
        }
        for name in &changed {
            let (revision_after, json) = &after[name];
            assert!(*revision_after > revision, "a changed list has a new revision");
            for dependent in catalog.dependents(name) {
                // One that has just registered knows it already.
                self.known.get_mut(&dependent).unwrap().insert(name.clone(), json.clone());
            }
        }
    }

    pub(super) fn check(&self, catalog: &mut Catalog) {
        assert_eq!(catalog.instances, self.live.len());
        let rechecked = catalog.removed.iter().filter(|(_, removed)| removed.recheck_until.is_some());
        let rechecked: BTreeSet<_> = rechecked
            .map(|(number, removed)| {
                assert!(removed.instance.info.id.is_none(), "only core members are checked further");
                Incarnation { key: removed.key.clone(), number: number.0 }
            })
            .collect();
        let checked: BTreeSet<_> = self.live.union(&rechecked).cloned().collect();
        // Those of removed members that have registered meanwhile, or were forgotten, find nothing.
        let awaited = |of: &&Incarnation| checked.contains(of);
        let awaited: BTreeSet<_> = self.heartbeats.iter().filter(awaited).cloned().collect();
        assert_eq!(awaited, checked, "each instance that is checked has one heartbeat in flight");
        let (mut failing, mut held_back) = (0, 0);
        for of in &self.live {
            let (key, info) = (&of.key, catalog.registered_as(of).unwrap().clone());
            failing += usize::from(catalog.get(key).unwrap().misses > 0);
            held_back += usize::from(catalog.get(key).unwrap().is_held_back());
            assert!(catalog.newest_for(&info) <= catalog.revision());
            for (name, list) in catalog.lists(&info) {
                let json = String::from_utf8(list.json().to_vec()).unwrap();
                assert_eq!(self.known[key].get(&*name), Some(&json), "{key} knows {name}");
            }
        }
        assert_eq!((catalog.failing(), catalog.held_back), (failing, held_back));
        assert!(catalog.removed.len() <= settings().history.removed_max);
        let mut indexed = 0;
        for (name, service) in &catalog.services {
            for (addr, removal) in &service.removed {
                let removed = &catalog.removed[removal].key;
                assert_eq!((&removed.name, &removed.addr), (name, addr));
                assert!(!service.instances.contains_key(addr), "either removed or registered");
                indexed += 1;
            }
        }
        assert_eq!(catalog.removed.len(), indexed, "each removed instance is indexed");
        for name in &NAMES[..4] {
            let requires = |key: &&InstanceKey| {
                let info = catalog.registered(key).unwrap();
                info.required_services.iter().any(|required| required == name || required == EVERY_SERVICE)
            };
            let expected: BTreeSet<_> =
                self.live.iter().map(|of| &of.key).filter(requires).cloned().collect();
            let dependents = catalog.dependents(name);
            assert_eq!(dependents.len(), expected.len(), "no dependent is listed twice");
            assert_eq!(dependents.into_iter().collect::<BTreeSet<_>>(), expected);
        }
        let idle = catalog.services.values().filter(|service| service.is_idle());
        assert_eq!(idle.count(), 0, "an idle service is forgotten");
    }
}
