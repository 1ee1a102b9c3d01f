//! What an operator has decided holds until an operator undoes it.

use super::*;

fn drain(fixture: &mut Fixture, on: bool) -> EventOutcome {
    fixture.apply(CatalogEvent::Drain { key: key(0, 0), on }).outcome
}

/// A catalogue that is restored from what another one saves.
fn restart(fixture: Fixture) -> Fixture {
    let SavedCatalog { instances, removed, drains, protection } = fixture.catalog.saved();
    let mut restarted = Fixture { now: fixture.now, ..Fixture::new() };
    restarted.apply(CatalogEvent::RestoreDecisions { drains, protection });
    for saved in instances {
        restarted.apply(CatalogEvent::Restore(saved));
    }
    for (saved, at) in removed {
        restarted.apply(CatalogEvent::RestoreRemoved(saved, at));
    }
    restarted
}

#[test]
fn a_drain_outlasts_an_outage_a_deregistration_and_a_restart_of_the_registry() {
    let by = Initiator::Operator;
    let gone: [fn(&mut Fixture); 3] = [
        |fixture| drop(fixture.miss_three(&key(0, 0))),
        |fixture| {
            let (id, by) = (None, Initiator::Instance(String::new()));
            drop(fixture.apply(CatalogEvent::Deregister { key: key(0, 0), id, by }));
        },
        |_| {},
    ];
    for (i, leave) in gone.into_iter().enumerate() {
        for restarts in [false, true] {
            let mut fixture = Fixture::new();
            fixture.register(0, 0, 1);
            assert_eq!(drain(&mut fixture, true), Changed);
            leave(&mut fixture);
            fixture.now = fixture.now + Duration::from_secs(3600);
            if restarts {
                fixture = restart(fixture);
            }
            for id in [1, 2] {
                fixture.register(0, 0, id);
                assert_eq!(fixture.state(&key(0, 0)), Some(InstanceState::Draining), "{i} {restarts} {id}");
            }
            fixture.heartbeat(&key(0, 0), Answer::Serving);
            assert_eq!(fixture.state(&key(0, 0)), Some(InstanceState::Draining), "{i} {restarts}");
            assert_eq!(drain(&mut fixture, false), Changed);
            fixture.apply(CatalogEvent::Deregister { key: key(0, 0), id: None, by: by.clone() });
            fixture.register(0, 0, 3);
            assert_eq!(fixture.state(&key(0, 0)), Some(InstanceState::Passing), "{i} {restarts}");
        }
    }
}

#[test]
fn a_drain_can_be_set_and_undone_while_the_instance_is_away() {
    let mut fixture = Fixture::new();
    assert_eq!(drain(&mut fixture, true), Unknown, "nothing was ever there");
    fixture.register(0, 0, 1);
    fixture.miss_three(&key(0, 0));
    assert_eq!(drain(&mut fixture, true), Changed);
    assert_eq!(drain(&mut fixture, true), Unchanged);
    assert_eq!(fixture.reasons(&key(0, 0)).last(), Some(&ReasonKind::Draining));
    fixture.register(0, 0, 2);
    assert_eq!(fixture.state(&key(0, 0)), Some(InstanceState::Draining));
    fixture.miss_three(&key(0, 0));
    fixture.now = fixture.now + Duration::from_secs(24 * 3600);
    fixture.register(1, 0, 1); // forgets what was removed long ago
    fixture.miss_three(&key(1, 0));
    assert_eq!(fixture.reasons(&key(0, 0)), []);
    assert_eq!(fixture.catalog.find("a", &key(0, 0).addr), Some(key(0, 0)), "it can still be named");
    assert_eq!(drain(&mut fixture, false), Changed);
    assert_eq!(drain(&mut fixture, false), Unknown);
    fixture.register(0, 0, 3);
    assert_eq!(fixture.state(&key(0, 0)), Some(InstanceState::Passing));
}

#[test]
fn the_protection_switch_outlasts_a_restart_of_the_registry() {
    let mut fixture = Fixture::new();
    assert!(restart(Fixture::new()).catalog.protection(seconds(0)).enabled, "as configured");
    fixture.apply(CatalogEvent::SetProtection(false));
    let mut fixture = restart(restart(fixture));
    assert!(!fixture.catalog.protection(seconds(0)).enabled);
    fixture.apply(CatalogEvent::SetProtection(true));
    assert_eq!(fixture.catalog.saved().protection, None, "the configuration decides again");
}

#[test]
fn an_instance_is_found_by_its_address_its_id_or_the_beginning_of_its_id() {
    let mut fixture = Fixture::new();
    fixture.apply(registration(info(0, 0, None, &[])));
    fixture.register(0, 1, 1);
    fixture.apply(registration(ServiceInfo { id: Some("id-10".into()), ..info(0, 2, None, &[]) }));
    let derived = info(0, 0, None, &[]).instance_id().into_owned();
    for (text, found) in [
        ("10.0.0.0:80", Some(0)),
        (derived.as_str(), Some(0)),
        (&derived[..5], Some(0)),
        ("id-1", Some(1)),
        ("id-10", Some(2)),
        ("10.0.0.1:80", Some(1)),
        ("id-", None),
        ("", None),
        ("10.0.0", None),
        ("x", None),
    ] {
        assert_eq!(fixture.catalog.find("a", text), found.map(|addr| key(0, addr)), "{text}");
    }
    fixture.heartbeat(&key(0, 1), Answer::Missed);
    assert_eq!(fixture.catalog.find("a", "id-"), Some(key(0, 2)), "the other one may be dead");
}
