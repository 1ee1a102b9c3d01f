//! What a registration is answered: when, and with which remarks.

use std::time::Duration;

use hubspoke_protocol::{InstanceState, ReasonKind, ServiceInfo};
use hubspoke_registry::Settings;
use hubspoke_testkit::{ClosedPort, FakeMember, MemberReply, eventually};
use reqwest::Method;
use serde_json::json;
use tokio::time::Instant;

use super::fixture::{RegistryReply, TestRegistry};

async fn register(registry: &TestRegistry, info: &ServiceInfo, prefer: &str) -> RegistryReply {
    let request = registry.http.post(registry.url("/services")).header("prefer", prefer).json(info);
    RegistryReply::read(request.send().await.unwrap()).await
}

#[tokio::test]
async fn a_registration_can_wait_until_dependents_have_it() {
    let registry = TestRegistry::start().await;
    let gateway = FakeMember::start().await;
    registry.register(&gateway.snapshot_info("gateway", &["*"])).await;
    for _ in 0..20 {
        let hello = FakeMember::start().await;
        let reply = register(&registry, &hello.info("hello", &[]), "wait=5").await;
        assert_eq!(reply.headers["preference-applied"], "wait=5");
        let known = gateway.newest("hello").unwrap_or_default();
        assert!(known.contains(&hello.addr), "{known:?}");
    }
    let plain = registry.register(&gateway.info("a", &[])).await;
    assert!(!plain.headers.contains_key("preference-applied"));
    // Members that wait for each other are answered, with lists as they are then.
    let (a, b) = (FakeMember::start().await, FakeMember::start().await);
    let (a_info, b_info) = (a.info("a2", &["b2"]), b.info("b2", &["a2"]));
    let (first, second) =
        tokio::join!(register(&registry, &a_info, "wait=5"), register(&registry, &b_info, "wait=5"));
    let lists = [&first.body["b2"], &second.body["a2"]];
    assert!(lists.iter().any(|list| list.as_array().unwrap().len() == 1), "{lists:?}");
}

