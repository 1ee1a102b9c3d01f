//! Core members come back after an outage; others and deregistered ones do not.

use super::*;

/// A core member, removed for missed heartbeats. Returns the incarnation to which heartbeats are sent.
fn removed(fixture: &mut Fixture) -> Incarnation {
    fixture.apply(registration(info(0, 0, None, &[1])));
    let effects = fixture.miss_three(&key(0, 0)).effects;
    assert_eq!(fixture.state(&key(0, 0)), None);
    next(&effects).unwrap()
}

fn next(effects: &[Effect]) -> Option<Incarnation> {
    effects.iter().find_map(|effect| match effect {
        Effect::SendHeartbeat { to, .. } => Some(to.clone()),
        _ => None,
    })
}

fn result(fixture: &mut Fixture, of: &Incarnation, a: Answer) -> EventResult {
    fixture.apply(CatalogEvent::Heartbeat { of: of.clone(), result: answer(a) })
}

#[test]
fn a_core_member_that_answers_after_its_removal_is_back_with_its_history() {
    let mut fixture = Fixture::new();
    let of = removed(&mut fixture);
    for _ in 0..3 {
        fixture.now = fixture.now + Duration::from_secs(5);
        let missed = result(&mut fixture, &of, Answer::Missed);
        assert_eq!((missed.outcome, next(&missed.effects)), (Unchanged, Some(of.clone())));
    }
    let back = result(&mut fixture, &of, Answer::Serving);
    assert_eq!(back.outcome, Changed);
    assert!(back.effects.iter().any(|effect| matches!(effect, Effect::Returned(_))));
    assert_eq!(fixture.state(&key(0, 0)), Some(InstanceState::Passing));
    assert_eq!(fixture.catalog.dependents("b").len(), 1, "it requires what it required");
    use ReasonKind::{Recovered, Removed};
    assert_eq!(fixture.reasons(&key(0, 0))[3..], [Removed, Recovered]);
    let again = result(&mut fixture, &of, Answer::Serving);
    assert_eq!((again.outcome, again.effects.len()), (Unknown, 0));
}

#[test]
fn a_member_with_an_id_or_a_deregistered_one_does_not_come_back() {
    let mut fixture = Fixture::new();
    fixture.register(0, 0, 1);
    assert_eq!(next(&fixture.miss_three(&key(0, 0)).effects), None, "it renews");
    let deregister = |by: &Initiator| CatalogEvent::Deregister { key: key(0, 0), id: None, by: by.clone() };
    for by in [Initiator::Instance(String::new()), Initiator::Operator] {
        let mut fixture = Fixture::new();
        fixture.apply(registration(info(0, 0, None, &[])));
        assert_eq!(next(&fixture.apply(deregister(&by)).effects), None);
        // Also while it is away.
        let mut fixture = Fixture::new();
        let of = removed(&mut fixture);
        fixture.apply(deregister(&by));
        assert_eq!(result(&mut fixture, &of, Answer::Plain).outcome, Unknown);
        assert_eq!(fixture.reasons(&key(0, 0)).last(), Some(&ReasonKind::Deregistered));
        assert!(fixture.catalog.saved().removed.is_empty());
    }
}

#[test]
fn a_removed_core_member_is_checked_for_a_bounded_time_and_not_at_all_if_that_is_zero() {
    let mut fixture = Fixture::new();
    let of = removed(&mut fixture);
    fixture.now = fixture.now + settings().heartbeat.recheck;
    for a in [Answer::Plain, Answer::Missed] {
        let mut late = Fixture { catalog: Catalog::new(settings()), now: fixture.now };
        std::mem::swap(&mut late.catalog, &mut fixture.catalog);
        let end = result(&mut late, &of, a);
        assert_eq!((next(&end.effects), late.catalog.instances), (None, 0));
        fixture = Fixture::new();
        removed(&mut fixture);
        fixture.now = fixture.now + settings().heartbeat.recheck;
    }
    let mut fixture = Fixture::new();
    fixture.catalog.settings.heartbeat.recheck = Duration::ZERO;
    fixture.apply(registration(info(0, 0, None, &[])));
    assert_eq!(next(&fixture.miss_three(&key(0, 0)).effects), None);
}

