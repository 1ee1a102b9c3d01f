//! The registry is killed and restarted, with and without a snapshot file.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use hubspoke_client::directory::View;
use hubspoke_client::membership::Timing;
use hubspoke_protocol::{InstanceState, ReasonKind, ServiceInfo};
use hubspoke_registry::Settings;
use hubspoke_testkit::{FakeMember, MemberReply, eventually};
use reqwest::Method;
use serde_json::json;
use tokio::time::Instant;

use super::fixture::{TestRegistry, quick};
use super::live_member::LiveMember;

fn with_file(folder: &tempfile::TempDir) -> Settings {
    let mut settings = quick();
    settings.data_dir = Some(folder.path().join("data"));
    settings
}

#[tokio::test]
async fn without_a_file_members_come_back_by_renewal_and_callers_always_have_an_instance() {
    let registry = TestRegistry::start().await;
    let mut logs = Vec::new();
    for _ in 0..3 {
        logs.push(LiveMember::with(&registry, "log", &[], LiveMember::quick()).await);
    }
    let visit = LiveMember::with(&registry, "visit", &["log"], LiveMember::quick()).await;
    visit.follows(&registry, "log").await;
    assert_eq!(visit.knows("log").len(), 3);
    let epoch = registry.view().await.revision.epoch;
    let fewest = Arc::new(AtomicUsize::new(usize::MAX));
    let seen = fewest.clone();
    visit.member.directory().follow(Arc::new(move |view: &View| {
        seen.fetch_min(view.instances("log").unwrap_or_default().len(), Relaxed);
    }));
    let registry = TestRegistry::restart(registry.kill().await).await;
    eventually("all are back", || async {
        registry.addrs("log").await.len() == 3 && registry.addrs("visit").await.len() == 1
    })
    .await;
    assert_ne!(registry.view().await.revision.epoch, epoch, "each start has a new epoch");
    visit.follows(&registry, "log").await;
    // Every view in between had an instance to call.
    assert!((1..=3).contains(&fewest.load(Relaxed)), "{fewest:?}");
}

/// The bound is the renewal interval, 15 s by default and less here, and a second for the calls.
#[tokio::test]
async fn without_a_file_all_members_are_back_within_a_renewal_interval() {
    assert_eq!(Timing::default().renew, Duration::from_secs(15));
    let mut timing = Timing::default();
    timing.renew = Duration::from_secs(3);
    let bound = timing.renew + Duration::from_secs(1);
    let registry = TestRegistry::with(Settings::default()).await;
    let mut logs = Vec::new();
    for _ in 0..8 {
        logs.push(LiveMember::with(&registry, "log", &["log"], timing.clone()).await);
    }
    let registry = TestRegistry::restart(registry.kill().await).await;
    let started = Instant::now();
    eventually("all are back", || async { registry.addrs("log").await.len() == logs.len() }).await;
    assert!(started.elapsed() < bound, "it took {:?}", started.elapsed());
    for log in &logs {
        log.follows(&registry, "log").await;
        assert_eq!(log.knows("log").len(), logs.len());
    }
}

#[tokio::test]
async fn with_a_file_the_catalogue_is_restored_and_suspect_until_instances_answer() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = with_file(&folder);
    settings.restore_grace = Duration::from_millis(1500);
    let registry = TestRegistry::with(settings).await;
    let (log, silent, visit) =
        (FakeMember::start().await, FakeMember::start().await, FakeMember::start().await);
    registry.register(&log.info("log", &[])).await;
    registry.register(&silent.info("silent", &[])).await;
    registry.register(&visit.snapshot_info("visit", &["log"])).await;
    registry.call(Method::PUT, &format!("/services/visit/{}/drain", visit.addr), "").await;
    let before = registry.live("log").await[0].registered.clone();
    let file = folder.path().join("data/catalog.json");
    eventually("the file contains all of it", || async {
        std::fs::read_to_string(&file).is_ok_and(|text| {
            [&log, &silent, &visit].iter().all(|fake| text.contains(&fake.addr)) && text.contains("true")
        })
    })
    .await;
    silent.on_heartbeat(MemberReply::Hang);
    log.on_heartbeat(MemberReply::Hang);
    let registry = TestRegistry::restart(registry.kill().await).await;
    for name in ["log", "silent"] {
        let instance = registry.live(name).await.remove(0);
        assert_eq!(instance.state, InstanceState::Suspect);
        assert_eq!(instance.reasons[0].kind, ReasonKind::Restored);
    }
    assert_eq!(registry.state("visit", &visit.addr).await, Some(InstanceState::Draining), "it stays drained");
    assert_eq!(registry.live("log").await[0].registered[..19], before[..19]);
    log.on_heartbeat(MemberReply::Ok);
    let passes = || async { registry.state("log", &log.addr).await == Some(InstanceState::Passing) };
    eventually("the one that answers passes", passes).await;
    eventually("the one that does not answer is removed after its grace", || async {
        registry.live("silent").await.is_empty()
    })
    .await;
    // The push key was restored, so the dependent accepts the next push.
    let other = FakeMember::start().await;
    registry.register(&other.info("log", &[])).await;
    eventually("it gets the push", || async { visit.newest("log").is_some_and(|list| list.len() == 2) })
        .await;
    assert_eq!(visit.pushes().last().unwrap().authorization.as_deref(), Some("Bearer push-key"));
}

