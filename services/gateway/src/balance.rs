//! Picks the instance for a request. Pure: the state of the instances comes in as functions of their index.
//!
//! Instances are in tiers; a tier counts only if the better ones are empty. Within a tier the pick is random by weight
//! or, for a request with a key, the instance that the key hashes to (rendezvous hashing: when instances come and go,
//! only their keys move).

use std::hash::{DefaultHasher, Hash, Hasher};

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// How an instance is picked among those that pass their health checks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Balance {
    /// At random, by weight.
    #[default]
    Random,
    /// Of two at random, the one with fewer requests in flight ("power of two choices").
    P2c,
}

/// How suitable an instance is for a request, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PickTier {
    /// It passes its health checks.
    Good,
    /// It has missed heartbeats.
    Suspect,
    /// Its recent requests failed.
    Ejected,
    /// It is draining, or has already failed this request.
    Never,
}

/// The weights of a service's instances.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Weights {
    /// Running totals; empty if all weights are equal.
    totals: Vec<u64>,
    count: usize,
}

/// The weight of an instance that registers none. Above 1, so that others can register less.
pub(crate) const DEFAULT_WEIGHT: u32 = 100;

impl Weights {
    pub(crate) fn new(weights: &[u32]) -> Self {
        let same = weights.windows(2).all(|pair| pair.first() == pair.last());
        let mut total = 0;
        let totals = weights.iter().map(|&weight| {
            total += u64::from(weight);
            total
        });
        Self { totals: if same { Vec::new() } else { totals.collect() }, count: weights.len() }
    }

    fn draw(&self, rng: &mut impl Rng) -> Option<usize> {
        match self.totals.last() {
            None if self.count == 0 => None,
            None | Some(0) => Some(rng.random_range(0..self.count)),
            Some(&total) => {
                let at = rng.random_range(0..total);
                Some(self.totals.partition_point(|&end| end <= at))
            }
        }
    }

    fn of(&self, index: usize) -> u64 {
        match self.totals.get(index) {
            Some(total) => total - index.checked_sub(1).and_then(|i| self.totals.get(i)).unwrap_or(&0),
            None => 1,
        }
    }
}

/// Picks an instance, given the tier and the requests in flight of each.
pub(crate) fn pick(
    balance: Balance,
    weights: &Weights,
    tier: impl Fn(usize) -> PickTier,
    in_flight: impl Fn(usize) -> usize,
    rng: &mut impl Rng,
) -> Option<usize> {
    let first = pick_one(weights, &tier, rng)?;
    if balance == Balance::Random {
        return Some(first);
    }
    let best = tier(first);
    let other = pick_one(weights, |i| if i == first { PickTier::Never } else { tier(i) }, rng);
    Some(match other.filter(|&other| tier(other) == best) {
        Some(other) if in_flight(other) < in_flight(first) => other,
        _ => first,
    })
}

fn pick_one(weights: &Weights, tier: impl Fn(usize) -> PickTier, rng: &mut impl Rng) -> Option<usize> {
    // Most are good, so draw among all and reject the others: the draw stays uniform among the good ones.
    for _ in 0..3 {
        let index = weights.draw(rng)?;
        if tier(index) == PickTier::Good {
            return Some(index);
        }
    }
    let best = best_tier(weights.count, &tier)?;
    let members = || (0..weights.count).filter(|&i| tier(i) == best);
    let total: u64 = members().map(|i| weights.of(i)).sum();
    let Some(mut at) = (total > 0).then(|| rng.random_range(0..total)) else { return members().next() };
    members().find(|&i| {
        let weight = weights.of(i);
        let here = at < weight;
        at = at.saturating_sub(weight);
        here
    })
}

/// The instance that `key` belongs to: the one with the greatest weighted hash of key and id.
pub(crate) fn pick_by_key<'a>(
    key: &[u8],
    weights: &Weights,
    tier: impl Fn(usize) -> PickTier,
    id: impl Fn(usize) -> &'a str,
) -> Option<usize> {
    let best = best_tier(weights.count, &tier)?;
    let score = |index: usize| {
        let mut hasher = DefaultHasher::new(); // its keys are fixed, so all gateways of one build agree
        (key, id(index)).hash(&mut hasher);
        let unit = (hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64;
        weights.of(index) as f64 / -unit.max(f64::MIN_POSITIVE).ln()
    };
    (0..weights.count)
        .filter(|&i| tier(i) == best)
        .map(|i| (i, score(i)))
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .map(|(i, _)| i)
}

fn best_tier(count: usize, tier: &impl Fn(usize) -> PickTier) -> Option<PickTier> {
    (0..count).map(tier).min().filter(|&best| best != PickTier::Never)
}

#[cfg(test)]
mod tests;
