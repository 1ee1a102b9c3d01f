//! The token, the allowed networks, the limits.

use hubspoke_protocol::ServiceInfo;
use hubspoke_testkit::FakeMember;
use reqwest::Method;

use super::fixture::{RegistryReply, TestRegistry, quick};

#[tokio::test]
async fn with_a_token_set_changes_require_it_and_reads_do_not() {
    let registry = TestRegistry::with_token(quick(), "hush").await;
    let log = FakeMember::start().await;
    let body = serde_json::to_string(&log.info("log", &[])).unwrap();
    let drain = format!("/services/log/{}/drain", log.addr);
    let instance = format!("/services/log/{}", log.addr);
    let calls = [
        ("POST", "/services", body.as_str()),
        ("PUT", drain.as_str(), ""),
        ("DELETE", drain.as_str(), ""),
        ("PUT", "/protection", r#"{"Enabled":true}"#),
        ("DELETE", instance.as_str(), ""),
        ("DELETE", "/services", body.as_str()),
    ];
    for (method, path, body) in calls {
        let call = |token: Option<&str>| {
            let method: Method = method.parse().unwrap();
            let request = registry.http.request(method, registry.url(path)).body(body.to_owned());
            match token {
                Some(token) => request.bearer_auth(token),
                None => request,
            }
        };
        for wrong in [None, Some("hus"), Some("hush2")] {
            let reply = RegistryReply::read(call(wrong).send().await.unwrap()).await;
            assert_eq!(reply.problem(), 401, "{method} {path}");
            assert_eq!(reply.headers["www-authenticate"], "Bearer");
            assert!(!reply.body.to_string().contains("hush"));
        }
        let reply = call(Some("hush")).send().await.unwrap();
        assert_eq!(reply.status(), 200, "{method} {path}");
    }
    assert_eq!(registry.view().await.services.len(), 1);
    // The relayed log requires it, too.
    let reply = registry.call(Method::GET, "/log/tail", "").await;
    assert_eq!(reply.problem(), 401);
    assert_eq!(reply.headers["www-authenticate"], "Bearer");
}

#[tokio::test]
async fn only_allowed_networks_may_register() {
    let mut settings = quick();
    settings.allow_addrs = vec!["127.0.0.0/8".parse().unwrap()];
    let registry = TestRegistry::with(settings).await;
    let log = FakeMember::start().await;
    assert_eq!(registry.register(&log.info("log", &[])).await.status, 200);
    assert_eq!(registry.register(&ServiceInfo::new("log", "10.0.0.1:80")).await.problem(), 403);
    assert_eq!(registry.register(&ServiceInfo::new("log", "metadata.internal:80")).await.problem(), 403);
    let outside = ServiceInfo { control_addr: Some("10.0.0.1:80".into()), ..log.info("log", &[]) };
    assert_eq!(registry.register(&outside).await.problem(), 403);
}

#[tokio::test]
async fn each_limit_has_its_status() {
    let mut settings = quick();
    settings.limits.required = 2;
    settings.limits.meta = bytesize::ByteSize::b(10);
    settings.limits.instances = 2;
    settings.limits.services = 3;
    let registry = TestRegistry::with(settings).await;
    let log = FakeMember::start().await;
    assert_eq!(registry.register(&log.info("log", &["a", "b", "c"])).await.problem(), 422);
    let mut heavy = log.info("log", &[]);
    heavy.meta.insert("zone".into(), "far away".into());
    assert_eq!(registry.register(&heavy).await.problem(), 422);
    assert_eq!(registry.register(&log.info("log", &["a", "b"])).await.status, 200);
    let full = registry.register(&log.info("c", &[])).await;
    assert_eq!((full.problem(), full.headers.contains_key("retry-after")), (429, true), "too many services");
    assert_eq!(registry.register(&log.info("a", &[])).await.status, 200);
    assert_eq!(registry.register(&log.info("b", &[])).await.problem(), 429, "too many instances");
    assert_eq!(registry.register(&log.info("log", &["a", "b"])).await.status, 200, "a renewal is accepted");
}

#[tokio::test]
async fn registrations_are_limited_and_renewals_are_not() {
    let mut settings = quick();
    settings.limits.registrations_per_second = 5;
    let registry = TestRegistry::with(settings).await;
    let log = FakeMember::start().await;
    let mut refused = 0;
    for i in 0..20 {
        let id = Some(format!("start-{i}"));
        let reply = registry.register(&ServiceInfo { id, ..log.info("log", &[]) }).await;
        refused += usize::from(reply.status == 429);
    }
    assert!(refused > 5, "{refused} of 20 refused");
    let known = registry.live("log").await.remove(0).info;
    for _ in 0..20 {
        assert_eq!(registry.register(&known).await.status, 200);
    }
}
