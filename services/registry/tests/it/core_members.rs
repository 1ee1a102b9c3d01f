//! Members that know only the core protocol: they come back after an outage, and nobody answers for them.

use hubspoke_protocol::{InstanceState, ReasonKind, ServiceInfo};
use hubspoke_testkit::{FakeMember, MemberReply, eventually};
use reqwest::Method;
use serde_json::json;

use super::fixture::{TestRegistry, quick};

async fn kinds(registry: &TestRegistry, name: &str) -> Vec<ReasonKind> {
    let list = registry.view().await.services.remove(name).unwrap_or_default();
    list.first().map(|it| it.reasons.iter().map(|reason| reason.kind).collect()).unwrap_or_default()
}

async fn is_gone(registry: &TestRegistry, name: &str) {
    eventually("it is removed", || async { registry.live(name).await.is_empty() }).await;
}

#[tokio::test]
async fn a_core_member_that_was_away_is_back_when_it_answers_and_is_told_what_it_missed() {
    let registry = TestRegistry::start().await;
    let (log, hello) = (FakeMember::start().await, FakeMember::start().await);
    let other = FakeMember::start().await;
    registry.register(&log.info("log", &[])).await;
    registry.register(&hello.info("hello", &["log"])).await;
    hello.on_heartbeat(MemberReply::Status(503));
    is_gone(&registry, "hello").await;
    registry.deregister(&log.info("log", &[])).await;
    registry.register(&other.info("log", &[])).await;
    hello.more_heartbeats(2).await;
    assert_eq!(registry.live("hello").await.len(), 0);
    assert_eq!(hello.events(), []);
    hello.on_heartbeat(MemberReply::Ok);
    eventually("it is back", || async {
        registry.state("hello", &hello.addr).await == Some(InstanceState::Passing)
    })
    .await;
    assert_eq!(kinds(&registry, "hello").await.last(), Some(&ReasonKind::Recovered));
    let told = [("POST".to_owned(), other.addr.clone()), ("DELETE".to_owned(), log.addr.clone())];
    eventually("it is told what it missed", || async { hello.events() == told }).await;
    // And it is an instance like any other.
    registry.deregister(&hello.info("hello", &[])).await;
    other.more_heartbeats(3).await;
    assert_eq!(registry.live("hello").await.len(), 0, "a deregistered one stays away");
}

#[tokio::test]
async fn with_a_snapshot_file_it_is_back_even_if_the_registry_restarts_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = quick();
    settings.data_dir = Some(folder.path().to_owned());
    let registry = TestRegistry::with(settings).await;
    let hello = FakeMember::start().await;
    registry.register(&hello.info("hello", &[])).await;
    hello.on_heartbeat(MemberReply::Hang);
    is_gone(&registry, "hello").await;
    let registry = TestRegistry::restart(registry.stop().await).await;
    assert_eq!(registry.live("hello").await.len(), 0);
    hello.on_heartbeat(MemberReply::Ok);
    eventually("it is back", || async { registry.live("hello").await.len() == 1 }).await;
}

#[tokio::test]
async fn an_answer_of_another_instance_does_not_count() {
    let registry = TestRegistry::start().await;
    let member = FakeMember::start().await;
    member.on_heartbeat(MemberReply::WithId("log-1f2e3d4c5b6a7988"));
    for (name, id) in [("core", None), ("hello", Some("hello-1"))] {
        let info = ServiceInfo { id: id.map(str::to_owned), ..member.info(name, &[]) };
        assert_eq!(registry.register(&info).await.status, 200);
        is_gone(&registry, name).await;
        let removed = registry.view().await.services.remove(name).unwrap().remove(0);
        let why = &removed.reasons.last().unwrap().detail;
        assert!(why.contains("another process answers at this address: Id log-1f2e3d4c5b6a7988"), "{why}");
    }
    member.more_heartbeats(2).await;
    assert!(registry.live("core").await.is_empty(), "nor does it bring a core member back");
    let own = ServiceInfo { id: Some("log-1f2e3d4c5b6a7988".into()), ..member.info("log", &[]) };
    registry.register(&own).await;
    member.more_heartbeats(4).await;
    assert_eq!(registry.state("log", &member.addr).await, Some(InstanceState::Passing));
}

#[tokio::test]
async fn a_control_address_on_another_host_needs_an_id_that_answers() {
    let registry = TestRegistry::start().await;
    let log = FakeMember::start().await;
    let body = |addr: &str, id: Option<&str>| {
        json!({ "Name": "n5", "Addr": addr, "ControlAddr": log.addr, "Id": id }).to_string()
    };
    let post = async |body: String| registry.call(Method::POST, "/services", body).await;
    for addr in ["192.0.2.1:6", "localhost:6", "[::1]:6", "127.0.0.2:6"] {
        let refused = post(body(addr, None)).await;
        assert_eq!(refused.problem(), 422, "{addr}");
        assert!(refused.body["detail"].as_str().unwrap().starts_with("ControlAddr: "), "{}", refused.body);
    }
    assert_eq!(post(body("127.0.0.1:6", None)).await.status, 200, "another port of one host");
    assert_eq!(post(body("[::ffff:127.0.0.1]:6", None)).await.status, 200, "the same address");
    // A control port on loopback, as a gateway has it. The answer must show that it is the instance's own.
    for reply in [MemberReply::Ok, MemberReply::WithId("log-1")] {
        log.on_heartbeat(reply);
        assert_eq!(post(body("127.0.0.2:6", Some("n5-1"))).await.status, 200);
        eventually("it is removed", || async {
            registry.state("n5", "127.0.0.2:6").await == Some(InstanceState::Removed)
        })
        .await;
    }
    log.on_heartbeat(MemberReply::WithId("n5-1"));
    assert_eq!(post(body("127.0.0.2:6", Some("n5-1"))).await.status, 200);
    log.more_heartbeats(4).await;
    assert_eq!(registry.state("n5", "127.0.0.2:6").await, Some(InstanceState::Passing));
}

#[tokio::test]
async fn a_core_member_has_one_id_by_which_it_is_shown_drained_and_deregistered() {
    let registry = TestRegistry::start().await;
    let hello = FakeMember::start().await;
    let info = hello.info("hello", &[]);
    registry.register(&info).await;
    let shown = registry.live("hello").await.remove(0).info.id.unwrap();
    assert!(shown.starts_with("hello-") && !shown.contains(&hello.addr), "{shown}");
    assert_eq!(shown, info.instance_id());
    let visit = FakeMember::start().await;
    let reply = registry.register(&visit.info("visit", &["hello"])).await;
    assert_eq!(reply.body["hello"][0].get("Id"), None, "members get what it has registered");
    let drain = format!("/services/hello/{shown}/drain");
    assert_eq!(registry.call(Method::PUT, &drain, "").await.status, 200);
    assert_eq!(registry.state("hello", &hello.addr).await, Some(InstanceState::Draining));
    let other = ServiceInfo { id: Some("hello-0".into()), ..info.clone() };
    assert_eq!(registry.deregister(&other).await.problem(), 409);
    assert_eq!(registry.deregister(&ServiceInfo { id: Some(shown), ..info }).await.status, 200);
    assert!(registry.live("hello").await.is_empty());
}
