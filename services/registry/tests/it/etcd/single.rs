//! One registry on etcd: members see no difference.

use std::time::Duration;

use hubspoke_protocol::{InstanceState, ReasonKind, ServiceInfo};
use hubspoke_testkit::{FakeMember, MemberReply, eventually};
use reqwest::Method;

use super::super::fixture::{TestRegistry, quick};

#[tokio::test]
async fn the_protocol_is_the_same() {
    let Some(etcd) = hubspoke_testkit::etcd::start(1).await else { return };
    let registry = TestRegistry::on_etcd(&etcd, quick()).await;
    let (log, visit) = (FakeMember::start().await, FakeMember::start().await);
    let info = ServiceInfo { id: Some("log-1".to_owned()), ..log.info("log", &[]) };
    let first = registry.register(&info).await;
    assert_eq!((first.status.as_u16(), &first.body), (200, &serde_json::json!({})));
    let again = registry.register(&info).await;
    assert_eq!(again.revision, first.revision, "a renewal changes nothing");
    let reply = registry.register(&visit.snapshot_info("visit", &["log"])).await;
    assert_eq!(reply.body["log"][0]["Addr"], log.addr);
    assert!(reply.revision.n > first.revision.n && reply.revision.epoch == first.revision.epoch);

    let other = FakeMember::start().await;
    registry.register(&other.info("log", &[])).await;
    eventually("it is pushed", || async { visit.newest("log").is_some_and(|list| list.len() == 2) }).await;

    let older = ServiceInfo { id: Some("log-0".to_owned()), ..info.clone() };
    assert_eq!(registry.deregister(&older).await.problem(), 409);
    assert_eq!(registry.deregister(&info).await.status, 200);
    assert_eq!(visit.newest("log"), Some(vec![other.addr.clone()]), "acknowledged before the answer");
    assert_eq!(registry.deregister(&info).await.status, 200, "it is gone already");

    other.on_heartbeat(MemberReply::Status(500));
    eventually("it is removed", || async { registry.addrs("log").await.is_empty() }).await;
    let removed = registry.view().await.services.remove("log").unwrap();
    let removed = removed.iter().find(|instance| instance.info.addr == other.addr).unwrap();
    assert_eq!(removed.reasons.last().unwrap().kind, ReasonKind::Removed);
    assert!(removed.reasons.last().unwrap().detail.contains("heartbeats missed"), "{removed:?}");
    other.on_heartbeat(MemberReply::Ok);
    eventually("a core member comes back when it answers", || async {
        registry.addrs("log").await == [other.addr.clone()]
    })
    .await;
}

#[tokio::test]
async fn states_drains_and_the_switch_last_beyond_the_registry() {
    let Some(etcd) = hubspoke_testkit::etcd::start(1).await else { return };
    let registry = TestRegistry::on_etcd(&etcd, quick()).await;
    let (log, other) = (FakeMember::start().await, FakeMember::start().await);
    registry.register(&log.info("log", &[])).await;
    registry.register(&other.info("log", &[])).await;
    other.on_heartbeat(MemberReply::Body(r#"{"Status":"draining"}"#.to_owned()));
    let drain = format!("/services/log/{}/drain", log.addr);
    assert_eq!(registry.call(Method::PUT, &drain, "").await.status, 200);
    assert_eq!(registry.state("log", &log.addr).await, Some(InstanceState::Draining), "seen at once");
    let switch = registry.call(Method::PUT, "/protection", r#"{"Enabled":false}"#).await;
    assert_eq!(switch.body["Enabled"], false);
    eventually("it drains by itself", || async {
        registry.state("log", &other.addr).await == Some(InstanceState::Draining)
    })
    .await;
    let before = registry.view().await;

    let registry = TestRegistry::restart(registry.stop().await).await;
    registry.ready().await;
    let after = registry.view().await;
    assert_eq!(super::essence(&after), super::essence(&before));
    assert_eq!(after.revision.epoch, before.revision.epoch, "a restart begins no other epoch");
    assert!(after.revision.n >= before.revision.n);
    assert!(!after.protection.unwrap().enabled);
    assert_eq!(registry.call(Method::DELETE, &drain, "").await.status, 200);
    other.on_heartbeat(MemberReply::Ok);
    eventually("both pass", || async {
        registry.live("log").await.iter().all(|instance| instance.state == InstanceState::Passing)
    })
    .await;
}

#[tokio::test]
async fn registrations_at_once_have_outcomes_of_their_own() {
    let Some(etcd) = hubspoke_testkit::etcd::start(1).await else { return };
    let registry = TestRegistry::on_etcd(&etcd, quick()).await;
    // Two services at each address, many addresses, and for one address many starts.
    let member = FakeMember::start().await;
    let all = (0..300).map(|n| {
        let info = ServiceInfo {
            id: Some(format!("id-{n}")),
            control_addr: Some(member.addr.clone()),
            ..ServiceInfo::new("log", format!("127.0.0.1:{}", 1 + n / 3))
        };
        async {
            let info = info;
            let taken = || async {
                let status = registry.register(&info).await.status.as_u16();
                assert!(status == 200 || status == 503, "{status}");
                status == 200 // an etcd on a slow disk may not take all of them in time
            };
            eventually("it is registered", taken).await;
        }
    });
    futures_util::future::join_all(all).await;
    assert_eq!(registry.addrs("log").await.len(), 100);
    let revisions = etcd.metric("etcd_mvcc_put_total").await;
    assert!(revisions < 1500.0, "{revisions}");
}

#[tokio::test]
async fn at_rest_only_the_lease_is_kept() {
    let Some(etcd) = hubspoke_testkit::etcd::start(1).await else { return };
    let registry = TestRegistry::on_etcd(&etcd, quick()).await;
    let log = FakeMember::start().await;
    let info = log.info("log", &[]);
    registry.register(&info).await;
    eventually("it is settled", || async { log.heartbeats().len() > 2 }).await;
    let (puts, beats) = (etcd.metric("etcd_mvcc_put_total").await, log.heartbeats().len());
    eventually("many heartbeats", || async { log.heartbeats().len() > beats + 10 }).await;
    for _ in 0..10 {
        registry.register(&info).await;
    }
    assert!((etcd.metric("etcd_mvcc_put_total").await - puts).abs() < 0.5);
}

#[tokio::test]
async fn without_etcd_a_registry_starts_and_is_ready_once_it_has_read_it() {
    let Some(mut etcd) = hubspoke_testkit::etcd::start(1).await else { return };
    etcd.kill_all().await;
    let mut settings = quick();
    settings.store = hubspoke_registry::config::StoreKind::Etcd;
    settings.etcd.endpoints = etcd.endpoints();
    let registry = TestRegistry::with(settings).await;
    let log = FakeMember::start().await;
    let began = tokio::time::Instant::now();
    let refused = registry.register(&log.info("log", &[])).await;
    assert_eq!(refused.problem(), 503);
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(registry.call(Method::GET, "/services", "").await.problem(), 503, "nothing is known yet");
    assert_eq!(registry.call(Method::GET, "/readyz", "").await.problem(), 503);
    etcd.restart_all().await;
    registry.ready().await;
    assert_eq!(registry.register(&log.info("log", &[])).await.status, 200);
}
