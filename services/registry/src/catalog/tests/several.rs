//! Several catalogues on one store, simulated: any order of calls, heartbeats, deliveries and faults, which is shrunk if it
//! fails.

use hubspoke_protocol::InstanceState;

use super::*;

use self::store::{Starts, Store};

mod store;

const REGISTRIES: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    /// A process starts at an address, or renews. Core members have no `Id`.
    Register {
        at: usize,
        addr: u8,
        core: bool,
        renews: bool,
    },
    Deregister {
        at: usize,
        addr: u8,
    },
    Heartbeat {
        at: usize,
        which: usize,
    },
    Deliver {
        at: usize,
        count: usize,
    },
    /// All that is in the store is read, as after a compaction.
    List(usize),
    Process {
        addr: u8,
        up: bool,
    },
    ToStore {
        at: usize,
        up: bool,
    },
    ToMembers {
        at: usize,
        up: bool,
    },
    Restart(usize),
    Wait(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = || 0..REGISTRIES;
    let addr = || 0..5_u8;
    let step = prop_oneof![
        4 => (at(), addr(), any::<bool>(), any::<bool>())
            .prop_map(|(at, addr, core, renews)| Step::Register { at, addr, core, renews }),
        1 => (at(), addr()).prop_map(|(at, addr)| Step::Deregister { at, addr }),
        12 => (at(), any::<usize>()).prop_map(|(at, which)| Step::Heartbeat { at, which }),
        8 => (at(), 1..4_usize).prop_map(|(at, count)| Step::Deliver { at, count }),
        1 => at().prop_map(Step::List),
        2 => (addr(), any::<bool>()).prop_map(|(addr, up)| Step::Process { addr, up }),
        1 => (at(), any::<bool>()).prop_map(|(at, up)| Step::ToStore { at, up }),
        1 => (at(), any::<bool>()).prop_map(|(at, up)| Step::ToMembers { at, up }),
        1 => at().prop_map(Step::Restart),
        2 => (0..5000_u16).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..150)
}

struct Registry {
    id: Arc<str>,
    catalog: Catalog,
    /// Entries of the log that it has applied.
    applied: usize,
    heartbeats: Vec<Incarnation>,
    reaches_store: bool,
    reaches_members: bool,
}

struct Simulation {
    now: i64,
    starts: usize,
    store: Store,
    registries: Vec<Registry>,
    /// The process at an address, and whether it answers.
    processes: BTreeMap<InstanceKey, (ServiceInfo, bool)>,
    /// Starts that some registry could not reach at some time.
    faulty: BTreeSet<String>,
}

fn address(addr: u8) -> InstanceKey {
    key(addr % 2, addr)
}

impl Simulation {
    fn new() -> Self {
        let mut simulation = Self {
            now: 0,
            starts: 0,
            store: Store::default(),
            registries: Vec::new(),
            processes: BTreeMap::new(),
            faulty: BTreeSet::new(),
        };
        for _ in 0..REGISTRIES {
            let registry = simulation.start();
            simulation.registries.push(registry);
        }
        simulation.split();
        simulation
    }

    fn time(&self) -> Time {
        Time::from_millis(self.now)
    }

    fn start(&mut self) -> Registry {
        self.starts += 1;
        let mut settings = settings();
        settings.protection.enabled = false; // it would hold back some removals at the end
        let id: Arc<str> = format!("registry-{}", self.starts).into();
        let mut catalog = Catalog::new(settings);
        catalog.share(Split::new(id.clone(), []));
        Registry {
            id,
            catalog,
            applied: 0,
            heartbeats: Vec::new(),
            reaches_store: true,
            reaches_members: true,
        }
    }

    fn apply(&mut self, at: usize, event: CatalogEvent) {
        let now = self.time();
        let Ok(result) = self.registries[at].catalog.apply(now, event) else { return };
        for effect in result.effects {
            let registry = &mut self.registries[at];
            match effect {
                Effect::SendHeartbeat { to, .. } => registry.heartbeats.push(to),
                Effect::Removed(of) | Effect::Released(of) => registry.heartbeats.retain(|it| *it != of),
                Effect::Propose(proposal) if registry.reaches_store => self.propose(at, proposal),
                _ => {}
            }
        }
    }

