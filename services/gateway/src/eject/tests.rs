use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

fn rng() -> StdRng {
    StdRng::seed_from_u64(1)
}

const MS: Duration = Duration::from_millis(1);

fn fail(ejection: &mut Ejection, now: Instant, times: u32) -> Option<Duration> {
    let config = EjectConfig::default();
    (0..times).map(|_| ejection.failure(now, &config, true, &mut rng())).last().flatten()
}

#[test]
fn five_consecutive_failures_eject_and_a_success_resets_the_count() {
    let (config, now) = (EjectConfig::default(), Instant::now());
    let mut ejection = Ejection::default();
    assert_eq!(fail(&mut ejection, now, 4), None);
    ejection.success(now);
    assert_eq!(fail(&mut ejection, now, 4), None);
    assert_eq!(ejection.verdict(now, &config), Verdict::Yes);
    let duration = fail(&mut ejection, now, 1).unwrap();
    assert!(duration >= config.base && duration < config.base.mul_f64(1.25));
    assert_eq!(ejection.verdict(now + duration - MS, &config), Verdict::No);
    assert_eq!(ejection.verdict(now + duration, &config), Verdict::Trial);
}

#[test]
fn one_trial_request_decides() {
    let (config, now) = (EjectConfig::default(), Instant::now());
    let mut ejection = Ejection::default();
    let back = now + fail(&mut ejection, now, 5).unwrap();
    ejection.begin_trial(back);
    assert_eq!(ejection.verdict(back + MS, &config), Verdict::No);
    // The outcome of the trial was never reported.
    assert_eq!(ejection.verdict(back + config.max, &config), Verdict::Trial);
    assert!(ejection.success(back));
    assert_eq!(ejection.verdict(back, &config), Verdict::Yes);
    assert!(!ejection.success(back)); // the response is complete
    assert_eq!(ejection, Ejection::default());
}

#[test]
fn an_instance_that_breaks_off_every_response_is_ejected_for_longer_each_time() {
    let (config, mut now) = (EjectConfig::default(), Instant::now());
    let mut ejection = Ejection::default();
    let mut expected = config.base;
    now += fail(&mut ejection, now, 5).unwrap();
    for _ in 0..10 {
        expected = (expected * 2).min(config.max);
        ejection.begin_trial(now);
        assert!(ejection.success(now)); // the head
        let duration = ejection.failure(now, &config, true, &mut rng()).unwrap();
        assert!(duration >= expected, "{duration:?}");
        now += duration;
    }
}

#[test]
fn a_request_before_the_ejection_is_over_is_not_a_trial() {
    let (config, now) = (EjectConfig::default(), Instant::now());
    let mut ejection = Ejection::default();
    let duration = fail(&mut ejection, now, 5).unwrap();
    ejection.begin_trial(now + MS);
    assert_eq!(ejection.verdict(now + duration, &config), Verdict::Trial);
}

#[test]
fn an_answer_to_a_request_from_before_the_ejection_does_not_end_it() {
    let now = Instant::now();
    let mut ejection = Ejection::default();
    fail(&mut ejection, now, 5);
    assert!(!ejection.success(now));
    assert!(ejection.is_ejected());
}

#[test]
fn consecutive_ejections_double_up_to_the_maximum() {
    let (config, mut now) = (EjectConfig::default(), Instant::now());
    let mut ejection = Ejection::default();
    let mut expected = config.base;
    now += fail(&mut ejection, now, 5).unwrap();
    for _ in 0..40 {
        expected = (expected * 2).min(config.max);
        ejection.begin_trial(now);
        let duration = ejection.failure(now, &config, false, &mut rng()).unwrap();
        assert!(duration >= expected && duration < expected.mul_f64(1.25));
        now += duration;
    }
}

#[test]
fn at_most_half_of_the_instances_are_ejected() {
    let config = EjectConfig::default();
    assert!(!may_eject(0, 1, &config));
    assert!(may_eject(0, 2, &config) && !may_eject(1, 2, &config));
    assert!(may_eject(0, 3, &config) && !may_eject(1, 3, &config));
    assert!(may_eject(1, 4, &config) && !may_eject(2, 4, &config));
}

proptest! {
    /// In any order of events, an instance is ejected only after enough failures, and gets a trial in the end.
    #[test]
    fn every_ejection_ends(
        events in proptest::collection::vec((0_u8..4, 0_u64..3000), 0..100),
        seed in any::<u64>(),
    ) {
        let config = EjectConfig::default();
        let mut rng = StdRng::seed_from_u64(seed);
        let mut now = Instant::now();
        let mut ejection = Ejection::default();
        let mut in_a_row = 0;
        for (event, later) in events {
            now += Duration::from_millis(later);
            match event {
                0 | 1 => {
                    in_a_row += 1;
                    let duration = ejection.failure(now, &config, true, &mut rng);
                    prop_assert!(duration.is_none() || in_a_row >= config.failures);
                }
                2 => {
                    let back = ejection.success(now);
                    if !back && !ejection.is_ejected() {
                        in_a_row = 0;
                    }
                }
                _ => ejection.begin_trial(now),
            }
            prop_assert!(ejection.verdict(now + config.max * 2, &config) != Verdict::No);
        }
    }
}
