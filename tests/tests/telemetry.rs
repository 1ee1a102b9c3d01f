//! What the whole platform tells a collector. One process has one tracer, so everything here is one story, told to
//! one receiver.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that fails should say where"
)]

use std::collections::BTreeSet;

use hub_chassis::config::{Common, Process};
use hub_chassis::telemetry::{self, Settings};
use hub_tests::otlp::{Received, Receiver, Span};
use hub_tests::{Platform, entries, eventually};
use tokio::net::TcpListener;

const PROCESS: Process =
    Process { name: "hub", listen: "127.0.0.1:0", control_listen: None, version: "1.2.3" };
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn export_to(receiver: &Receiver) -> telemetry::Running {
    let vars = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url()),
        ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned()),
        ("OTEL_BLRP_SCHEDULE_DELAY", "50".to_owned()),
        ("OTEL_METRIC_EXPORT_INTERVAL", "200".to_owned()),
    ];
    let vars = vars.map(|(name, value)| (name.to_owned(), value));
    let mut config = Common::of(&PROCESS).unwrap().telemetry;
    config.heartbeat_traces = 1.0;
    telemetry::start(Settings::read(&PROCESS, &config, &vars).unwrap()).unwrap()
}

fn of_trace<'a>(received: &'a Received, trace: &str) -> Vec<&'a Span> {
    received.spans.iter().filter(|span| span.trace == trace).collect()
}

fn child<'a>(spans: &[&'a Span], parent: &Span, kind: &str) -> Option<&'a Span> {
    spans.iter().find(|span| span.parent == parent.id && span.kind == kind).copied()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platform_tells_a_collector_what_it_does() {
    let receiver = Receiver::start().await;
    let running = export_to(&receiver);
    let platform = Platform::start().await.log(2).await.visit(1).await;

    one_trace_leads_from_the_caller_to_the_entry(&platform, &receiver).await;
    an_attempt_that_failed_is_a_span_of_its_own(&platform, &receiver).await;
    a_heartbeat_is_a_trace_from_the_registry_to_the_member(&receiver).await;
    metrics_have_their_names_and_units(&platform, &receiver).await;

    // Flushed off the async threads, whatever waits.
    tokio::task::spawn_blocking(|| running.shutdown()).await.unwrap();
    let received = receiver.received();
    let registered = received.logs.iter().filter(|log| log.body == "registered").count();
    assert!(registered >= 4, "each member says that it has registered");
}

async fn one_trace_leads_from_the_caller_to_the_entry(platform: &Platform, receiver: &Receiver) {
    let reply = platform
        .http
        .get(format!("{}/visit", platform.gateway.url()))
        .header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
    assert!(reply.send().await.unwrap().status().is_success());
    eventually("all five spans are there", || async { of_trace(&receiver.received(), TRACE).len() == 5 })
        .await;
    let received = receiver.received();
    let spans = of_trace(&received, TRACE);
    let gateway = *spans.iter().find(|span| span.parent == PARENT).expect("a root of ours");
    assert_eq!((gateway.name.as_str(), gateway.kind), ("GET /{service}/{*path}", "server"));
    let to_visit = child(&spans, gateway, "client").expect("gateway → visit");
    let visit = child(&spans, to_visit, "server").expect("visit");
    let to_log = child(&spans, visit, "client").expect("visit → log");
    let log = child(&spans, to_log, "server").expect("log");
    for (span, service, name) in [
        (gateway, "gateway", "GET /{service}/{*path}"),
        (to_visit, "gateway", "GET visit"),
        (visit, "visit", "GET /visit"),
        (to_log, "visit", "POST log"),
        (log, "log", "POST /log"),
    ] {
        assert_eq!((span.resource["service.name"].as_str(), span.name.as_str()), (service, name));
        assert!(span.resource["service.instance.id"].starts_with(&format!("{service}-")), "{span:?}");
        assert_eq!(span.attributes["http.response.status_code"], "200", "{span:?}");
        assert!(!span.failed, "{span:?}");
    }
    assert_eq!(visit.attributes["http.route"], "/visit");
    // The instance that was chosen is the one that served.
    assert_eq!(to_visit.attributes["hub.instance"], visit.resource["service.instance.id"]);
    assert_eq!(to_log.attributes["hub.instance"], log.resource["service.instance.id"]);
    let entries: Vec<_> = platform.logs.iter().flat_map(|log| entries(&log.file)).collect();
    assert!(entries.iter().any(|entry| entry["trace_id"] == TRACE), "{entries:?}");
}

