//! Which registry sends heartbeats and pushes to which instance, if several share a store: the one with the highest
//! weight for the instance (rendezvous hashing). All registries that know the same registries agree, without a word
//! between them, and a registry that comes or goes moves only its own part.

use std::sync::Arc;

/// The live registries, and which of them this one is. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Split {
    own: Arc<str>,
    /// Sorted, with `own` among them.
    ids: Arc<[Arc<str>]>,
}

impl Split {
    /// The split between these registries. This one counts as live, whatever others know.
    pub(crate) fn new(own: Arc<str>, others: impl IntoIterator<Item = Arc<str>>) -> Self {
        let mut ids: Vec<_> = others.into_iter().chain([own.clone()]).collect();
        ids.sort();
        ids.dedup();
        Self { own, ids: ids.into() }
    }

    /// The registry in charge of an instance.
    pub(crate) fn owner(&self, name: &str, addr: &str) -> &Arc<str> {
        self.best(name, addr, |_| true).unwrap_or(&self.own)
    }

    /// Whether this registry is in charge of an instance.
    pub(crate) fn is_ours(&self, name: &str, addr: &str) -> bool {
        self.ids.len() == 1 || *self.owner(name, addr) == self.own
    }

    /// Another registry to ask for its opinion about an instance, if there is one.
    pub(crate) fn second(&self, name: &str, addr: &str) -> Option<&Arc<str>> {
        self.best(name, addr, |id| *id != self.own)
    }

    /// All of them.
    pub(crate) fn ids(&self) -> &[Arc<str>] {
        &self.ids
    }

    fn best(&self, name: &str, addr: &str, may: impl Fn(&Arc<str>) -> bool) -> Option<&Arc<str>> {
        let key = hash(&[name.as_bytes(), b"/", addr.as_bytes()]);
        self.ids.iter().filter(|id| may(id)).max_by_key(|id| mix(key ^ mix(hash(&[id.as_bytes()]))))
    }
}

/// FNV-1a: the same in every registry, of whatever version.
fn hash(parts: &[&[u8]]) -> u64 {
    parts.iter().copied().flatten().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The finalizer of `SplitMix64`, so that similar texts get unrelated weights.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(n: usize) -> Arc<str> {
        format!("{n:016x}").into()
    }

    fn addrs() -> Vec<String> {
        (0..3000).map(|n| format!("10.0.{}.{}:20002", n / 250, n % 250)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn every_registry_has_its_share_and_all_agree(first in 0..1_000_000_usize, count in 1..6_usize) {
            let ids: Vec<_> = (first..first + count).map(id).collect();
            let splits: Vec<_> = ids.iter().map(|own| Split::new(own.clone(), ids.iter().cloned())).collect();
            let mut shares = vec![0_usize; count];
            for addr in addrs() {
                let ours: Vec<_> = (0..count).filter(|n| splits[*n].is_ours("log", &addr)).collect();
                prop_assert_eq!(ours.len(), 1, "exactly one registry is in charge");
                shares[ours[0]] += 1;
                let second = splits[ours[0]].second("log", &addr);
                prop_assert!(second.is_none_or(|second| *second != ids[ours[0]]));
                prop_assert_eq!(second.is_some(), count > 1);
            }
            let fair = 3000 / count;
            prop_assert!(shares.iter().all(|share| share.abs_diff(fair) < fair / 4 + 1), "{:?}", shares);
        }

        #[test]
        fn a_registry_that_leaves_moves_only_its_own_part(first in 0..1_000_000_usize, count in 2..6_usize) {
            let ids: Vec<_> = (first..first + count).map(id).collect();
            let before = Split::new(ids[0].clone(), ids.iter().cloned());
            let after = Split::new(ids[0].clone(), ids[..count - 1].iter().cloned());
            for addr in addrs() {
                let owner = before.owner("log", &addr);
                if *owner != ids[count - 1] {
                    prop_assert_eq!(owner, after.owner("log", &addr));
                }
            }
        }
    }
}
