//! Drained addresses that have no instance at the moment. The drain is the operator's decision about the address, so
//! it waits there for the next instance.

use std::collections::BTreeMap;
use std::time::Duration;

use super::key::InstanceKey;
use super::time::Time;

/// Most addresses kept. The oldest is forgotten for a new one.
pub(crate) const MAX_DRAINS: usize = 1000;
/// How long a drain waits for an instance. Addresses are reused, by then probably for something else.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Drained addresses without an instance, with the time when the last one left.
#[derive(Debug, Default)]
pub(super) struct StandingDrains {
    since: BTreeMap<InstanceKey, Time>,
}

impl StandingDrains {
    pub(super) fn insert(&mut self, key: InstanceKey, since: Time) {
        self.since.insert(key, since);
        if self.since.len() > MAX_DRAINS
            && let Some((oldest, _)) = self.since.iter().min_by_key(|(_, since)| **since)
        {
            let oldest = oldest.clone();
            self.since.remove(&oldest);
        }
    }

    /// Ends the wait of a drain; returns whether it is still in force. One in a store is in force as long as it is there:
    /// all registries must agree, and each has its own idea of how long it has waited.
    pub(super) fn take(&mut self, key: &InstanceKey, now: Time, is_stored: bool) -> bool {
        self.since.remove(key).is_some_and(|since| is_stored || now.since(since) < MAX_AGE)
    }

    pub(super) fn contains(&self, key: &InstanceKey) -> bool {
        self.since.contains_key(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&InstanceKey, Time)> {
        self.since.iter().map(|(key, since)| (key, *since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drains_that_wait_are_bounded_in_number_and_age() {
        let key = |i: usize| InstanceKey::new("log", &format!("10.0.0.1:{}", i + 1));
        let at = |seconds: i64| Time::from_millis(seconds * 1000);
        let mut drains = StandingDrains::default();
        for i in 0..MAX_DRAINS + 5 {
            drains.insert(key(i), at(i64::try_from(i).unwrap()));
        }
        assert_eq!(drains.iter().count(), MAX_DRAINS);
        assert!(!drains.contains(&key(4)) && drains.contains(&key(5)), "the oldest are forgotten");
        assert!(drains.take(&key(5), at(9999), false) && !drains.take(&key(5), at(9999), false));
        assert!(!drains.take(&key(6), at(6) + MAX_AGE, false), "it has waited too long");
        assert!(drains.take(&key(7), at(7) + MAX_AGE * 2, true), "the store decides");
    }
}
