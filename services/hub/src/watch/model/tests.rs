use std::collections::BTreeMap;

use hubspoke_protocol::{HeardView, Load, ServiceInfo};

use super::*;

/// `seconds` after eight in the morning.
pub(in crate::watch) fn at(seconds: i64) -> Timestamp {
    let eight: Timestamp = "2026-11-23T08:00:00Z".parse().unwrap();
    eight + SignedDuration::from_secs(seconds)
}

/// A passing instance `SERVICE-N` that registered at eight and has served `requests`.
pub(in crate::watch) fn instance(service: &str, n: u16, requests: u64) -> InstanceView {
    let reason = Reason { at: at(0).to_string(), kind: ReasonKind::Registered, detail: String::new() };
    InstanceView {
        info: ServiceInfo {
            id: Some(format!("{service}-{n}")),
            ..ServiceInfo::new(service, format!("127.0.0.1:{}", 4000 + n))
        },
        state: InstanceState::Passing,
        registered: at(0).to_string(),
        last_heartbeat: Some(at(10).to_string()),
        load: Some(Load { requests, in_flight: Some(0) }),
        warnings: Vec::new(),
        reasons: vec![reason],
    }
}

pub(in crate::watch) fn catalog(instances: Vec<InstanceView>) -> CatalogUpdate {
    let mut services: BTreeMap<String, Vec<InstanceView>> = BTreeMap::new();
    for instance in instances {
        services.entry(instance.info.name.clone()).or_default().push(instance);
    }
    CatalogUpdate::Snapshot(CatalogView {
        revision: Revision { epoch: 1, n: 5 },
        services,
        protection: None,
        registries: None,
    })
}

pub(in crate::watch) fn heartbeat(
    instance: &InstanceView,
    seconds: i64,
    requests: u64,
    in_flight: u64,
) -> CatalogUpdate {
    let load = Some(Load { requests, in_flight: Some(in_flight) });
    let heartbeat = HeardView { last_heartbeat: at(seconds).to_string(), load };
    let of_addr = [(instance.info.addr.clone(), heartbeat)].into();
    CatalogUpdate::Load(LoadView { services: [(instance.info.name.clone(), of_addr)].into() })
}

pub(in crate::watch) fn change(
    mut instance: InstanceView,
    seconds: i64,
    kind: ReasonKind,
    detail: &str,
) -> CatalogUpdate {
    instance.state = match kind {
        ReasonKind::Removed | ReasonKind::Deregistered => InstanceState::Removed,
        ReasonKind::HeldBack => InstanceState::Suspect,
        ReasonKind::Draining => InstanceState::Draining,
        _ => InstanceState::Passing,
    };
    instance.reasons = vec![Reason { at: at(seconds).to_string(), kind, detail: detail.to_owned() }];
    let revision = Revision { epoch: 1, n: 6 };
    CatalogUpdate::Change(Box::new(ChangeView { revision, kind, instance }))
}

fn row<'a>(model: &'a WatchModel, instance: &InstanceView) -> &'a Row {
    &model.rows[&(instance.info.name.clone(), instance.info.addr.clone())]
}

#[test]
fn rates_come_from_heartbeats() {
    let (a, b) = (instance("log", 1, 100), instance("log", 2, 100));
    let mut model = WatchModel::default();
    model.connected(at(10));
    model.apply(catalog(vec![a.clone(), b.clone()]), at(10));
    assert_eq!(row(&model, &a).samples.rate(), None);
    model.apply(heartbeat(&a, 15, 600, 3), at(15));
    model.apply(heartbeat(&b, 14, 140, 0), at(15));
    assert_eq!(row(&model, &a).rate(), 100.0);
    assert_eq!(row(&model, &b).rate(), 10.0);
    // The rate of an instance without heartbeats expires, except while the registry is unreachable.
    let mut later = model.clone();
    later.disconnected("gone".to_owned(), at(16));
    later.tick(at(60));
    assert_eq!(row(&later, &a).samples.rate(), Some(100.0));
    later.connected(at(61));
    later.apply(heartbeat(&a, 60, 600, 0), at(61));
    later.tick(at(61));
    assert_eq!(row(&later, &b).samples.rate(), None);
    assert_eq!(row(&later, &a).samples.rate(), Some(0.0));
    assert_eq!(row(&model, &a).view.load.unwrap().in_flight, Some(3));
    model.tick(at(15));
    model.tick(at(16));
    assert_eq!(model.rates("log").collect::<Vec<_>>(), [110.0, 110.0]);
    // After a reconnection, the snapshot's counters continue those before.
    let mut later = a.clone();
    later.last_heartbeat = Some(at(20).to_string());
    later.load = Some(Load { requests: 700, in_flight: Some(0) });
    model.apply(catalog(vec![later, b]), at(20));
    assert_eq!(row(&model, &a).rate(), 20.0);
}

