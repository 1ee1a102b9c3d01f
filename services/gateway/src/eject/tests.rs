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
fn five_failures_in_a_row_eject_and_a_success_between_does_not() {
    let (config, now) = (EjectConfig::default(), Instant::now());
    let mut ejection = Ejection::default();
    assert_eq!(fail(&mut ejection, now, 4), None);
    ejection.success(now);
    assert_eq!(fail(&mut ejection, now, 4), None);
    assert_eq!(ejection.verdict(now, &config), Verdict::Yes);
    let lasts = fail(&mut ejection, now, 1).unwrap();
    assert!(lasts >= config.base && lasts < config.base.mul_f64(1.25));
    assert_eq!(ejection.verdict(now + lasts - MS, &config), Verdict::No);
    assert_eq!(ejection.verdict(now + lasts, &config), Verdict::Trial);
}

#[test]
fn one_request_tries_it_out() {
    let (config, now) = (EjectConfig::default(), Instant::now());
    let mut ejection = Ejection::default();
    let back = now + fail(&mut ejection, now, 5).unwrap();
    ejection.begin_trial(back);
    assert_eq!(ejection.verdict(back + MS, &config), Verdict::No);
    // The one that tries it out was never heard of again.
    assert_eq!(ejection.verdict(back + config.max, &config), Verdict::Trial);
    assert!(ejection.success(back));
    assert_eq!(ejection.verdict(back, &config), Verdict::Yes);
    assert!(!ejection.success(back)); // the reply was whole
    assert_eq!(ejection, Ejection::default());
}

#[test]
fn an_instance_that_begins_every_reply_and_ends_none_is_out_for_longer_each_time() {
    let (config, mut now) = (EjectConfig::default(), Instant::now());
    let mut ejection = Ejection::default();
    let mut expected = config.base;
    now += fail(&mut ejection, now, 5).unwrap();
    for _ in 0..10 {
        expected = (expected * 2).min(config.max);
        ejection.begin_trial(now);
        assert!(ejection.success(now)); // the head
        let lasts = ejection.failure(now, &config, true, &mut rng()).unwrap();
        assert!(lasts >= expected, "{lasts:?}");
        now += lasts;
    }
}

#[test]
fn a_request_before_the_time_is_over_tries_nothing_out() {
    let (config, now) = (EjectConfig::default(), Instant::now());
    let mut ejection = Ejection::default();
    let lasts = fail(&mut ejection, now, 5).unwrap();
    ejection.begin_trial(now + MS);
    assert_eq!(ejection.verdict(now + lasts, &config), Verdict::Trial);
}

#[test]
fn an_answer_to_a_request_from_before_proves_nothing() {
    let now = Instant::now();
    let mut ejection = Ejection::default();
    fail(&mut ejection, now, 5);
    assert!(!ejection.success(now));
    assert!(ejection.is_ejected());
}

#[test]
fn each_ejection_in_a_row_is_longer_up_to_the_greatest() {
    let (config, mut now) = (EjectConfig::default(), Instant::now());
    let mut ejection = Ejection::default();
    let mut expected = config.base;
    now += fail(&mut ejection, now, 5).unwrap();
    for _ in 0..40 {
        expected = (expected * 2).min(config.max);
        ejection.begin_trial(now);
        let lasts = ejection.failure(now, &config, false, &mut rng()).unwrap();
        assert!(lasts >= expected && lasts < expected.mul_f64(1.25));
        now += lasts;
    }
}

#[test]
fn never_more_than_half() {
    let config = EjectConfig::default();
    assert!(!may_eject(0, 1, &config));
    assert!(may_eject(0, 2, &config) && !may_eject(1, 2, &config));
    assert!(may_eject(0, 3, &config) && !may_eject(1, 3, &config));
    assert!(may_eject(1, 4, &config) && !may_eject(2, 4, &config));
}

proptest! {
    /// In any order of events, an instance is out only after enough failures, and never for ever.
    #[test]
    fn it_always_comes_back(
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
                    let lasts = ejection.failure(now, &config, true, &mut rng);
                    prop_assert!(lasts.is_none() || in_a_row >= config.failures);
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
