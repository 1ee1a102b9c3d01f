//! One rule per test.

use hubspoke_protocol::{InstanceState, ReasonKind};

use super::*;

mod decisions;
mod hosts;
mod memory;
mod protection;
mod recheck;

fn seconds(s: i64) -> Time {
    Time::from_millis(s * 1000)
}

struct Fixture {
    catalog: Catalog,
    now: Time,
}

impl Fixture {
    fn new() -> Self {
        Self { catalog: Catalog::new(settings()), now: seconds(0) }
    }

    fn apply(&mut self, event: CatalogEvent) -> EventResult {
        self.catalog.apply(self.now, event).unwrap()
    }

    fn register(&mut self, name: u8, addr: u8, id: u8) -> EventResult {
        self.apply(registration(info(name, addr, Some(id), &[])))
    }

    fn heartbeat(&mut self, key: &InstanceKey, a: Answer) -> EventResult {
        self.apply(CatalogEvent::Heartbeat { of: self.incarnation(key), result: answer(a) })
    }

    fn incarnation(&self, key: &InstanceKey) -> Incarnation {
        let number = self.catalog.get(key).map_or(0, |instance| instance.incarnation);
        Incarnation { key: key.clone(), number }
    }

    /// Misses three heartbeats, a second apart.
    fn miss_three(&mut self, key: &InstanceKey) -> EventResult {
        for _ in 0..2 {
            self.heartbeat(key, Answer::Missed);
            self.now = self.now + Duration::from_secs(1);
        }
        self.heartbeat(key, Answer::Missed)
    }

    fn state(&self, key: &InstanceKey) -> Option<InstanceState> {
        self.catalog.get(key).map(InstanceRecord::state)
    }

    fn reasons(&self, key: &InstanceKey) -> Vec<ReasonKind> {
        let all = self.catalog.snapshot(self.now, None);
        let mut list = all.get(&key.name).into_iter().flatten();
        let found = list.rfind(|(instance, _)| instance.info.addr == *key.addr);
        found.map(|(i, _)| i.reasons.iter().map(|reason| reason.kind).collect()).unwrap_or_default()
    }
}

#[test]
fn a_renewal_changes_nothing_and_notifies_nobody() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.register(0, 0, 1).outcome, Changed);
    let revision = fixture.catalog.revision();
    let again = fixture.register(0, 0, 1);
    assert_eq!(again.outcome, Unchanged);
    assert!(matches!(again.effects[..], [Effect::Registered(_)]));
    assert_eq!(fixture.catalog.revision(), revision);
}

#[test]
fn a_new_id_replaces_the_old_one_which_can_no_longer_deregister() {
    let mut fixture = Fixture::new();
    fixture.register(0, 0, 1);
    fixture.register(0, 0, 2);
    assert_eq!(fixture.catalog.instances, 1);
    let late = CatalogEvent::Deregister {
        key: key(0, 0),
        id: Some("id-1".into()),
        by: Initiator::Instance(String::new()),
    };
    assert!(matches!(fixture.catalog.apply(fixture.now, late), Err(Refusal::OlderStart { .. })));
    assert_eq!(fixture.catalog.instances, 1);
    assert_eq!(fixture.reasons(&key(0, 0)), [ReasonKind::Registered, ReasonKind::Replaced]);
}

#[test]
fn three_missed_heartbeats_remove_an_instance_and_the_reason_stays_for_a_while() {
    let mut fixture = Fixture::new();
    fixture.register(0, 0, 1);
    fixture.miss_three(&key(0, 0));
    assert!(fixture.catalog.instances == 0);
    use ReasonKind::{HeldBack, MissedHeartbeat, Registered, Removed};
    let expected = [Registered, MissedHeartbeat, HeldBack, Removed];
    assert_eq!(fixture.reasons(&key(0, 0)), expected);
    fixture.now = fixture.now + settings().history.removed_for;
    assert_eq!(fixture.reasons(&key(0, 0)), []);
}

#[test]
fn an_answered_heartbeat_resets_the_misses() {
    let mut fixture = Fixture::new();
    fixture.register(0, 0, 1);
    for _ in 0..5 {
        fixture.heartbeat(&key(0, 0), Answer::Missed);
        fixture.heartbeat(&key(0, 0), Answer::Missed);
        fixture.heartbeat(&key(0, 0), Answer::Plain);
    }
    assert_eq!(fixture.state(&key(0, 0)), Some(InstanceState::Passing));
}

