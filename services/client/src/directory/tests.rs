use std::collections::BTreeMap;

use hubspoke_protocol::InstanceState;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

fn info(addr: &str) -> ServiceInfo {
    ServiceInfo::new("log", addr)
}

fn lists(addrs: &[&str]) -> ServiceLists {
    ServiceLists([("log".to_owned(), addrs.iter().map(|addr| info(addr)).collect())].into())
}

fn at(epoch: u64, n: u64) -> Option<Revision> {
    Some(Revision { epoch, n })
}

fn push(epoch: u64, n: u64, addrs: &[&str]) -> Snapshot {
    Snapshot { revision: Revision { epoch, n }, services: lists(addrs) }
}

fn addrs(directory: &Directory) -> Vec<String> {
    let view = directory.view();
    let mut addrs: Vec<_> =
        view.instances("log").unwrap_or_default().iter().map(|i| i.addr.clone()).collect();
    addrs.sort();
    addrs
}

#[test]
fn an_older_answer_never_undoes_a_newer_push() {
    let directory = Directory::default();
    directory.apply_registration(lists(&["a:1"]), at(1, 5));
    assert_eq!(directory.apply_snapshot(push(1, 8, &["a:1", "b:1"])), Applied::UpToDate);
    directory.apply_registration(lists(&["a:1"]), at(1, 6));
    assert_eq!(addrs(&directory), ["a:1", "b:1"]);
    assert_eq!(directory.apply_snapshot(push(1, 7, &[])), Applied::UpToDate);
    assert_eq!(addrs(&directory), ["a:1", "b:1"]);
    assert_eq!(directory.view().revision(), at(1, 8));
    directory.apply_registration(lists(&[]), at(1, 9));
    assert_eq!(addrs(&directory), [""; 0]);
    assert_eq!(directory.view().instances("log").map(<[_]>::len), Some(0), "an empty list is delivered too");
}

#[test]
fn a_service_that_the_registrys_answer_omits_is_gone() {
    let directory = Directory::default();
    directory.apply_registration(lists(&["a:1"]), at(1, 5));
    directory.apply_registration(ServiceLists::default(), at(1, 6));
    assert_eq!(directory.view().instances("log"), None);
}

#[test]
fn another_epoch_starts_with_an_answer_never_with_a_push() {
    let directory = Directory::default();
    directory.apply_registration(lists(&["a:1"]), at(1, 50));
    assert_eq!(directory.apply_snapshot(push(2, 60, &["b:1"])), Applied::OtherEpoch);
    assert_eq!(addrs(&directory), ["a:1"]);
    assert!(directory.apply_registration(lists(&["c:1"]), at(2, 1)));
    directory.drop_carried();
    assert_eq!(addrs(&directory), ["c:1"]);
    assert_eq!(directory.apply_snapshot(push(1, 99, &["a:1"])), Applied::OtherEpoch);
    assert_eq!(addrs(&directory), ["c:1"]);
}

#[test]
fn a_registry_that_lost_its_state_removes_no_instance_at_first() {
    let directory = Directory::default();
    directory.apply_registration(lists(&["a:1", "b:1", "c:1"]), at(1, 50));
    assert!(directory.apply_registration(lists(&["b:1"]), at(2, 1)), "another epoch");
    assert_eq!(addrs(&directory), ["a:1", "b:1", "c:1"]);
    assert_eq!(directory.view().revision(), at(2, 1));
    directory.apply_snapshot(push(2, 2, &["a:1", "b:1"]));
    assert_eq!(addrs(&directory), ["a:1", "b:1", "c:1"], "c has not registered again yet");
    directory.apply_snapshot(push(2, 3, &["b:1"]));
    assert_eq!(addrs(&directory), ["b:1", "c:1"], "a registered again and left");
    assert!(!directory.apply_registration(lists(&["b:1"]), at(2, 3)), "the same epoch");
    assert_eq!(addrs(&directory), ["b:1", "c:1"]);
    directory.apply_event(InstanceEvent::Removed(info("c:1")), at(2, 4));
    assert_eq!(addrs(&directory), ["b:1"], "removed by an event");
    directory.apply_registration(lists(&[]), at(3, 1));
    assert_eq!(addrs(&directory), ["b:1"]);
    directory.drop_carried();
    assert_eq!(addrs(&directory), [""; 0]);
}

