//! The telemetry of a whole platform, as a collector receives it. A process has one tracer, so this is one test with
//! one collector, in a binary of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test names its place")]

use std::collections::{BTreeMap, BTreeSet};

use hubspoke_chassis::config::{Common, Process};
use hubspoke_chassis::telemetry::{self, TelemetrySettings};
use hubspoke_protocol::problem::ProblemType;
use hubspoke_testkit::eventually;
use hubspoke_testkit::otlp::{Collector, DataPoint, LogRecord, Received, Span};
use hubspoke_tests::{Platform, entries};

use self::heartbeats::FlakyMember;

#[path = "telemetry/heartbeats.rs"]
mod heartbeats;

const PROCESS: Process = Process::new("hub", "1.2.3");
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn export_to(collector: &Collector) -> telemetry::Running {
    let vars = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()),
        ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned()),
        ("OTEL_BLRP_SCHEDULE_DELAY", "50".to_owned()),
        ("OTEL_METRIC_EXPORT_INTERVAL", "200".to_owned()),
    ];
    let vars = vars.map(|(name, value)| (name.to_owned(), value));
    let mut config = Common::of(&PROCESS).unwrap().telemetry;
    config.heartbeat_traces = 1.0;
    config.log = "info,hubspoke_gateway=debug".to_owned();
    telemetry::start(TelemetrySettings::read(&PROCESS, &config, &vars).unwrap()).unwrap()
}

fn of_trace<'a>(received: &'a Received, trace: &str) -> Vec<&'a Span> {
    received.spans.iter().filter(|span| span.trace == trace).collect()
}

fn child<'a>(spans: &[&'a Span], parent: &Span, kind: &str) -> Option<&'a Span> {
    spans.iter().find(|span| span.parent == parent.id && span.kind == kind).copied()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_receives_the_traces_metrics_and_logs_of_the_platform() {
    let collector = Collector::start().await;
    let running = export_to(&collector);
    let mut platform = Platform::start().await.log(2).await.visit(1).await;

    a_trace_connects_the_caller_with_the_entry(&platform, &collector).await;
    one_visit_is_counted_once(&platform, &collector).await;
    an_unknown_method_does_not_appear_in_span_names(&platform, &collector).await;
    a_failed_attempt_has_its_own_span(&platform, &collector).await;
    heartbeats::a_heartbeat_is_a_trace_from_the_registry_to_the_member(&collector).await;
    metrics_have_their_names_and_units(&platform, &collector).await;
    heartbeats::outcomes_of_heartbeats_are_logged_and_counted(&platform, &collector).await;
    let names = metric_names(&platform).await;
    a_failed_visit_is_logged_within_its_trace(&mut platform, &collector).await;
    dashboard_and_alerts_use_existing_metrics(names, &mut platform).await;

    // The final flush blocks, so it must not run on an async thread.
    tokio::task::spawn_blocking(|| running.shutdown()).await.unwrap();
    let received = collector.received();
    let registered = received.logs.iter().filter(|log| log.body == "registered").count();
    assert!(registered >= 4, "each member logs that it has registered");
}

async fn a_trace_connects_the_caller_with_the_entry(platform: &Platform, collector: &Collector) {
    let reply = platform
        .http
        .get(format!("{}/visit", platform.gateway.url()))
        .header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
    assert!(reply.send().await.unwrap().status().is_success());
    eventually("all five spans are there", || async { of_trace(&collector.received(), TRACE).len() == 5 })
        .await;
    let received = collector.received();
    let spans = of_trace(&received, TRACE);
    let gateway = *spans.iter().find(|span| span.parent == PARENT).expect("a span of the gateway");
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
    // The picked instance is the one that served the request.
    assert_eq!(to_visit.attributes["hub.instance"], visit.resource["service.instance.id"]);
    assert_eq!(to_log.attributes["hub.instance"], log.resource["service.instance.id"]);
    let entries: Vec<_> = platform.logs.iter().flat_map(|log| entries(&log.file)).collect();
    assert!(entries.iter().any(|entry| entry["trace_id"] == TRACE), "{entries:?}");
}

/// Attributes: name and value.
type Labels<'a> = &'a [(&'a str, &'a str)];

