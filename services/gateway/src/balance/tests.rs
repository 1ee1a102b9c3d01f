use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

fn counts(balance: Balance, weights: &[u32], tiers: &[PickTier], load: &[usize], draws: usize) -> Vec<usize> {
    let mut rng = StdRng::seed_from_u64(7);
    let totals = Weights::new(weights);
    let mut counts = vec![0; weights.len()];
    for _ in 0..draws {
        counts[pick(balance, &totals, |i| tiers[i], |i| load[i], &mut rng).unwrap()] += 1;
    }
    counts
}

/// Pearson's chi-squared statistic against the expected shares.
fn chi_squared(counts: &[usize], shares: &[f64]) -> f64 {
    let draws: usize = counts.iter().sum();
    let term = |(&count, share): (&usize, &f64)| {
        let expected = draws as f64 * share;
        (count as f64 - expected).powi(2) / expected
    };
    counts.iter().zip(shares).filter(|(_, share)| **share > 0.0).map(term).sum()
}

#[test]
fn picks_are_uniform_among_good_instances() {
    use PickTier::{Ejected, Good, Never, Suspect};
    // 99.9 % quantiles of chi-squared: 13.8 at 2 degrees of freedom, 10.8 at 1.
    let all = counts(Balance::Random, &[100; 3], &[Good; 3], &[0; 3], 30_000);
    assert!(chi_squared(&all, &[1.0 / 3.0; 3]) < 13.8, "{all:?}");
    let some = counts(Balance::Random, &[100; 5], &[Never, Good, Suspect, Good, Ejected], &[0; 5], 30_000);
    assert_eq!((some[0], some[2], some[4]), (0, 0, 0));
    assert!(chi_squared(&some, &[0.0, 0.5, 0.0, 0.5, 0.0]) < 10.8, "{some:?}");
}

#[test]
fn picks_follow_the_weights() {
    use PickTier::{Good, Suspect};
    let all = counts(Balance::Random, &[100, 300, 0], &[Good; 3], &[0; 3], 30_000);
    assert_eq!(all[2], 0);
    assert!(chi_squared(&all, &[0.25, 0.75, 0.0]) < 10.8, "{all:?}");
    // The slow path: rejection sampling gives up, since few are good.
    let few = counts(Balance::Random, &[1000, 10, 30], &[Suspect, Good, Good], &[0; 3], 30_000);
    assert!(chi_squared(&few, &[0.0, 0.25, 0.75]) < 10.8, "{few:?}");
    // If all weights are 0, they count as equal.
    assert_eq!(counts(Balance::Random, &[0], &[Good], &[0], 5), [5]);
}

#[test]
fn a_tier_is_picked_from_only_if_better_ones_are_empty() {
    use PickTier::{Ejected, Never, Suspect};
    let counts = |tiers: &[PickTier]| counts(Balance::Random, &vec![100; tiers.len()], tiers, &[0; 3], 1000);
    assert_eq!(counts(&[Ejected, Suspect, Never]), [0, 1000, 0]);
    assert_eq!(counts(&[Ejected, Never, Never]), [1000, 0, 0]);
    let mut rng = StdRng::seed_from_u64(7);
    for balance in [Balance::Random, Balance::P2c] {
        let weights = Weights::new(&[100; 2]);
        assert_eq!(pick(balance, &weights, |_| Never, |_| 0, &mut rng), None);
        assert_eq!(pick(balance, &Weights::new(&[]), |_| Never, |_| 0, &mut rng), None);
    }
}

#[test]
fn p2c_avoids_busy_instances() {
    let counts = counts(Balance::P2c, &[100; 3], &[PickTier::Good; 3], &[5, 9, 0], 30_000);
    // The busiest never wins; the idlest wins whenever it is drawn: two times in three.
    assert_eq!(counts[1], 0);
    assert!(chi_squared(&counts, &[1.0 / 3.0, 0.0, 2.0 / 3.0]) < 10.8, "{counts:?}");
}

#[test]
fn a_key_moves_only_if_its_instance_goes() {
    let ids = ["a", "b", "c", "d"];
    let weights = Weights::new(&[100; 4]);
    let pick = |key: u32, gone: Option<usize>| {
        let tier = |i| if Some(i) == gone { PickTier::Never } else { PickTier::Good };
        pick_by_key(&key.to_be_bytes(), &weights, tier, |i| ids[i]).unwrap()
    };
    let mut moved = [0; 4];
    for key in 0..4000 {
        let (before, after) = (pick(key, None), pick(key, Some(2)));
        assert!(before == after || before == 2);
        moved[before] += 1;
    }
    assert!(chi_squared(&moved, &[0.25; 4]) < 16.3, "{moved:?}");
}

proptest! {
    /// For any tiers and weights, the pick is of the best tier that has instances.
    #[test]
    fn a_pick_is_of_the_best_tier(
        instances in proptest::collection::vec((0_u32..300, 0_usize..9, 0_u8..4), 0..8),
        seed in any::<u64>(),
        p2c in any::<bool>(),
    ) {
        let tiers: Vec<PickTier> = instances
            .iter()
            .map(|(_, _, tier)| [PickTier::Good, PickTier::Suspect, PickTier::Ejected, PickTier::Never][usize::from(*tier)])
            .collect();
        let weights = Weights::new(&instances.iter().map(|(weight, ..)| *weight).collect::<Vec<_>>());
        let mut rng = StdRng::seed_from_u64(seed);
        let balance = if p2c { Balance::P2c } else { Balance::Random };
        let picked = pick(balance, &weights, |i| tiers[i], |i| instances[i].1, &mut rng);
        let best = tiers.iter().min().copied().filter(|best| *best != PickTier::Never);
        prop_assert_eq!(picked.map(|i| tiers[i]), best);
        let keyed = pick_by_key(b"key", &weights, |i| tiers[i], |_| "id");
        prop_assert_eq!(keyed.map(|i| tiers[i]), best);
    }
}
