//! What operators do: drain, deregister, switch self-protection.

use hubspoke_protocol::{InstanceState, ReasonKind, ServiceInfo};
use reqwest::Method;
use serde_json::json;

use super::fake::Fake;
use super::live::Live;
use super::registry::{Registry, eventually};

#[tokio::test]
async fn a_drained_instance_gets_no_new_requests_and_is_not_removed() {
    let registry = Registry::start().await;
    let (log, old, new) =
        (Fake::start().await, Fake::start().await, Live::start(&registry, "new", &["log"]).await);
    registry.register(&ServiceInfo { id: Some("log-1".into()), ..log.info("log", &[]) }).await;
    registry.register(&old.info("old", &["log"])).await;
    new.follows(&registry, "log").await;
    let pick = || new.member.directory().pick("log", &[""; 0], &mut rand::rng());
    assert!(pick().is_some());

    let reply = registry.call(Method::PUT, &format!("/services/log/{}/drain", log.addr), "").await;
    assert_eq!(reply.status, 200);
    eventually("it is picked no longer", || async { pick().is_none() }).await;
    let removed = ("DELETE".to_owned(), log.addr.clone());
    eventually("an old member is told that it is gone", || async { old.events() == [removed.clone()] }).await;
    assert_eq!(new.knows("log"), [&*log.addr], "a new one knows that it drains");
    let asked = log.heartbeats().len();
    eventually("its heart is still asked", || async { log.heartbeats().len() > asked + 3 }).await;
    assert_eq!(registry.state("log", &log.addr).await, Some(InstanceState::Draining));
    let again = registry.register(&old.info("old", &["log"])).await;
    assert_eq!(again.body, json!({ "log": [] }), "an old member is not given it either");

    let reply = registry.call(Method::DELETE, "/services/log/log-1/drain", "").await;
    assert_eq!(reply.status, 200, "its Id names it too");
    eventually("it is picked again", || async { pick().is_some() }).await;
    eventually("an old member has it again", || async { old.events().len() == 2 }).await;
    let live = registry.live("log").await.remove(0);
    let kinds: Vec<_> = live.reasons.iter().map(|reason| reason.kind).collect();
    assert_eq!(kinds, [ReasonKind::Registered, ReasonKind::Draining, ReasonKind::Undrained]);
}

#[tokio::test]
async fn an_operator_takes_a_ghost_out() {
    let registry = Registry::start().await;
    let (log, visit) = (Fake::start().await, Fake::start().await);
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
    let registry = Registry::start().await;
    let shown = registry.call(Method::GET, "/protection", "").await.body;
    assert_eq!(shown, json!({ "Enabled": true, "HeldBack": 0 }));
    let off = registry.call(Method::PUT, "/protection", r#"{"Enabled":false}"#).await;
    assert_eq!(off.body, json!({ "Enabled": false, "HeldBack": 0 }));
    assert!(!registry.view().await.protection.unwrap().enabled);
}
