//! Pushes to dependents: their content, order and receivers.

use std::time::Duration;

use hubspoke_protocol::ServiceInfo;
use hubspoke_testkit::{FakeMember, MemberReply, eventually};
use reqwest::Method;
use tokio::time::Instant;

use super::fixture::{TestRegistry, quick};

fn strings(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(method, addr)| ((*method).to_owned(), (*addr).to_owned())).collect()
}

#[tokio::test]
async fn a_core_member_gets_an_event_for_each_instance_added_and_removed() {
    let registry = TestRegistry::start().await;
    let (visit, log, other) =
        (FakeMember::start().await, FakeMember::start().await, FakeMember::start().await);
    registry.register(&visit.info("visit", &["log"])).await;
    registry.register(&log.info("log", &[])).await;
    registry.register(&other.info("other", &[])).await;
    eventually("it gets an event", || async { visit.events().len() == 1 }).await;
    registry.deregister(&log.info("log", &[])).await;
    // The deregistration is answered once the dependents have acknowledged it.
    assert_eq!(visit.events(), strings(&[("POST", &log.addr), ("DELETE", &log.addr)]));
    let push = &visit.pushes()[0];
    assert_eq!(push.body["Name"], "log");
    assert_eq!(push.authorization, None);
}

#[tokio::test]
async fn a_replaced_instance_is_removed_and_added() {
    let registry = TestRegistry::start().await;
    let (visit, log) = (FakeMember::start().await, FakeMember::start().await);
    registry.register(&visit.info("visit", &["log"])).await;
    registry.register(&ServiceInfo { id: Some("one".into()), ..log.info("log", &[]) }).await;
    eventually("it gets the events", || async { visit.events().len() == 1 }).await;
    registry.register(&ServiceInfo { id: Some("two".into()), ..log.info("log", &[]) }).await;
    eventually("it gets the events", || async { visit.events().len() == 3 }).await;
    let expected = strings(&[("POST", &log.addr), ("DELETE", &log.addr), ("POST", &log.addr)]);
    assert_eq!(visit.events(), expected);
    assert_eq!(visit.pushes()[2].body["Id"], "two");
}

#[tokio::test]
async fn a_snapshot_member_gets_whole_lists_including_empty_ones() {
    let registry = TestRegistry::start().await;
    let (visit, log) = (FakeMember::start().await, FakeMember::start().await);
    let before = registry.register(&visit.snapshot_info("visit", &["log", "other"])).await.revision;
    let registered = registry.register(&log.info("log", &[])).await.revision;
    eventually("it has the instance", || async { visit.newest("log") == Some(vec![log.addr.clone()]) }).await;
    registry.deregister(&log.info("log", &[])).await;
    assert_eq!(visit.newest("log"), Some(vec![]));
    let pushes = visit.pushes();
    assert_eq!(pushes[0].authorization.as_deref(), Some("Bearer push-key"));
    assert_eq!(pushes[0].body["Revision"], registered.to_string());
    assert!(
        pushes.iter().all(|push| push.method == Method::PUT && push.body["Services"].get("other").is_none())
    );
    let revisions: Vec<_> = pushes.iter().map(|push| push.revision.n).collect();
    assert!(revisions.is_sorted() && revisions[0] > before.n, "{revisions:?}");
}

#[tokio::test]
async fn many_changes_are_pushed_together_and_only_to_their_dependents() {
    let mut settings = quick();
    settings.push.coalesce = Duration::from_millis(500); // far longer than a registration takes
    let registry = TestRegistry::with(settings).await;
    let (visit, bystander) = (FakeMember::start().await, FakeMember::start().await);
    registry.register(&visit.snapshot_info("visit", &["log"])).await;
    registry.register(&bystander.snapshot_info("bystander", &["other"])).await;
    let log = FakeMember::on("0.0.0.0:0").await;
    let mut expected = Vec::new();
    for host in 2..102 {
        let mut info = log.info("log", &[]);
        info.addr = info.addr.replace("0.0.0.0", &format!("127.0.0.{host}"));
        expected.push(info.addr.clone());
        registry.register(&info).await;
    }
    expected.sort();
    eventually("it has them all", || async { visit.newest("log").as_ref() == Some(&expected) }).await;
    let pushes = visit.pushes().len();
    assert!(pushes < 60, "{pushes} pushes for 100 changes");
    assert_eq!(bystander.pushes().len(), 0);
}

