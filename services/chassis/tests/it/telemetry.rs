//! Telemetry of a process: what a collector receives, and what happens if the collector fails.

use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::StatusCode;
use http_body_util::Empty;
use hubspoke_testkit::otlp::{self, Collector, ExportReply};
use hubspoke_testkit::process::Exit;
use hubspoke_testkit::{ClosedPort, DEADLINE, eventually};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::greeter::{Greeter, Platform, run};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const H2C_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const BREW_TRACE: &str = "5bf92f3577b34da6a3ce929d0e0e4736";
/// Exports after 20 ms.
const QUICK: [(&str, &str); 3] = [
    ("OTEL_BSP_SCHEDULE_DELAY", "20"),
    ("OTEL_BLRP_SCHEDULE_DELAY", "20"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "20"),
];

async fn greet(greeter: &Greeter) -> Duration {
    let start = Instant::now();
    let request = reqwest::Client::new()
        .get(format!("{}/greeter/ada", greeter.url))
        .header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
    assert_eq!(request.send().await.unwrap().text().await.unwrap(), "hello, ada\n");
    start.elapsed()
}

/// The same over HTTP/2, which has no `Host` header.
async fn greet_over_h2c(greeter: &Greeter) {
    let stream = TcpStream::connect(greeter.url.trim_start_matches("http://")).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get(format!("{}/greeter/ada", greeter.url))
        .header("traceparent", format!("00-{H2C_TRACE}-{PARENT}-01"))
        .body(Empty::<Bytes>::new())
        .unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), StatusCode::OK);
    connection.abort();
}

/// The number of lines that contain `text`.
fn lines_with(stderr: &str, text: &str) -> usize {
    stderr.lines().filter(|line| line.contains(text)).count()
}