    fn propose(&mut self, at: usize, proposal: Proposal) {
        let removal = match proposal {
            Proposal::Register(new) => return self.store.register(&new),
            Proposal::State(new) => return self.store.set_state(new),
            Proposal::Remove(removal) => removal,
        };
        let (key, over) = (removal.key.clone(), removal.over);
        let second = self.registries[at].catalog.second(&key);
        let second = self.registries.iter().position(|it| Some(&it.id) == second.as_ref());
        if second.is_some_and(|second| self.answers(second, &key, removal.info.id())) {
            return self.apply(at, CatalogEvent::Vouched { key, over, reply: None });
        }
        let id = removal.info.id().to_owned();
        if self.store.remove(removal, self.time()) {
            assert!(self.faulty.contains(&id), "{id} has always answered everybody, and was removed");
        }
    }

    /// Whether a registry gets an answer from this start.
    fn answers(&self, at: usize, key: &InstanceKey, id: &str) -> bool {
        let running = self.processes.get(key).is_some_and(|(info, up)| *up && info.id() == id);
        running && self.registries[at].reaches_members
    }

    /// Those that reach the store agree about who does what.
    fn split(&mut self) {
        let live = |it: &&Registry| it.reaches_store;
        let ids: Vec<_> = self.registries.iter().filter(live).map(|it| it.id.clone()).collect();
        for at in 0..REGISTRIES {
            if self.registries[at].reaches_store {
                let own = self.registries[at].id.clone();
                self.apply(at, CatalogEvent::Split(Split::new(own, ids.iter().cloned())));
            }
        }
    }

    fn note_faulty(&mut self) {
        let all_reach = self.registries.iter().all(|it| it.reaches_members);
        let faulty = self.processes.values().filter(|(_, up)| !up || !all_reach);
        self.faulty.extend(faulty.map(|(info, _)| info.id().to_owned()));
    }

    fn deliver(&mut self, at: usize, count: usize) {
        for _ in 0..count {
            let registry = &self.registries[at];
            let Some((revision, change, starts)) = self.store.log.get(registry.applied).cloned() else {
                return;
            };
            if !registry.reaches_store {
                return;
            }
            self.registries[at].applied += 1;
            self.apply(at, CatalogEvent::Stored { revision, change });
            self.registries[at].catalog.advance(revision);
            assert_eq!(shown(&self.registries[at].catalog), starts, "at revision {revision}");
        }
    }

    fn list(&mut self, at: usize) {
        let (now, revision) = (self.time(), self.store.revision);
        if !self.registries[at].reaches_store {
            return;
        }
        self.registries[at].applied = self.store.log.len();
        for change in self.registries[at].catalog.changes_to(self.store.listing(), false, now) {
            self.apply(at, CatalogEvent::Stored { revision, change });
        }
        self.registries[at].catalog.advance(revision);
        let starts = self.store.log.last().map(|(.., starts)| starts.clone()).unwrap_or_default();
        // What was asked for meanwhile is delivered later.
        if self.registries[at].applied == self.store.log.len() {
            assert_eq!(shown(&self.registries[at].catalog), starts, "listed at revision {revision}");
        }
    }

    fn register(&mut self, at: usize, addr: u8, core: bool, renews: bool) {
        let key = address(addr);
        if !(renews && self.processes.contains_key(&key)) {
            self.starts += 1;
            if let Some((before, _)) = self.processes.get(&key) {
                self.faulty.insert(before.id().to_owned());
            }
            let id = (!core).then(|| format!("start-{}", self.starts));
            let info = ServiceInfo { id, ..ServiceInfo::new(&*key.name, &*key.addr) };
            if core {
                self.faulty.insert(info.id().to_owned()); // one start can't be told from the next
            }
            self.processes.insert(key.clone(), (info, true));
        }
        self.note_faulty();
        let (info, up) = self.processes[&key].clone();
        let now = self.time();
        if !up || !self.registries[at].reaches_store {
            return;
        }
        match self.registries[at].catalog.plan_registration(now, &info, &None) {
            Ok(Some(new)) => self.store.register(&new),
            Ok(None) => self.apply(at, CatalogEvent::Register(info, None)),
            Err(refusal) => panic!("{refusal}"),
        }
    }

