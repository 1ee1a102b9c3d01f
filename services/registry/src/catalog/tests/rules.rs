//! One rule each.

use super::*;

mod protection;

fn seconds(s: i64) -> Time {
    Time::from_millis(s * 1000)
}

struct Run {
    catalog: Catalog,
    now: Time,
}

impl Run {
    fn new() -> Self {
        Self { catalog: Catalog::new(policy()), now: seconds(0) }
    }

    fn apply(&mut self, event: Event) -> Applied {
        self.catalog.apply(self.now, event).unwrap()
    }

    fn register(&mut self, name: u8, addr: u8, id: u8) -> Applied {
        self.apply(Event::Register(info(name, addr, Some(id), &[])))
    }

    fn beat(&mut self, key: &Key, a: Answer) -> Applied {
        let start = self.catalog.registered(key).map_or(0, |(start, _)| start);
        self.apply(Event::Heartbeat { key: key.clone(), start, answer: answer(a) })
    }

    /// Three failed attempts, a second apart.
    fn die(&mut self, key: &Key) -> Applied {
        for _ in 0..2 {
            self.beat(key, Answer::None);
            self.now = self.now + Duration::from_secs(1);
        }
        self.beat(key, Answer::None)
    }

    fn state(&self, key: &Key) -> Option<InstanceState> {
        self.catalog.get(key).map(Instance::state)
    }

    fn reasons(&self, key: &Key) -> Vec<ReasonKind> {
        let all = self.catalog.snapshot(self.now, None);
        let mut list = all.get(&key.name).into_iter().flatten();
        let found = list.rfind(|(instance, _)| instance.info.addr == *key.addr);
        found.map(|(i, _)| i.reasons.iter().map(|reason| reason.kind).collect()).unwrap_or_default()
    }
}

#[test]
fn a_renewal_changes_nothing_and_wakes_nobody() {
    let mut run = Run::new();
    assert_eq!(run.register(0, 0, 1).outcome, Outcome::Changed);
    let revision = run.catalog.revision();
    let again = run.register(0, 0, 1);
    assert_eq!(again.outcome, Outcome::Unchanged);
    assert!(matches!(again.effects[..], [Effect::Joined(_)]));
    assert_eq!(run.catalog.revision(), revision);
}

#[test]
fn another_start_replaces_and_the_older_can_no_longer_deregister() {
    let mut run = Run::new();
    run.register(0, 0, 1);
    run.register(0, 0, 2);
    assert_eq!(run.catalog.len(), 1);
    let late = Event::Deregister { key: key(0, 0), id: Some("id-1".into()), by: By::Itself };
    assert!(matches!(run.catalog.apply(run.now, late), Err(Refusal::OlderStart { .. })));
    assert_eq!(run.catalog.len(), 1);
    assert_eq!(run.reasons(&key(0, 0)), [ReasonKind::Registered, ReasonKind::Replaced]);
}

#[test]
fn three_missed_heartbeats_remove_and_the_reason_stays_for_a_while() {
    let mut run = Run::new();
    run.register(0, 0, 1);
    run.die(&key(0, 0));
    assert!(run.catalog.is_empty());
    let expected = [ReasonKind::Registered, ReasonKind::MissedHeartbeat, ReasonKind::Removed];
    assert_eq!(run.reasons(&key(0, 0)), expected);
    run.now = run.now + policy().removed_for;
    assert_eq!(run.reasons(&key(0, 0)), []);
}

#[test]
fn one_answer_forgives_missed_heartbeats() {
    let mut run = Run::new();
    run.register(0, 0, 1);
    for _ in 0..5 {
        run.beat(&key(0, 0), Answer::None);
        run.beat(&key(0, 0), Answer::None);
        run.beat(&key(0, 0), Answer::Plain);
    }
    assert_eq!(run.state(&key(0, 0)), Some(InstanceState::Passing));
}

