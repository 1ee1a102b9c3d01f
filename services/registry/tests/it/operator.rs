//! Operators drain instances, deregister them, and switch self-protection.

use hubspoke_protocol::{InstanceState, ReasonKind, ServiceInfo};
use hubspoke_testkit::{FakeMember, eventually};
use reqwest::Method;
use serde_json::json;

use super::fixture::TestRegistry;
use super::live_member::LiveMember;

#[tokio::test]
async fn a_drained_instance_gets_no_new_requests_and_is_not_removed() {
    let registry = TestRegistry::start().await;
    let (log, core, live) = (
        FakeMember::start().await,
        FakeMember::start().await,
        LiveMember::start(&registry, "live", &["log"]).await,
    );
    registry.register(&ServiceInfo { id: Some("log-1".into()), ..log.info("log", &[]) }).await;
    registry.register(&core.info("core", &["log"])).await;
    live.follows(&registry, "log").await;
    let pick = || live.member.directory().pick("log");
    assert!(pick().is_some());

    let reply = registry.call(Method::PUT, &format!("/services/log/{}/drain", log.addr), "").await;
    assert_eq!(reply.status, 200);
    eventually("it is no longer picked", || async { pick().is_none() }).await;
    let removed = ("DELETE".to_owned(), log.addr.clone());
    eventually("a core member is notified of its removal", || async { core.events() == [removed.clone()] })
        .await;
    assert_eq!(live.knows("log"), [&*log.addr], "a member that knows states still sees it");
    let before = log.heartbeats().len();
    eventually("it still gets heartbeats", || async { log.heartbeats().len() > before + 3 }).await;
    assert_eq!(registry.state("log", &log.addr).await, Some(InstanceState::Draining));
    let again = registry.register(&core.info("core", &["log"])).await;
    assert_eq!(again.body, json!({ "log": [] }), "the reply to a core member leaves it out, too");

    let reply = registry.call(Method::DELETE, "/services/log/log-1/drain", "").await;
    assert_eq!(reply.status, 200, "by its Id");
    eventually("it is picked again", || async { pick().is_some() }).await;
    eventually("the core member is notified of its return", || async { core.events().len() == 2 }).await;
    let drained = registry.live("log").await.remove(0);
    let kinds: Vec<_> = drained.reasons.iter().map(|reason| reason.kind).collect();
    assert_eq!(kinds, [ReasonKind::Registered, ReasonKind::Draining, ReasonKind::Undrained]);
}

#[tokio::test]
async fn an_operator_deregisters_an_instance() {
    let registry = TestRegistry::start().await;
    let (log, visit) = (FakeMember::start().await, FakeMember::start().await);
    registry.register(&log.info("log", &[])).await;
    registry.register(&visit.snapshot_info("visit", &["log"])).await;
    let reply = registry.call(Method::DELETE, &format!("/services/log/{}", log.addr), "").await;
    assert_eq!(reply.status, 200);
    assert_eq!(visit.newest("log"), Some(vec![]));
    let removed = registry.view().await.services.remove("log").unwrap().remove(0);
    let last = removed.reasons.last().unwrap();
    assert_eq!((last.kind, last.detail.as_str()), (ReasonKind::Deregistered, "by an operator"));
}

#[tokio::test]
async fn self_protection_is_shown_and_switched() {
    let registry = TestRegistry::start().await;
    let shown = registry.call(Method::GET, "/protection", "").await.body;
    assert_eq!(shown, json!({ "Enabled": true, "HeldBack": 0 }));
    let off = registry.call(Method::PUT, "/protection", r#"{"Enabled":false}"#).await;
    assert_eq!(off.body, json!({ "Enabled": false, "HeldBack": 0 }));
    assert!(!registry.view().await.protection.unwrap().enabled);
}
