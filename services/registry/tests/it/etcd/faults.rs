//! What may happen to etcd, and what registries do then: nothing that runs fails, and no live member is removed.

use std::time::Duration;

use hubspoke_protocol::ServiceInfo;
use hubspoke_testkit::etcd::{EtcdCluster, Proxy};
use hubspoke_testkit::{FakeMember, MemberReply, eventually};
use tokio::time::Instant;

use super::super::fixture::{TestRegistry, quick};
use super::{agree, essence};

/// How long etcd is away in the ordinary run; `HUBSPOKE_TEST_OUTAGE=60` makes it a minute.
fn outage() -> Duration {
    let seconds = std::env::var("HUBSPOKE_TEST_OUTAGE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(4))
}

async fn three(etcd: &EtcdCluster) -> [TestRegistry; 3] {
    [
        TestRegistry::on_etcd(etcd, quick()).await,
        TestRegistry::on_etcd(etcd, quick()).await,
        TestRegistry::on_etcd(etcd, quick()).await,
    ]
}

async fn members(registries: &[TestRegistry], count: usize) -> Vec<FakeMember> {
    let mut logs = Vec::new();
    for n in 0..count {
        let log = FakeMember::start().await;
        let info = ServiceInfo { id: Some(format!("id-{n}")), ..log.info("log", &[]) };
        assert_eq!(registries[n % registries.len()].register(&info).await.status, 200);
        logs.push(log);
    }
    agree(&registries.iter().collect::<Vec<_>>()).await;
    logs
}

#[tokio::test]
async fn without_etcd_all_goes_on_but_new_registrations_and_removals() {
    let Some(mut etcd) = hubspoke_testkit::etcd::start(3).await else { return };
    let registries = three(&etcd).await;
    let [a, b, c] = &registries;
    let logs = members(&registries, 9).await;
    let visit = FakeMember::start().await;
    let known = ServiceInfo { id: Some("v".to_owned()), ..visit.snapshot_info("visit", &["log"]) };
    assert_eq!(a.register(&known).await.status, 200);
    agree(&[a, b, c]).await;
    etcd.kill_all().await;
    eventually("they notice", || async { a.metric("hub_registry_etcd_up").await < 0.5 }).await;
    let end = Instant::now() + outage();
    let dead = &logs[0];
    dead.on_heartbeat(MemberReply::Hang);
    let mut refused = 0;
    while Instant::now() < end {
        for registry in [a, b, c] {
            let reply = registry.register(&known).await;
            assert_eq!(reply.status, 200, "renewals are answered from memory: {}", reply.body);
            assert_eq!(reply.body["log"].as_array().unwrap().len(), 9, "nobody is removed");
            let began = Instant::now();
            let new = registry.register(&ServiceInfo::new("new", "127.0.0.1:9")).await;
            assert_eq!((new.problem(), new.headers["retry-after"].to_str().unwrap()), (503, "1"));
            assert!(began.elapsed() < Duration::from_secs(1));
            refused += 1;
        }
    }
    assert!(refused > 0);
    assert_eq!(c.call(reqwest::Method::GET, "/readyz", "").await.status, 200);
    let before = b.view().await;
    etcd.restart_all().await;
    eventually("the dead one is removed now, by evidence", || async { a.addrs("log").await.len() == 8 })
        .await;
    agree(&[a, b, c]).await;
    let after = b.view().await;
    assert_eq!(after.revision.epoch, before.revision.epoch);
    assert!(logs[1..].iter().all(|log| essence(&after).iter().any(|it| it.1 == log.addr)));
    assert_eq!(c.register(&FakeMember::start().await.info("new", &[])).await.status, 200);
}

#[tokio::test]
async fn an_etcd_whose_answers_take_seconds_fails_nothing_that_runs() {
    let Some(etcd) = hubspoke_testkit::etcd::start(1).await else { return };
    let proxies = [Proxy::start(etcd.addr(0)).await, Proxy::start(etcd.addr(0)).await];
    let registries = [
        TestRegistry::on_endpoints(vec![proxies[0].url()], quick()).await,
        TestRegistry::on_endpoints(vec![proxies[1].url()], quick()).await,
    ];
    let logs = members(&registries, 8).await;
    let visit = FakeMember::start().await;
    let known = ServiceInfo { id: Some("v".to_owned()), ..visit.info("visit", &["log"]) };
    assert_eq!(registries[0].register(&known).await.status, 200);
    agree(&registries.iter().collect::<Vec<_>>()).await;
    proxies.iter().for_each(|proxy| proxy.delay(Duration::from_secs(2)));
    let end = Instant::now() + outage();
    let mut fastest = Duration::MAX;
    while Instant::now() < end {
        for registry in &registries {
            let reply = registry.register(&known).await;
            assert_eq!(reply.status, 200, "renewals are answered from memory: {}", reply.body);
            assert_eq!(reply.body["log"].as_array().unwrap().len(), logs.len(), "nobody is removed");
            let began = Instant::now();
            let new = registry.register(&ServiceInfo::new("new", "127.0.0.1:9")).await;
            assert_eq!((new.problem(), new.headers["retry-after"].to_str().unwrap()), (503, "1"));
            fastest = fastest.min(began.elapsed());
        }
    }
    assert!(fastest < Duration::from_secs(1), "{fastest:?}"); // the others on a busy machine
    proxies.iter().for_each(|proxy| proxy.delay(Duration::ZERO));
    let other = FakeMember::start().await;
    for registry in &registries {
        let info = other.info("other", &[]);
        eventually("it can register", || async { registry.register(&info).await.status == 200 }).await;
    }
    agree(&registries.iter().collect::<Vec<_>>()).await;
    assert_eq!(registries[1].addrs("log").await.len(), logs.len());
}

#[tokio::test]
async fn the_leader_is_killed_again_and_again() {
    let Some(mut etcd) = hubspoke_testkit::etcd::start(3).await else { return };
    let registries = three(&etcd).await;
    let logs = members(&registries, 6).await;
    let rounds = std::env::var("HUBSPOKE_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    for round in 0..rounds {
        let leader = etcd.leader().await;
        etcd.kill(leader).await;
        let new = FakeMember::start().await;
        let info = ServiceInfo { id: Some(format!("new-{round}")), ..new.info("new", &[]) };
        eventually("it can register", || async {
            let reply = registries[round % 3].register(&info).await;
            assert!([200, 503].contains(&reply.status.as_u16()), "{}", reply.body);
            reply.status == 200
        })
        .await;
        etcd.restart(leader).await;
        agree(&registries.iter().collect::<Vec<_>>()).await;
        assert_eq!(registries[0].addrs("log").await.len(), logs.len());
        assert_eq!(registries[0].addrs("new").await, std::slice::from_ref(&new.addr));
        eventually("it can leave", || async { registries[1].deregister(&info).await.status == 200 }).await;
    }
}

#[tokio::test]
async fn a_registry_that_is_cut_off_from_etcd_removes_nobody_and_others_do_its_work() {
    let Some(etcd) = hubspoke_testkit::etcd::start(1).await else { return };
    let proxy = Proxy::start(etcd.addr(0)).await;
    let cut = TestRegistry::on_endpoints(vec![proxy.url()], quick()).await;
    let other = TestRegistry::on_etcd(&etcd, quick()).await;
    let registries = [cut, other];
    let logs = members(&registries, 10).await;
    let [cut, other] = &registries;
    proxy.cut();
    eventually("its lease expires", || async { other.metric("hub_registry_registries").await < 1.5 }).await;
    // Dead for both: only the one that is in touch may remove.
    for log in &logs[..4] {
        log.on_heartbeat(MemberReply::Status(500));
    }
    eventually("the other removes them", || async { other.addrs("log").await.len() == 6 }).await;
    assert_eq!(cut.addrs("log").await.len(), 10, "what it last knew");
    proxy.restore();
    agree(&[cut, other]).await;
    assert_eq!(cut.addrs("log").await.len(), 6);
    eventually("it takes part again", || async { other.metric("hub_registry_registries").await > 1.5 }).await;
}

#[tokio::test]
async fn compaction_changes_nothing() {
    let Some(etcd) = hubspoke_testkit::etcd::start(1).await else { return };
    let proxy = Proxy::start(etcd.addr(0)).await;
    let registries = [
        TestRegistry::on_endpoints(vec![proxy.url()], quick()).await,
        TestRegistry::on_etcd(&etcd, quick()).await,
    ];
    let logs = members(&registries, 6).await;
    let [cut, other] = &registries;
    proxy.cut();
    let gone = ServiceInfo { id: Some("id-0".to_owned()), ..logs[0].info("log", &[]) };
    assert_eq!(other.deregister(&gone).await.status, 200);
    let new = FakeMember::start().await;
    assert_eq!(other.register(&new.info("log", &[])).await.status, 200);
    etcd.compact().await;
    let epoch = cut.view().await.revision.epoch;
    proxy.restore();
    agree(&[cut, other]).await;
    let view = cut.view().await;
    assert_eq!(view.revision.epoch, epoch);
    assert!(
        essence(&view).iter().any(|it| it.1 == new.addr)
            && !essence(&view).iter().any(|it| it.1 == gone.addr)
    );
}

#[tokio::test]
async fn an_emptied_etcd_gets_back_all_who_live_in_another_epoch() {
    let Some(mut etcd) = hubspoke_testkit::etcd::start(1).await else { return };
    let registries = three(&etcd).await;
    let logs = members(&registries, 9).await;
    let [a, b, c] = &registries;
    let epoch = a.view().await.revision.epoch;
    etcd.kill_all().await;
    etcd.wipe();
    etcd.restart_all().await;
    eventually("another epoch begins", || async {
        assert_eq!(a.addrs("log").await.len(), 9, "nobody is missing for a moment");
        a.view().await.revision.epoch != epoch
    })
    .await;
    agree(&[a, b, c]).await;
    assert_eq!(b.addrs("log").await.len(), 9);
    eventually("all are in etcd again", || async {
        let fresh = TestRegistry::on_etcd(&etcd, quick()).await;
        let count = fresh.addrs("log").await.len();
        fresh.stop().await;
        count == 9
    })
    .await;
    let one = ServiceInfo { id: Some("id-1".to_owned()), ..logs[1].info("log", &[]) };
    assert_eq!(b.deregister(&one).await.status, 200);
    agree(&[a, b, c]).await;
    assert_eq!(c.addrs("log").await.len(), 8);
}

#[tokio::test]
async fn an_older_backup_begins_another_epoch_and_nobody_who_lives_is_missing() {
    let Some(mut etcd) = hubspoke_testkit::etcd::start(1).await else { return };
    let registries = three(&etcd).await;
    let mut logs = members(&registries, 4).await;
    let [a, b, c] = &registries;
    etcd.kill_all().await;
    let backup = etcd.backup();
    etcd.restart_all().await;
    eventually("etcd is back", || async { a.metric("hub_registry_etcd_up").await > 0.5 }).await;
    for n in 0..4 {
        let log = FakeMember::start().await;
        let info = ServiceInfo { id: Some(format!("later-{n}")), ..log.info("log", &[]) };
        eventually("it registers", || async { b.register(&info).await.status == 200 }).await;
        logs.push(log);
    }
    let gone = logs.remove(0);
    gone.on_heartbeat(MemberReply::Status(500));
    eventually("one is removed", || async { a.addrs("log").await.len() == 7 }).await;
    let epoch = a.view().await.revision.epoch;
    etcd.kill_all().await;
    etcd.restore(&backup);
    etcd.restart_all().await;
    eventually("another epoch begins", || async { a.view().await.revision.epoch != epoch }).await;
    eventually("all who live are there, and the dead one is removed again", || async {
        let mut addrs = a.addrs("log").await;
        let mut expected: Vec<_> = logs.iter().map(|log| log.addr.clone()).collect();
        addrs.sort();
        expected.sort();
        addrs == expected
    })
    .await;
    agree(&[a, b, c]).await;
}