#[tokio::test]
async fn the_file_is_readable_by_its_owner_only_and_without_deregistered_instances() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let registry = TestRegistry::with(with_file(&folder)).await;
    let log = FakeMember::start().await;
    registry.register(&log.info("log", &[])).await;
    registry.deregister(&log.info("log", &[])).await;
    let stopped = registry.stop().await;
    let file = folder.path().join("data/catalog.json");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let registry = TestRegistry::restart(stopped).await;
    assert!(registry.live("log").await.is_empty(), "a deregistered instance does not come back");
}

#[tokio::test]
async fn a_damaged_file_is_renamed_and_ignored() {
    for (damage, why) in [
        ("{\"Version\":1,\"Instances\":[{\"Info\"", "cut off"),
        ("\0\0\0\0", "zeroed"),
        ("{\"Version\":99,\"Instances\":[]}", "of another format"),
        ("", "empty"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(data.join("catalog.json"), damage).unwrap();
        let registry = TestRegistry::with(with_file(&folder)).await;
        assert!(registry.view().await.services.is_empty());
        let files = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap());
        let renamed: Vec<_> =
            files.filter(|entry| entry.file_name().to_string_lossy().contains("damaged")).collect();
        assert_eq!(renamed.len(), 1, "{why}");
        assert_eq!(std::fs::read_to_string(renamed[0].path()).unwrap(), damage, "{why}");
        let log = FakeMember::start().await;
        assert_eq!(registry.register(&log.info("log", &[])).await.status, 200, "{why}");
    }
}

#[tokio::test]
async fn invalid_instances_in_a_file_are_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    let entry = |name: &str, addr: &str| {
        // From a clock that was ahead.
        let later = "2999-01-01T00:00:00Z";
        json!({ "Info": { "Name": name, "Addr": addr }, "Registered": later })
    };
    let log = FakeMember::start().await;
    let contents = json!({
        "Version": 1,
        "Instances": [entry("log", &log.addr), entry("LOG", "127.0.0.1:1"), entry("log", "nowhere")],
    });
    std::fs::write(data.join("catalog.json"), contents.to_string()).unwrap();
    let registry = TestRegistry::with(with_file(&folder)).await;
    let live = registry.live("log").await;
    assert_eq!(live.len(), 1);
    assert!(live[0].registered.as_str() < "2999", "no time is in the future");
}

#[tokio::test]
async fn instances_that_may_not_register_are_not_restored() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    let log = FakeMember::start().await;
    let good = || ServiceInfo { required_services: vec!["a".into()], ..ServiceInfo::new("log", &log.addr) };
    let at = |host: &str| ServiceInfo { addr: log.addr.replace("127.0.0.1", host), ..good() };
    let mut heavy = at("127.0.0.2");
    heavy.meta.insert("padding".into(), "x".repeat(200));
    let infos = [
        good(),
        at("10.0.0.1"),
        ServiceInfo { control_addr: Some("10.0.0.1:80".into()), ..at("127.0.0.3") },
        ServiceInfo::new("log", "metadata.internal:80"),
        heavy,
        ServiceInfo { required_services: vec!["a".into(), "b".into(), "c".into()], ..at("127.0.0.4") },
        ServiceInfo { required_services: vec!["one-too-many".into()], ..at("127.0.0.5") },
        at("127.0.0.6"),
        at("127.0.0.7"),
    ];
    let entry = |info: &ServiceInfo| json!({ "Info": info, "Registered": "2026-01-01T00:00:00Z" });
    let contents = json!({ "Version": 1, "Instances": infos.iter().map(entry).collect::<Vec<_>>() });
    std::fs::write(data.join("catalog.json"), contents.to_string()).unwrap();
    let mut settings = with_file(&folder);
    settings.allow_addrs = vec!["127.0.0.0/8".parse().unwrap()];
    settings.limits.meta = bytesize::ByteSize::b(100);
    settings.limits.required = 2;
    settings.limits.services = 2;
    settings.limits.instances = 2;
    let registry = TestRegistry::with(settings).await;
    assert_eq!(registry.addrs("log").await, [good().addr, at("127.0.0.6").addr]);
}
