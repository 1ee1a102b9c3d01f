//! Faults. After each, live members know what the catalogue holds, and revisions never went back.

use std::time::Duration;

use hubspoke_protocol::{InstanceState, PushMode, ReasonKind, ServiceInfo};
use reqwest::Method;
use tokio::time::Instant;

use super::fake::{Answer, Fake, failing};
use super::live::Live;
use super::registry::{Registry, eventually, evident, quick};

#[tokio::test]
async fn a_thousand_hung_dependents_delay_nobody() {
    let mut settings = quick();
    settings.heartbeat.interval = Duration::from_secs(5); // they hang in pushes, not yet in heartbeats
    settings.limits.registrations_per_second = 0;
    // Trying again, they would hold every place all the time.
    settings.push.concurrency = 128;
    settings.push.timeout = Duration::from_millis(500);
    settings.push.backoff_max = Duration::from_millis(100);
    let registry = Registry::with(settings).await;
    // One server, a thousand addresses.
    let hung = Fake::on("0.0.0.0:0").await;
    hung.on_push(Answer::Hang);
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
    let visit = Live::start(&registry, "visit", &["log"]).await;
    // Nobody can know that they hang before they have been tried once. Until then a heartbeat tells who waits.
    let log = Fake::start().await;
    let start = Instant::now();
    registry.register(&log.info("log", &[])).await;
    eventually("the live one knows it", || async { visit.knows("log") == [log.addr.clone()] }).await;
    assert!(start.elapsed() < Duration::from_secs(5 + 1), "it took {:?}", start.elapsed());
    eventually("all that hang are known to", || async {
        registry.metric("hub_registry_dependents_behind").await >= 1000.0
    })
    .await;
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let log = Fake::start().await;
        let start = Instant::now();
        registry.register(&log.info("log", &[])).await;
        eventually("the live one knows it", || async { visit.knows("log").contains(&log.addr) }).await;
        slowest = slowest.max(start.elapsed());
    }
    assert!(slowest < Duration::from_secs(1), "it took {slowest:?}");
    assert_eq!(registry.addrs("hung").await.len(), 1000);
}

