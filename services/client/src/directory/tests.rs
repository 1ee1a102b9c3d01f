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
    directory.registered(lists(&["a:1"]), at(1, 5));
    assert_eq!(directory.snapshot(push(1, 8, &["a:1", "b:1"])), Applied::UpToDate);
    directory.registered(lists(&["a:1"]), at(1, 6));
    assert_eq!(addrs(&directory), ["a:1", "b:1"]);
    assert_eq!(directory.snapshot(push(1, 7, &[])), Applied::UpToDate);
    assert_eq!(addrs(&directory), ["a:1", "b:1"]);
    assert_eq!(directory.view().revision(), at(1, 8));
    directory.registered(lists(&[]), at(1, 9));
    assert_eq!(addrs(&directory), [""; 0]);
    assert_eq!(directory.view().instances("log").map(<[_]>::len), Some(0), "an empty list is delivered too");
}

#[test]
fn a_name_that_the_reply_leaves_out_is_gone() {
    let directory = Directory::default();
    directory.registered(lists(&["a:1"]), at(1, 5));
    directory.registered(ServiceLists::default(), at(1, 6));
    assert_eq!(directory.view().instances("log"), None);
}

#[test]
fn another_epoch_is_taken_from_a_reply_only() {
    let directory = Directory::default();
    directory.registered(lists(&["a:1"]), at(1, 50));
    assert_eq!(directory.snapshot(push(2, 60, &["b:1"])), Applied::OtherEpoch);
    assert_eq!(addrs(&directory), ["a:1"]);
    assert!(directory.registered(lists(&["c:1"]), at(2, 1)));
    directory.forget();
    assert_eq!(addrs(&directory), ["c:1"]);
    assert_eq!(directory.snapshot(push(1, 99, &["a:1"])), Applied::OtherEpoch);
    assert_eq!(addrs(&directory), ["c:1"]);
}

#[test]
fn a_registry_that_lost_its_state_takes_nobody_away_at_first() {
    let directory = Directory::default();
    directory.registered(lists(&["a:1", "b:1", "c:1"]), at(1, 50));
    assert!(directory.registered(lists(&["b:1"]), at(2, 1)), "another epoch");
    assert_eq!(addrs(&directory), ["a:1", "b:1", "c:1"]);
    assert_eq!(directory.view().revision(), at(2, 1));
    directory.snapshot(push(2, 2, &["a:1", "b:1"]));
    assert_eq!(addrs(&directory), ["a:1", "b:1", "c:1"], "c has not come back yet");
    directory.snapshot(push(2, 3, &["b:1"]));
    assert_eq!(addrs(&directory), ["b:1", "c:1"], "a came back and left");
    assert!(!directory.registered(lists(&["b:1"]), at(2, 3)), "the same epoch");
    assert_eq!(addrs(&directory), ["b:1", "c:1"]);
    directory.event(Event::Removed(info("c:1")), at(2, 4));
    assert_eq!(addrs(&directory), ["b:1"], "said by name to be gone");
    directory.registered(lists(&[]), at(3, 1));
    assert_eq!(addrs(&directory), ["b:1"]);
    directory.forget();
    assert_eq!(addrs(&directory), [""; 0]);
}

#[test]
fn events_of_a_core_registry_survive_the_reply_that_they_overtook() {
    let directory = Directory::default();
    directory.registering();
    directory.event(Event::Added(info("b:1")), None);
    directory.event(Event::Removed(info("c:1")), None);
    directory.registered(lists(&["a:1", "c:1"]), None);
    assert_eq!(addrs(&directory), ["a:1", "b:1"]);
    directory.event(Event::Removed(info("a:1")), None);
    assert_eq!(addrs(&directory), ["b:1"]);
    directory.event(Event::Added(info("b:1")), None);
    assert_eq!(addrs(&directory), ["b:1"], "told twice, listed once");
}

#[test]
fn a_late_removal_of_an_older_start_leaves_the_newer_one() {
    let start = |id: &str| ServiceInfo { id: Some(id.into()), ..info("a:1") };
    let directory = Directory::default();
    directory.registered(ServiceLists([("log".to_owned(), vec![start("new")])].into()), at(1, 1));
    directory.event(Event::Removed(start("old")), at(1, 2));
    assert_eq!(addrs(&directory), ["a:1"]);
    directory.event(Event::Removed(start("new")), at(1, 3));
    assert_eq!(addrs(&directory), [""; 0]);
}