#[test]
fn an_address_that_another_service_has_taken_brings_nobody_back() {
    let mut fixture = Fixture::new();
    let of = removed(&mut fixture);
    fixture.now = fixture.now + Duration::from_secs(1);
    fixture.apply(registration(info(2, 0, None, &[])));
    let taken = result(&mut fixture, &of, Answer::Plain);
    assert_eq!((taken.outcome, next(&taken.effects)), (Unchanged, None));
    assert_eq!(fixture.state(&key(0, 0)), None);
    // Two services of one process are both back.
    let mut fixture = Fixture::new();
    fixture.apply(registration(info(2, 0, None, &[])));
    let of = removed(&mut fixture);
    let other = next(&fixture.miss_three(&key(2, 0)).effects).unwrap();
    fixture.now = fixture.now + Duration::from_secs(5);
    result(&mut fixture, &of, Answer::Plain);
    result(&mut fixture, &other, Answer::Plain);
    assert_eq!(fixture.catalog.instances, 2);
}

#[test]
fn a_registration_ends_the_further_checks() {
    let mut fixture = Fixture::new();
    let of = removed(&mut fixture);
    fixture.apply(registration(info(0, 0, None, &[])));
    assert_eq!(result(&mut fixture, &of, Answer::Plain).outcome, Unknown);
    assert_eq!(fixture.catalog.instances, 1);
}

#[test]
fn a_member_that_comes_and_goes_is_suspect() {
    let mut fixture = Fixture::new();
    fixture.apply(registration(info(0, 0, None, &[])));
    for _ in 0..3 {
        let of = next(&fixture.miss_three(&key(0, 0)).effects).unwrap();
        assert_eq!(result(&mut fixture, &of, Answer::Plain).outcome, Changed);
    }
    assert_eq!(fixture.state(&key(0, 0)), Some(InstanceState::Suspect));
}

#[test]
fn a_new_instance_whose_first_heartbeat_fails_is_suspect_until_it_answers() {
    let mut fixture = Fixture::new();
    for id in [None, Some(1)] {
        let registered = fixture.apply(registration(info(0, 0, id, &[])));
        assert!(
            registered.effects.iter().any(|effect| {
                matches!(effect, Effect::SendHeartbeat { timing: HeartbeatTiming::Now, .. })
            })
        );
        assert_eq!(fixture.state(&key(0, 0)), Some(InstanceState::Passing));
        assert_eq!(fixture.heartbeat(&key(0, 0), Answer::Missed).outcome, Changed);
        assert_eq!(fixture.state(&key(0, 0)), Some(InstanceState::Suspect));
        let listed = String::from_utf8(fixture.catalog.list("a").json().to_vec()).unwrap();
        assert!(listed.contains(r#""State":"suspect""#), "{listed}");
        assert_eq!(fixture.apply(registration(info(0, 0, id, &[]))).outcome, Unchanged);
        assert_eq!(fixture.state(&key(0, 0)), Some(InstanceState::Suspect), "a renewal proves nothing");
        assert_eq!(fixture.heartbeat(&key(0, 0), Answer::Missed).outcome, Unchanged, "reported once");
        assert_eq!(fixture.heartbeat(&key(0, 0), Answer::Plain).outcome, Changed);
        assert_eq!(fixture.state(&key(0, 0)), Some(InstanceState::Passing));
        // Later a single miss is no reason to suspect it.
        assert_eq!(fixture.heartbeat(&key(0, 0), Answer::Missed).outcome, Unchanged);
        assert_eq!(fixture.state(&key(0, 0)), Some(InstanceState::Passing));
    }
}
