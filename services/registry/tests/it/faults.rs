//! Faults. After each, members know what the catalogue contains, and revisions have never gone back.

use std::time::Duration;

use hubspoke_protocol::{InstanceState, PushMode, ReasonKind, ServiceInfo};
use hubspoke_testkit::{FakeMember, MemberReply, eventually};
use reqwest::Method;
use tokio::time::Instant;

use super::fixture::{TestRegistry, failing, quick, slow_removal};
use super::live_member::LiveMember;

#[tokio::test]
async fn a_thousand_hung_dependents_delay_nobody() {
    let mut settings = quick();
    settings.heartbeat.interval = Duration::from_secs(5); // they hang in pushes, not yet in heartbeats
    settings.limits.registrations_per_second = 0;
    // With retries, they would hold all slots all the time.
    settings.push.concurrency = 128;
    settings.push.timeout = Duration::from_millis(500);
    settings.push.backoff_max = Duration::from_millis(100);
    let registry = TestRegistry::with(settings).await;
    // One server, a thousand addresses.
    let hung = FakeMember::on("0.0.0.0:0").await;
    hung.on_push(MemberReply::Hang);
    let port = hung.addr.rsplit_once(':').unwrap().1.to_owned();
    for i in 0..1000_u32 {
        let addr = format!("127.1.{}.{}:{port}", i / 200, i % 200 + 1);
        let info = ServiceInfo {
            required_services: vec!["log".into()],
            push: Some(PushMode::Snapshot),
            ..ServiceInfo::new("hung", addr)
        };
        assert_eq!(registry.register(&info).await.status, 200);
    }
    let visit = LiveMember::start(&registry, "visit", &["log"]).await;
    // Before its first push, nothing shows that a dependent hangs. Until then, members learn of changes by heartbeats.
    let log = FakeMember::start().await;
    let start = Instant::now();
    registry.register(&log.info("log", &[])).await;
    eventually("the healthy dependent knows it", || async { visit.knows("log") == [log.addr.clone()] }).await;
    assert!(start.elapsed() < Duration::from_secs(5 + 1), "it took {:?}", start.elapsed());
    eventually("all hung dependents are known", || async {
        registry.metric("hub_registry_dependents_behind").await >= 1000.0
    })
    .await;
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let log = FakeMember::start().await;
        let start = Instant::now();
        registry.register(&log.info("log", &[])).await;
        eventually("the healthy dependent knows it", || async { visit.knows("log").contains(&log.addr) })
            .await;
        slowest = slowest.max(start.elapsed());
    }
    assert!(slowest < Duration::from_secs(1), "it took {slowest:?}");
    assert_eq!(registry.addrs("hung").await.len(), 1000);
}

#[tokio::test]
async fn when_most_of_the_catalogue_fails_removals_are_held_back_for_a_bounded_time() {
    let mut settings = slow_removal();
    settings.protection.max = Duration::from_secs(10); // the checks below must be done by then
    let registry = TestRegistry::with(settings).await;
    let visit = LiveMember::start(&registry, "visit", &["log"]).await;
    let mut logs = Vec::new();
    for _ in 0..39 {
        let log = FakeMember::start().await;
        registry.register(&log.info("log", &[])).await;
        logs.push(log);
    }
    visit.follows(&registry, "log").await;
    let survivors: Vec<_> = logs.drain(..10).collect();
    for log in &logs {
        log.on_heartbeat(MemberReply::Status(503));
    }
    let suspects = || async {
        let live = registry.live("log").await;
        let suspect = live.iter().filter(|instance| instance.state == InstanceState::Suspect).count();
        (live.len(), suspect) == (39, 29)
    };
    eventually("removals are held back", suspects).await;
    let protection = registry.view().await.protection.unwrap();
    assert_eq!((protection.held_back, protection.until.is_some()), (29, true));
    // Callers use suspect instances only if there is no other.
    eventually("the caller knows which are suspect", || async {
        let view = visit.member.directory().view();
        let list = view.instances("log").unwrap();
        list.iter().filter(|info| info.state() == InstanceState::Suspect).count() == 29
    })
    .await;
    let passing: Vec<_> = survivors.iter().map(|log| log.addr.as_str()).collect();
    for _ in 0..50 {
        let picked = visit.member.directory().pick("log").unwrap();
        assert!(passing.contains(&picked.addr.as_str()));
    }
    // One of them answers again.
    let back = logs.pop().unwrap();
    back.on_heartbeat(MemberReply::Ok);
    eventually("it passes again", || async {
        registry.state("log", &back.addr).await == Some(InstanceState::Passing)
    })
    .await;
    eventually("the others are removed in the end", || async { registry.live("log").await.len() == 11 })
        .await;
    visit.follows(&registry, "log").await;
    let removed = registry.view().await.services.remove("log").unwrap();
    let removed = removed.iter().find(|instance| instance.info.addr == logs[0].addr).unwrap();
    let kinds: Vec<_> = removed.reasons.iter().map(|reason| reason.kind).collect();
    use ReasonKind::{HeldBack, MissedHeartbeat, Registered, Removed};
    assert_eq!(kinds, [Registered, MissedHeartbeat, HeldBack, Removed]);
}