/// What one visit adds to the metrics: service, metric, attributes, and the sum over all instances of the service.
const ONE_VISIT: [(&str, &str, Labels<'_>, f64); 9] = [
    ("gateway", "hub.gateway.replies", &[("service", "visit"), ("status", "200")], 1.0),
    ("gateway", "hub.gateway.picks", &[("service", "visit")], 1.0),
    ("gateway", "hub.gateway.retries", &[("service", "visit")], 0.0),
    ("gateway", "hub.gateway.connections.opened", &[("service", "visit")], 1.0),
    ("gateway", "hub.gateway.request.duration", &[("service", "visit")], 1.0),
    ("visit", "hub.visit.visits", &[], 1.0),
    ("visit", "http.server.request.duration", &[("http.route", "/visit")], 1.0),
    ("log", "hub.log.entries", &[], 1.0),
    ("log", "http.server.request.duration", &[("http.route", "/log")], 1.0),
];

async fn one_visit_is_counted_once(platform: &Platform, collector: &Collector) {
    for (service, name, attributes, expected) in ONE_VISIT {
        metric_sum(collector, service, name, attributes, expected).await;
    }
    let written: u64 = platform.logs.iter().map(|log| log.file.metadata().unwrap().len()).sum();
    metric_sum(collector, "log", "hub.log.written", &[], written as f64).await;
    for (service, instances) in [("gateway", 1.0), ("log", 2.0), ("visit", 1.0)] {
        let passing = [("service", service), ("state", "passing")];
        metric_sum(collector, "registry", "hub.registry.instances", &passing, instances).await;
    }
}

/// Waits until the newest data points of all instances of a service add up to `expected`.
async fn metric_sum(collector: &Collector, service: &str, name: &str, attributes: Labels<'_>, expected: f64) {
    eventually(&format!("{service} {name} {attributes:?} is {expected}"), || async {
        let received = collector.received();
        let of = |point: &&DataPoint| {
            point.name == name
                && point.resource["service.name"] == service
                && attributes.iter().all(|(key, value)| point.attributes[*key] == *value)
        };
        let newest: BTreeMap<_, f64> = received
            .points
            .iter()
            .filter(of)
            .map(|point| ((&point.resource["service.instance.id"], &point.attributes), point.value))
            .collect();
        !newest.is_empty() && newest.values().sum::<f64>() == expected
    })
    .await;
}

async fn an_unknown_method_does_not_appear_in_span_names(platform: &Platform, collector: &Collector) {
    let trace = "0af7651916cd43dd8448eb211c80319d";
    let url = format!("{}/visit", platform.gateway.url());
    let request = platform.http.request("BREW".parse().unwrap(), url);
    request.header("traceparent", format!("00-{trace}-{PARENT}-01")).send().await.unwrap();
    eventually("three spans are there", || async { of_trace(&collector.received(), trace).len() == 3 }).await;
    let received = collector.received();
    let mut names: Vec<_> = of_trace(&received, trace).iter().map(|span| span.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["HTTP /visit", "HTTP /{service}/{*path}", "HTTP visit"]);
    for span in of_trace(&received, trace) {
        assert_eq!(span.attributes["http.request.method"], "_OTHER");
        assert_eq!(span.attributes["http.request.method_original"], "BREW");
        assert_eq!(span.attributes["server.address"], "127.0.0.1");
    }
}

/// Waits for a log record.
async fn is_logged(collector: &Collector, body: &str, matches: impl Fn(&LogRecord) -> bool) {
    eventually(&format!("{body:?} is logged"), || async {
        collector.received().logs.iter().any(|log| log.body.starts_with(body) && matches(log))
    })
    .await;
}

/// Log records carry the trace of the request that caused them.
async fn a_failed_visit_is_logged_within_its_trace(platform: &mut Platform, collector: &Collector) {
    for log in platform.logs.drain(..) {
        log.stop().await;
    }
    let trace = "0af7651916cd43dd8448eb211c80319e";
    let request = platform.http.get(format!("{}/visit", platform.gateway.url()));
    let reply = request.header("traceparent", format!("00-{trace}-{PARENT}-01")).send().await.unwrap();
    assert_eq!(reply.status(), 503);
    is_logged(collector, "a visit failed", |log| log.trace == trace).await;
}

/// The names of all metrics in `/metrics` of every instance.
async fn metric_names(platform: &Platform) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for instance in
        [&platform.registry, &platform.gateway].into_iter().chain(&platform.logs).chain(&platform.visits)
    {
        let reply = platform.http.get(format!("http://{}/metrics", instance.control)).send().await.unwrap();
        let text = reply.text().await.unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        names.extend(lines.map(|line| line.split(['{', ' ']).next().unwrap().to_owned()));
    }
    names
}