#[test]
fn a_heartbeat_that_could_not_be_sent_is_no_miss() {
    let mut run = Run::new();
    run.register(0, 0, 1);
    let (start, _) = run.catalog.registered(&key(0, 0)).unwrap();
    run.beat(&key(0, 0), Answer::None);
    run.beat(&key(0, 0), Answer::None);
    for _ in 0..10 {
        let applied = run.apply(Event::Unasked { key: key(0, 0), start });
        assert!(matches!(applied.effects[..], [Effect::Beat { when: When::Gap, .. }]));
    }
    let older = run.apply(Event::Unasked { key: key(0, 0), start: start + 1 });
    assert_eq!((older.outcome, older.effects.len()), (Outcome::Unknown, 0));
    assert_eq!(run.catalog.len(), 1);
    run.beat(&key(0, 0), Answer::None);
    assert!(run.catalog.is_empty(), "what it missed before counts");
}

#[test]
fn an_instance_that_comes_and_goes_too_often_is_suspect_for_a_while() {
    let mut run = Run::new();
    for id in 0..3 {
        run.register(0, 0, id);
        assert_eq!(run.state(&key(0, 0)), Some(InstanceState::Passing));
        run.die(&key(0, 0));
    }
    run.register(0, 0, 4);
    assert_eq!(run.state(&key(0, 0)), Some(InstanceState::Suspect));
    run.beat(&key(0, 0), Answer::Plain);
    assert_eq!(run.state(&key(0, 0)), Some(InstanceState::Suspect), "one answer is not enough");
    run.now = run.now + policy().flap.hold;
    run.beat(&key(0, 0), Answer::Plain);
    assert_eq!(run.state(&key(0, 0)), Some(InstanceState::Passing));
}

#[test]
fn two_starts_that_fight_for_an_address_become_suspect() {
    let mut run = Run::new();
    for round in 0..4 {
        run.register(0, 0, round % 2);
    }
    assert_eq!(run.state(&key(0, 0)), Some(InstanceState::Suspect));
    assert_eq!(run.catalog.len(), 1);
}