#[tokio::test]
async fn half_of_the_catalogue_is_not_most_of_it() {
    let registry = TestRegistry::start().await;
    let mut logs = Vec::new();
    for _ in 0..40 {
        let log = FakeMember::start().await;
        registry.register(&log.info("log", &[])).await;
        logs.push(log);
    }
    let (dead, survivors) = logs.split_at(20);
    let mut survivors: Vec<_> = survivors.iter().map(|log| log.addr.clone()).collect();
    survivors.sort();
    for log in dead {
        log.on_heartbeat(MemberReply::Status(503));
    }
    eventually("the dead half is removed", || async { registry.addrs("log").await.len() <= 20 }).await;
    let live = registry.live("log").await;
    assert!(live.iter().all(|one| one.state == InstanceState::Passing));
    assert_eq!(live.into_iter().map(|one| one.info.addr).collect::<Vec<_>>(), survivors);
    assert_eq!(registry.view().await.protection.unwrap().held_back, 0);
}

#[tokio::test]
async fn switching_self_protection_off_removes_what_it_held_back() {
    let mut settings = slow_removal();
    settings.protection.max = Duration::from_secs(3600);
    let registry = TestRegistry::with(settings).await;
    let _logs = failing(&registry, 12).await;
    eventually("removals are held back", || async {
        registry.view().await.protection.unwrap().held_back == 12
    })
    .await;
    registry.call(Method::PUT, "/protection", r#"{"Enabled":false}"#).await;
    assert!(registry.live("log").await.is_empty());
}

#[tokio::test]
async fn a_member_that_loses_every_push_is_up_to_date_after_a_heartbeat() {
    let mut settings = quick();
    settings.heartbeat.interval = Duration::from_secs(1);
    let bound = settings.heartbeat.interval + Duration::from_secs(1);
    let registry = TestRegistry::with(settings).await;
    let visit = LiveMember::start(&registry, "visit", &["log"]).await;
    visit.lose_pushes(true);
    for _ in 0..2 {
        let log = FakeMember::start().await;
        for registered in [true, false] {
            let info = log.info("log", &[]);
            let changed = Instant::now();
            let reply =
                if registered { registry.register(&info).await } else { registry.deregister(&info).await };
            assert_eq!(reply.status, 200);
            visit.follows(&registry, "log").await;
            assert_eq!(visit.knows("log").len(), usize::from(registered));
            assert!(changed.elapsed() < bound, "it took {:?}", changed.elapsed());
        }
    }
    visit.lose_pushes(false);
    let log = FakeMember::start().await;
    registry.register(&log.info("log", &[])).await;
    visit.follows(&registry, "log").await;
}

#[tokio::test]
async fn two_processes_that_fight_for_an_address_leave_one_entry() {
    let registry = TestRegistry::start().await;
    let visit = LiveMember::start(&registry, "visit", &["log"]).await;
    let log = FakeMember::start().await;
    let start = |id: &str| ServiceInfo { id: Some(id.into()), ..log.info("log", &[]) };
    log.on_heartbeat(MemberReply::WithId("two"));
    let mut last = registry.register(&start("one")).await.revision;
    for round in 0..10 {
        let revision = registry.register(&start(if round % 2 == 0 { "two" } else { "one" })).await.revision;
        assert!(revision.n > last.n && revision.epoch == last.epoch, "revisions never go back");
        last = revision;
        assert_eq!(registry.live("log").await.len(), 1);
    }
    assert_eq!(registry.state("log", &log.addr).await, Some(InstanceState::Suspect), "it is suspect");
    // The one registered last is not the one that answers at the address, so it is removed.
    eventually("the one that does not answer is removed", || async { registry.live("log").await.is_empty() })
        .await;
    registry.register(&start("two")).await;
    visit.follows(&registry, "log").await;
    assert_eq!(visit.knows("log"), [&*log.addr]);
}

#[tokio::test]
async fn dead_members_are_removed_for_everybody() {
    let registry = TestRegistry::start().await;
    let (one, two) = (
        LiveMember::start(&registry, "log", &["log"]).await,
        LiveMember::start(&registry, "log", &["log"]).await,
    );
    let three = LiveMember::start(&registry, "log", &["log"]).await;
    for live in [&one, &two, &three] {
        live.follows(&registry, "log").await;
    }
    let dead = one.addr.clone();
    drop(one); // closes its port without deregistering
    eventually("it is removed", || async { !registry.addrs("log").await.contains(&dead) }).await;
    for live in [&two, &three] {
        live.follows(&registry, "log").await;
        assert_eq!(live.knows("log").len(), 2);
    }
}

#[tokio::test]
async fn after_many_changes_every_member_is_up_to_date() {
    let registry = TestRegistry::start().await;
    let visits = [
        LiveMember::start(&registry, "visit", &["log"]).await,
        LiveMember::start(&registry, "visit", &["*"]).await,
        LiveMember::start(&registry, "visit", &["log", "visit"]).await,
    ];
    let core = FakeMember::start().await;
    registry.register(&core.info("core", &["log"])).await;
    let log = FakeMember::on("0.0.0.0:0").await;
    let mut revision = 0;
    for round in 0..200 {
        let mut info = log.info("log", &[]);
        info.addr = info.addr.replace("0.0.0.0", &format!("127.0.0.{}", 2 + round % 7));
        let reply =
            if round % 3 == 2 { registry.deregister(&info).await } else { registry.register(&info).await };
        assert!(reply.revision.n >= revision, "revisions never go back");
        revision = reply.revision.n;
    }
    for visit in &visits {
        visit.follows(&registry, "log").await;
    }
    eventually("the events that a core member got add up to the catalogue", || async {
        let mut known: Vec<String> = Vec::new();
        for (method, addr) in core.events() {
            known.retain(|other| *other != addr);
            if method == "POST" {
                known.push(addr);
            }
        }
        known.sort();
        known == registry.addrs("log").await
    })
    .await;
}