#[tokio::test]
async fn the_wait_is_bounded_and_covers_a_change_that_is_still_on_its_way() {
    let registry = TestRegistry::with(Settings::default()).await;
    let (hung, hello) = (FakeMember::start().await, FakeMember::start().await);
    registry.register(&hung.snapshot_info("hung", &["hello"])).await;
    hung.on_push(MemberReply::Hang);
    let start = Instant::now();
    let reply = register(&registry, &hello.info("hello", &[]), "wait=1").await;
    assert_eq!((reply.status.as_u16(), &reply.body), (200, &json!({})));
    assert!((1000..4000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    let start = Instant::now();
    register(&registry, &hello.info("hello", &[]), "wait=1").await;
    assert!(start.elapsed() >= Duration::from_secs(1), "a renewal waits for the same");
    let start = Instant::now();
    register(&registry, &hello.info("hello", &[]), "wait=0").await;
    registry.register(&hello.info("hello", &[])).await;
    assert!(start.elapsed() < Duration::from_secs(1));
    hung.on_push(MemberReply::Ok);
    let start = Instant::now();
    register(&registry, &hello.info("hello", &[]), "wait=10").await;
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    let known = hung.newest("hello").unwrap_or_default();
    assert!(known.contains(&hello.addr), "{known:?}");
}

#[tokio::test]
async fn a_wrong_port_shows_at_once() {
    let registry = TestRegistry::with(Settings::default()).await;
    let info = ServiceInfo::new("hello", ClosedPort::new().addr().to_string());
    assert_eq!(registry.register(&info).await.status, 200);
    let start = Instant::now();
    eventually("it is suspect", || async {
        registry.state("hello", &info.addr).await == Some(InstanceState::Suspect)
    })
    .await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    let why = registry.live("hello").await[0].reasons.last().cloned().unwrap();
    assert_eq!(why.kind, ReasonKind::HeldBack);
    assert!(
        why.detail.starts_with("has not answered yet: can't connect: Connection refused"),
        "{}",
        why.detail
    );
    eventually("it is removed", || async { registry.live("hello").await.is_empty() }).await;
}

#[tokio::test]
async fn names_of_routes_that_every_member_has_are_refused() {
    let registry = TestRegistry::start().await;
    let member = FakeMember::start().await;
    for name in hubspoke_protocol::RESERVED_NAMES {
        let refused = registry.register(&member.info(name, &[])).await;
        assert_eq!(refused.problem(), 422, "{name}");
        assert!(refused.body["detail"].as_str().unwrap().starts_with("Name: "), "{}", refused.body);
    }
    assert_eq!(registry.register(&member.info("services-2", &["services"])).await.status, 200);
}

#[tokio::test]
async fn the_second_that_asks_for_a_host_is_told_and_the_first_keeps_it() {
    let registry = TestRegistry::start().await;
    let members = [FakeMember::start().await, FakeMember::start().await, FakeMember::start().await];
    let asking = |member: usize, service: &str, hosts: &str| {
        let mut info = members[member].info(service, &[]);
        info.meta.insert("route.hosts".to_owned(), hosts.to_owned());
        // What a member itself says about that counts for nothing.
        info.hosts_since.insert("same.test".to_owned(), 0);
        info
    };
    let mut gateway = members[2].info("gateway", &[]);
    gateway.meta.insert("gateway.hosts".to_owned(), "hub.test,*.apps.test,given.test=shop".to_owned());
    assert!(registry.register(&gateway).await.status.is_success());
    let register = async |info: &ServiceInfo| {
        let reply = registry.register(info).await;
        assert_eq!(reply.status, 200);
        let told = reply.headers.get_all("hub-warning").iter().map(|it| it.to_str().unwrap().to_owned());
        told.collect::<Vec<_>>()
    };
    assert_eq!(register(&asking(0, "zoo", "Same.test, zoo.localhost,zoo.apps.test")).await, [""; 0]);
    let second = asking(1, "bar", "same.test,hub.test,given.test,zoo.localhost,127.0.0.1,\u{1b}");
    let expected = [
        "host \\u{1b}: it is not a valid host name",
        "host 127.0.0.1: it is not a valid host name",
        "host given.test: service shop has it",
        "host hub.test: it is a name of the gateway",
        "host same.test: service zoo has it",
        "host zoo.localhost: it names another service",
    ];
    assert_eq!(register(&second).await, expected);
    assert_eq!(registry.live("bar").await[0].warnings, expected, "as hub status shows it");
    assert_eq!(registry.live("zoo").await[0].warnings, [""; 0]);
    // The first is replaced by its next release: it keeps the host, since the same time.
    let since = registry.live("zoo").await[0].info.hosts_since["same.test"];
    registry.deregister(&members[0].info("zoo", &[])).await;
    assert_eq!(register(&asking(2, "zoo", "same.test")).await, [""; 0]);
    assert_eq!(registry.live("zoo").await[0].info.hosts_since["same.test"], since);
    assert_eq!(register(&second).await, expected);
    // It asks no longer.
    assert_eq!(register(&members[2].info("zoo", &[])).await, [""; 0]);
    assert!(!registry.live("bar").await[0].warnings.iter().any(|told| told.contains("same.test")));
    assert!(!register(&second).await.iter().any(|told| told.contains("same.test")));
}

#[tokio::test]
async fn unknown_keys_are_ignored_but_named_in_the_answer_and_the_view() {
    let registry = TestRegistry::start().await;
    let member = FakeMember::start().await;
    let post = async |body: serde_json::Value| {
        let reply = registry.call(Method::POST, "/services", body.to_string()).await;
        let warnings: Vec<_> =
            reply.headers.get_all("hub-warning").iter().map(|it| it.to_str().unwrap().to_owned()).collect();
        (reply.status.as_u16(), reply.revision, warnings)
    };
    let expected = ["unknown key RequiredService; did you mean RequiredServices?", "unknown key Zone"];
    let wrong = json!({ "Name": "hello", "Addr": member.addr, "RequiredService": ["log"], "Zone": "x" });
    let (status, revision, warnings) = post(wrong.clone()).await;
    assert_eq!((status, warnings.as_slice()), (200, &expected.map(str::to_owned)[..]));
    assert_eq!(registry.live("hello").await[0].warnings, expected);
    assert_eq!(post(wrong).await, (200, revision, warnings), "at each renewal, which changes nothing");
    let right = json!({ "Name": "hello", "Addr": member.addr });
    assert_eq!(post(right).await, (200, revision, vec![]));
    assert!(registry.live("hello").await[0].warnings.is_empty());
    let reply = registry.call(Method::POST, "/services", r#"{"name":"hello","Addr":"127.0.0.1:9"}"#).await;
    assert_eq!(reply.problem(), 422);
    assert!(reply.body["detail"].as_str().unwrap().contains("did you mean Name?"), "{}", reply.body);
}
