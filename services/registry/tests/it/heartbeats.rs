//! Heartbeats: which instances are removed, and why.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::response::Redirect;
use axum::routing::get;
use hubspoke_protocol::{InstanceState, Load, ReasonKind, ServiceInfo};
use hubspoke_testkit::{FakeMember, MemberReply, eventually};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::fixture::TestRegistry;
use super::live_member::LiveMember;

#[tokio::test]
async fn instances_that_do_not_answer_as_they_should_are_removed_with_the_reason() {
    let registry = TestRegistry::start().await;
    let mut fakes = Vec::new();
    for (reply, reason) in [
        (MemberReply::Hang, "no answer within 500 ms"),
        (MemberReply::Status(500), "answered 500"),
        (MemberReply::Status(204), "answered 204"),
        (MemberReply::Redirect, "answered 302"),
        (MemberReply::WithId("somebody-else"), "another process answers at this address: Id somebody-else"),
    ] {
        let fake = FakeMember::start().await;
        fake.on_heartbeat(reply);
        registry.register(&ServiceInfo { id: Some("me".into()), ..fake.info("bad", &[]) }).await;
        fakes.push((fake, reason));
    }
    let gone = FakeMember::start().await;
    registry.register(&gone.info("bad", &[])).await;
    let addr = gone.addr.clone();
    drop(gone);
    eventually("all are removed", || async { registry.live("bad").await.is_empty() }).await;
    let removed = registry.view().await.services.remove("bad").unwrap();
    let detail = |addr: &str| {
        let instance = removed.iter().find(|instance| instance.info.addr == addr).unwrap();
        assert_eq!(instance.state, InstanceState::Removed);
        let last = instance.reasons.last().unwrap();
        assert_eq!(last.kind, ReasonKind::Removed);
        last.detail.clone()
    };
    for (fake, reason) in &fakes {
        let detail = detail(&fake.addr);
        assert!(detail.starts_with("3 heartbeats missed") && detail.contains(reason), "{detail}");
        assert_eq!(fake.heartbeats().len(), 3, "{reason}");
    }
    let detail = detail(&addr);
    assert!(detail.contains("can't connect"), "{detail}");
}