#[test]
fn events_of_a_core_only_registry_survive_the_answer_that_they_overtook() {
    let directory = Directory::default();
    directory.begin_registration();
    directory.apply_event(InstanceEvent::Added(info("b:1")), None);
    directory.apply_event(InstanceEvent::Removed(info("c:1")), None);
    directory.apply_registration(lists(&["a:1", "c:1"]), None);
    assert_eq!(addrs(&directory), ["a:1", "b:1"]);
    directory.apply_event(InstanceEvent::Removed(info("a:1")), None);
    assert_eq!(addrs(&directory), ["b:1"]);
    directory.apply_event(InstanceEvent::Added(info("b:1")), None);
    assert_eq!(addrs(&directory), ["b:1"], "added twice, listed once");
}

#[test]
fn a_late_removal_of_an_older_start_keeps_the_newer_one() {
    let start = |id: &str| ServiceInfo { id: Some(id.into()), ..info("a:1") };
    let directory = Directory::default();
    directory.apply_registration(ServiceLists([("log".to_owned(), vec![start("new")])].into()), at(1, 1));
    directory.apply_event(InstanceEvent::Removed(start("old")), at(1, 2));
    assert_eq!(addrs(&directory), ["a:1"]);
    directory.apply_event(InstanceEvent::Removed(start("new")), at(1, 3));
    assert_eq!(addrs(&directory), [""; 0]);
}

#[test]
fn a_follower_has_each_view_before_the_change_returns() {
    let directory = Directory::default();
    directory.apply_registration(lists(&["a:1"]), at(1, 1));
    let seen = Arc::<Mutex<Vec<usize>>>::default();
    let seen_by_follower = seen.clone();
    directory.follow(Arc::new(move |view: &View| {
        seen_by_follower.lock().push(view.instances("log").map_or(0, <[_]>::len));
    }));
    assert_eq!(*seen.lock(), [1], "the current view");
    directory.apply_event(InstanceEvent::Added(info("b:1")), at(1, 2));
    assert_eq!(*seen.lock(), [1, 2]);
    directory.apply_registration(lists(&["a:1", "b:1"]), at(1, 3)); // nothing new
    directory.apply_event(InstanceEvent::Removed(info("a:1")), at(1, 4));
    assert_eq!(*seen.lock(), [1, 2, 1]);
}

#[test]
fn a_pick_is_uniform_over_the_instances_not_tried() {
    let directory = Directory::default();
    directory.apply_registration(lists(&["a:1", "b:1", "c:1", "d:1"]), at(1, 1));
    let mut rng = StdRng::seed_from_u64(7);
    let mut counts = BTreeMap::<String, f64>::new();
    for _ in 0..30_000 {
        let pick = directory.view().pick_with("log", &["b:1"], &mut rng).unwrap();
        *counts.entry(pick.addr.clone()).or_default() += 1.0;
    }
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["a:1", "c:1", "d:1"]);
    let chi_squared: f64 = counts.values().map(|n| (n - 10_000.0).powi(2) / 10_000.0).sum();
    assert!(chi_squared < 13.8, "chi² = {chi_squared}, above the 0.1 % point for 2 degrees of freedom");
    assert_eq!(directory.pick_except("log", &["a:1", "b:1", "c:1", "d:1"]), None);
    assert_eq!(directory.pick("none"), None);
}

