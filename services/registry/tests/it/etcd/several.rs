//! Several registries: any of them does.

use hubspoke_protocol::{InstanceState, RegistriesView, ServiceInfo};
use hubspoke_testkit::{FakeMember, MemberReply, eventually};
use reqwest::Method;
use tokio::time::Instant;

use super::super::fixture::{TestRegistry, quick};
use super::super::live_member::LiveMember;
use super::agree;

#[tokio::test]
async fn any_registry_takes_calls_and_all_show_the_same() {
    let Some(etcd) = hubspoke_testkit::etcd::start(1).await else { return };
    let a = TestRegistry::on_etcd(&etcd, quick()).await;
    let b = TestRegistry::on_etcd(&etcd, quick()).await;
    let c = TestRegistry::on_etcd(&etcd, quick()).await;
    let mut logs = Vec::new();
    for registry in [&a, &b, &c, &a, &b, &c] {
        let log = FakeMember::start().await;
        assert_eq!(registry.register(&log.info("log", &[])).await.status, 200);
        logs.push(log);
    }
    agree(&[&a, &b, &c]).await;
    assert_eq!(a.addrs("log").await.len(), 6);

    // A member may ask any registry, and what it gets never gets older.
    let visit = LiveMember::with(&a, "visit", &["log"], LiveMember::quick()).await;
    visit.follows(&a, "log").await;
    let other = FakeMember::start().await;
    let info = ServiceInfo { id: Some("x".to_owned()), ..other.info("other", &["log"]) };
    let mut last = a.register(&info).await.revision;
    for registry in [&b, &c, &a, &b] {
        eventually("it has the registration", || async { registry.live("other").await.len() == 1 }).await;
        let reply = registry.register(&info).await;
        assert_eq!(reply.revision.epoch, last.epoch);
        assert!(reply.revision.n >= last.n || registry.view().await.revision.n >= last.n);
        assert_eq!(reply.body["log"].as_array().unwrap().len(), 6);
        last = reply.revision;
    }

    // Operators too.
    let drain = format!("/services/log/{}/drain", logs[0].addr);
    assert_eq!(c.call(Method::PUT, &drain, "").await.status, 200);
    assert_eq!(b.call(Method::DELETE, &format!("/services/log/{}", logs[1].addr), "").await.status, 200);
    agree(&[&a, &b, &c]).await;
    assert_eq!(a.state("log", &logs[0].addr).await, Some(InstanceState::Draining));
    assert_eq!(a.addrs("log").await.len(), 5);
    assert_eq!(visit.knows("log").len(), 5, "the deregistration was acknowledged by the dependents of all");
    assert_eq!(a.call(Method::PUT, "/protection", r#"{"Enabled":false}"#).await.status, 200);
    eventually("all know the switch", || async { !c.view().await.protection.unwrap().enabled }).await;

    // Each shows which registries there are.
    for registry in [&a, &b, &c] {
        let list = registry.call(Method::GET, "/registries", "").await;
        let list: RegistriesView = serde_json::from_value(list.body).unwrap();
        assert!(list.etcd_up);
        let asked: Vec<_> = list.registries.iter().filter(|it| it.asked).collect();
        assert_eq!((list.registries.len(), asked.len()), (3, 1));
        assert_eq!(asked[0].addr, registry.addr.to_string());
        assert_eq!(list.registries.iter().map(|it| it.instances).sum::<usize>(), 7);
        assert!((registry.metric("hub_registry_etcd_up").await - 1.0).abs() < 0.1);
        assert!((registry.metric("hub_registry_registries").await - 3.0).abs() < 0.1);
    }
}

#[tokio::test]
async fn one_registry_sends_the_heartbeats_and_all_show_them() {
    let Some(etcd) = hubspoke_testkit::etcd::start(1).await else { return };
    let a = TestRegistry::on_etcd(&etcd, quick()).await;
    let b = TestRegistry::on_etcd(&etcd, quick()).await;
    let mut logs = Vec::new();
    for _ in 0..8 {
        let log = FakeMember::start().await;
        log.on_heartbeat(MemberReply::Body(r#"{"Requests":7,"InFlight":1}"#.to_owned()));
        a.register(&log.info("log", &[])).await;
        logs.push(log);
    }
    for registry in [&a, &b] {
        eventually("all loads are shown", || async {
            let live = registry.live("log").await;
            live.len() == 8 && live.iter().all(|it| it.load.is_some_and(|load| load.requests == 7))
        })
        .await;
    }
    // One registry sends one every 200 ms. Two would send twice as many.
    let before: Vec<_> = logs.iter().map(|log| log.heartbeats().len()).collect();
    let start = Instant::now();
    logs[0].more_heartbeats(15).await;
    let time = start.elapsed();
    for (log, before) in logs.iter().zip(before) {
        let sent = log.heartbeats().len() - before;
        assert!(sent as u128 <= time.as_millis() / 200 + 4, "{sent} heartbeats in {time:?}");
    }
}

#[tokio::test]
async fn dependents_of_all_registries_get_every_change() {
    let Some(etcd) = hubspoke_testkit::etcd::start(1).await else { return };
    let a = TestRegistry::on_etcd(&etcd, quick()).await;
    let b = TestRegistry::on_etcd(&etcd, quick()).await;
    let (mut events, mut snapshots) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        let (event, snapshot) = (FakeMember::start().await, FakeMember::start().await);
        a.register(&event.info("visit", &["log"])).await;
        b.register(&snapshot.snapshot_info("visit", &["log"])).await;
        events.push(event);
        snapshots.push(snapshot);
    }
    let log = FakeMember::start().await;
    b.register(&log.info("log", &[])).await;
    eventually("all know it", || async {
        events.iter().all(|it| it.events() == [("POST".to_owned(), log.addr.clone())])
            && snapshots.iter().all(|it| it.newest("log") == Some(vec![log.addr.clone()]))
    })
    .await;
    a.deregister(&log.info("log", &[])).await;
    assert!(
        snapshots.iter().all(|it| it.newest("log") == Some(Vec::new())),
        "acknowledged before the answer"
    );
    assert!(events.iter().all(|it| it.events().len() == 2));
}
