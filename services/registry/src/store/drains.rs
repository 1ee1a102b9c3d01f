//! The upkeep of drains: one that has waited for an instance for too long is forgotten. Pure.
//!
//! Registries come and go, so the time since when an address has had no instance is in etcd, as the value of the drain.

use std::cmp::Reverse;

use hubspoke_etcd::KeyValue;
use jiff::{SignedDuration, Timestamp};

use super::keys::{Keys, Subject};
use crate::catalog::{InstanceKey, MAX_DRAIN_AGE, MAX_DRAINS};

/// A change to a drain as it was written at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DrainUpkeep {
    pub(super) key: InstanceKey,
    pub(super) written_at: i64,
    /// The value from now on; `None` if it is to be forgotten.
    pub(super) value: Option<String>,
}

/// The changes that are due. `has_instance` tells whether there is one at an address.
pub(super) fn due(
    keys: &Keys,
    kvs: &[KeyValue],
    has_instance: impl Fn(&InstanceKey) -> bool,
    now: Timestamp,
) -> Vec<DrainUpkeep> {
    let (mut due, mut waiting) = (Vec::new(), Vec::new());
    for kv in kvs {
        let Some(Subject::Drain(key)) = keys.parse(&kv.key) else { continue };
        let written_at = kv.mod_revision;
        let since = str::from_utf8(&kv.value).ok().and_then(|text| text.parse::<Timestamp>().ok());
        match (has_instance(&key), since) {
            (true, None) => {}
            (true, Some(_)) => due.push(DrainUpkeep { key, written_at, value: Some(String::new()) }),
            (false, _) => waiting.push((since, key, written_at)),
        }
    }
    // The newest first; those that have just begun to wait are the newest.
    waiting.sort_by_key(|(since, ..)| Reverse(since.unwrap_or(Timestamp::MAX)));
    let oldest = SignedDuration::try_from(MAX_DRAIN_AGE).ok().and_then(|age| now.checked_sub(age).ok());
    for (index, (since, key, written_at)) in waiting.into_iter().enumerate() {
        let is_too_old = since.zip(oldest).is_some_and(|(since, oldest)| since <= oldest);
        if index >= MAX_DRAINS || is_too_old {
            due.push(DrainUpkeep { key, written_at, value: None });
        } else if since.is_none() {
            due.push(DrainUpkeep { key, written_at, value: Some(now.to_string()) });
        }
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_is_forgotten_after_a_week_without_an_instance_and_beyond_a_thousand() {
        let keys = Keys::new("/hubspoke/registry/".to_owned());
        let key = |n: usize| InstanceKey::new("log", &format!("10.0.0.1:{n}"));
        let kv = |n: usize, value: &str| KeyValue {
            key: keys.key(&Subject::Drain(key(n))).into(),
            value: value.to_owned().into(),
            mod_revision: i64::try_from(n).unwrap(),
            ..KeyValue::default()
        };
        let now: Timestamp = "2026-11-26T12:00:00Z".parse().unwrap();
        let there = |key: &InstanceKey| key.addr.ends_with(":1") || key.addr.ends_with(":2");
        let kvs = [
            kv(1, ""),
            kv(2, "2026-11-01T12:00:00Z"),
            kv(3, ""),
            kv(4, "2026-11-20T12:00:00Z"),
            kv(5, "2026-11-19T12:00:00Z"),
        ];
        let found = due(&keys, &kvs, there, now);
        let of = |n: usize, value: Option<&str>| DrainUpkeep {
            key: key(n),
            written_at: i64::try_from(n).unwrap(),
            value: value.map(str::to_owned),
        };
        assert_eq!(found, [of(2, Some("")), of(3, Some("2026-11-26T12:00:00Z")), of(5, None)]);
        let many: Vec<_> = (10..1015).map(|n| kv(n, &format!("2026-11-26T11:{:02}:00Z", n % 60))).collect();
        let forgotten = due(&keys, &many, there, now);
        assert_eq!(forgotten.len(), 5);
        assert!(forgotten.iter().all(|it| it.value.is_none() && it.written_at % 60 == 0), "the oldest");
    }
}
