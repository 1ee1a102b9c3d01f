use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

mod rules;

fn policy() -> Policy {
    Policy {
        interval: Duration::from_secs(5),
        attempts: 3,
        max_instances: 1000,
        max_services: 1000,
        removed_for: Duration::from_secs(600),
        removed_max: 4,
        restore_grace: Duration::from_secs(30),
        protection: ProtectionPolicy {
            enabled: true,
            share: 0.5,
            min_instances: 6,
            max: Duration::from_secs(120),
        },
        flap: FlapPolicy { limit: 2, window: Duration::from_secs(60), hold: Duration::from_secs(60) },
    }
}

/// What a test does. Small universes, so that events meet.
#[derive(Debug, Clone)]
enum Step {
    Register {
        name: u8,
        addr: u8,
        id: u8,
        required: Vec<u8>,
        fact: bool,
    },
    Deregister {
        name: u8,
        addr: u8,
        id: Option<u8>,
        operator: bool,
    },
    /// The outcome of one of the heartbeats that are under way.
    Beat {
        which: usize,
        answer: Answer,
    },
    /// The outcome of a heartbeat that is not: a late one, or one that was never sent.
    Stray {
        name: u8,
        addr: u8,
        start: u64,
        answer: Answer,
    },
    /// One of the heartbeats that are under way could not be sent.
    Unasked(usize),
    Drain {
        name: u8,
        addr: u8,
        on: bool,
    },
    Protect(bool),
    Restore {
        name: u8,
        addr: u8,
        required: Vec<u8>,
    },
    Wait(u16),
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    Plain,
    Serving,
    Draining,
    None,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = 0..4_u8;
    let addr = 0..4_u8;
    let required = || proptest::collection::vec(0..5_u8, 0..3);
    let answer = || {
        prop_oneof![
            3 => Just(Answer::None),
            1 => Just(Answer::Plain),
            1 => Just(Answer::Serving),
            1 => Just(Answer::Draining),
        ]
    };
    let step = prop_oneof![
        6 => (name.clone(), addr.clone(), 0..3_u8, required(), any::<bool>())
            .prop_map(|(name, addr, id, required, fact)| Step::Register { name, addr, id, required, fact }),
        2 => (name.clone(), addr.clone(), proptest::option::of(0..3_u8), any::<bool>())
            .prop_map(|(name, addr, id, operator)| Step::Deregister { name, addr, id, operator }),
        12 => (any::<usize>(), answer()).prop_map(|(which, answer)| Step::Beat { which, answer }),
        1 => (name.clone(), addr.clone(), 0..60_u64, answer())
            .prop_map(|(name, addr, start, answer)| Step::Stray { name, addr, start, answer }),
        1 => any::<usize>().prop_map(Step::Unasked),
        1 => (name.clone(), addr.clone(), any::<bool>())
            .prop_map(|(name, addr, on)| Step::Drain { name, addr, on }),
        1 => any::<bool>().prop_map(Step::Protect),
        1 => (name, addr, required())
            .prop_map(|(name, addr, required)| Step::Restore { name, addr, required }),
        3 => (0..9000_u16).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..120)
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", EVERY_SERVICE];

fn info(name: u8, addr: u8, id: Option<u8>, required: &[u8]) -> ServiceInfo {
    let mut required: Vec<_> = required.iter().map(|&i| NAMES[usize::from(i)].to_owned()).collect();
    required.sort();
    required.dedup();
    ServiceInfo {
        id: id.map(|id| format!("id-{id}")),
        required_services: required,
        ..ServiceInfo::new(NAMES[usize::from(name)], format!("10.0.0.{addr}:80"))
    }
}

fn key(name: u8, addr: u8) -> Key {
    Key::new(NAMES[usize::from(name)], &format!("10.0.0.{addr}:80"))
}

fn answer(answer: Answer) -> Result<Option<Heartbeat>, String> {
    match answer {
        Answer::Plain => Ok(None),
        Answer::Serving => Ok(Some(Heartbeat { status: Status::Serving, requests: 7, in_flight: 1 })),
        Answer::Draining => Ok(Some(Heartbeat { status: Status::Draining, requests: 8, in_flight: 0 })),
        Answer::None => Err("refused".into()),
    }
}

/// The world around a catalogue: what the effects so far have brought about.
#[derive(Default)]
struct World {
    now: i64,
    /// Who is there, by the effects.
    live: BTreeMap<Key, u64>,
    /// Heartbeats that are under way, one per live start.
    beats: BTreeSet<(Key, u64)>,
    /// What was last said of self-protection.
    protecting: bool,
    /// What each dependent was last told, by replies and notices.
    told: BTreeMap<Key, BTreeMap<String, String>>,
}

type Lists = BTreeMap<String, (u64, String)>;

fn lists(catalog: &mut Catalog) -> Lists {
    let mut text = |name: &&str| {
        let list = catalog.list(name);
        let json = String::from_utf8(list.json().to_vec()).unwrap();
        ((*name).to_owned(), (list.revision(), json))
    };
    NAMES[..4].iter().map(&mut text).collect()
}

impl World {
    fn event(&self, step: &Step) -> Option<Event> {
        Some(match step {
            Step::Register { name, addr, id, required, fact } => {
                let mut info = info(*name, *addr, Some(*id), required);
                if *fact {
                    info.meta.insert("zone".into(), "x".into());
                }
                Event::Register(info)
            }
            Step::Deregister { name, addr, id, operator } => Event::Deregister {
                key: key(*name, *addr),
                id: id.map(|id| format!("id-{id}")),
                by: if *operator { By::Operator } else { By::Itself },
            },
            Step::Beat { which, answer: a } => {
                let beats: Vec<_> = self.beats.iter().collect();
                let (key, start) = beats.get(which.checked_rem(beats.len())?)?;
                Event::Heartbeat { key: key.clone(), start: *start, answer: answer(*a) }
            }
            Step::Unasked(which) => {
                let (key, start) = self.beats.iter().nth(which.checked_rem(self.beats.len())?)?;
                Event::Unasked { key: key.clone(), start: *start }
            }
            Step::Stray { name, addr, start, answer: a } => {
                let (key, start) = (key(*name, *addr), *start);
                let is_real = self.beats.contains(&(key.clone(), start));
                (!is_real).then(|| Event::Heartbeat { key, start, answer: answer(*a) })?
            }
            Step::Drain { name, addr, on } => Event::Drain { key: key(*name, *addr), on: *on },
            Step::Protect(on) => Event::Protect(*on),
            Step::Restore { name, addr, required } => Event::Restore(Saved {
                info: info(*name, *addr, Some(9), required).into(),
                registered: Time::from_millis(-1000),
                drained: false,
            }),
            Step::Wait(_) => return None,
        })
    }