#[test]
fn shares_are_over_a_span_that_is_known_of_all() {
    // Even load from 15 s on; the heartbeats of the two are two seconds apart.
    let (a, b) = (instance("log", 1, 0), instance("log", 2, 0));
    let mut model = WatchModel::default();
    model.apply(catalog(vec![a.clone(), b.clone()]), at(10));
    let shares_of = |model: &WatchModel| shares(&[row(model, &a), row(model, &b)]);
    assert_eq!(shares_of(&model), [None, None]);
    for (of, seconds, requests) in [(&a, 15, 0), (&b, 17, 200), (&a, 20, 500), (&b, 22, 700)] {
        model.apply(heartbeat(of, seconds, requests, 0), at(seconds));
    }
    // Until 20 s, a served 500; b 200 until 17 s, and three fifths of the next 500.
    assert_eq!(shares_of(&model), [Some(0.5), Some(0.5)]);
    // An instance without recent heartbeats is left out and does not shorten the span of the others.
    model.apply(heartbeat(&a, 60, 4500, 0), at(60));
    assert_eq!(shares_of(&model), [Some(1.0), None]);
    let mut removed = row(&model, &b).clone();
    removed.view.state = InstanceState::Removed;
    assert_eq!(shares(&[row(&model, &a), &removed]), [Some(1.0), None]);
    assert_eq!(shares(&[]), []);
}

#[test]
fn a_new_process_at_the_same_address_starts_over() {
    let a = instance("log", 1, 100);
    let mut model = WatchModel::default();
    model.apply(catalog(vec![a.clone()]), at(10));
    model.apply(heartbeat(&a, 15, 600, 0), at(15));
    let mut other = a.clone();
    other.info.id = Some("log-other".to_owned());
    other.load = None;
    other.last_heartbeat = None;
    model.apply(change(other, 16, ReasonKind::Replaced, ""), at(16));
    assert_eq!(row(&model, &a).view.info.id(), "log-other");
    assert_eq!(row(&model, &a).samples.rate(), None);
}

#[test]
fn changes_become_events_and_an_instances_history() {
    let a = instance("log", 1, 0);
    let mut model = WatchModel::default();
    model.apply(catalog(vec![a.clone()]), at(10));
    assert_eq!(events(&model), ["log/log-1 registered"]);
    model.apply(change(a.clone(), 20, ReasonKind::Removed, "no answer in 1 s"), at(20));
    assert!(row(&model, &a).is_removed());
    let event = &model.events[0];
    assert_eq!((event.subject.as_str(), event.what.as_str()), ("log/log-1", "removed"));
    assert_eq!((event.detail.as_str(), event.trouble), ("no answer in 1 s", true));
    model.apply(change(a.clone(), 30, ReasonKind::Registered, ""), at(30));
    let kinds: Vec<_> = row(&model, &a).view.reasons.iter().map(|reason| reason.kind).collect();
    assert_eq!(kinds, [ReasonKind::Registered, ReasonKind::Removed, ReasonKind::Registered]);
    assert_eq!(row(&model, &a).flaps(), 1);
    assert_eq!(model.revision, Some(Revision { epoch: 1, n: 6 }));
}

/// Subject and kind of each event, the newest first.
fn events(model: &WatchModel) -> Vec<String> {
    model.events.iter().map(|event| format!("{} {}", event.subject, event.what)).collect()
}