#[test]
fn a_drained_instance_stays_drained_through_renewals_but_not_through_a_restart() {
    let mut run = Run::new();
    run.register(0, 0, 1);
    run.apply(Event::Drain { key: key(0, 0), on: true });
    run.register(0, 0, 1);
    run.beat(&key(0, 0), Answer::Serving);
    assert_eq!(run.state(&key(0, 0)), Some(InstanceState::Draining));
    let list = run.catalog.list("a");
    assert!(std::str::from_utf8(list.json()).unwrap().contains(r#""State":"draining""#));
    assert_eq!(list.plain_json().as_ref(), b"[]");
    run.register(0, 0, 2);
    assert_eq!(run.state(&key(0, 0)), Some(InstanceState::Passing));
}

#[test]
fn a_restored_instance_is_suspect_to_people_and_as_before_to_callers_until_it_is_heard() {
    let mut run = Run::new();
    let saved = Saved { info: info(0, 0, Some(1), &[1]).into(), registered: seconds(-60), drained: false };
    run.apply(Event::Restore(saved.clone()));
    assert_eq!(run.state(&key(0, 0)), Some(InstanceState::Suspect));
    assert!(!std::str::from_utf8(run.catalog.list("a").json()).unwrap().contains("State"));
    assert_eq!(run.catalog.dependents("b").len(), 1);
    run.beat(&key(0, 0), Answer::Plain);
    assert_eq!(run.state(&key(0, 0)), Some(InstanceState::Passing));

    let mut run = Run::new();
    run.apply(Event::Restore(saved.clone()));
    run.apply(Event::Register(ServiceInfo::clone(&saved.info)));
    assert_eq!(run.state(&key(0, 0)), Some(InstanceState::Passing), "a renewal will do too");

    let mut run = Run::new();
    run.apply(Event::Restore(saved));
    run.die(&key(0, 0));
    assert_eq!(run.catalog.len(), 1, "it has its grace");
    run.now = run.now + policy().restore_grace;
    run.beat(&key(0, 0), Answer::None);
    assert!(run.catalog.is_empty());
}

#[test]
fn a_restored_instance_that_does_not_answer_is_used_last_but_keeps_its_grace() {
    let saved = Saved { info: info(0, 0, Some(1), &[]).into(), registered: seconds(-60), drained: false };
    for comes_back in ["by a heartbeat", "by a renewal", "no"] {
        let mut run = Run::new();
        run.apply(Event::Restore(saved.clone()));
        let listed = |run: &mut Run| String::from_utf8(run.catalog.list("a").json().to_vec()).unwrap();
        run.beat(&key(0, 0), Answer::None);
        run.beat(&key(0, 0), Answer::None);
        assert!(!listed(&mut run).contains("State"));
        assert_eq!(run.beat(&key(0, 0), Answer::None).outcome, Outcome::Changed);
        assert!(listed(&mut run).contains(r#""State":"suspect""#));
        assert_eq!(run.beat(&key(0, 0), Answer::None).outcome, Outcome::Unchanged, "said once");
        assert_eq!(run.reasons(&key(0, 0)).last(), Some(&ReasonKind::HeldBack));
        run.now = run.now + policy().restore_grace;
        match comes_back {
            "by a heartbeat" => drop(run.beat(&key(0, 0), Answer::Plain)),
            "by a renewal" => drop(run.apply(Event::Register(ServiceInfo::clone(&saved.info)))),
            _ => {
                run.beat(&key(0, 0), Answer::None);
                assert!(run.catalog.is_empty(), "its grace is over");
                continue;
            }
        }
        assert_eq!(run.state(&key(0, 0)), Some(InstanceState::Passing), "{comes_back}");
        assert!(!listed(&mut run).contains("State"));
    }
}

#[test]
fn restored_instances_are_asked_at_once_and_then_spread() {
    let mut run = Run::new();
    let saved = Saved { info: info(0, 0, Some(1), &[]).into(), registered: seconds(-60), drained: false };
    let next = |applied: Applied| {
        let beat = applied.effects.into_iter().find_map(|effect| match effect {
            Effect::Beat { when, .. } => Some(when),
            _ => None,
        });
        beat.unwrap()
    };
    assert_eq!(next(run.apply(Event::Restore(saved))), When::Soon);
    assert_eq!(next(run.beat(&key(0, 0), Answer::Plain)), When::Spread);
    assert_eq!(next(run.beat(&key(0, 0), Answer::Plain)), When::Interval);
}

#[test]
fn an_answer_that_says_nothing_says_that_it_serves() {
    let mut run = Run::new();
    run.register(0, 0, 1);
    for (a, state) in [
        (Answer::Draining, InstanceState::Draining),
        (Answer::Plain, InstanceState::Passing),
        (Answer::Draining, InstanceState::Draining),
        (Answer::None, InstanceState::Draining),
        (Answer::Serving, InstanceState::Passing),
    ] {
        run.beat(&key(0, 0), a);
        assert_eq!(run.state(&key(0, 0)), Some(state));
    }
}

#[test]
fn a_full_catalogue_refuses_more_but_renews() {
    let mut run = Run::new();
    run.catalog.policy.max_instances = 1;
    run.register(0, 0, 1);
    let more = Event::Register(info(0, 1, Some(1), &[]));
    assert_eq!(run.catalog.apply(run.now, more).unwrap_err(), Refusal::TooManyInstances(1));
    assert_eq!(run.register(0, 0, 1).outcome, Outcome::Unchanged);
    run.catalog.policy.max_instances = 10;
    run.catalog.policy.max_services = 1;
    let more = Event::Register(info(0, 1, Some(1), &[2]));
    assert_eq!(run.catalog.apply(run.now, more).unwrap_err(), Refusal::TooManyServices(1));
    // Neither another start nor a renewal with other wishes goes round it.
    let before = run.catalog.revision();
    for id in [1, 2] {
        let wish = |name| Event::Register(info(0, 0, Some(id), &[name]));
        assert_eq!(run.catalog.apply(run.now, wish(2)).unwrap_err(), Refusal::TooManyServices(1), "{id}");
        assert_eq!(run.catalog.revision(), before);
    }
    run.apply(Event::Register(info(0, 0, Some(2), &[0, 4])));
    assert_eq!(run.catalog.services(), 1, "itself and everything are nothing new");
}

#[test]
fn a_hundred_thousand_comings_and_goings_leave_nothing_behind() {
    let mut run = Run::new();
    for i in 0..100_000_u32 {
        let mut info = ServiceInfo::new(format!("s-{i}"), "10.0.0.1:80");
        info.required_services = vec![format!("r-{i}")];
        let key = Key::new(&info.name, &info.addr);
        run.apply(Event::Register(info));
        run.apply(Event::Deregister { key, id: None, by: By::Itself });
    }
    assert!(run.catalog.is_empty());
    assert_eq!(run.catalog.services.len(), policy().removed_max);
    assert_eq!(run.catalog.removed.len(), policy().removed_max);
}

/// It was a service, nobody requires it, and it is no longer shown: only who requires everything may know it.
#[test]
fn a_forgotten_services_list_does_not_go_back_and_who_may_know_it_must_renew() {
    let mut run = Run::new();
    let (everything, by_name) = (info(1, 0, None, &[4]), info(1, 0, None, &[0]));
    run.register(0, 0, 1);
    let (known, since) = (run.catalog.list("a").revision(), run.catalog.revision());
    run.catalog.policy.removed_max = 0;
    run.apply(Event::Deregister { key: key(0, 0), id: None, by: By::Itself });
    assert_eq!(run.catalog.services(), 0);
    assert!(run.catalog.list("a").revision() > known);
    assert_eq!(run.catalog.changed_lists(&by_name, since).map(|lists| lists.len()), Some(1));
    assert!(run.catalog.changed_lists(&everything, since).is_none(), "nothing names what is gone");
    let since = run.catalog.revision();
    assert_eq!(run.catalog.newest_for(&everything), since, "its heartbeat shows what it lacks");
    assert_eq!(run.catalog.changed_lists(&everything, since).map(|lists| lists.len()), Some(0));
    let before = run.catalog.list("a").revision();
    run.apply(Event::Register(info(1, 1, None, &[0])));
    assert_eq!(run.catalog.list("a").revision(), before, "a wish is no change");
    assert!(run.catalog.lists(&everything).iter().all(|(name, _)| **name != *"a"), "nor is it a service");
}

/// Who knows already that nobody is there is not behind when the service is forgotten.
#[test]
fn a_service_that_is_known_to_be_empty_is_forgotten_without_a_word() {
    let mut run = Run::new();
    run.catalog.policy.removed_max = 1;
    let everything = info(1, 0, None, &[4]);
    for name in [0, 2] {
        run.register(name, 0, 1);
    }
    run.apply(Event::Deregister { key: key(0, 0), id: None, by: By::Itself });
    let since = run.catalog.revision();
    assert_eq!(run.catalog.lists(&everything).len(), 2);
    run.apply(Event::Deregister { key: key(2, 0), id: None, by: By::Itself });
    let changed = run.catalog.changed_lists(&everything, since).unwrap();
    assert_eq!(changed.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["c"]);
    assert!(run.catalog.lists(&everything).iter().all(|(name, _)| **name != *"a"), "it is forgotten");
}

#[test]
fn a_lists_bytes_are_made_once_and_shared() {
    let mut run = Run::new();
    run.register(0, 0, 1);
    let (one, two) = (run.catalog.list("a"), run.catalog.list("a"));
    assert!(Arc::ptr_eq(&one, &two));
    assert_eq!(one.json().as_ptr(), two.json().as_ptr());
    run.register(0, 1, 1);
    let three = run.catalog.list("a");
    let before = one.instances()[0].json().as_ptr();
    assert_eq!(before, three.instances()[0].json().as_ptr(), "an unchanged instance is not rendered again");
}