#[test]
fn a_heartbeat_that_could_not_be_sent_is_not_a_miss() {
    let mut fixture = Fixture::new();
    fixture.register(0, 0, 1);
    let of = fixture.incarnation(&key(0, 0));
    fixture.heartbeat(&key(0, 0), Answer::Missed);
    fixture.heartbeat(&key(0, 0), Answer::Missed);
    for _ in 0..10 {
        let applied = fixture.apply(CatalogEvent::HeartbeatNotSent(of.clone()));
        assert!(matches!(applied.effects[..], [Effect::SendHeartbeat { timing: HeartbeatTiming::Gap, .. }]));
    }
    let other = fixture.apply(CatalogEvent::HeartbeatNotSent(Incarnation { number: of.number + 1, ..of }));
    assert_eq!((other.outcome, other.effects.len()), (Unknown, 0));
    assert_eq!(fixture.catalog.instances, 1);
    fixture.heartbeat(&key(0, 0), Answer::Missed);
    assert!(fixture.catalog.instances == 0, "earlier misses count");
}

#[test]
fn an_instance_that_is_removed_too_often_is_suspect_for_a_while() {
    let mut fixture = Fixture::new();
    for id in 0..3 {
        fixture.register(0, 0, id);
        assert_eq!(fixture.state(&key(0, 0)), Some(InstanceState::Passing));
        fixture.miss_three(&key(0, 0));
    }
    fixture.register(0, 0, 4);
    assert_eq!(fixture.state(&key(0, 0)), Some(InstanceState::Suspect));
    fixture.heartbeat(&key(0, 0), Answer::Plain);
    assert_eq!(fixture.state(&key(0, 0)), Some(InstanceState::Suspect), "one answer is not enough");
    fixture.now = fixture.now + settings().flap.hold;
    fixture.heartbeat(&key(0, 0), Answer::Plain);
    assert_eq!(fixture.state(&key(0, 0)), Some(InstanceState::Passing));
}

#[test]
fn two_processes_that_fight_for_an_address_become_suspect() {
    let mut fixture = Fixture::new();
    for round in 0..4 {
        fixture.register(0, 0, round % 2);
    }
    assert_eq!(fixture.state(&key(0, 0)), Some(InstanceState::Suspect));
    assert_eq!(fixture.catalog.instances, 1);
}

