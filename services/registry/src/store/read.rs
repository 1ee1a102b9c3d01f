//! What etcd has and what changed there, as the catalogue takes it. Pure.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use hubspoke_etcd::{Change, KeyValue};

use super::keys::{Keys, Subject};
use super::record::{RegistrationRecord, RemovalRecord, StateRecord, read};
use crate::catalog::{Departure, InstanceKey, Listing, StoredChange, StoredState, Time};
use crate::cluster::Registries;
use crate::view::WallClock;

/// What is in etcd beside the catalogue.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Surroundings {
    pub(super) registries: Registries,
    /// The generation, with the revision at which it was written.
    pub(super) generation: Option<(Bytes, i64)>,
}

impl Surroundings {
    pub(super) fn of(keys: &Keys, kvs: &[KeyValue]) -> Self {
        let mut all = Self::default();
        kvs.iter().for_each(|kv| all.put(keys, kv));
        all
    }

    /// Applies changes; returns whether there were any here.
    pub(super) fn apply(&mut self, keys: &Keys, changes: &[Change]) -> bool {
        let before = self.clone();
        for change in changes {
            match change {
                Change::Put(kv) => self.put(keys, kv),
                Change::Deleted { key } => match keys.parse(key) {
                    Some(Subject::Registry(id)) => drop(self.registries.remove(&id)),
                    Some(Subject::Generation) => self.generation = None,
                    _ => {}
                },
            }
        }
        *self != before
    }

    fn put(&mut self, keys: &Keys, kv: &KeyValue) {
        match keys.parse(&kv.key) {
            Some(Subject::Registry(id)) => {
                if let Some(record) = read(&kv.key, &kv.value) {
                    self.registries.insert(id, record);
                }
            }
            Some(Subject::Generation) => self.generation = Some((kv.value.clone(), kv.mod_revision)),
            _ => {}
        }
    }
}

/// All that etcd has for the catalogue.
pub(super) fn listing(keys: &Keys, kvs: &[KeyValue], now: Time) -> Listing {
    let clock = WallClock::new(now);
    let mut listing = Listing::default();
    for kv in kvs {
        match keys.parse(&kv.key) {
            Some(Subject::Instance(key)) => {
                let record = read::<RegistrationRecord>(&kv.key, &kv.value);
                let stored = record.and_then(|record| record.into_stored(&key, number(kv), true, clock));
                listing.registrations.extend(stored.map(|stored| (key, stored)));
            }
            Some(Subject::State(key)) => {
                let state = read::<StateRecord>(&kv.key, &kv.value).map(StateRecord::into_stored);
                listing.states.extend(state.map(|state| (key, state)));
            }
            Some(Subject::Removed(key)) => {
                let removal = read::<RemovalRecord>(&kv.key, &kv.value);
                listing.departures.extend(removal.map(|removal| (key, removal.into_departure(clock))));
            }
            Some(Subject::Drain(key)) => drop(listing.drains.insert(key)),
            Some(Subject::Protection) => listing.protection = switch(&kv.value),
            Some(Subject::Registry(_) | Subject::Generation) | None => {}
        }
    }
    listing
}

/// The changes of one revision.
pub(super) fn changes(keys: &Keys, changes: &[Change], now: Time) -> Vec<StoredChange> {
    let clock = WallClock::new(now);
    let mut departures: HashMap<InstanceKey, Departure> = HashMap::new();
    // The state of an instance that is registered or removed at the same revision is part of that.
    let mut settled = BTreeSet::new();
    for change in changes {
        match change {
            Change::Put(kv) => match keys.parse(&kv.key) {
                Some(Subject::Removed(key)) => {
                    let removal = read::<RemovalRecord>(&kv.key, &kv.value);
                    departures.extend(removal.map(|removal| (key, removal.into_departure(clock))));
                }
                Some(Subject::Instance(key)) => drop(settled.insert(key)),
                _ => {}
            },
            Change::Deleted { key } => {
                if let Some(Subject::Instance(key)) = keys.parse(key) {
                    settled.insert(key);
                }
            }
        }
    }
    let mut all = Vec::new();
    for change in changes {
        match change {
            Change::Put(kv) => match keys.parse(&kv.key) {
                Some(Subject::Instance(key)) => {
                    let record = read::<RegistrationRecord>(&kv.key, &kv.value);
                    let stored = record.and_then(|record| record.into_stored(&key, number(kv), false, clock));
                    all.extend(stored.map(StoredChange::Registered));
                }
                Some(Subject::State(key)) => {
                    let state = read::<StateRecord>(&kv.key, &kv.value).map(StateRecord::into_stored);
                    all.extend(state.map(|state| StoredChange::State(key, state)));
                }
                Some(Subject::Drain(key)) => all.push(StoredChange::Drain(key, true)),
                Some(Subject::Protection) => all.push(StoredChange::Protection(switch(&kv.value))),
                Some(Subject::Removed(_) | Subject::Registry(_) | Subject::Generation) | None => {}
            },
            Change::Deleted { key } => match keys.parse(key) {
                Some(Subject::Instance(key)) => {
                    let why = departures.remove(&key).unwrap_or_else(|| Departure::unexplained(now));
                    all.push(StoredChange::Removed(key, why));
                }
                Some(Subject::State(key)) if !settled.contains(&key) => {
                    all.push(StoredChange::State(key, StoredState::passing()));
                }
                Some(Subject::Drain(key)) => all.push(StoredChange::Drain(key, false)),
                Some(Subject::Protection) => all.push(StoredChange::Protection(None)),
                _ => {}
            },
        }
    }
    // Removals of what was not registered (any more).
    all.extend(departures.into_iter().map(|(key, why)| StoredChange::Removed(key, why)));
    all
}

/// The instances whose removal was written before a time, with the revisions of those writes.
pub(super) fn removals_before(
    keys: &Keys,
    kvs: &[KeyValue],
    limit: jiff::Timestamp,
) -> Vec<(InstanceKey, i64)> {
    let removals = kvs.iter().filter_map(|kv| match keys.parse(&kv.key)? {
        Subject::Removed(key) => {
            // An invalid one is of no use either.
            let at = serde_json::from_slice::<RemovalRecord>(&kv.value).map(|removal| removal.at());
            at.map_or(true, |at| at < limit).then_some((key, kv.mod_revision))
        }
        _ => None,
    });
    removals.collect()
}

fn number(kv: &KeyValue) -> u64 {
    u64::try_from(kv.mod_revision).unwrap_or(0)
}

fn switch(value: &[u8]) -> Option<bool> {
    std::str::from_utf8(value).ok()?.parse().ok()
}