async fn dashboard_and_alerts_use_existing_metrics(mut names: BTreeSet<String>, platform: &mut Platform) {
    // The counters of failures exist after the first failure.
    for visit in platform.visits.drain(..) {
        visit.stop().await;
    }
    let visit = platform.http.get(format!("{}/visit", platform.gateway.url()));
    assert_eq!(visit.send().await.unwrap().status(), 503);
    names.extend(metric_names(platform).await);
    // Those of TLS, which this platform does not have; the gateway's tests have seen them.
    let of_tls = ["hub_tls_expiry_seconds", "hub_tls_reload_failures_total", "hub_tls_acme_failures_total"];
    names.extend(of_tls.map(str::to_owned));

    let read =
        |path: &str| std::fs::read_to_string(format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let alerts = read("docker/observability/alerts.yaml");
    let dashboard = read("docker/observability/grafana/dashboards/hubspoke.json");
    let words = |text: &str| -> BTreeSet<String> {
        let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        words.filter(|word| word.starts_with("hub_")).map(str::to_owned).collect()
    };
    for (file, text) in [("alerts", &alerts), ("dashboard", &dashboard)] {
        let used = words(text);
        assert!(used.len() > 5, "{file}: {used:?}");
        let missing: Vec<_> = used.difference(&names).collect();
        assert!(missing.is_empty(), "{file} uses metrics that do not exist: {missing:?}");
    }
    // The alerts and their tests use only causes that the gateway has.
    let gateway = read("services/gateway/src/error.rs");
    for text in [alerts, read("docker/observability/alerts.test.yaml")] {
        let causes = text.split("cause=").skip(1).map(|rest| rest.split('"').nth(1).unwrap());
        let causes: Vec<&str> = causes.flat_map(|list| list.split('|')).collect();
        assert!(!causes.is_empty());
        for cause in causes {
            let known = ProblemType::ALL.iter().find(|known| known.name() == cause).expect(cause);
            assert!(gateway.contains(&format!("    {known:?}: ")), "{cause}");
        }
    }
}

async fn a_failed_attempt_has_its_own_span(platform: &Platform, collector: &Collector) {
    let member = FlakyMember::start().await;
    member.call_registry(platform, reqwest::Method::POST, "visit").await;
    let mut n = 0u64;
    eventually("a request is retried", || {
        n += 1;
        let trace = format!("{n:032x}");
        async move {
            let request = platform.http.get(format!("{}/visit", platform.gateway.url()));
            let reply =
                request.header("traceparent", format!("00-{trace}-{PARENT}-01")).send().await.unwrap();
            assert!(reply.status().is_success(), "{}", reply.status());
            eventually("its spans", || async { of_trace(&collector.received(), &trace).len() >= 5 }).await;
            of_trace(&collector.received(), &trace).len() == 6
        }
    })
    .await;
    let received = collector.received();
    let spans = of_trace(&received, &format!("{n:032x}"));
    let gateway = spans.iter().find(|span| span.parent == PARENT).unwrap();
    let mut attempts: Vec<_> =
        spans.iter().filter(|span| span.parent == gateway.id && span.kind == "client").collect();
    attempts.sort_by_key(|span| span.attributes.get("http.request.resend_count").cloned());
    let [first, second] = attempts[..] else { panic!("{attempts:?}") };
    assert!(first.failed && !second.failed);
    assert_eq!(first.attributes["server.port"], member.server.addr.port().to_string());
    assert!(first.attributes.contains_key("error.type"), "{first:?}");
    assert_eq!(second.attributes["http.request.resend_count"], "1");
    assert!(!gateway.failed);
    let trace = &gateway.trace;
    is_logged(collector, "retrying on another instance", |log| log.trace == *trace).await;
    member.call_registry(platform, reqwest::Method::DELETE, "visit").await;
}

/// Metrics that exist after the events above: service, name, unit, attributes.
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

async fn metrics_have_their_names_and_units(platform: &Platform, collector: &Collector) {
    for _ in 0..5 {
        platform.visit_count().await;
    }
    for (service, name, unit, attributes) in METRICS {
        eventually(name, || async {
            let received = collector.received();
            let of = |point: &&DataPoint| point.name == name && point.resource["service.name"] == service;
            let Some(point) = received.points.iter().rev().find(of) else { return false };
            assert_eq!(point.unit, unit, "{name}");
            let keys: BTreeSet<&str> = point.attributes.keys().map(String::as_str).collect();
            assert_eq!(keys, attributes.iter().copied().collect(), "{name}");
            true
        })
        .await;
    }
}
