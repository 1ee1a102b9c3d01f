//! Self-protection.

use super::*;

#[test]
fn few_failures_among_many_are_not_held_back() {
    let mut run = Run::new();
    for addr in 0..20 {
        run.register(0, addr, 1);
    }
    for addr in 0..4 {
        run.die(&key(0, addr));
    }
    assert_eq!(run.catalog.len(), 16);
}

/// All of them miss at once; the clock goes on as it would for attempts that are spread over an interval.
fn most_die(run: &mut Run, count: u8) {
    for addr in 0..count {
        run.beat(&key(0, addr), Answer::None);
    }
    run.now = run.now + Duration::from_secs(2);
    for _ in 0..2 {
        for addr in 0..count {
            run.beat(&key(0, addr), Answer::None);
        }
    }
}

#[test]
fn when_most_fail_at_once_removals_are_held_back_for_a_bounded_time() {
    let mut run = Run::new();
    for addr in 0..20 {
        run.register(0, addr, 1);
    }
    most_die(&mut run, 12);
    assert_eq!(run.catalog.len(), 20);
    assert_eq!(run.state(&key(0, 0)), Some(InstanceState::Suspect));
    assert_eq!(run.state(&key(0, 19)), Some(InstanceState::Passing));
    let protecting = run.catalog.protecting(run.now);
    assert_eq!((protecting.held_back, protecting.until.is_some()), (12, true));
    // One of them comes back, the others don't.
    run.beat(&key(0, 0), Answer::Plain);
    assert_eq!(run.state(&key(0, 0)), Some(InstanceState::Passing));
    run.now = run.now + policy().protection.max;
    for addr in 1..12 {
        run.beat(&key(0, addr), Answer::None);
    }
    assert_eq!(run.catalog.len(), 9);
    assert_eq!(run.catalog.protecting(run.now).until, None);
}

/// The registry says whether it is holding back removals once each time, also where only time has ended it.
fn said(applied: &Applied) -> Vec<bool> {
    let said = applied.effects.iter().filter_map(|effect| match effect {
        Effect::Protecting(on) => Some(*on),
        _ => None,
    });
    said.collect()
}

#[test]
fn the_beginning_and_the_end_by_the_bound_are_said_once_each() {
    let mut run = Run::new();
    for addr in 0..20 {
        run.register(0, addr, 1);
    }
    let fail = |run: &mut Run| -> Vec<bool> {
        (0..12).flat_map(|addr| said(&run.beat(&key(0, addr), Answer::None))).collect()
    };
    assert_eq!(fail(&mut run), [false; 0]);
    run.now = run.now + Duration::from_secs(2);
    assert_eq!([fail(&mut run), fail(&mut run)].concat(), [true]);
    run.now = run.now + policy().protection.max;
    let first = run.beat(&key(0, 0), Answer::None);
    assert!(matches!(first.effects[0], Effect::Protecting(false)), "before what comes of it");
    assert_eq!(run.catalog.len(), 19);
    assert_eq!(fail(&mut run), [false; 0]);
}

#[test]
fn another_number_of_held_back_instances_and_the_switch_are_told_to_watchers() {
    let mut run = Run::new();
    for addr in 0..8 {
        run.register(0, addr, 1);
    }
    let told = |applied: Applied| {
        applied.effects.iter().filter(|effect| matches!(effect, Effect::ProtectionChanged)).count()
    };
    most_die(&mut run, 6);
    assert_eq!(told(run.beat(&key(0, 0), Answer::None)), 0, "it is held back already");
    run.beat(&key(0, 6), Answer::None);
    run.beat(&key(0, 6), Answer::None);
    assert_eq!(told(run.beat(&key(0, 6), Answer::None)), 1);
    assert_eq!(run.catalog.protecting(run.now).held_back, 7);
    assert_eq!(told(run.beat(&key(0, 6), Answer::Plain)), 1);
    assert_eq!(run.catalog.protecting(run.now).held_back, 6);
    assert!(told(run.apply(Event::Protect(false))) > 0);
    assert!(told(run.apply(Event::Protect(true))) > 0, "also where nothing is held back");
}

/// The first outage lasts longer than the bound, so who fails is removed in the end; the second is one of its own.
#[test]
fn an_outage_is_protected_from_whatever_the_one_before_came_to() {
    for registers_again in [true, false] {
        let mut run = Run::new();
        for addr in 0..40 {
            run.register(0, addr, 1);
        }
        most_die(&mut run, 25);
        assert_eq!(run.catalog.len(), 40);
        run.now = run.now + policy().protection.max;
        for addr in 0..25 {
            run.beat(&key(0, addr), Answer::None);
        }
        assert_eq!(run.catalog.len(), 15, "the bound is over");
        run.now = run.now + policy().interval;
        let known: Vec<u8> = if registers_again { (0..40).collect() } else { (25..40).collect() };
        for &addr in &known {
            run.register(0, addr, 1);
            run.beat(&key(0, addr), Answer::Plain);
        }
        run.now = run.now + Duration::from_secs(3600);
        for attempt in 0..3 {
            for &addr in &known {
                run.beat(&key(0, addr), Answer::None);
            }
            run.now = run.now + Duration::from_secs(if attempt < 1 { 2 } else { 0 });
        }
        assert_eq!(run.catalog.len(), known.len(), "nobody is removed");
        assert!(run.catalog.protecting(run.now).until.is_some());
    }
}

/// While an interval's evidence is not there, heartbeats of others say nothing about the end.
#[test]
fn answers_of_others_do_not_end_an_episode_that_has_only_begun() {
    let mut run = Run::new();
    for addr in 0..20 {
        run.register(0, addr, 1);
    }
    let mut words = Vec::new();
    // A quarter of them in the first half of the interval, the others in the second.
    for addr in [0..6, 6..12] {
        for _ in 0..3 {
            for addr in addr.clone() {
                words.extend(said(&run.beat(&key(0, addr), Answer::None)));
                words.extend(said(&run.beat(&key(0, 19), Answer::Plain)));
            }
            run.now = run.now + Duration::from_millis(400);
        }
    }
    assert_eq!(words, [true]);
    assert_eq!(run.catalog.len(), 20);
}

#[test]
fn half_is_not_most() {
    let mut run = Run::new();
    for addr in 0..20 {
        run.register(0, addr, 1);
    }
    most_die(&mut run, 10);
    // The early evidence may have held some back; a full interval's does not.
    run.now = run.now + policy().interval;
    for addr in 0..10 {
        run.beat(&key(0, addr), Answer::None);
    }
    assert_eq!(run.catalog.len(), 10);
}

#[test]
fn switching_self_protection_off_removes_what_it_held_back() {
    let mut run = Run::new();
    for addr in 0..8 {
        run.register(0, addr, 1);
    }
    most_die(&mut run, 7);
    assert_eq!(run.catalog.len(), 8);
    let applied = run.apply(Event::Protect(false));
    assert!(applied.effects.iter().any(|effect| matches!(effect, Effect::Protecting(false))));
    assert_eq!(run.catalog.len(), 1);
}
