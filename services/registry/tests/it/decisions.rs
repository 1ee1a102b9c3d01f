//! What an operator has decided holds through outages, crashes of the registry, and new starts.

use hubspoke_protocol::{InstanceState, ServiceInfo};
use hubspoke_registry::Settings;
use hubspoke_testkit::{FakeMember, MemberReply, eventually};
use reqwest::Method;

use super::fixture::{TestRegistry, quick};

fn with_file(folder: &tempfile::TempDir) -> Settings {
    let mut settings = quick();
    settings.data_dir = Some(folder.path().to_owned());
    settings
}

/// Drained, stopped for a while, and gone on.
#[tokio::test]
async fn a_drained_instance_that_was_removed_comes_back_drained() {
    let registry = TestRegistry::start().await;
    let log = FakeMember::start().await;
    let with_id = |id: &str| ServiceInfo { id: Some(id.to_owned()), ..log.info("log", &[]) };
    registry.register(&with_id("one")).await;
    let drain = format!("/services/log/{}/drain", log.addr);
    assert_eq!(registry.call(Method::PUT, &drain, "").await.status, 200);
    log.on_heartbeat(MemberReply::Hang);
    eventually("it is removed", || async { registry.live("log").await.is_empty() }).await;
    log.on_heartbeat(MemberReply::Ok);
    let draining = Some(InstanceState::Draining);
    registry.register(&with_id("one")).await;
    assert_eq!(registry.state("log", &log.addr).await, draining, "the same start");
    registry.deregister(&with_id("one")).await;
    registry.register(&with_id("two")).await;
    assert_eq!(registry.state("log", &log.addr).await, draining, "a new start");
    registry.deregister(&with_id("two")).await;
    assert_eq!(registry.call(Method::DELETE, &drain, "").await.status, 200, "also while it is away");
    registry.register(&with_id("three")).await;
    assert_eq!(registry.state("log", &log.addr).await, Some(InstanceState::Passing));
}

/// Killed right after each answer, before the file would have been written by itself.
#[tokio::test]
async fn an_answered_decision_survives_a_crash_of_the_registry() {
    let folder = tempfile::tempdir().unwrap();
    let mut registry = TestRegistry::with(with_file(&folder)).await;
    let (log, visit) = (FakeMember::start().await, FakeMember::start().await);
    registry.register(&log.info("log", &[])).await;
    registry.register(&visit.info("visit", &[])).await;
    let protect = |on: bool| format!("{{\"Enabled\":{on}}}");
    registry.call(Method::PUT, &format!("/services/log/{}/drain", log.addr), "").await;
    registry = TestRegistry::restart(registry.kill().await).await;
    assert_eq!(registry.state("log", &log.addr).await, Some(InstanceState::Draining));
    registry.call(Method::PUT, "/protection", protect(false)).await;
    registry = TestRegistry::restart(registry.kill().await).await;
    assert!(!registry.view().await.protection.unwrap().enabled);
    registry.call(Method::DELETE, &format!("/services/visit/{}", visit.addr), "").await;
    registry = TestRegistry::restart(registry.kill().await).await;
    assert!(registry.live("visit").await.is_empty(), "deregistered, although it would answer");
    registry.call(Method::DELETE, &format!("/services/log/{}", log.addr), "").await;
    registry = TestRegistry::restart(registry.kill().await).await;
    registry.register(&log.info("log", &[])).await;
    assert_eq!(registry.state("log", &log.addr).await, Some(InstanceState::Draining), "drained before");
    registry.call(Method::DELETE, &format!("/services/log/{}/drain", log.addr), "").await;
    registry.call(Method::PUT, "/protection", protect(true)).await;
    registry = TestRegistry::restart(registry.kill().await).await;
    assert_ne!(registry.state("log", &log.addr).await, Some(InstanceState::Draining));
    assert!(registry.view().await.protection.unwrap().enabled);
}