#[tokio::test]
async fn traces_metrics_and_logs_are_exported_and_refer_to_each_other() {
    let (collector, platform) = (Collector::start().await, Platform::start().await);
    let vars = [
        (ENDPOINT, collector.url()),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip".to_owned()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=a%20b".to_owned()),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test".to_owned()),
        ("HUB_TELEMETRY__LOG", "hubspoke_client=debug,info".to_owned()),
    ];
    let vars: Vec<_> = vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let greeter = Greeter::start(&platform, &vars).await;
    greet(&greeter).await;
    let port = greeter.url.rsplit_once(':').unwrap().1.to_owned();
    greet_over_h2c(&greeter).await;
    let brew =
        reqwest::Client::new().request("BREW".parse().unwrap(), format!("{}/greeter/ada", greeter.url));
    let brew = brew.header("traceparent", format!("00-{BREW_TRACE}-{PARENT}-01"));
    assert_eq!(brew.send().await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
    let Exit { code, stderr, .. } = greeter.terminate().await;
    assert_eq!(code, Some(0), "{stderr}");

    // Everything was flushed at shutdown, so nothing here waits.
    let received = collector.received();
    let servers = received.spans.iter().filter(|span| span.kind == "server" && span.trace == TRACE);
    let [server] = &servers.collect::<Vec<_>>()[..] else {
        panic!("one request, one server span: {:#?}", received.spans)
    };
    assert_eq!(server.name, "GET /greeter/{name}");
    assert_eq!((server.trace.as_str(), server.parent.as_str()), (TRACE, PARENT));
    assert_eq!(server.attributes["http.request.method"], "GET");
    assert_eq!(server.attributes["http.route"], "/greeter/{name}");
    assert_eq!(server.attributes["url.path"], "/greeter/ada");
    assert_eq!(server.attributes["http.response.status_code"], "200");
    let of_trace = |span: &&otlp::Span| span.kind == "client" && span.trace == TRACE;
    let client = received.spans.iter().find(of_trace).expect("a client span");
    assert_eq!(
        (client.name.as_str(), &client.trace, &client.parent),
        ("POST log", &server.trace, &server.id)
    );
    assert_eq!(client.attributes["hub.instance"], "log-1");
    assert!(client.attributes.keys().all(|key| !key.starts_with("hub.source")), "{client:?}");
    // The log service gets the same trace, with the client span as the parent.
    assert_eq!(
        platform.log.requests()[0].traceparent.as_deref().unwrap(),
        format!("00-{TRACE}-{}-01", client.id)
    );

    for resource in
        received.spans.iter().map(|span| &span.resource).chain(received.logs.iter().map(|log| &log.resource))
    {
        assert_eq!(resource["service.name"], "greeter");
        assert!(resource["service.instance.id"].starts_with("greeter-"), "{resource:?}");
        assert_eq!(resource["service.version"], "0.1.0");
        assert_eq!(resource["deployment.environment.name"], "test");
    }
    let registered = received.logs.iter().find(|log| log.body == "registered").expect("a log record");
    assert_eq!(
        (registered.severity.as_str(), registered.attributes["service"].as_str()),
        ("INFO", "greeter")
    );
    assert!(
        received
            .logs
            .iter()
            .all(|log| log.attributes.get("logger.name").is_none_or(|name| !name.starts_with("hyper")))
    );

    for (trace, name, method) in
        [(H2C_TRACE, "GET /greeter/{name}", "GET"), (BREW_TRACE, "HTTP /greeter/{name}", "_OTHER")]
    {
        let span = received.spans.iter().find(|span| span.trace == trace && span.kind == "server");
        let span = span.expect(name);
        assert_eq!((span.name.as_str(), span.attributes["http.request.method"].as_str()), (name, method));
        assert_eq!(span.attributes["server.address"], "127.0.0.1");
        assert_eq!(span.attributes["server.port"], port);
    }

    let duration = received.points.iter().find(|point| {
        point.name == "http.server.request.duration"
            && point.attributes.get("http.route").is_some_and(|route| route == "/greeter/{name}")
            && point.attributes["http.request.method"] == "GET"
    });
    let duration = duration.expect("the request was measured");
    assert_eq!((duration.unit.as_str(), duration.value), ("s", 2.0));
    assert_eq!(duration.resource["service.name"], "greeter");
    assert!(received.requests.iter().all(|headers| headers["x-tenant"] == "a b"));
    assert!(received.requests.iter().all(|headers| headers["content-encoding"] == "gzip"));
}

#[tokio::test]
async fn without_an_exporter_the_trace_context_is_passed_on_unchanged() {
    let platform = Platform::start().await;
    let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", collector.local_addr().unwrap());
    for vars in [
        vec![],
        vec![(ENDPOINT, "")],
        vec![(ENDPOINT, url.as_str()), ("OTEL_SDK_DISABLED", "true")],
        vec![
            (ENDPOINT, url.as_str()),
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_METRICS_EXPORTER", "none"),
            ("OTEL_LOGS_EXPORTER", "none"),
        ],
    ] {
        let greeter = Greeter::start(&platform, &vars).await;
        greet(&greeter).await;
        let Exit { code, stderr, .. } = greeter.terminate().await;
        assert_eq!((code, lines_with(&stderr, "telemetry")), (Some(0), 0), "{vars:?}: {stderr}");
        assert_eq!(platform.last_traceparent(), format!("00-{TRACE}-{PARENT}-01"), "{vars:?}");
    }
    assert!(timeout(Duration::ZERO, collector.accept()).await.is_err(), "the collector got a connection");
}