async fn an_attempt_that_failed_is_a_span_of_its_own(platform: &Platform, receiver: &Receiver) {
    // An instance that registers and then answers nothing but its heartbeats.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let healthy = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let mut head = [0; 1024];
                while let Ok(n @ 1..) = stream.read(&mut head).await {
                    if !head[..n].starts_with(b"GET /heart-beat") {
                        return; // broken off
                    }
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                }
            });
        }
    });
    let body = format!(r#"{{"Name":"visit","Addr":"{addr}","RequiredServices":[]}}"#);
    let registry = format!("{}/services", platform.registry.url());
    let reply = platform.http.post(&registry).body(body.clone()).send().await.unwrap();
    assert!(reply.status().is_success());
    let mut n = 0u64;
    eventually("a request that was retried", || {
        n += 1;
        let trace = format!("{n:032x}");
        async move {
            let request = platform.http.get(format!("{}/visit", platform.gateway.url()));
            let reply =
                request.header("traceparent", format!("00-{trace}-{PARENT}-01")).send().await.unwrap();
            assert!(reply.status().is_success(), "{}", reply.status());
            eventually("its spans", || async { of_trace(&receiver.received(), &trace).len() >= 5 }).await;
            of_trace(&receiver.received(), &trace).len() == 6
        }
    })
    .await;
    let received = receiver.received();
    let spans = of_trace(&received, &format!("{n:032x}"));
    let gateway = spans.iter().find(|span| span.parent == PARENT).unwrap();
    let mut attempts: Vec<_> =
        spans.iter().filter(|span| span.parent == gateway.id && span.kind == "client").collect();
    attempts.sort_by_key(|span| span.attributes.get("http.request.resend_count").cloned());
    let [first, second] = attempts[..] else { panic!("{attempts:?}") };
    assert!(first.failed && !second.failed);
    assert_eq!(first.attributes["server.port"], addr.rsplit_once(':').unwrap().1);
    assert!(first.attributes.contains_key("error.type"), "{first:?}");
    assert_eq!(second.attributes["http.request.resend_count"], "1");
    assert!(!gateway.failed);
    assert!(platform.http.delete(&registry).body(body).send().await.unwrap().status().is_success());
    healthy.abort();
}

async fn a_heartbeat_is_a_trace_from_the_registry_to_the_member(receiver: &Receiver) {
    eventually("a heartbeat's trace", || async {
        let received = receiver.received();
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

/// Metrics that must be there after what happened above: service, name, unit, attributes.
const METRICS: [(&str, &str, &str, &[&str]); 22] = [
    ("registry", "hub.registry.heartbeat.duration", "s", &["service", "outcome"]),
    ("registry", "hub.registry.instances", "{instance}", &["service", "state"]),
    ("registry", "hub.registry.removals", "{instance}", &["reason"]),
    ("registry", "hub.registry.push.duration", "s", &["outcome"]),
    ("registry", "hub.registry.push.queue", "{dependent}", &[]),
    ("registry", "hub.registry.dependents", "{dependent}", &[]),
    ("registry", "hub.registry.dependents.behind", "{dependent}", &[]),
    ("registry", "hub.registry.revision", "{change}", &[]),
    ("registry", "hub.registry.protecting", "", &[]),
    (
        "registry",
        "http.server.request.duration",
        "s",
        &["http.request.method", "http.route", "http.response.status_code"],
    ),
    ("gateway", "hub.gateway.replies", "{reply}", &["service", "instance", "status"]),
    ("gateway", "hub.gateway.picks", "{pick}", &["service", "instance"]),
    ("gateway", "hub.gateway.retries", "{attempt}", &["service"]),
    ("gateway", "hub.gateway.ejections", "{ejection}", &["service"]),
    ("gateway", "hub.gateway.connections.opened", "{connection}", &["service", "instance"]),
    ("gateway", "hub.gateway.request.duration", "s", &["service"]),
    ("log", "hub.log.entries", "{entry}", &[]),
    ("log", "hub.log.written", "By", &[]),
    ("log", "hub.log.queue", "By", &[]),
    ("log", "hub.log.commit.size", "{submission}", &[]),
    ("log", "hub.log.commit.duration", "s", &[]),
    ("visit", "hub.visit.visits", "{visit}", &[]),
];

async fn metrics_have_their_names_and_units(platform: &Platform, receiver: &Receiver) {
    for _ in 0..5 {
        platform.visit_count().await;
    }
    for (service, name, unit, attributes) in METRICS {
        eventually(name, || async {
            let received = receiver.received();
            let of = |point: &&hub_tests::otlp::Point| {
                point.name == name && point.resource["service.name"] == service
            };
            let Some(point) = received.points.iter().rev().find(of) else { return false };
            assert_eq!(point.unit, unit, "{name}");
            let keys: BTreeSet<&str> = point.attributes.keys().map(String::as_str).collect();
            assert_eq!(keys, attributes.iter().copied().collect(), "{name}");
            true
        })
        .await;
    }
}
