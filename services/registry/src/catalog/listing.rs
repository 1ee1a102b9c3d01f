//! All that the store has at one revision, and what is different in the catalogue.

use std::collections::{BTreeMap, BTreeSet};

use hubspoke_protocol::{InstanceState, ReasonKind};

use super::key::InstanceKey;
use super::state::Catalog;
use super::stored_change::{Departure, StoredChange, StoredRegistration, StoredState};
use super::time::Time;

/// All that the store has.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) registrations: BTreeMap<InstanceKey, StoredRegistration>,
    /// The instances that are not passing.
    pub(crate) states: BTreeMap<InstanceKey, StoredState>,
    pub(crate) drains: BTreeSet<InstanceKey>,
    pub(crate) departures: BTreeMap<InstanceKey, Departure>,
    pub(crate) protection: Option<bool>,
}

impl Catalog {
    /// The changes that make the catalogue what the store has. If the store `lost` its state since it was last read,
    /// what is missing there stays: nobody has removed it.
    pub(crate) fn changes_to(&self, listing: Listing, lost: bool, now: Time) -> Vec<StoredChange> {
        let Listing { registrations, mut states, drains, mut departures, protection } = listing;
        let mut changes = Vec::new();
        let (mut known_drains, mut known) = (BTreeSet::new(), Vec::new());
        known_drains.extend(self.drains.iter().map(|(key, _)| key.clone()));
        for (name, service) in &self.services {
            for (addr, instance) in &service.instances {
                let key = InstanceKey { name: name.clone(), addr: addr.clone() };
                if instance.drained {
                    known_drains.insert(key.clone());
                }
                known.push(key);
            }
        }
        known.sort(); // independent of the hash map's order
        if !lost {
            let ended = known_drains.difference(&drains).cloned();
            changes.extend(ended.map(|key| StoredChange::Drain(key, false)));
        }
        for key in known.iter().filter(|key| !registrations.contains_key(*key)) {
            if lost {
                changes.push(StoredChange::Lost(key.clone()));
                continue;
            }
            let why = departures.remove(key).unwrap_or_else(|| Departure::unexplained(now));
            changes.push(StoredChange::Removed(key.clone(), why));
        }
        let gone = departures.into_iter().filter(|(key, _)| !registrations.contains_key(key));
        changes.extend(gone.map(|(key, why)| StoredChange::Removed(key, why)));
        changes.extend(drains.difference(&known_drains).cloned().map(|key| StoredChange::Drain(key, true)));
        for (key, new) in registrations {
            changes.push(StoredChange::Registered(new));
            let state = states.remove(&key).unwrap_or_else(StoredState::passing);
            changes.push(StoredChange::State(key, state));
        }
        changes.push(StoredChange::Protection(protection));
        changes
    }
}

impl Departure {
    /// Somebody else has deleted it from the store.
    pub(crate) fn unexplained(now: Time) -> Self {
        let detail = "deleted from the store".to_owned();
        Self { kind: ReasonKind::Deregistered, detail, at: now, info: None, registered: now }
    }
}

impl StoredState {
    /// The state of an instance about which the store has nothing else.
    pub(crate) fn passing() -> Self {
        Self {
            state: InstanceState::Passing,
            kind: ReasonKind::Recovered,
            detail: "answered a heartbeat".to_owned(),
        }
    }
}
