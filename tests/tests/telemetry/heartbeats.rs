//! Heartbeats as a collector receives them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use hubspoke_testkit::otlp::{Collector, LogRecord};
use hubspoke_testkit::{TestServer, eventually};
use hubspoke_tests::Platform;

use super::{child, is_logged, metric_sum, of_trace};

/// A member that answers its heartbeats, some of them with an error, and breaks off all other requests.
pub(crate) struct FlakyMember {
    pub(crate) server: TestServer,
    /// How many heartbeats will fail.
    failing: Arc<AtomicUsize>,
}

impl FlakyMember {
    pub(crate) async fn start() -> Self {
        let failing = Arc::<AtomicUsize>::default();
        let left = failing.clone();
        let server = TestServer::script(move |mut conn| {
            let left = left.clone();
            async move {
                while let Some(request) = conn.request().await {
                    if !request.starts_with("GET /heart-beat") {
                        return;
                    }
                    let fails = left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
                    let status = if fails { "500 Internal Server Error" } else { "200 OK" };
                    conn.write(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")).await;
                }
            }
        })
        .await;
        Self { server, failing }
    }

    /// Registers (`POST`) or deregisters (`DELETE`) it under a name.
    pub(crate) async fn call_registry(&self, platform: &Platform, method: reqwest::Method, name: &str) {
        let body = format!(r#"{{"Name":"{name}","Addr":"{}","RequiredServices":[]}}"#, self.server.addr);
        let request = platform.http.request(method, format!("{}/services", platform.registry.url()));
        assert!(request.body(body).send().await.unwrap().status().is_success());
    }
}

pub(crate) async fn outcomes_of_heartbeats_are_logged_and_counted(
    platform: &Platform,
    collector: &Collector,
) {
    let of = |service: &'static str| {
        move |log: &LogRecord| log.attributes.get("service").is_some_and(|value| value == service)
    };
    let member = FlakyMember::start().await;
    member.call_registry(platform, reqwest::Method::POST, "flaky").await;
    // One heartbeat fails and the next one succeeds.
    member.failing.store(1, SeqCst);
    is_logged(collector, "heartbeat failed", of("flaky")).await;
    is_logged(collector, "heartbeat recovered", of("flaky")).await;
    eventually("the failed heartbeat's span", || async {
        collector
            .received()
            .spans
            .iter()
            .any(|span| span.name == "heartbeat" && span.failed && span.attributes["hub.service"] == "flaky")
    })
    .await;
    let failed = [("service", "flaky"), ("outcome", "failed")];
    metric_sum(collector, "registry", "hub.registry.heartbeat.duration", &failed, 1.0).await;
    let by_heartbeat = [("reason", "heartbeat")];
    metric_sum(collector, "registry", "hub.registry.removals", &by_heartbeat, 0.0).await;
    // All heartbeats fail.
    member.failing.store(usize::MAX, SeqCst);
    is_logged(collector, "removed", of("flaky")).await;
    metric_sum(collector, "registry", "hub.registry.removals", &by_heartbeat, 1.0).await;

    // Most instances fail at once.
    member.failing.store(0, SeqCst);
    let many: Vec<String> = (0..12).map(|n| format!("many-{n}")).collect();
    for name in &many {
        member.call_registry(platform, reqwest::Method::POST, name).await;
    }
    for name in &many {
        eventually("a heartbeat was measured", || async {
            collector.received().points.iter().any(|point| {
                point.name == "hub.registry.heartbeat.duration" && point.attributes["service"] == *name
            })
        })
        .await;
    }
    member.failing.store(usize::MAX, SeqCst);
    is_logged(collector, "holding back removals: most instances fail at once", |log| log.severity == "WARN")
        .await;
    metric_sum(collector, "registry", "hub.registry.protecting", &[], 1.0).await;
    member.failing.store(0, SeqCst);
    is_logged(collector, "no longer holding back removals", |_| true).await;
    for name in &many {
        member.call_registry(platform, reqwest::Method::DELETE, name).await;
    }
}

pub(crate) async fn a_heartbeat_is_a_trace_from_the_registry_to_the_member(collector: &Collector) {
    eventually("a heartbeat's trace", || async {
        let received = collector.received();
        received.spans.iter().filter(|span| span.name == "heartbeat").any(|beat| {
            assert_eq!((beat.kind, beat.parent.as_str()), ("client", ""));
            assert_eq!(beat.resource["service.name"], "registry");
            let spans = of_trace(&received, &beat.trace);
            let Some(answer) = child(&spans, beat, "server") else { return false };
            assert_eq!(answer.name, "GET /heart-beat");
            answer.resource["service.name"] == beat.attributes["hub.service"]
                && answer.resource["service.instance.id"] == beat.attributes["hub.instance"]
        })
    })
    .await;
}