#[tokio::test]
async fn a_200_counts_as_alive_whatever_its_body() {
    let registry = TestRegistry::start().await;
    let mut fakes = Vec::new();
    for reply in [
        MemberReply::Megabyte,
        MemberReply::Body("fine, thanks".into()),
        MemberReply::Body("{}".into()),
        MemberReply::Body(r#"{"status":"ok"}"#.into()),
        MemberReply::WithId("me"),
    ] {
        let fake = FakeMember::start().await;
        fake.on_heartbeat(reply);
        registry.register(&ServiceInfo { id: Some("me".into()), ..fake.info("odd", &[]) }).await;
        fakes.push(fake);
    }
    for fake in &fakes {
        eventually("it got several heartbeats", || async { fake.heartbeats().len() > 4 }).await;
    }
    let live = registry.live("odd").await;
    assert_eq!(live.len(), 5);
    assert!(live.iter().all(|instance| instance.load.is_none() && instance.last_heartbeat.is_some()));
}

#[tokio::test]
async fn heartbeats_report_load_and_draining() {
    let registry = TestRegistry::start().await;
    let (log, visit) = (FakeMember::start().await, FakeMember::start().await);
    registry.register(&visit.snapshot_info("visit", &["log"])).await;
    log.on_heartbeat(MemberReply::Body(r#"{"Status":"serving","Requests":12,"InFlight":3}"#.into()));
    registry.register(&log.info("log", &[])).await;
    let load = Some(Load { requests: 12, in_flight: Some(3) });
    eventually("its load is shown", || async { registry.live("log").await[0].load == load }).await;
    log.on_heartbeat(MemberReply::Body(r#"{"Status":"draining","Requests":13,"InFlight":1}"#.into()));
    let notified = || async {
        let pushes = visit.pushes();
        pushes.last().is_some_and(|push| push.body["Services"]["log"][0]["State"] == "draining")
    };
    eventually("its dependents are notified", notified).await;
    assert_eq!(registry.state("log", &log.addr).await, Some(InstanceState::Draining));
}

#[tokio::test]
async fn gateways_counts_fill_in_an_unknown_load() {
    let registry = TestRegistry::start().await;
    let (core, own, stranger) =
        (FakeMember::start().await, FakeMember::start().await, FakeMember::start().await);
    core.on_heartbeat(MemberReply::Body("{}".into()));
    own.on_heartbeat(MemberReply::Body(r#"{"Status":"serving","Requests":5,"InFlight":0}"#.into()));
    registry.register(&core.info("shop", &[])).await;
    registry.register(&own.info("shop", &[])).await;
    let counts = |requests: u64| {
        let count =
            |addr: &str| json!({"Service": "shop", "Addr": addr, "Requests": requests, "InFlight": 1});
        json!({"Status": "serving", "Requests": 9, "InFlight": 0, "Upstream": [count(&core.addr), count(&own.addr)]})
    };
    // Only a member that may call the service knows what it has sent there.
    stranger.on_heartbeat(MemberReply::Body(counts(1_000_000).to_string()));
    registry.register(&stranger.info("stranger", &["log"])).await;
    let mut gateways = Vec::new();
    for requests in [200, 11] {
        let gateway = FakeMember::start().await;
        gateway.on_heartbeat(MemberReply::Body(counts(requests).to_string()));
        registry.register(&gateway.info("gateway", &["*"])).await;
        gateways.push(gateway);
    }
    let load_of = async |addr: &str| {
        let shops = registry.live("shop").await;
        shops.into_iter().find(|instance| instance.info.addr == addr).unwrap().load
    };
    let sum = Some(Load { requests: 211, in_flight: Some(2) });
    eventually("the counts of both gateways are shown", || async { load_of(&core.addr).await == sum }).await;
    let reported = Some(Load { requests: 5, in_flight: Some(0) });
    assert_eq!(load_of(&own.addr).await, reported, "its own report is better");
}

#[tokio::test]
async fn a_heartbeat_carries_the_newest_revision_that_concerns_the_member() {
    let registry = TestRegistry::start().await;
    let (visit, log, other) =
        (FakeMember::start().await, FakeMember::start().await, FakeMember::start().await);
    registry.register(&visit.snapshot_info("visit", &["log"])).await;
    let registered = registry.register(&log.info("log", &[])).await.revision;
    registry.register(&other.info("other", &[])).await;
    eventually("it gets heartbeats", || async { visit.heartbeats().len() > 2 }).await;
    assert_eq!(visit.heartbeats().last(), Some(&registered));
    eventually("it gets heartbeats", || async { log.heartbeats().len() > 2 }).await;
    assert!(log.heartbeats().iter().all(|revision| revision.n == 0 && revision.epoch == registered.epoch));
}

#[tokio::test]
async fn a_member_that_is_suspended_until_it_is_removed_comes_back_when_it_resumes() {
    let registry = TestRegistry::start().await;
    let mut timing = hubspoke_client::membership::Timing::default();
    timing.renew = Duration::from_secs(4);
    let log = LiveMember::with(&registry, "log", &[], timing).await;
    let visit = LiveMember::start(&registry, "visit", &["log"]).await;
    visit.follows(&registry, "log").await;
    log.suspend(true);
    eventually("it is removed", || async { registry.addrs("log").await.is_empty() }).await;
    eventually("its dependents know", || async { visit.knows("log").is_empty() }).await;
    log.suspend(false);
    eventually("it is back", || async { registry.addrs("log").await == [log.addr.clone()] }).await;
    visit.follows(&registry, "log").await;
    let reasons = &registry.live("log").await[0].reasons;
    let kinds: Vec<_> = reasons.iter().map(|reason| reason.kind).collect();
    use ReasonKind::{MissedHeartbeat, Registered, Removed};
    assert_eq!(kinds, [Registered, MissedHeartbeat, Removed, Registered], "its history is kept");
}

#[tokio::test]
async fn a_program_is_checked_at_a_path_of_its_own_or_by_a_connection() {
    let registry = TestRegistry::start().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let up = move || {
        count.fetch_add(1, Relaxed);
        async { Redirect::to("/login") }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let program = listener.local_addr().unwrap().to_string();
    let mut programs = JoinSet::new();
    programs.spawn(async move { axum::serve(listener, Router::new().route("/up", get(up))).await.unwrap() });
    // It accepts connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let with = |name: &str, addr: String, key: &str, value: &str| {
        let meta = [(key.to_owned(), value.to_owned())].into();
        ServiceInfo { meta, ..ServiceInfo::new(name, addr) }
    };
    let silent_addr = silent.local_addr().unwrap().to_string();
    registry.register(&with("path", program.clone(), "check.path", "/up")).await;
    registry.register(&with("tcp", silent_addr.clone(), "check.tcp", "true")).await;
    // Neither answers /heart-beat.
    registry.register(&ServiceInfo::new("plain", &program)).await;
    registry.register(&with("down", program, "check.path", "/down")).await;
    eventually("those that fail are removed", || async {
        registry.live("plain").await.is_empty() && registry.live("down").await.is_empty()
    })
    .await;
    eventually("it is asked several times", || async { asked.load(Relaxed) >= 3 }).await;
    for name in ["path", "tcp"] {
        let live = registry.live(name).await;
        assert_eq!(live.len(), 1, "{name}");
        assert_eq!((live[0].state, live[0].load), (InstanceState::Passing, None), "{name}");
        assert!(live[0].last_heartbeat.is_some(), "{name}");
    }
    drop(silent);
    eventually("a port that is closed is removed", || async { registry.live("tcp").await.is_empty() }).await;
    assert_eq!(registry.live("path").await.len(), 1);
}