#[tokio::test]
async fn when_most_of_the_catalogue_fails_nobody_is_removed_for_a_bounded_time() {
    let mut settings = evident();
    settings.protection.max = Duration::from_secs(10); // all of the looking below must be done by then
    let registry = Registry::with(settings).await;
    let visit = Live::start(&registry, "visit", &["log"]).await;
    let mut logs = Vec::new();
    for _ in 0..39 {
        let log = Fake::start().await;
        registry.register(&log.info("log", &[])).await;
        logs.push(log);
    }
    visit.follows(&registry, "log").await;
    let survivors: Vec<_> = logs.drain(..10).collect();
    for log in &logs {
        log.on_heartbeat(Answer::Status(503));
    }
    let suspects = || async {
        let live = registry.live("log").await;
        let suspect = live.iter().filter(|instance| instance.state == InstanceState::Suspect).count();
        (live.len(), suspect) == (39, 29)
    };
    eventually("the registry suspects itself", suspects).await;
    let protection = registry.view().await.protection.unwrap();
    assert_eq!((protection.held_back, protection.until.is_some()), (29, true));
    // Callers use suspects only where nothing else is there.
    eventually("the caller knows who is suspect", || async {
        let view = visit.member.directory().view();
        let list = view.instances("log").unwrap();
        list.iter().filter(|info| info.state() == InstanceState::Suspect).count() == 29
    })
    .await;
    let passing: Vec<_> = survivors.iter().map(|log| log.addr.as_str()).collect();
    for _ in 0..50 {
        let picked = visit.member.directory().pick("log", &[""; 0], &mut rand::rng()).unwrap();
        assert!(passing.contains(&picked.addr.as_str()));
    }
    // One of them was only cut off.
    let back = logs.pop().unwrap();
    back.on_heartbeat(Answer::Ok);
    eventually("who answers again passes", || async {
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
    let registry = Registry::start().await;
    let mut logs = Vec::new();
    for _ in 0..40 {
        let log = Fake::start().await;
        registry.register(&log.info("log", &[])).await;
        logs.push(log);
    }
    let (dead, survivors) = logs.split_at(20);
    let mut survivors: Vec<_> = survivors.iter().map(|log| log.addr.clone()).collect();
    survivors.sort();
    for log in dead {
        log.on_heartbeat(Answer::Status(503));
    }
    eventually("the dead half is removed", || async { registry.addrs("log").await.len() <= 20 }).await;
    let live = registry.live("log").await;
    assert!(live.iter().all(|one| one.state == InstanceState::Passing));
    assert_eq!(live.into_iter().map(|one| one.info.addr).collect::<Vec<_>>(), survivors);
    assert_eq!(registry.view().await.protection.unwrap().held_back, 0);
}

#[tokio::test]
async fn an_operator_ends_self_protection() {
    let mut settings = evident();
    settings.protection.max = Duration::from_secs(3600);
    let registry = Registry::with(settings).await;
    let _logs = failing(&registry, 12).await;
    eventually("the registry suspects itself", || async {
        registry.view().await.protection.unwrap().held_back == 12
    })
    .await;
    registry.call(Method::PUT, "/protection", r#"{"Enabled":false}"#).await;
    assert!(registry.live("log").await.is_empty());
}

#[tokio::test]
async fn a_member_that_loses_every_push_is_right_after_a_heartbeat() {
    let mut settings = quick();
    settings.heartbeat.interval = Duration::from_secs(1);
    let bound = settings.heartbeat.interval + Duration::from_secs(1);
    let registry = Registry::with(settings).await;
    let visit = Live::start(&registry, "visit", &["log"]).await;
    visit.lose_pushes(true);
    for _ in 0..2 {
        let log = Fake::start().await;
        for is_there in [true, false] {
            let info = log.info("log", &[]);
            let changed = Instant::now();
            let reply =
                if is_there { registry.register(&info).await } else { registry.deregister(&info).await };
            assert_eq!(reply.status, 200);
            visit.follows(&registry, "log").await;
            assert_eq!(visit.knows("log").len(), usize::from(is_there));
            assert!(changed.elapsed() < bound, "it took {:?}", changed.elapsed());
        }
    }
    visit.lose_pushes(false);
    let log = Fake::start().await;
    registry.register(&log.info("log", &[])).await;
    visit.follows(&registry, "log").await;
}

#[tokio::test]
async fn two_starts_that_fight_for_an_address_leave_one_entry() {
    let registry = Registry::start().await;
    let visit = Live::start(&registry, "visit", &["log"]).await;
    let log = Fake::start().await;
    let start = |id: &str| ServiceInfo { id: Some(id.into()), ..log.info("log", &[]) };
    log.on_heartbeat(Answer::As("two"));
    let mut last = registry.register(&start("one")).await.revision;
    for round in 0..10 {
        let revision = registry.register(&start(if round % 2 == 0 { "two" } else { "one" })).await.revision;
        assert!(revision.n > last.n && revision.epoch == last.epoch, "revisions never go back");
        last = revision;
        assert_eq!(registry.live("log").await.len(), 1);
    }
    assert_eq!(registry.state("log", &log.addr).await, Some(InstanceState::Suspect), "it is trusted less");
    // The loser no longer renews: who answers at the address is not who registered, so it goes.
    eventually("the one that is not there is removed", || async { registry.live("log").await.is_empty() })
        .await;
    registry.register(&start("two")).await;
    visit.follows(&registry, "log").await;
    assert_eq!(visit.knows("log"), [&*log.addr]);
}

#[tokio::test]
async fn members_that_die_are_gone_for_everybody() {
    let registry = Registry::start().await;
    let (one, two) =
        (Live::start(&registry, "log", &["log"]).await, Live::start(&registry, "log", &["log"]).await);
    let three = Live::start(&registry, "log", &["log"]).await;
    for live in [&one, &two, &three] {
        live.follows(&registry, "log").await;
    }
    let dead = one.addr.clone();
    drop(one); // its port is closed without a word
    eventually("it is removed", || async { !registry.addrs("log").await.contains(&dead) }).await;
    for live in [&two, &three] {
        live.follows(&registry, "log").await;
        assert_eq!(live.knows("log").len(), 2);
    }
}

#[tokio::test]
async fn a_crowd_that_comes_and_goes_leaves_everybody_right() {
    let registry = Registry::start().await;
    let visits = [
        Live::start(&registry, "visit", &["log"]).await,
        Live::start(&registry, "visit", &["*"]).await,
        Live::start(&registry, "visit", &["log", "visit"]).await,
    ];
    let old = Fake::start().await;
    registry.register(&old.info("old", &["log"])).await;
    let log = Fake::start().await;
    let mut revision = 0;
    for round in 0..200 {
        let mut info = log.info("log", &[]);
        info.addr = info.addr.replace("127.0.0.1", &format!("127.0.0.{}", 2 + round % 7));
        info.control_addr = Some(log.addr.clone());
        let reply =
            if round % 3 == 2 { registry.deregister(&info).await } else { registry.register(&info).await };
        assert!(reply.revision.n >= revision, "revisions never go back");
        revision = reply.revision.n;
    }
    for visit in &visits {
        visit.follows(&registry, "log").await;
    }
    eventually("an old member's events add up to the catalogue", || async {
        let mut known: Vec<String> = Vec::new();
        for (method, addr) in old.events() {
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