#[test]
fn suspects_are_picked_last_and_draining_instances_never() {
    let in_state = |addr: &str, state| ServiceInfo { state: Some(state), ..info(addr) };
    let list =
        vec![info("a:1"), in_state("b:1", InstanceState::Suspect), in_state("c:1", InstanceState::Draining)];
    let directory = Directory::default();
    directory.apply_registration(ServiceLists([("log".to_owned(), list)].into()), at(1, 1));
    let pick = |tried: &[&str]| directory.pick_except("log", tried).map(|info| info.addr.clone());
    for _ in 0..50 {
        assert_eq!(pick(&[]).as_deref(), Some("a:1"));
        assert_eq!(pick(&["a:1"]).as_deref(), Some("b:1"));
        assert_eq!(pick(&["a:1", "b:1"]), None);
    }
}

/// Runs two closures at the same moment, many times over, each time on a new directory.
fn race(
    prepare: impl Fn(&Directory),
    one: impl Fn(&Directory) + Sync,
    two: impl Fn(&Directory) + Sync,
    check: impl Fn(&Directory),
) {
    const ROUNDS: usize = 50_000;
    let rounds: Vec<_> = (0..ROUNDS).map(|_| Directory::default()).collect();
    rounds.iter().for_each(&prepare);
    let at = std::sync::atomic::AtomicUsize::new(0);
    let run = |act: &(dyn Fn(&Directory) + Sync)| {
        for (i, directory) in rounds.iter().enumerate() {
            at.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
            while at.load(std::sync::atomic::Ordering::Acquire) < 2 * (i + 1) {
                std::thread::yield_now();
            }
            act(directory);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| run(&one));
        scope.spawn(|| run(&two));
    });
    rounds.iter().for_each(check);
}

#[test]
fn an_event_of_a_core_only_registry_survives_a_concurrent_answer() {
    race(
        Directory::begin_registration,
        |directory| {
            directory.apply_registration(lists(&["a:1"]), None);
        },
        |directory| {
            assert_eq!(directory.apply_event(InstanceEvent::Added(info("b:1")), None), Applied::UpToDate)
        },
        |directory| assert_eq!(addrs(directory), ["a:1", "b:1"]),
    );
}

#[test]
fn a_push_of_the_previous_epoch_never_undoes_a_concurrent_answer() {
    race(
        |directory| {
            directory.apply_registration(lists(&["a:1"]), at(1, 1));
        },
        |directory| {
            directory.apply_registration(lists(&["b:1"]), at(2, 1));
        },
        |directory| {
            directory.apply_snapshot(push(1, 2, &["c:1"]));
        },
        |directory| {
            assert!(addrs(directory).contains(&"b:1".to_owned()), "{:?}", directory.view());
            assert_eq!(directory.view().revision(), at(2, 1));
        },
    );
}

proptest! {
    /// Answers and pushes of one epoch arrive in any order, each any number of times. The directory ends with the list of
    /// the newest one, and its revision never goes back.
    #[test]
    fn any_order_of_delivery_ends_at_the_newest(
        order in prop::collection::vec((1u64..40, any::<bool>()), 1..60)
    ) {
        let directory = Directory::default();
        directory.apply_registration(lists(&["at-1:1"]), at(3, 1));
        let mut newest = 1;
        for (n, as_push) in order {
            let list = format!("at-{n}:1");
            if as_push {
                directory.apply_snapshot(push(3, n, &[&list]));
            } else {
                directory.begin_registration();
                directory.apply_registration(lists(&[&list]), at(3, n));
            }
            newest = newest.max(n);
            prop_assert_eq!(directory.view().revision(), at(3, newest));
            prop_assert_eq!(addrs(&directory), [format!("at-{newest}:1")]);
        }
    }
}

#[test]
fn the_buffer_of_events_is_bounded() {
    let directory = Directory::default();
    let event = || InstanceEvent::Added(ServiceInfo::new("log", "127.0.0.1:1"));
    assert!(!directory.buffer(&event()), "no registration is in progress");
    directory.begin_registration();
    assert_eq!(
        (0..MAX_BUFFERED_EVENTS * 2).filter(|_| directory.buffer(&event())).count(),
        MAX_BUFFERED_EVENTS
    );
}