    fn deregister(&mut self, at: usize, addr: u8) {
        let (key, now) = (address(addr), self.time());
        let registry = &self.registries[at];
        if let Ok(Some(removal)) = registry.catalog.plan_deregistration(&key, None, &Initiator::Operator)
            && registry.reaches_store
        {
            self.store.remove(removal, now);
        }
    }

    fn heartbeat(&mut self, at: usize, which: usize) {
        let heartbeats = &mut self.registries[at].heartbeats;
        if heartbeats.is_empty() {
            return;
        }
        let of = heartbeats.remove(which % heartbeats.len());
        let Some((info, _)) = self.registries[at].catalog.to_check(&of) else { return };
        let id = info.id().to_owned();
        let answered = self.answers(at, &of.key, &id);
        let result = if answered { Ok(None) } else { Err("refused".to_owned()) };
        self.apply(at, CatalogEvent::Heartbeat { of, result });
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Register { at, addr, core, renews } => self.register(at, addr, core, renews),
            Step::Deregister { at, addr } => self.deregister(at, addr),
            Step::Heartbeat { at, which } => self.heartbeat(at, which),
            Step::Deliver { at, count } => self.deliver(at, count),
            Step::List(at) => self.list(at),
            Step::Process { addr, up } => {
                if let Some((_, is_up)) = self.processes.get_mut(&address(addr)) {
                    *is_up = up;
                }
                self.note_faulty();
            }
            Step::ToStore { at, up } => {
                self.registries[at].reaches_store = up;
                self.split();
            }
            Step::ToMembers { at, up } => {
                self.registries[at].reaches_members = up;
                self.note_faulty();
            }
            Step::Restart(at) => {
                self.registries[at] = self.start();
                self.list(at);
                self.split();
            }
            Step::Wait(ms) => self.now += i64::from(ms),
        }
    }

    /// All faults end, and time goes by.
    fn heal(&mut self) {
        for registry in &mut self.registries {
            (registry.reaches_store, registry.reaches_members) = (true, true);
        }
        self.split();
        for _ in 0..20 {
            self.now += 10_000;
            for at in 0..REGISTRIES {
                self.deliver(at, usize::MAX);
                for _ in 0..self.registries[at].heartbeats.len() {
                    self.heartbeat(at, 0);
                }
            }
        }
        for at in 0..REGISTRIES {
            self.deliver(at, usize::MAX);
        }
    }
}

/// What a catalogue shows.
fn shown(catalog: &Catalog) -> Starts {
    states(catalog).into_iter().map(|(key, (id, _))| (key, id)).collect()
}

fn states(catalog: &Catalog) -> BTreeMap<InstanceKey, (String, InstanceState)> {
    let mut states = BTreeMap::new();
    for (name, service) in &catalog.services {
        for (addr, instance) in &service.instances {
            let key = InstanceKey { name: name.clone(), addr: addr.clone() };
            states.insert(key, (instance.info.id().to_owned(), instance.state()));
        }
    }
    states
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn registries_on_one_store_show_what_it_has_and_agree_once_faults_end(steps in steps()) {
        let mut simulation = Simulation::new();
        for step in &steps {
            simulation.step(step);
        }
        simulation.heal();
        let first = states(&simulation.registries[0].catalog);
        for registry in &simulation.registries {
            prop_assert_eq!(&states(&registry.catalog), &first, "all show the same");
        }
        for (key, (id, state)) in &first {
            let answers = simulation.answers(0, key, id);
            prop_assert!(answers && *state == InstanceState::Passing, "{key}: {id} is {state:?}, and answers: {answers}");
        }
    }
}