#[test]
fn a_drained_instance_stays_drained_through_renewals_and_a_new_start() {
    let mut fixture = Fixture::new();
    fixture.register(0, 0, 1);
    fixture.apply(CatalogEvent::Drain { key: key(0, 0), on: true });
    fixture.register(0, 0, 1);
    fixture.heartbeat(&key(0, 0), Answer::Serving);
    assert_eq!(fixture.state(&key(0, 0)), Some(InstanceState::Draining));
    let list = fixture.catalog.list("a");
    assert!(std::str::from_utf8(list.json()).unwrap().contains(r#""State":"draining""#));
    assert_eq!(list.plain_json().as_ref(), b"[]");
    fixture.register(0, 0, 2);
    assert_eq!(fixture.state(&key(0, 0)), Some(InstanceState::Draining));
    assert_eq!(fixture.reasons(&key(0, 0)).last(), Some(&ReasonKind::Draining));
    fixture.apply(CatalogEvent::Drain { key: key(0, 0), on: false });
    fixture.register(0, 0, 3);
    assert_eq!(fixture.state(&key(0, 0)), Some(InstanceState::Passing));
}

#[test]
fn a_restored_instance_is_shown_as_suspect_but_listed_as_passing_until_it_answers() {
    let mut fixture = Fixture::new();
    let saved =
        SavedInstance { info: info(0, 0, Some(1), &[1]).into(), registered: seconds(-60), drained: false };
    fixture.apply(CatalogEvent::Restore(saved.clone()));
    assert_eq!(fixture.state(&key(0, 0)), Some(InstanceState::Suspect));
    assert!(!std::str::from_utf8(fixture.catalog.list("a").json()).unwrap().contains("State"));
    assert_eq!(fixture.catalog.dependents("b").len(), 1);
    fixture.heartbeat(&key(0, 0), Answer::Plain);
    assert_eq!(fixture.state(&key(0, 0)), Some(InstanceState::Passing));

    let mut fixture = Fixture::new();
    fixture.apply(CatalogEvent::Restore(saved.clone()));
    fixture.apply(registration(ServiceInfo::clone(&saved.info)));
    assert_eq!(fixture.state(&key(0, 0)), Some(InstanceState::Passing), "a renewal counts too");

    let mut fixture = Fixture::new();
    fixture.apply(CatalogEvent::Restore(saved));
    fixture.miss_three(&key(0, 0));
    assert_eq!(fixture.catalog.instances, 1, "within its grace");
    fixture.now = fixture.now + settings().restore_grace;
    fixture.heartbeat(&key(0, 0), Answer::Missed);
    assert!(fixture.catalog.instances == 0);
}

#[test]
fn a_restored_instance_that_does_not_answer_is_listed_as_suspect_until_its_grace_ends() {
    let saved =
        SavedInstance { info: info(0, 0, Some(1), &[]).into(), registered: seconds(-60), drained: false };
    for comes_back in ["by a heartbeat", "by a renewal", "no"] {
        let mut fixture = Fixture::new();
        fixture.apply(CatalogEvent::Restore(saved.clone()));
        let listed =
            |fixture: &mut Fixture| String::from_utf8(fixture.catalog.list("a").json().to_vec()).unwrap();
        fixture.heartbeat(&key(0, 0), Answer::Missed);
        fixture.heartbeat(&key(0, 0), Answer::Missed);
        assert!(!listed(&mut fixture).contains("State"));
        assert_eq!(fixture.heartbeat(&key(0, 0), Answer::Missed).outcome, Changed);
        assert!(listed(&mut fixture).contains(r#""State":"suspect""#));
        assert_eq!(fixture.heartbeat(&key(0, 0), Answer::Missed).outcome, Unchanged, "reported once");
        assert_eq!(fixture.reasons(&key(0, 0)).last(), Some(&ReasonKind::HeldBack));
        fixture.now = fixture.now + settings().restore_grace;
        match comes_back {
            "by a heartbeat" => drop(fixture.heartbeat(&key(0, 0), Answer::Plain)),
            "by a renewal" => drop(fixture.apply(registration(ServiceInfo::clone(&saved.info)))),
            _ => {
                fixture.heartbeat(&key(0, 0), Answer::Missed);
                assert!(fixture.catalog.instances == 0, "its grace is over");
                continue;
            }
        }
        assert_eq!(fixture.state(&key(0, 0)), Some(InstanceState::Passing), "{comes_back}");
        assert!(!listed(&mut fixture).contains("State"));
    }
}

#[test]
fn restored_instances_are_probed_soon_and_then_spread() {
    let mut fixture = Fixture::new();
    let saved =
        SavedInstance { info: info(0, 0, Some(1), &[]).into(), registered: seconds(-60), drained: false };
    let next = |applied: EventResult| {
        let timing = applied.effects.into_iter().find_map(|effect| match effect {
            Effect::SendHeartbeat { timing, .. } => Some(timing),
            _ => None,
        });
        timing.unwrap()
    };
    assert_eq!(next(fixture.apply(CatalogEvent::Restore(saved))), HeartbeatTiming::Soon);
    assert_eq!(next(fixture.heartbeat(&key(0, 0), Answer::Plain)), HeartbeatTiming::Spread);
    assert_eq!(next(fixture.heartbeat(&key(0, 0), Answer::Plain)), HeartbeatTiming::Interval);
}

#[test]
fn a_member_that_sends_no_status_counts_as_serving() {
    let mut fixture = Fixture::new();
    fixture.register(0, 0, 1);
    for (a, state) in [
        (Answer::Draining, InstanceState::Draining),
        (Answer::Plain, InstanceState::Passing),
        (Answer::Draining, InstanceState::Draining),
        (Answer::Missed, InstanceState::Draining),
        (Answer::Serving, InstanceState::Passing),
    ] {
        fixture.heartbeat(&key(0, 0), a);
        assert_eq!(fixture.state(&key(0, 0)), Some(state));
    }
}

#[test]
fn a_full_catalogue_refuses_new_instances_but_takes_renewals() {
    let mut fixture = Fixture::new();
    fixture.catalog.settings.limits.instances = 1;
    fixture.register(0, 0, 1);
    let more = registration(info(0, 1, Some(1), &[]));
    assert_eq!(fixture.catalog.apply(fixture.now, more).unwrap_err(), Refusal::TooManyInstances(1));
    assert_eq!(fixture.register(0, 0, 1).outcome, Unchanged);
    fixture.catalog.settings.limits.instances = 10;
    fixture.catalog.settings.limits.services = 1;
    let more = registration(info(0, 1, Some(1), &[2]));
    assert_eq!(fixture.catalog.apply(fixture.now, more).unwrap_err(), Refusal::TooManyServices(1));
    // Neither a new Id nor a renewal that requires other services gets around the limit.
    let before = fixture.catalog.revision();
    for id in [1, 2] {
        let requiring = |name| registration(info(0, 0, Some(id), &[name]));
        assert_eq!(
            fixture.catalog.apply(fixture.now, requiring(2)).unwrap_err(),
            Refusal::TooManyServices(1),
            "{id}"
        );
        assert_eq!(fixture.catalog.revision(), before);
    }
    fixture.apply(registration(info(0, 0, Some(2), &[0, 4])));
    assert_eq!(fixture.catalog.services(), 1, "its own name and * add no service");
}

#[test]
fn a_hundred_thousand_registrations_and_deregistrations_leave_nothing_behind() {
    let mut fixture = Fixture::new();
    for i in 0..100_000_u32 {
        let mut info = ServiceInfo::new(format!("s-{i}"), "10.0.0.1:80");
        info.required_services = vec![format!("r-{i}")];
        let key = InstanceKey::new(&info.name, &info.addr);
        fixture.apply(registration(info));
        fixture.apply(CatalogEvent::Deregister { key, id: None, by: Initiator::Instance(String::new()) });
    }
    assert!(fixture.catalog.instances == 0);
    assert_eq!(fixture.catalog.services.len(), settings().history.removed_max);
    assert_eq!(fixture.catalog.removed.len(), settings().history.removed_max);
}

/// A service that had instances, is required by nobody and is no longer shown: only a dependent of `*` may know it.
#[test]
fn the_list_revision_of_a_forgotten_service_does_not_go_back() {
    let mut fixture = Fixture::new();
    let (wildcard, by_name) = (info(1, 0, None, &[4]), info(1, 0, None, &[0]));
    fixture.register(0, 0, 1);
    let (known, since) = (fixture.catalog.list("a").revision, fixture.catalog.revision());
    fixture.catalog.settings.history.removed_max = 0;
    fixture.apply(CatalogEvent::Deregister {
        key: key(0, 0),
        id: None,
        by: Initiator::Instance(String::new()),
    });
    assert_eq!(fixture.catalog.services(), 0);
    assert!(fixture.catalog.list("a").revision > known);
    assert_eq!(fixture.catalog.changed_lists(&by_name, since).map(|lists| lists.len()), Some(1));
    assert!(fixture.catalog.changed_lists(&wildcard, since).is_none(), "no list names the forgotten service");
    let since = fixture.catalog.revision();
    assert_eq!(fixture.catalog.newest_for(&wildcard), since, "its heartbeat shows that it is behind");
    assert_eq!(fixture.catalog.changed_lists(&wildcard, since).map(|lists| lists.len()), Some(0));
    let before = fixture.catalog.list("a").revision;
    fixture.apply(registration(info(1, 1, None, &[0])));
    assert_eq!(fixture.catalog.list("a").revision, before, "requiring a service does not change its list");
    assert!(
        fixture.catalog.lists(&wildcard).iter().all(|(name, _)| **name != *"a"),
        "nor does it offer the service"
    );
}

/// A dependent that knows the empty list is not behind when the service is forgotten.
#[test]
fn an_empty_service_is_forgotten_without_a_change() {
    let mut fixture = Fixture::new();
    fixture.catalog.settings.history.removed_max = 1;
    let wildcard = info(1, 0, None, &[4]);
    for name in [0, 2] {
        fixture.register(name, 0, 1);
    }
    fixture.apply(CatalogEvent::Deregister {
        key: key(0, 0),
        id: None,
        by: Initiator::Instance(String::new()),
    });
    let since = fixture.catalog.revision();
    assert_eq!(fixture.catalog.lists(&wildcard).len(), 2);
    fixture.apply(CatalogEvent::Deregister {
        key: key(2, 0),
        id: None,
        by: Initiator::Instance(String::new()),
    });
    let changed = fixture.catalog.changed_lists(&wildcard, since).unwrap();
    assert_eq!(changed.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["c"]);
    assert!(fixture.catalog.lists(&wildcard).iter().all(|(name, _)| **name != *"a"), "it is forgotten");
}

#[test]
fn a_list_is_rendered_once_and_shared() {
    let mut fixture = Fixture::new();
    fixture.register(0, 0, 1);
    let (one, two) = (fixture.catalog.list("a"), fixture.catalog.list("a"));
    assert!(Arc::ptr_eq(&one, &two));
    assert_eq!(one.json().as_ptr(), two.json().as_ptr());
    fixture.register(0, 1, 1);
    let three = fixture.catalog.list("a");
    let before = one.instances[0].json().as_ptr();
    assert_eq!(before, three.instances[0].json().as_ptr(), "an unchanged instance is not rendered again");
}

#[test]
fn a_list_takes_many_changes_at_once() {
    let mut fixture = Fixture::new();
    for addr in 0..3 {
        fixture.register(0, addr, 1);
    }
    let before = fixture.catalog.list("a");
    fixture.register(0, 3, 1);
    fixture.register(0, 1, 2);
    let after = fixture.catalog.list("a");
    let changes = [(&before.instances[0], false), (&after.instances[1], true), (&after.instances[3], true)];
    let list = before.with(changes);
    let ids: Vec<_> = list.instances.iter().map(|listed| (listed.addr(), listed.info.id())).collect();
    assert_eq!(ids, [("10.0.0.1:80", "id-2"), ("10.0.0.2:80", "id-1"), ("10.0.0.3:80", "id-1")]);
    assert!(list.contains("10.0.0.3:80") && !list.contains("10.0.0.0:80"));
}
