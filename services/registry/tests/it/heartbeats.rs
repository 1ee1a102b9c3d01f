//! Who is alive, who is not, and why.

use std::time::Duration;

use hubspoke_protocol::{InstanceState, Load, ReasonKind, ServiceInfo};

use super::fake::{Answer, Fake};
use super::live::Live;
use super::registry::{Registry, eventually};

#[tokio::test]
async fn what_does_not_answer_as_it_should_is_removed_and_the_reason_is_told() {
    let registry = Registry::start().await;
    let mut fakes = Vec::new();
    for (answer, reason) in [
        (Answer::Hang, "no answer within 500 ms"),
        (Answer::Status(500), "answered 500"),
        (Answer::Status(204), "answered 204"),
        (Answer::Redirect, "answered 302"),
        (Answer::As("somebody-else"), "another process answers at this address: Id somebody-else"),
    ] {
        let fake = Fake::start().await;
        fake.on_heartbeat(answer);
        registry.register(&ServiceInfo { id: Some("me".into()), ..fake.info("bad", &[]) }).await;
        fakes.push((fake, reason));
    }
    let gone = Fake::start().await;
    registry.register(&gone.info("bad", &[])).await;
    let addr = gone.addr.clone();
    drop(gone);
    eventually("all are removed", || async { registry.live("bad").await.is_empty() }).await;
    let removed = registry.view().await.services.remove("bad").unwrap();
    let said = |addr: &str| {
        let instance = removed.iter().find(|instance| instance.info.addr == addr).unwrap();
        assert_eq!(instance.state, InstanceState::Removed);
        let last = instance.reasons.last().unwrap();
        assert_eq!(last.kind, ReasonKind::Removed);
        last.detail.clone()
    };
    for (fake, reason) in &fakes {
        let detail = said(&fake.addr);
        assert!(detail.starts_with("3 heartbeats missed") && detail.contains(reason), "{detail}");
        assert_eq!(fake.heartbeats().len(), 3, "{reason}");
    }
    assert!(said(&addr).contains("can't connect"), "{}", said(&addr));
}

#[tokio::test]
async fn a_200_is_alive_whatever_it_says() {
    let registry = Registry::start().await;
    let mut fakes = Vec::new();
    for answer in [Answer::Megabyte, Answer::Body("fine, thanks".into()), Answer::As("me")] {
        let fake = Fake::start().await;
        fake.on_heartbeat(answer);
        registry.register(&ServiceInfo { id: Some("me".into()), ..fake.info("odd", &[]) }).await;
        fakes.push(fake);
    }
    for fake in &fakes {
        eventually("it was asked often", || async { fake.heartbeats().len() > 4 }).await;
    }
    let live = registry.live("odd").await;
    assert_eq!(live.len(), 3);
    assert!(live.iter().all(|instance| instance.load.is_none() && instance.last_heartbeat.is_some()));
}

#[tokio::test]
async fn load_and_draining_go_up_with_the_heartbeat() {
    let registry = Registry::start().await;
    let (log, visit) = (Fake::start().await, Fake::start().await);
    registry.register(&visit.snapshot_info("visit", &["log"])).await;
    log.on_heartbeat(Answer::Body(r#"{"Status":"serving","Requests":12,"InFlight":3}"#.into()));
    registry.register(&log.info("log", &[])).await;
    let load = Some(Load { requests: 12, in_flight: 3 });
    eventually("its load is shown", || async { registry.live("log").await[0].load == load }).await;
    log.on_heartbeat(Answer::Body(r#"{"Status":"draining","Requests":13,"InFlight":1}"#.into()));
    let told = || async {
        let pushes = visit.pushes();
        pushes.last().is_some_and(|push| push.body["Services"]["log"][0]["State"] == "draining")
    };
    eventually("its dependents are told", told).await;
    assert_eq!(registry.state("log", &log.addr).await, Some(InstanceState::Draining));
}

#[tokio::test]
async fn a_heartbeat_carries_the_newest_revision_that_concerns_its_member() {
    let registry = Registry::start().await;
    let (visit, log, other) = (Fake::start().await, Fake::start().await, Fake::start().await);
    registry.register(&visit.snapshot_info("visit", &["log"])).await;
    let log_there = registry.register(&log.info("log", &[])).await.revision;
    registry.register(&other.info("other", &[])).await;
    eventually("it is asked", || async { visit.heartbeats().len() > 2 }).await;
    assert_eq!(visit.heartbeats().last(), Some(&log_there));
    eventually("it is asked", || async { log.heartbeats().len() > 2 }).await;
    assert!(log.heartbeats().iter().all(|revision| revision.n == 0 && revision.epoch == log_there.epoch));
}

#[tokio::test]
async fn a_member_that_was_stopped_beyond_its_deadline_comes_back_when_it_goes_on() {
    let registry = Registry::start().await;
    let timing = hubspoke_client::membership::Timing { renew: Duration::from_secs(4), ..Default::default() };
    let log = Live::with(&registry, "log", &[], timing).await;
    let visit = Live::start(&registry, "visit", &["log"]).await;
    visit.follows(&registry, "log").await;
    log.freeze(true);
    eventually("it is removed", || async { registry.addrs("log").await.is_empty() }).await;
    eventually("its dependents know", || async { visit.knows("log").is_empty() }).await;
    log.freeze(false);
    eventually("it is back", || async { registry.addrs("log").await == [log.addr.clone()] }).await;
    visit.follows(&registry, "log").await;
    let reasons = &registry.live("log").await[0].reasons;
    let kinds: Vec<_> = reasons.iter().map(|reason| reason.kind).collect();
    use ReasonKind::{MissedHeartbeat, Registered, Removed};
    assert_eq!(kinds, [Registered, MissedHeartbeat, Removed, Registered], "its history is kept");
}
