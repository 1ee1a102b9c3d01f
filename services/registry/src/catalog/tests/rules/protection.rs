//! Self-protection.

use super::*;

#[test]
fn few_failures_among_many_are_not_held_back() {
    let mut fixture = Fixture::new();
    for addr in 0..20 {
        fixture.register(0, addr, 1);
    }
    for addr in 0..4 {
        fixture.miss_three(&key(0, addr));
    }
    assert_eq!(fixture.catalog.instances, 16);
}

/// The first `count` instances miss all their heartbeats, at the pace at which attempts are spread over an interval.
fn miss_all(fixture: &mut Fixture, count: u8) {
    for addr in 0..count {
        fixture.heartbeat(&key(0, addr), Answer::Missed);
    }
    fixture.now = fixture.now + Duration::from_secs(2);
    for _ in 0..2 {
        for addr in 0..count {
            fixture.heartbeat(&key(0, addr), Answer::Missed);
        }
    }
}

#[test]
fn when_most_fail_at_once_removals_are_held_back_for_a_bounded_time() {
    let mut fixture = Fixture::new();
    for addr in 0..20 {
        fixture.register(0, addr, 1);
    }
    miss_all(&mut fixture, 12);
    assert_eq!(fixture.catalog.instances, 20);
    assert_eq!(fixture.state(&key(0, 0)), Some(InstanceState::Suspect));
    assert_eq!(fixture.state(&key(0, 19)), Some(InstanceState::Passing));
    let protecting = fixture.catalog.protection(fixture.now);
    assert_eq!((protecting.held_back, protecting.until.is_some()), (12, true));
    // One of them answers again.
    fixture.heartbeat(&key(0, 0), Answer::Plain);
    assert_eq!(fixture.state(&key(0, 0)), Some(InstanceState::Passing));
    fixture.now = fixture.now + settings().protection.max;
    for addr in 1..12 {
        fixture.heartbeat(&key(0, addr), Answer::Missed);
    }
    assert_eq!(fixture.catalog.instances, 9);
    assert_eq!(fixture.catalog.protection(fixture.now).until, None);
}

fn announced(applied: &EventResult) -> Vec<bool> {
    let announced = applied.effects.iter().filter_map(|effect| match effect {
        Effect::Protecting(on) => Some(*on),
        _ => None,
    });
    announced.collect()
}

#[test]
fn the_beginning_and_the_end_by_the_time_bound_are_announced_once_each() {
    let mut fixture = Fixture::new();
    for addr in 0..20 {
        fixture.register(0, addr, 1);
    }
    let fail = |fixture: &mut Fixture| -> Vec<bool> {
        (0..12).flat_map(|addr| announced(&fixture.heartbeat(&key(0, addr), Answer::Missed))).collect()
    };
    assert_eq!(fail(&mut fixture), [false; 0]);
    fixture.now = fixture.now + Duration::from_secs(2);
    assert_eq!([fail(&mut fixture), fail(&mut fixture)].concat(), [true]);
    fixture.now = fixture.now + settings().protection.max;
    let first = fixture.heartbeat(&key(0, 0), Answer::Missed);
    assert!(matches!(first.effects[0], Effect::Protecting(false)), "before the other effects");
    assert_eq!(fixture.catalog.instances, 19);
    assert_eq!(fail(&mut fixture), [false; 0]);
}

#[test]
fn watchers_are_notified_of_the_number_held_back_and_of_the_switch() {
    let mut fixture = Fixture::new();
    for addr in 0..8 {
        fixture.register(0, addr, 1);
    }
    let updates = |applied: EventResult| {
        applied.effects.iter().filter(|effect| matches!(effect, Effect::ProtectionChanged)).count()
    };
    miss_all(&mut fixture, 6);
    assert_eq!(updates(fixture.heartbeat(&key(0, 0), Answer::Missed)), 0, "it is held back already");
    fixture.heartbeat(&key(0, 6), Answer::Missed);
    fixture.heartbeat(&key(0, 6), Answer::Missed);
    assert_eq!(updates(fixture.heartbeat(&key(0, 6), Answer::Missed)), 1);
    assert_eq!(fixture.catalog.protection(fixture.now).held_back, 7);
    assert_eq!(updates(fixture.heartbeat(&key(0, 6), Answer::Plain)), 1);
    assert_eq!(fixture.catalog.protection(fixture.now).held_back, 6);
    assert!(updates(fixture.apply(CatalogEvent::SetProtection(false))) > 0);
    assert!(updates(fixture.apply(CatalogEvent::SetProtection(true))) > 0, "also if nothing is held back");
}

