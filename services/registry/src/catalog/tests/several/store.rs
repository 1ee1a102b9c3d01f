//! A model of what `store` does with etcd.

use hubspoke_protocol::InstanceState;

use super::super::*;

/// The registered starts, by address.
pub(super) type Starts = BTreeMap<InstanceKey, String>;

#[derive(Default)]
pub(super) struct Store {
    pub(super) revision: u64,
    registrations: BTreeMap<InstanceKey, StoredRegistration>,
    states: BTreeMap<InstanceKey, StoredState>,
    departures: BTreeMap<InstanceKey, Departure>,
    /// Each change, with its revision, and what is registered after it.
    pub(super) log: Vec<(u64, StoredChange, Starts)>,
}

impl Store {
    fn holds(&self, key: &InstanceKey, over: u64) -> bool {
        self.registrations.get(key).map_or(0, |stored| stored.number) == over
    }

    fn log(&mut self, change: StoredChange) {
        let starts = self.registrations.iter().map(|(key, it)| (key.clone(), it.info.id().to_owned()));
        let starts = starts.collect();
        self.log.push((self.revision, change, starts));
    }

    /// As `store::ops` writes it, and `store::read` reads it.
    pub(super) fn register(&mut self, new: &NewRegistration) {
        let key = InstanceKey::new(&new.info.name, &new.info.addr);
        if !self.holds(&key, new.over) {
            return;
        }
        self.revision += 1;
        let NewRegistration { info, registered, returned, .. } = new.clone();
        let number = self.revision;
        let stored = StoredRegistration { info, warnings: None, registered, returned, number, listed: false };
        if !new.same_start {
            self.states.remove(&key);
        }
        self.departures.remove(&key);
        self.registrations.insert(key, stored.clone());
        self.log(StoredChange::Registered(stored));
    }

    pub(super) fn remove(&mut self, new: NewRemoval, now: Time) -> bool {
        if !self.holds(&new.key, new.over) {
            return false;
        }
        self.revision += 1;
        let NewRemoval { key, info, registered, kind, detail, .. } = new;
        let departure = Departure { kind, detail, at: now, info: Some(info), registered };
        self.registrations.remove(&key);
        self.states.remove(&key);
        self.departures.insert(key.clone(), departure.clone());
        self.log(StoredChange::Removed(key, departure));
        true
    }

    pub(super) fn set_state(&mut self, new: NewState) {
        if !self.holds(&new.key, new.of) {
            return;
        }
        self.revision += 1;
        let NewState { key, state, kind, detail, .. } = new;
        let stored = if state == InstanceState::Passing {
            self.states.remove(&key);
            StoredState::passing()
        } else {
            let stored = StoredState { state, kind, detail };
            self.states.insert(key.clone(), stored.clone());
            stored
        };
        self.log(StoredChange::State(key, stored));
    }

    pub(super) fn listing(&self) -> Listing {
        let listed = |(key, it): (&InstanceKey, &StoredRegistration)| {
            (key.clone(), StoredRegistration { listed: true, ..it.clone() })
        };
        Listing {
            registrations: self.registrations.iter().map(listed).collect(),
            states: self.states.clone(),
            departures: self.departures.clone(),
            ..Listing::default()
        }
    }
}