#[tokio::test]
async fn a_deregistration_waits_for_slow_dependents_but_not_for_hung_ones() {
    let registry = TestRegistry::start().await;
    let (slow, log) = (FakeMember::start().await, FakeMember::start().await);
    slow.on_push(MemberReply::Delayed(Duration::from_millis(300)));
    registry.register(&slow.snapshot_info("slow", &["log"])).await;
    // Answered when that push has been.
    let info = serde_json::to_string(&log.info("log", &[])).unwrap();
    let post = registry.http.post(registry.url("/services")).header("prefer", "wait=10").body(info);
    assert_eq!(post.send().await.unwrap().status(), 200);
    assert_eq!(slow.newest("log"), Some(vec![log.addr.clone()]));
    let start = Instant::now();
    registry.deregister(&log.info("log", &[])).await;
    assert!(start.elapsed() >= Duration::from_millis(290), "{:?}", start.elapsed());
    assert_eq!(slow.newest("log"), Some(vec![]));

    registry.register(&log.info("log", &[])).await;
    eventually("it knows the instance", || async { slow.newest("log") == Some(vec![log.addr.clone()]) })
        .await;
    slow.on_push(MemberReply::Hang);
    let start = Instant::now();
    assert_eq!(registry.deregister(&log.info("log", &[])).await.status, 200);
    assert!(start.elapsed() >= Duration::from_millis(990), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_failed_push_is_retried_with_the_newest_state_only() {
    let registry = TestRegistry::start().await;
    let (visit, log, other) =
        (FakeMember::start().await, FakeMember::start().await, FakeMember::start().await);
    registry.register(&visit.snapshot_info("visit", &["log"])).await;
    visit.on_push(MemberReply::Status(500));
    registry.register(&log.info("log", &[])).await;
    eventually("a push fails", || async { !visit.pushes().is_empty() }).await;
    registry.register(&other.info("log", &[])).await;
    registry.deregister(&log.info("log", &[])).await;
    visit.on_push(MemberReply::Ok);
    let expected = Some(vec![other.addr.clone()]);
    eventually("it has the newest state", || async { visit.newest("log") == expected }).await;
    let after = visit.pushes().len();
    registry.register(&log.info("log", &[])).await;
    eventually("it has the next state", || async { visit.newest("log").is_some_and(|it| it.len() == 2) })
        .await;
    assert_eq!(visit.pushes().len(), after + 1, "nothing else was pushed before");
}

#[tokio::test]
async fn acknowledged_events_are_not_sent_again() {
    let registry = TestRegistry::start().await;
    let (visit, a, b) = (FakeMember::start().await, FakeMember::start().await, FakeMember::start().await);
    registry.register(&visit.info("visit", &["log"])).await;
    registry.register(&a.info("log", &[])).await;
    eventually("it gets the first event", || async { visit.events().len() == 1 }).await;
    visit.on_push(MemberReply::Status(503));
    registry.register(&b.info("log", &[])).await;
    eventually("it refuses the second", || async { visit.events().len() >= 2 }).await;
    visit.on_push(MemberReply::Ok);
    registry.deregister(&a.info("log", &[])).await;
    let removed = || async { visit.events().last() == Some(&("DELETE".to_owned(), a.addr.clone())) };
    eventually("it gets the removal of the first", removed).await;
    let events = visit.events();
    let first = events.iter().filter(|event| **event == ("POST".to_owned(), a.addr.clone())).count();
    assert_eq!(first, 1, "{events:?}");
}
