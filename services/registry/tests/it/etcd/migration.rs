//! From memory to etcd and back: members and callers notice nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use hubspoke_client::directory::View;
use hubspoke_protocol::InstanceState;
use hubspoke_registry::config::StoreKind;
use hubspoke_testkit::{FakeMember, eventually};
use reqwest::Method;

use super::super::fixture::{TestRegistry, quick};
use super::super::live_member::LiveMember;
use super::essence;

#[tokio::test]
async fn a_registry_moves_to_etcd_and_back_and_nobody_is_missing() {
    let Some(etcd) = hubspoke_testkit::etcd::start(1).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut settings = quick();
    settings.data_dir = Some(folder.path().join("data"));
    settings.etcd.endpoints = etcd.endpoints();
    settings.etcd.lease = Duration::from_secs(2);
    let mut registry = TestRegistry::with(settings).await;
    // Core members renew nothing; the others go on with what they know.
    let (core, drained) = (FakeMember::start().await, FakeMember::start().await);
    registry.register(&core.info("log", &[])).await;
    registry.register(&drained.info("log", &[])).await;
    let drain = format!("/services/log/{}/drain", drained.addr);
    assert_eq!(registry.call(Method::PUT, &drain, "").await.status, 200);
    registry.call(Method::PUT, "/protection", r#"{"Enabled":false}"#).await;
    let live = LiveMember::with(&registry, "log", &[], LiveMember::quick()).await;
    let visit = LiveMember::with(&registry, "visit", &["log"], LiveMember::quick()).await;
    visit.follows(&registry, "log").await;
    let fewest = Arc::new(AtomicUsize::new(usize::MAX));
    let seen = fewest.clone();
    visit.member.directory().follow(Arc::new(move |view: &View| {
        seen.fetch_min(view.instances("log").unwrap_or_default().len(), Relaxed);
    }));
    let before = registry.view().await;
    for store in [StoreKind::Etcd, StoreKind::Memory, StoreKind::Etcd] {
        let (mut settings, addr) = registry.stop().await;
        settings.store = store;
        registry = TestRegistry::restart((settings, addr)).await;
        registry.ready().await;
        eventually("all are there", || async {
            let view = registry.view().await;
            essence(&view) == essence(&before) && !view.protection.unwrap().enabled
        })
        .await;
        assert_eq!(registry.state("log", &drained.addr).await, Some(InstanceState::Draining));
        visit.follows(&registry, "log").await;
        assert!(fewest.load(Relaxed) >= 3, "no caller missed an instance: {fewest:?}");
    }
    assert!(registry.addrs("log").await.contains(&live.addr));
}