/// The first outage lasts longer than the time bound, so the failing instances are removed in the end. The second one
/// begins a new episode.
#[test]
fn an_outage_is_protected_from_however_the_previous_one_ended() {
    for registers_again in [true, false] {
        let mut fixture = Fixture::new();
        for addr in 0..40 {
            fixture.register(0, addr, 1);
        }
        miss_all(&mut fixture, 25);
        assert_eq!(fixture.catalog.instances, 40);
        fixture.now = fixture.now + settings().protection.max;
        for addr in 0..25 {
            fixture.heartbeat(&key(0, addr), Answer::Missed);
        }
        assert_eq!(fixture.catalog.instances, 15, "after the time bound");
        fixture.now = fixture.now + settings().heartbeat.interval;
        let known: Vec<u8> = if registers_again { (0..40).collect() } else { (25..40).collect() };
        for &addr in &known {
            fixture.register(0, addr, 1);
            fixture.heartbeat(&key(0, addr), Answer::Plain);
        }
        fixture.now = fixture.now + Duration::from_secs(3600);
        for attempt in 0..3 {
            for &addr in &known {
                fixture.heartbeat(&key(0, addr), Answer::Missed);
            }
            fixture.now = fixture.now + Duration::from_secs(if attempt < 1 { 2 } else { 0 });
        }
        assert_eq!(fixture.catalog.instances, known.len(), "none is removed");
        assert!(fixture.catalog.protection(fixture.now).until.is_some());
    }
}

/// Before there is an interval's evidence, answers of other instances prove nothing.
#[test]
fn answers_of_other_instances_do_not_end_an_episode_that_has_only_begun() {
    let mut fixture = Fixture::new();
    for addr in 0..20 {
        fixture.register(0, addr, 1);
    }
    let mut announcements = Vec::new();
    // A quarter of them in the first half of the interval, the others in the second.
    for addr in [0..6, 6..12] {
        for _ in 0..3 {
            for addr in addr.clone() {
                announcements.extend(announced(&fixture.heartbeat(&key(0, addr), Answer::Missed)));
                announcements.extend(announced(&fixture.heartbeat(&key(0, 19), Answer::Plain)));
            }
            fixture.now = fixture.now + Duration::from_millis(400);
        }
    }
    assert_eq!(announcements, [true]);
    assert_eq!(fixture.catalog.instances, 20);
}

#[test]
fn half_is_not_most() {
    let mut fixture = Fixture::new();
    for addr in 0..20 {
        fixture.register(0, addr, 1);
    }
    miss_all(&mut fixture, 10);
    // The early evidence may hold some back; that of a full interval does not.
    fixture.now = fixture.now + settings().heartbeat.interval;
    for addr in 0..10 {
        fixture.heartbeat(&key(0, addr), Answer::Missed);
    }
    assert_eq!(fixture.catalog.instances, 10);
}

#[test]
fn switching_self_protection_off_removes_what_it_held_back() {
    let mut fixture = Fixture::new();
    for addr in 0..8 {
        fixture.register(0, addr, 1);
    }
    miss_all(&mut fixture, 7);
    assert_eq!(fixture.catalog.instances, 8);
    let applied = fixture.apply(CatalogEvent::SetProtection(false));
    assert!(applied.effects.iter().any(|effect| matches!(effect, Effect::Protecting(false))));
    assert_eq!(fixture.catalog.instances, 1);
}