#[test]
fn events_before_the_start_and_during_an_outage_are_taken_from_the_snapshot() {
    let reason = |seconds, kind| Reason { at: at(seconds).to_string(), kind, detail: String::new() };
    let (mut a, mut b) = (instance("log", 1, 0), instance("log", 2, 0));
    a.reasons = vec![reason(0, ReasonKind::Registered), reason(30, ReasonKind::MissedHeartbeat)];
    b.reasons = vec![reason(20, ReasonKind::Registered)];
    let mut model = WatchModel::default();
    model.apply(catalog(vec![a.clone(), b.clone()]), at(40));
    let history = ["log/log-1 missed a heartbeat", "log/log-2 registered", "log/log-1 registered"];
    assert_eq!(events(&model), history);
    // The same again, times rounded a little differently.
    b.reasons[0].at = "2026-11-23T08:00:20.009Z".to_owned();
    model.apply(catalog(vec![a.clone(), b.clone()]), at(41));
    assert_eq!(events(&model), history);
    model.disconnected("refused".to_owned(), at(50));
    a.reasons.push(reason(55, ReasonKind::Recovered));
    model.connected(at(60));
    model.apply(catalog(vec![a, b]), at(60));
    assert_eq!(
        events(&model)[..3],
        ["registry reachable again", "log/log-1 recovered", "registry unreachable"]
    );
    assert_eq!(model.events.len(), 6);
}

#[test]
fn a_registry_that_accepts_and_ends_connections_while_it_stops_is_one_outage() {
    let mut model = WatchModel::default();
    model.connected(at(0));
    model.apply(catalog(vec![]), at(0));
    for seconds in 10..20 {
        model.disconnected("ended".to_owned(), at(seconds));
        model.connected(at(seconds));
    }
    model.disconnected("refused".to_owned(), at(20));
    assert_eq!(events(&model), ["registry unreachable"]);
    assert_eq!(model.feed, FeedState::Stale { since: at(10), reason: "refused".to_owned() });
    model.connected(at(30));
    model.disconnected("refused".to_owned(), at(60));
    assert_eq!(events(&model), ["registry unreachable", "registry reachable again", "registry unreachable"]);
}

#[test]
fn only_returns_from_the_dead_count_as_flaps() {
    let mut a = instance("log", 1, 0);
    let kinds = [
        ReasonKind::Registered,
        ReasonKind::Deregistered,
        ReasonKind::Registered,
        ReasonKind::MissedHeartbeat,
        ReasonKind::MissedHeartbeat,
        ReasonKind::Recovered,
        ReasonKind::Removed,
        ReasonKind::Registered,
        ReasonKind::HeldBack,
    ];
    a.reasons = kinds.map(|kind| Reason { at: at(0).to_string(), kind, detail: String::new() }).to_vec();
    assert_eq!(Row::new(a, at(0)).flaps(), 2);
}

#[test]
fn a_removed_instance_is_shown_for_a_minute() {
    let a = instance("log", 1, 0);
    let mut model = WatchModel::default();
    model.apply(catalog(vec![a.clone()]), at(10));
    model.apply(change(a, 20, ReasonKind::Deregistered, ""), at(20));
    model.tick(at(79));
    assert_eq!(model.rows.len(), 1);
    model.tick(at(81));
    assert_eq!(model.rows.len(), 0);
}

#[test]
fn each_outage_of_the_registry_makes_two_events() {
    let mut model = WatchModel::default();
    assert_eq!(model.feed, FeedState::Connecting);
    model.connected(at(0));
    model.apply(catalog(vec![instance("log", 1, 0)]), at(0));
    model.disconnected("refused".to_owned(), at(10));
    model.disconnected("still refused".to_owned(), at(12));
    assert_eq!(model.feed, FeedState::Stale { since: at(10), reason: "still refused".to_owned() });
    assert_eq!(model.rows.len(), 1, "the last known state is still shown");
    model.connected(at(20));
    let CatalogUpdate::Snapshot(mut other) = catalog(vec![]) else { unreachable!() };
    other.revision.epoch = 2;
    model.apply(CatalogUpdate::Snapshot(other), at(20));
    assert_eq!(model.feed, FeedState::Live);
    assert!(model.rows.is_empty());
    let events: Vec<_> = model.events.iter().map(|event| event.what.as_str()).collect();
    let expected =
        ["restarted; members are registering again", "reachable again", "unreachable", "registered"];
    assert_eq!(events, expected);
}

#[test]
fn memory_is_bounded() {
    let a = instance("log", 1, 0);
    let mut model = WatchModel::default();
    model.apply(catalog(vec![a.clone()]), at(0));
    for n in 0..1000 {
        let kind = if n % 2 == 0 { ReasonKind::HeldBack } else { ReasonKind::Recovered };
        model.apply(change(a.clone(), n, kind, ""), at(n));
        model.tick(at(n));
    }
    assert_eq!(model.events.len(), MAX_EVENTS);
    assert_eq!(row(&model, &a).view.reasons.len(), MAX_REASONS);
    assert_eq!(model.rates("log").count(), MAX_RATES);
}
