use std::time::{Duration, Instant};

use hubspoke_chassis::rate_limit::{RateLimit, RateState};

#[test]
fn a_burst_then_the_rate() {
    let limit = RateLimit::new(10, 5).unwrap();
    let (mut client, start) = (RateState::default(), Instant::now());
    let mut admitted = |now| (0..20).filter(|_| limit.admit(&mut client, now)).count();
    assert_eq!(admitted(start), 5);
    assert_eq!(admitted(start + Duration::from_millis(100)), 1);
    assert_eq!(admitted(start + Duration::from_millis(349)), 2, "a part of an interval admits nothing");
    assert_eq!(admitted(start + Duration::from_secs(60)), 5);
    assert!(!client.is_full(start + Duration::from_secs(60)));
    assert!(client.is_full(start + Duration::from_millis(60_500)));
}

#[test]
fn a_rate_of_zero_is_no_limit_and_a_burst_of_zero_is_one() {
    assert!(RateLimit::new(0, 5).is_none());
    let (limit, mut client, now) = (RateLimit::new(1, 0).unwrap(), RateState::default(), Instant::now());
    assert!(limit.admit(&mut client, now) && !limit.admit(&mut client, now));
}
