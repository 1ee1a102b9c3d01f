//! A registry dies, stops or hangs: the others do its work, and nobody is removed because of that.

use std::time::Duration;

use hubspoke_protocol::{InstanceState, ReasonKind};
use hubspoke_testkit::{FakeMember, MemberReply, eventually};
use tokio::time::Instant;

use super::super::fixture::{TestRegistry, quick};
use super::agree;

async fn members(registry: &TestRegistry, count: usize) -> Vec<FakeMember> {
    let mut logs = Vec::new();
    for _ in 0..count {
        let log = FakeMember::start().await;
        assert_eq!(registry.register(&log.info("log", &[])).await.status, 200);
        logs.push(log);
    }
    logs
}

async fn all_are_checked(logs: &[FakeMember]) {
    let before: Vec<_> = logs.iter().map(|log| log.heartbeats().len()).collect();
    eventually("all are checked", || async {
        logs.iter().zip(&before).all(|(log, before)| log.heartbeats().len() > before + 2)
    })
    .await;
}

#[tokio::test]
async fn a_killed_registry_is_replaced_within_its_lease() {
    let Some(etcd) = hubspoke_testkit::etcd::start(1).await else { return };
    let a = TestRegistry::on_etcd(&etcd, quick()).await;
    let b = TestRegistry::on_etcd(&etcd, quick()).await;
    let c = TestRegistry::on_etcd(&etcd, quick()).await;
    let logs = members(&a, 12).await;
    let visit = FakeMember::start().await;
    c.register(&visit.snapshot_info("visit", &["log"])).await;
    all_are_checked(&logs).await;
    let killed = Instant::now();
    a.kill().await;
    // A registration right after that is known to everybody's dependents, by b at the latest with its heartbeats.
    let new = FakeMember::start().await;
    assert_eq!(b.register(&new.info("log", &[])).await.status, 200);
    assert_eq!(
        c.register(&visit.snapshot_info("visit", &["log"])).await.body["log"].as_array().unwrap().len(),
        13
    );
    assert!(killed.elapsed() < Duration::from_secs(1));
    eventually("its lease expires", || async { b.metric("hub_registry_registries").await < 2.5 }).await;
    all_are_checked(&logs).await;
    agree(&[&b, &c]).await;
    assert_eq!(b.addrs("log").await.len(), 13);
    // Pushes too.
    c.deregister(&new.info("log", &[])).await;
    eventually("it is pushed", || async { visit.newest("log").is_some_and(|list| list.len() == 12) }).await;
    for registry in [&b, &c] {
        assert!(
            registry.metric("hub_registry_removals_total{").await < 2.0,
            "nobody but the deregistered one"
        );
    }
}

#[tokio::test]
async fn a_registry_that_stops_hands_over_at_once() {
    let Some(etcd) = hubspoke_testkit::etcd::start(1).await else { return };
    let a = TestRegistry::on_etcd(&etcd, quick()).await;
    let mut settings = quick();
    settings.etcd.lease = Duration::from_secs(60);
    let b = TestRegistry::on_etcd(&etcd, settings).await;
    let logs = members(&a, 8).await;
    eventually("they know each other", || async { a.metric("hub_registry_registries").await > 1.5 }).await;
    let stopped = Instant::now();
    b.stop().await;
    eventually("the other knows", || async { a.metric("hub_registry_registries").await < 1.5 }).await;
    assert!(stopped.elapsed() < Duration::from_secs(2), "not only when its lease expires");
    all_are_checked(&logs).await;
    assert_eq!(a.addrs("log").await.len(), 8);
}

#[tokio::test]
async fn self_protection_counts_what_all_registries_find() {
    let Some(etcd) = hubspoke_testkit::etcd::start(1).await else { return };
    // A removal takes long enough that the registries have told each other.
    let mut settings = quick();
    settings.heartbeat.gap = Duration::from_secs(1);
    let mut registries = Vec::new();
    for _ in 0..3 {
        registries.push(TestRegistry::on_etcd(&etcd, settings.clone()).await);
    }
    let logs = members(&registries[0], 24).await;
    for registry in &registries {
        eventually("they know each other", || async {
            registry.metric("hub_registry_registries").await > 2.5
        })
        .await;
    }
    all_are_checked(&logs).await;
    // Each finds a third of them, which is far from half of the catalogue.
    let failing = &logs[..16];
    failing.iter().for_each(|log| log.on_heartbeat(MemberReply::Status(500)));
    let held_back = async |registry: &TestRegistry| {
        let live = registry.live("log").await;
        let held = live.iter().filter(|it| {
            it.state == InstanceState::Suspect
                && it.reasons.iter().any(|reason| reason.kind == ReasonKind::HeldBack)
        });
        (live.len(), held.count())
    };
    for registry in &registries {
        eventually("all of their removals are held back", || async { held_back(registry).await == (24, 16) })
            .await;
    }
    all_are_checked(&logs).await;
    assert_eq!(held_back(&registries[1]).await, (24, 16));
    failing.iter().for_each(|log| log.on_heartbeat(MemberReply::Ok));
    eventually("they pass again", || async {
        let live = registries[2].live("log").await;
        live.len() == 24 && live.iter().all(|it| it.state == InstanceState::Passing)
    })
    .await;
}