#[tokio::test]
async fn a_collector_that_fails_delays_nothing_and_is_logged_once() {
    let platform = Platform::start().await;
    // Accepts connections and never answers.
    let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hung_url = format!("http://{}", hung.local_addr().unwrap());
    let answers = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = hung.accept().await {
            held.push(connection);
        }
    });
    let closed = ClosedPort::new();
    let refusing =
        Collector::replying(|_| ExportReply { status: StatusCode::BAD_REQUEST, ..ExportReply::ACCEPTED })
            .await;
    let busy = Collector::replying(|_| ExportReply {
        status: StatusCode::SERVICE_UNAVAILABLE,
        ..ExportReply::ACCEPTED
    })
    .await;
    for (url, times_out) in
        [(hung_url, true), (closed.url(), false), (refusing.url(), false), (busy.url(), false)]
    {
        let mut vars = vec![(ENDPOINT, url.as_str()), ("OTEL_BSP_MAX_QUEUE_SIZE", "10")];
        vars.extend(QUICK);
        let greeter = Greeter::start(&platform, &vars).await;
        let mut slowest = Duration::ZERO;
        for _ in 0..50 {
            slowest = slowest.max(greet(&greeter).await);
        }
        assert!(slowest < Duration::from_secs(1), "{url}: a request took {slowest:?}");
        let shown = reqwest::get(format!("{}/metrics", greeter.url)).await.unwrap().text().await.unwrap();
        let lost =
            shown.lines().find(|line| line.starts_with("hub_telemetry_lost") && line.contains("traces"));
        let lost: f64 = lost.expect(&shown).rsplit(' ').next().unwrap().parse().unwrap();
        // 100 spans, of which 10 may be queued and one batch may be in flight.
        assert!((70.0..=100.0).contains(&lost), "{lost}");
        let start = Instant::now();
        let Exit { code, stderr, .. } = greeter.terminate().await;
        let took = start.elapsed();
        assert_eq!(code, Some(0), "{stderr}");
        assert!(took < Duration::from_secs(4), "{url}: shutdown took {took:?}");
        for signal in ["traces", "logs", "metrics"] {
            let warnings = stderr.lines().filter(|line| {
                line.contains("can't export telemetry") && line.contains(&format!(r#""signal":"{signal}""#))
            });
            let warnings = warnings.count();
            assert!(warnings <= 1, "{signal}: {stderr}");
            // The first attempt to a hung collector times out after 10 s.
            assert!(times_out || warnings == 1, "{signal}: {stderr}");
        }
        assert!(lines_with(&stderr, "telemetry was lost") >= 1, "{stderr}");
    }
    answers.abort();
}

#[tokio::test]
async fn a_second_signal_ends_a_process_that_is_flushing() {
    let platform = Platform::start().await;
    let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", hung.local_addr().unwrap());
    // Nothing is exported before shutdown, so the first connection is the flush.
    let vars = [
        (ENDPOINT, url.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "600000"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "600000"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "600000"),
    ];
    let mut greeter = Greeter::start(&platform, &vars).await;
    greet(&greeter).await;
    assert!(timeout(Duration::ZERO, hung.accept()).await.is_err(), "an export before shutdown");
    greeter.signal("TERM").await;
    let _conn = timeout(DEADLINE, hung.accept()).await.expect("a flush").unwrap();
    // The flush takes 2 s; everything else has ended by now.
    assert!(greeter.keeps_running_for(Duration::from_millis(200)).await, "the flush has ended");
    let Exit { code, stderr, .. } = greeter.terminate().await;
    assert_eq!(code, Some(130), "{stderr}");
}

#[tokio::test]
async fn a_collector_that_is_too_slow_is_logged_once() {
    let platform = Platform::start().await;
    let slow =
        Collector::replying(|_| ExportReply { delay: Duration::from_millis(100), ..ExportReply::ACCEPTED })
            .await;
    let url = slow.url();
    let mut vars = vec![(ENDPOINT, url.as_str()), ("OTEL_BSP_MAX_QUEUE_SIZE", "4")];
    vars.extend(QUICK);
    let greeter = Greeter::start(&platform, &vars).await;
    // More spans are made than exported.
    eventually("10 batches are exported", async || {
        tokio::join!(greet(&greeter), greet(&greeter), greet(&greeter), greet(&greeter));
        slow.answered("/v1/traces") >= 10
    })
    .await;
    let Exit { code, stderr, .. } = greeter.terminate().await;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(lines_with(&stderr, "some telemetry is lost"), 1, "{stderr}");
    assert_eq!(lines_with(&stderr, "can't export telemetry"), 0, "{stderr}");
}

#[tokio::test]
async fn items_that_a_collector_rejects_are_counted() {
    let platform = Platform::start().await;
    let rejecting = Collector::replying(|_| ExportReply { rejected: 1, ..ExportReply::ACCEPTED }).await;
    let url = rejecting.url();
    let greeter = Greeter::start(&platform, &[(ENDPOINT, url.as_str())]).await;
    greet(&greeter).await;
    let Exit { code, stderr, .. } = greeter.terminate().await;
    assert_eq!(code, Some(0), "{stderr}");
    for (path, signal) in [("/v1/traces", "traces"), ("/v1/logs", "logs")] {
        let batches = rejecting.answered(path);
        assert!(batches > 0, "{signal}");
        let field = format!(r#""signal":"{signal}","#);
        let mut lines =
            stderr.lines().filter(|line| line.contains("some telemetry is lost") && line.contains(&field));
        assert!(lines.next().is_some_and(|line| line.contains(r#""lost":1"#)), "{stderr}");
    }
}

#[tokio::test]
async fn a_signal_that_fails_does_not_shorten_the_flush_of_others() {
    let platform = Platform::start().await;
    // A tracing backend: slow with traces, and nothing else is accepted.
    let traces_only = Collector::replying(|path| match path {
        "/v1/traces" => ExportReply { delay: Duration::from_millis(600), ..ExportReply::ACCEPTED },
        _ => ExportReply { status: StatusCode::NOT_FOUND, ..ExportReply::ACCEPTED },
    })
    .await;
    let url = traces_only.url();
    // Traces are exported at shutdown only.
    let vars = [(ENDPOINT, url.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "60000"), QUICK[1], QUICK[2]];
    let greeter = Greeter::start(&platform, &vars).await;
    // By the second export of metrics, the failure of the first one is known.
    eventually("two exports of metrics", async || {
        greet(&greeter).await;
        traces_only.answered("/v1/metrics") >= 2
    })
    .await;
    greet(&greeter).await;
    let Exit { code, stderr, .. } = greeter.terminate().await;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(lines_with(&stderr, r#""signal":"metrics""#), 1, "{stderr}");
    let spans = traces_only.received().spans;
    assert!(spans.iter().any(|span| span.trace == TRACE && span.kind == "server"), "{stderr}");
    assert!(!stderr.lines().any(|line| line.contains("telemetry was lost") && line.contains("traces")));
}

#[tokio::test]
async fn the_sampler_decides_which_traces_are_exported() {
    let platform = Platform::start().await;
    // The request belongs to a sampled trace.
    for (sampler, spans) in [("always_off", 0), ("parentbased_always_off", 2)] {
        let collector = Collector::start().await;
        let url = collector.url();
        let greeter = Greeter::start(&platform, &[(ENDPOINT, &url), ("OTEL_TRACES_SAMPLER", sampler)]).await;
        greet(&greeter).await;
        let Exit { code, stderr, .. } = greeter.terminate().await;
        assert_eq!(code, Some(0), "{stderr}");
        let received = collector.received();
        assert_eq!(received.spans.len(), spans, "{sampler}: {:#?}", received.spans);
        assert!(!received.logs.is_empty() && !received.points.is_empty(), "{sampler}");
    }
}

#[tokio::test]
async fn an_endpoint_that_nothing_could_be_sent_to_is_refused() {
    for (name, value) in [(ENDPOINT, "ftp://collector:4318"), (ENDPOINT, "collector:4318")] {
        let Exit { code, stderr, .. } = run(&[], &[(ENDPOINT, "http://127.0.0.1:4318"), (name, value)]).await;
        assert_eq!(code, Some(78), "{stderr}");
        assert!(stderr.starts_with(&format!("greeter: configuration: {name}: \"{value}\"")), "{stderr}");
        assert_eq!(stderr.lines().count(), 1);
    }
}
