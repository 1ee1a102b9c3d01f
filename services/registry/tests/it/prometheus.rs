//! `GET /prometheus/targets`: what Prometheus is told to scrape.

use hubspoke_protocol::{META_METRICS, PROMETHEUS_TARGETS_PATH, ServiceInfo};
use hubspoke_testkit::FakeMember;
use reqwest::Method;
use serde_json::{Value, json};

use super::fixture::TestRegistry;

fn with_metrics(info: ServiceInfo, declared: &str) -> ServiceInfo {
    let meta = [(META_METRICS.to_owned(), declared.to_owned())].into();
    ServiceInfo { meta, ..info }
}

fn target(addr: &str, path: &str, instance: &str, job: &str) -> Value {
    json!({"targets": [addr], "labels": {"__metrics_path__": path, "instance": instance, "job": job}})
}

#[tokio::test]
async fn instances_that_declare_metrics_are_targets() {
    let registry = TestRegistry::start().await;
    let targets = async |query: &str| {
        let reply = registry.call(Method::GET, &format!("{PROMETHEUS_TARGETS_PATH}{query}"), "").await;
        assert_eq!(
            (reply.status.as_u16(), &reply.headers["content-type"]),
            (200, &"application/json".parse().unwrap())
        );
        reply.body
    };
    assert_eq!(targets("").await, json!([]));
    let (log, shop, plain, evil) = (
        FakeMember::start().await,
        FakeMember::start().await,
        FakeMember::start().await,
        FakeMember::start().await,
    );
    let log_info = ServiceInfo { id: Some("log-1".into()), ..with_metrics(log.info("log", &[]), "/metrics") };
    registry.register(&log_info).await;
    registry.register(&with_metrics(shop.info("shop", &[]), ":9100/custom")).await;
    registry.register(&plain.info("plain", &[])).await;
    registry.register(&with_metrics(evil.info("evil", &[]), "192.0.2.1:80/metrics")).await;
    let log_target = target(&log.addr, "/metrics", "log-1", "log");
    let all = targets("").await;
    let list = all.as_array().unwrap();
    assert_eq!(list.len(), 2, "{all}");
    assert!(list.contains(&log_target), "{all}");
    let shop_target = &list.iter().find(|target| target["labels"]["job"] == "shop").unwrap();
    assert_eq!(shop_target["targets"], json!(["127.0.0.1:9100"]));
    assert_eq!(shop_target["labels"]["__metrics_path__"], "/custom");

    assert_eq!(targets("?service=log").await, json!([log_target]));
    assert_eq!(targets("?service=log&service=shop").await.as_array().unwrap().len(), 2);
    assert_eq!(targets("?service=plain&service=unknown").await, json!([]));
    let invalid = registry.call(Method::GET, &format!("{PROMETHEUS_TARGETS_PATH}?service=A"), "").await;
    assert_eq!(invalid.problem(), 422);

    // One that is drained has its last numbers still to be read; one that has left has not.
    registry.call(Method::PUT, "/services/log/log-1/drain", "").await;
    assert_eq!(targets("?service=log").await, json!([log_target]));
    registry.call(Method::DELETE, "/services/log/log-1", "").await;
    assert_eq!(targets("?service=log").await, json!([]));
}
