//! Registration with the core protocol, and refused requests.

use hubspoke_protocol::{ReasonKind, ServiceInfo};
use hubspoke_testkit::FakeMember;
use reqwest::Method;
use serde_json::json;

use super::fixture::TestRegistry;

#[tokio::test]
async fn a_core_member_registers_renews_and_deregisters() {
    let registry = TestRegistry::start().await;
    let log = FakeMember::start().await;
    // A null list, no content type, a trailing newline.
    let body = format!("{{\"Name\":\"log\",\"Addr\":\"{}\",\"RequiredServices\":null}}\n", log.addr);
    let first = registry.call(Method::POST, "/services", body.clone()).await;
    assert_eq!((first.status.as_u16(), &first.body), (200, &json!({})));
    let again = registry.call(Method::POST, "/services", body).await;
    assert_eq!((again.status.as_u16(), again.revision), (200, first.revision), "a renewal changes nothing");

    let visit = FakeMember::start().await;
    let reply = registry.register(&visit.info("visit", &["log", "none", "log"])).await;
    let expected = json!({
        "log": [{ "Name": "log", "Addr": log.addr, "RequiredServices": [] }],
        "none": [],
    });
    assert_eq!(reply.body, expected);
    assert!(reply.revision.n > first.revision.n && reply.revision.epoch == first.revision.epoch);

    let body = json!({ "Name": "log", "Addr": log.addr }).to_string();
    assert_eq!(registry.call(Method::DELETE, "/services", body.clone()).await.status, 200);
    assert_eq!(registry.call(Method::DELETE, "/services", body).await.status, 200, "also if it is unknown");
    assert_eq!(registry.addrs("log").await, [""; 0]);
}

#[tokio::test]
async fn a_member_that_requires_every_service_gets_those_that_have_or_had_instances() {
    let registry = TestRegistry::start().await;
    let (a, b, all) = (FakeMember::start().await, FakeMember::start().await, FakeMember::start().await);
    registry.register(&a.info("a", &["never"])).await;
    registry.register(&b.info("b", &[])).await;
    let reply = registry.register(&all.info("all", &["*"])).await;
    let names: Vec<_> = reply.body.as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["a", "all", "b"], "neither * nor services that are only required");
    registry.deregister(&a.info("a", &[])).await;
    let reply = registry.register(&all.info("all", &["*"])).await;
    assert_eq!(reply.body["a"], json!([]), "a service that lost its last instance is still known");
}

#[tokio::test]
async fn a_new_id_replaces_the_old_one_whose_late_deregistration_is_refused() {
    let registry = TestRegistry::start().await;
    let log = FakeMember::start().await;
    let with_id = |id: &str| ServiceInfo { id: Some(id.to_owned()), ..log.info("log", &[]) };
    let first = registry.register(&with_id("one")).await;
    let second = registry.register(&with_id("two")).await;
    assert!(second.revision.n > first.revision.n);
    assert_eq!(registry.deregister(&with_id("one")).await.problem(), 409);
    let live = registry.live("log").await;
    assert_eq!((live.len(), live[0].info.id()), (1, "two"));
    assert_eq!(registry.deregister(&with_id("two")).await.status, 200);
    assert!(registry.live("log").await.is_empty());
}

#[tokio::test]
async fn the_reason_of_a_deregistration_is_in_the_history_up_to_its_bound() {
    let registry = TestRegistry::start().await;
    let log = FakeMember::start().await;
    for (reason, kept) in [
        (json!("exited with code 3"), "exited with code 3".to_owned()),
        (json!("é".repeat(150)), "é".repeat(100)),
        (json!(null), String::new()),
    ] {
        registry.register(&log.info("log", &[])).await;
        let body = json!({ "Name": "log", "Addr": log.addr, "Reason": reason }).to_string();
        assert_eq!(registry.call(Method::DELETE, "/services", body).await.status, 200);
        let view = registry.view().await;
        let last = view.services["log"][0].reasons.last().unwrap().clone();
        assert_eq!((last.kind, last.detail), (ReasonKind::Deregistered, kept));
    }
    let wrong = json!({ "Name": "log", "Addr": log.addr, "Reason": 3 }).to_string();
    assert_eq!(registry.call(Method::DELETE, "/services", wrong).await.problem(), 422);
}