    fn step(&mut self, catalog: &mut Catalog, step: &Step) {
        if let Step::Wait(millis) = step {
            self.now += i64::from(*millis);
            return;
        }
        let Some(event) = self.event(step) else { return };
        let stray = matches!(step, Step::Stray { .. });
        if let Event::Heartbeat { key, start, .. } | Event::Unasked { key, start } = &event {
            self.beats.remove(&(key.clone(), *start));
        }
        let may_add = matches!(event, Event::Register(_) | Event::Restore(_));
        let (before, revision) = (lists(catalog), catalog.revision());
        let result = catalog.apply(Time::from_millis(self.now), event);
        let after = lists(catalog);
        let Ok(applied) = result else {
            assert_eq!((before, revision), (after, catalog.revision()), "a refusal changes nothing");
            return;
        };
        assert!(!stray || applied.effects.is_empty(), "an outcome of no heartbeat changes nothing");
        let protecting = catalog.protecting(Time::from_millis(self.now)).until.is_some();
        let keys_before: BTreeSet<_> = self.live.keys().cloned().collect();
        self.take(catalog, &applied, revision, &before, &after);
        assert!(applied.outcome == Outcome::Unknown || protecting == self.protecting, "what is true is said");
        let came_back = self.live.keys().any(|key| !keys_before.contains(key));
        assert!(may_add || !came_back, "nothing comes back by itself");
    }

    fn take(
        &mut self,
        catalog: &mut Catalog,
        applied: &Applied,
        revision: u64,
        before: &Lists,
        after: &Lists,
    ) {
        let mut noticed = BTreeSet::new();
        let mut last = revision;
        for effect in &applied.effects {
            match effect {
                Effect::ListChanged(name) => {
                    noticed.insert(name.to_string());
                }
                Effect::Joined(joined) => {
                    self.live.insert(joined.key.clone(), joined.start);
                    assert_eq!(joined.revision, catalog.revision(), "a reply is of the newest revision");
                    let lists = catalog.lists(&joined.info).into_iter();
                    let lists = lists.map(|(name, list)| {
                        (name.to_string(), String::from_utf8(list.json().to_vec()).unwrap())
                    });
                    self.told.insert(joined.key.clone(), lists.collect());
                }
                Effect::Left { key, start } => {
                    assert_eq!(self.live.remove(key), Some(*start), "who leaves was there");
                    self.beats.remove(&(key.clone(), *start));
                    self.told.remove(key);
                }
                Effect::Beat { key, start, .. } => {
                    assert!(self.beats.insert((key.clone(), *start)), "one heartbeat at a time");
                }
                Effect::Change(change) => {
                    assert!(change.revision > last, "each change has a revision of its own");
                    last = change.revision;
                }
                Effect::Protecting(on) => {
                    assert_ne!(self.protecting, *on, "said once");
                    self.protecting = *on;
                }
                Effect::ProtectionChanged | Effect::Heard { .. } => {}
            }
        }
        assert_eq!(last, catalog.revision(), "the revision grows with changes and nothing else");
        assert_eq!(applied.outcome == Outcome::Changed, last > revision || Self::is_quiet_change(applied));
        for (name, (revision_before, json_before)) in before {
            let (revision_after, json_after) = &after[name];
            assert!(revision_before <= revision_after, "a list's revision never goes back");
            if json_before != json_after {
                assert!(noticed.contains(name), "dependents of {name} are told");
            }
        }
        for name in &noticed {
            let (revision_after, json) = &after[name];
            assert!(*revision_after > revision, "a changed list has a new revision");
            for dependent in catalog.dependents(name) {
                // A start that has just joined knows already.
                self.told.get_mut(&dependent).unwrap().insert(name.clone(), json.clone());
            }
        }
    }