#[test]
fn a_follower_has_each_view_before_the_change_returns() {
    let directory = Directory::default();
    directory.registered(lists(&["a:1"]), at(1, 1));
    let seen = Arc::<Mutex<Vec<usize>>>::default();
    let seen_by_follower = seen.clone();
    directory.follow(Arc::new(move |view: &View| {
        seen_by_follower.lock().unwrap().push(view.instances("log").map_or(0, <[_]>::len));
    }));
    assert_eq!(*seen.lock().unwrap(), [1], "what is known already");
    directory.event(Event::Added(info("b:1")), at(1, 2));
    assert_eq!(*seen.lock().unwrap(), [1, 2]);
    directory.registered(lists(&["a:1", "b:1"]), at(1, 3)); // nothing new
    directory.event(Event::Removed(info("a:1")), at(1, 4));
    assert_eq!(*seen.lock().unwrap(), [1, 2, 1]);
}

#[test]
fn the_pick_is_uniform_over_what_is_left() {
    let directory = Directory::default();
    directory.registered(lists(&["a:1", "b:1", "c:1", "d:1"]), at(1, 1));
    let mut rng = StdRng::seed_from_u64(7);
    let mut counts = BTreeMap::<String, f64>::new();
    for _ in 0..30_000 {
        let pick = directory.pick("log", &["b:1"], &mut rng).unwrap();
        *counts.entry(pick.addr.clone()).or_default() += 1.0;
    }
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["a:1", "c:1", "d:1"]);
    let chi2: f64 = counts.values().map(|n| (n - 10_000.0).powi(2) / 10_000.0).sum();
    assert!(chi2 < 13.8, "chi² = {chi2}, above the 0.1 % point for 2 degrees of freedom");
    assert_eq!(directory.pick("log", &["a:1", "b:1", "c:1", "d:1"], &mut rng), None);
    assert_eq!(directory.pick::<&str>("none", &[], &mut rng), None);
}

#[test]
fn suspects_are_the_last_resort_and_draining_instances_none() {
    let in_state = |addr: &str, state| ServiceInfo { state: Some(state), ..info(addr) };
    let list =
        vec![info("a:1"), in_state("b:1", InstanceState::Suspect), in_state("c:1", InstanceState::Draining)];
    let directory = Directory::default();
    directory.registered(ServiceLists([("log".to_owned(), list)].into()), at(1, 1));
    let mut rng = StdRng::seed_from_u64(7);
    let mut pick = |tried: &[&str]| directory.pick("log", tried, &mut rng).map(|info| info.addr.clone());
    for _ in 0..50 {
        assert_eq!(pick(&[]).as_deref(), Some("a:1"));
        assert_eq!(pick(&["a:1"]).as_deref(), Some("b:1"));
        assert_eq!(pick(&["a:1", "b:1"]), None);
    }
}

/// Runs two things at the same moment, many times over: what each round begins with and what must be true after it.
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
fn an_event_of_a_core_registry_is_never_lost_to_the_reply_beside_it() {
    race(
        Directory::registering,
        |directory| {
            directory.registered(lists(&["a:1"]), None);
        },
        |directory| assert_eq!(directory.event(Event::Added(info("b:1")), None), Applied::UpToDate),
        |directory| assert_eq!(addrs(directory), ["a:1", "b:1"]),
    );
}

#[test]
fn a_push_of_the_epoch_before_never_undoes_the_reply_beside_it() {
    race(
        |directory| {
            directory.registered(lists(&["a:1"]), at(1, 1));
        },
        |directory| {
            directory.registered(lists(&["b:1"]), at(2, 1));
        },
        |directory| {
            directory.snapshot(push(1, 2, &["c:1"]));
        },
        |directory| {
            assert!(addrs(directory).contains(&"b:1".to_owned()), "{:?}", directory.view());
            assert_eq!(directory.view().revision(), at(2, 1));
        },
    );
}

proptest! {
    /// Replies and pushes of one epoch, each true at its revision, in any order, ever again: the end is the list
    /// of the newest, and the revision never goes back.
    #[test]
    fn any_order_of_delivery_ends_at_the_newest(
        order in prop::collection::vec((1u64..40, any::<bool>()), 1..60)
    ) {
        let directory = Directory::default();
        directory.registered(lists(&["at-1:1"]), at(3, 1));
        let mut newest = 1;
        for (n, as_push) in order {
            let list = format!("at-{n}:1");
            if as_push {
                directory.snapshot(push(3, n, &[&list]));
            } else {
                directory.registering();
                directory.registered(lists(&[&list]), at(3, n));
            }
            newest = newest.max(n);
            prop_assert_eq!(directory.view().revision(), at(3, newest));
            prop_assert_eq!(addrs(&directory), [format!("at-{newest}:1")]);
        }
    }
}

#[test]
fn what_is_remembered_during_a_registration_is_bounded() {
    let directory = Directory::default();
    let event = || Event::Added(ServiceInfo::new("log", "127.0.0.1:1"));
    assert!(!directory.remember(&event()), "no registration is under way");
    directory.registering();
    assert_eq!((0..MAX_MEANWHILE * 2).filter(|_| directory.remember(&event())).count(), MAX_MEANWHILE);
}