#[tokio::test]
async fn invalid_requests_get_a_problem_document() {
    let registry = TestRegistry::start().await;
    let long = format!("{{\"Name\":\"{}\"}}", "x".repeat(70_000));
    for (method, path, body, status) in [
        ("POST", "/services", "{", 400),
        ("POST", "/services", "", 400),
        ("POST", "/services", r#"{"Name":"a","Addr":"h:1"} x"#, 400),
        ("POST", "/services", "[]", 422),
        ("POST", "/services", "{}", 422),
        ("POST", "/services", r#"{"Name":"a"}"#, 422),
        ("POST", "/services", r#"{"Name":"A","Addr":"h:1"}"#, 422),
        ("POST", "/services", r#"{"Name":"a","Addr":"h"}"#, 422),
        ("POST", "/services", r#"{"Name":"a","Addr":"h:0"}"#, 422),
        ("POST", "/services", r#"{"Name":"a","Addr":"0.0.0.0:9000"}"#, 422),
        ("POST", "/services", r#"{"Name":"a","Addr":"[::]:9000"}"#, 422),
        ("POST", "/services", r#"{"Name":"a","Addr":"255.255.255.255:9000"}"#, 422),
        ("POST", "/services", r#"{"Name":"a","Addr":"127.1:9000"}"#, 422),
        ("POST", "/services", r#"{"Name":"a","Addr":"h:1","ControlAddr":"0.0.0.0:2"}"#, 422),
        ("POST", "/services", r#"{"Name":"a","Addr":"h:1","RequiredServices":["B"]}"#, 422),
        ("POST", "/services", r#"{"Name":"a","Addr":"h:1","ControlAddr":"x"}"#, 422),
        ("POST", "/services", r#"{"Name":"a","Addr":"h:1","PushKey":"a\nb"}"#, 422),
        ("POST", "/services", r#"{"Name":"a","Addr":"h:1","Push":"sometimes"}"#, 422),
        ("POST", "/services", long.as_str(), 413),
        ("DELETE", "/services", "{", 400),
        ("DELETE", "/services", r#"{"Name":"a"}"#, 422),
        ("PUT", "/services", "", 405),
        ("PATCH", "/services/a", "", 405),
        ("GET", "/services/none", "", 404),
        ("GET", "/nowhere", "", 404),
        ("PUT", "/services/a/h:1/drain", "", 404),
        ("DELETE", "/services/a/h:1", "", 404),
        ("PUT", "/protection", "{}", 422),
        ("GET", "/services/watch?service=A", "", 422),
    ] {
        let reply = registry.call(method.parse().unwrap(), path, body.to_owned()).await;
        assert_eq!(reply.problem(), status, "{method} {path} {:.80}: {}", body, reply.body);
        assert_eq!(reply.headers.contains_key("allow"), status == 405, "{method} {path}");
    }
    assert!(registry.view().await.services.is_empty());
}

#[tokio::test]
async fn a_push_key_never_leaves_the_registry() {
    let registry = TestRegistry::start().await;
    let log = FakeMember::start().await;
    registry.register(&log.snapshot_info("log", &["log"])).await;
    let reply = registry.register(&log.snapshot_info("log", &["log"])).await;
    assert_eq!(reply.body["log"].as_array().unwrap().len(), 1);
    let view = registry.http.get(registry.url("/services")).send().await.unwrap().text().await.unwrap();
    let one = registry.http.get(registry.url("/services/log")).send().await.unwrap().text().await.unwrap();
    for text in [reply.body.to_string(), view, one] {
        assert!(
            text.contains(&log.addr) && !text.contains("push-key") && !text.contains("PushKey"),
            "{text}"
        );
    }
}