    /// Wishes, push keys and the switch of self-protection change without a revision.
    fn is_quiet_change(applied: &Applied) -> bool {
        applied.outcome == Outcome::Changed
    }

    fn check(&self, catalog: &mut Catalog) {
        assert_eq!(catalog.len(), self.live.len());
        let beating: BTreeSet<_> = self.live.iter().map(|(key, start)| (key.clone(), *start)).collect();
        assert_eq!(self.beats, beating, "exactly the live have a heartbeat under way");
        let (mut failing, mut held_back) = (0, 0);
        for (key, start) in &self.live {
            let (registered, info) = catalog.registered(key).unwrap();
            assert_eq!(registered, *start);
            failing += usize::from(catalog.get(key).unwrap().misses > 0);
            held_back += usize::from(catalog.get(key).unwrap().doubt == Some(Doubt::HeldBack));
            assert!(catalog.newest_for(&info) <= catalog.revision());
            for (name, list) in catalog.lists(&info) {
                let json = String::from_utf8(list.json().to_vec()).unwrap();
                assert_eq!(self.told[key].get(&*name), Some(&json), "{key} knows {name}");
            }
        }
        assert_eq!((catalog.failing(), catalog.held_back), (failing, held_back));
        assert!(catalog.removed.len() <= policy().removed_max);
        let mut indexed = 0;
        for (name, service) in &catalog.services {
            for (addr, at) in &service.removed {
                let removed = &catalog.removed[at].key;
                assert_eq!((&removed.name, &removed.addr), (name, addr));
                assert!(!service.instances.contains_key(addr), "it is gone or there, not both");
                indexed += 1;
            }
        }
        assert_eq!(catalog.removed.len(), indexed, "each removed instance is found by its key");
        for name in &NAMES[..4] {
            let wants = |key: &&Key| {
                let (_, info) = catalog.registered(key).unwrap();
                info.required_services.iter().any(|required| required == name || required == EVERY_SERVICE)
            };
            let expected: BTreeSet<_> = self.live.keys().filter(wants).cloned().collect();
            let dependents = catalog.dependents(name);
            assert_eq!(dependents.len(), expected.len(), "nobody is told twice");
            assert_eq!(dependents.into_iter().collect::<BTreeSet<_>>(), expected);
        }
        let idle = catalog.services.values().filter(|service| service.is_idle());
        assert_eq!(idle.count(), 0, "a service that nobody offers, wants or remembers is forgotten");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_events_keeps_index_revision_and_notices_consistent(steps in steps()) {
        let mut catalog = Catalog::new(policy());
        let mut world = World::default();
        for step in &steps {
            world.step(&mut catalog, step);
            world.check(&mut catalog);
        }
    }

    /// Whoever was told of every change up to some revision is brought up to date by the changed lists alone, or is
    /// known not to be. An empty list that it knows of a service that is forgotten since stays: nobody is there
    /// either way.
    #[test]
    fn changed_lists_bring_any_older_view_up_to_date(
        steps in steps(), from in 0..60_usize, everything in any::<bool>(),
    ) {
        let mut catalog = Catalog::new(policy());
        let mut world = World::default();
        let all = info(0, 0, None, if everything { &[4] } else { &[0, 1, 2, 3] });
        let text = |(name, list): (Arc<str>, Arc<List>)| (name.to_string(), list.json().clone());
        let mut view: Option<(u64, BTreeMap<String, Bytes>)> = None;
        for (i, step) in steps.iter().enumerate() {
            world.step(&mut catalog, step);
            if i == from {
                view = Some((catalog.revision(), catalog.lists(&all).into_iter().map(text).collect()));
            }
        }
        if let Some((since, mut view)) = view {
            let now: BTreeMap<_, _> = catalog.lists(&all).into_iter().map(text).collect();
            let Some(changed) = catalog.changed_lists(&all, since) else {
                prop_assert!(everything, "who names what it requires can always be told");
                prop_assert!(catalog.newest_for(&all) > since, "a heartbeat shows that it is behind");
                return Ok(());
            };
            view.extend(changed.into_iter().map(text));
            view.retain(|name, list| now.contains_key(name) || **list != *b"[]");
            prop_assert_eq!(view, now);
        }
    }
}
