//! Telemetry of a real process: what arrives at a collector, and what happens where the collector is no help.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that fails should say where"
)]

use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::StatusCode;
use http_body_util::Empty;
use hubspoke_testkit::otlp::{self, Collector, ExportReply};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use self::process::{Greeter, RegistryAndLog, run};

#[path = "support/process.rs"]
#[allow(dead_code, reason = "shared with the other test of the process")]
mod process;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const H2C_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const BREW_TRACE: &str = "5bf92f3577b34da6a3ce929d0e0e4736";
/// Exports at once.
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

/// The same over HTTP/2, in which the host is no header.
async fn over_h2c(greeter: &Greeter) {
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

/// How many lines on stderr hold this text.
fn said(stderr: &str, text: &str) -> usize {
    stderr.lines().filter(|line| line.contains(text)).count()
}

#[tokio::test]
async fn traces_metrics_and_logs_arrive_and_belong_together() {
    let (receiver, world) = (Collector::start().await, RegistryAndLog::start().await);
    let vars = [
        (ENDPOINT, receiver.url()),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip".to_owned()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=a%20b".to_owned()),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test".to_owned()),
        ("HUB_TELEMETRY__LOG", "hubspoke_client=debug,info".to_owned()),
    ];
    let vars: Vec<_> = vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let greeter = Greeter::start(&world, &vars).await;
    greet(&greeter).await;
    let port = greeter.url.rsplit_once(':').unwrap().1.to_owned();
    over_h2c(&greeter).await;
    let brew =
        reqwest::Client::new().request("BREW".parse().unwrap(), format!("{}/greeter/ada", greeter.url));
    let brew = brew.header("traceparent", format!("00-{BREW_TRACE}-{PARENT}-01"));
    assert_eq!(brew.send().await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
    let (code, stderr) = greeter.terminate().await;
    assert_eq!(code, Some(0), "{stderr}");

    // Everything was flushed at the end: nothing here waits.
    let received = receiver.received();
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
    // What the log service gets names the same trace, and the client's span as its parent.
    assert_eq!(world.traces.lock().unwrap()[0], format!("00-{TRACE}-{}-01", client.id));

    for resource in
        received.spans.iter().map(|span| &span.resource).chain(received.logs.iter().map(|log| &log.resource))
    {
        assert_eq!(resource["service.name"], "greeter");
        assert!(resource["service.instance.id"].starts_with("greeter-"), "{resource:?}");
        assert_eq!(resource["service.version"], "0.1.0");
        assert_eq!(resource["deployment.environment.name"], "test");
    }
    let registered = received.logs.iter().find(|log| log.body == "registered").expect("the log says so");
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
async fn without_an_exporter_the_trace_goes_through_as_it_came() {
    let world = RegistryAndLog::start().await;
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
        let greeter = Greeter::start(&world, &vars).await;
        greet(&greeter).await;
        let (code, stderr) = greeter.terminate().await;
        assert_eq!((code, said(&stderr, "telemetry")), (Some(0), 0), "{vars:?}: {stderr}");
        assert_eq!(
            world.traces.lock().unwrap().pop().unwrap(),
            format!("00-{TRACE}-{PARENT}-01"),
            "{vars:?}"
        );
    }
    let nobody = tokio::time::timeout(Duration::ZERO, collector.accept()).await;
    assert!(nobody.is_err(), "somebody connected");
}

#[tokio::test]
async fn a_collector_that_is_no_help_delays_nothing_and_is_mentioned_once() {
    let world = RegistryAndLog::start().await;
    // Hung: takes connections and never answers.
    let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hung_url = format!("http://{}", hung.local_addr().unwrap());
    let answers = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = hung.accept().await {
            held.push(connection);
        }
    });
    // Gone: bound, so that nobody else gets the port, and never listening.
    let gone = TcpSocket::new_v4().unwrap();
    gone.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let gone_url = format!("http://{}", gone.local_addr().unwrap());
    let refusing =
        Collector::replying(|_| ExportReply { status: StatusCode::BAD_REQUEST, ..ExportReply::ACCEPTED })
            .await;
    let busy = Collector::replying(|_| ExportReply {
        status: StatusCode::SERVICE_UNAVAILABLE,
        ..ExportReply::ACCEPTED
    })
    .await;
    for (url, times_out) in
        [(hung_url, true), (gone_url, false), (refusing.url(), false), (busy.url(), false)]
    {
        let mut vars = vec![(ENDPOINT, url.as_str()), ("OTEL_BSP_MAX_QUEUE_SIZE", "10")];
        vars.extend(QUICK);
        let greeter = Greeter::start(&world, &vars).await;
        let mut slowest = Duration::ZERO;
        for _ in 0..50 {
            slowest = slowest.max(greet(&greeter).await);
        }
        assert!(slowest < Duration::from_secs(1), "{url}: a request took {slowest:?}");
        let shown = reqwest::get(format!("{}/metrics", greeter.url)).await.unwrap().text().await.unwrap();
        let lost =
            shown.lines().find(|line| line.starts_with("hub_telemetry_lost") && line.contains("traces"));
        let lost: f64 = lost.expect(&shown).rsplit(' ').next().unwrap().parse().unwrap();
        // 100 spans, of which 10 may wait and one batch may be on its way.
        assert!((70.0..=100.0).contains(&lost), "{lost}");
        let start = Instant::now();
        let (code, stderr) = greeter.terminate().await;
        let took = start.elapsed();
        assert_eq!(code, Some(0), "{stderr}");
        assert!(took < Duration::from_secs(4), "{url}: stopping took {took:?}");
        for signal in ["traces", "logs", "metrics"] {
            let warnings = stderr.lines().filter(|line| {
                line.contains("can't export telemetry") && line.contains(&format!(r#""signal":"{signal}""#))
            });
            let warnings = warnings.count();
            assert!(warnings <= 1, "{signal}: {stderr}");
            // One that hangs shows only once the first attempt has timed out, after 10 s.
            assert!(times_out || warnings == 1, "{signal}: {stderr}");
        }
        assert!(said(&stderr, "telemetry was lost") >= 1, "{stderr}");
    }
    answers.abort();
}

#[tokio::test]
async fn a_second_signal_ends_a_process_that_still_flushes() {
    let world = RegistryAndLog::start().await;
    let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", hung.local_addr().unwrap());
    // Nothing is sent before the end: the first connection is the flush.
    let vars = [
        (ENDPOINT, url.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "600000"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "600000"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "600000"),
    ];
    let mut greeter = Greeter::start(&world, &vars).await;
    greet(&greeter).await;
    let early = tokio::time::timeout(Duration::ZERO, hung.accept()).await;
    assert!(early.is_err(), "something was sent before the end");
    greeter.signal("TERM").await;
    let _held = tokio::time::timeout(Duration::from_secs(20), hung.accept()).await.expect("a flush").unwrap();
    // Well within the flush, when everything else has ended.
    assert!(greeter.goes_on_for(Duration::from_millis(200)).await, "the flush is over already");
    let (code, stderr) = greeter.terminate().await;
    assert_eq!(code, Some(130), "{stderr}");
}

#[tokio::test]
async fn a_collector_that_is_too_slow_is_mentioned_once() {
    let world = RegistryAndLog::start().await;
    let slow =
        Collector::replying(|_| ExportReply { delay: Duration::from_millis(100), ..ExportReply::ACCEPTED })
            .await;
    let url = slow.url();
    let mut vars = vec![(ENDPOINT, url.as_str()), ("OTEL_BSP_MAX_QUEUE_SIZE", "4")];
    vars.extend(QUICK);
    let greeter = Greeter::start(&world, &vars).await;
    // Far more spans come than are taken.
    let deadline = Instant::now() + Duration::from_secs(20);
    while slow.answered("/v1/traces") < 10 {
        assert!(Instant::now() < deadline, "nothing is taken");
        tokio::join!(greet(&greeter), greet(&greeter), greet(&greeter), greet(&greeter));
    }
    let (code, stderr) = greeter.terminate().await;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(said(&stderr, "some telemetry is lost"), 1, "{stderr}");
    assert_eq!(said(&stderr, "can't export telemetry"), 0, "{stderr}");
}

#[tokio::test]
async fn what_a_collector_rejects_of_what_it_takes_is_counted() {
    let world = RegistryAndLog::start().await;
    let choosy = Collector::replying(|_| ExportReply { rejected: 1, ..ExportReply::ACCEPTED }).await;
    let url = choosy.url();
    let greeter = Greeter::start(&world, &[(ENDPOINT, url.as_str())]).await;
    greet(&greeter).await;
    let (code, stderr) = greeter.terminate().await;
    assert_eq!(code, Some(0), "{stderr}");
    for (path, signal) in [("/v1/traces", "traces"), ("/v1/logs", "logs")] {
        let batches = choosy.answered(path);
        assert!(batches > 0, "{signal}");
        let says = format!(r#""signal":"{signal}","#);
        let mut lines =
            stderr.lines().filter(|line| line.contains("some telemetry is lost") && line.contains(&says));
        assert!(lines.next().is_some_and(|line| line.contains(r#""lost":1"#)), "{stderr}");
    }
}

#[tokio::test]
async fn a_signal_that_is_not_taken_cuts_the_others_short_by_nothing() {
    let world = RegistryAndLog::start().await;
    // As tracing backends do: traces, at their leisure, and nothing else.
    let traces_only = Collector::replying(|path| match path {
        "/v1/traces" => ExportReply { delay: Duration::from_millis(600), ..ExportReply::ACCEPTED },
        _ => ExportReply { status: StatusCode::NOT_FOUND, ..ExportReply::ACCEPTED },
    })
    .await;
    let url = traces_only.url();
    // Traces at the end only.
    let vars = [(ENDPOINT, url.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "60000"), QUICK[1], QUICK[2]];
    let greeter = Greeter::start(&world, &vars).await;
    // With the second request the first one's failure is known.
    let deadline = Instant::now() + Duration::from_secs(20);
    while traces_only.answered("/v1/metrics") < 2 {
        assert!(Instant::now() < deadline, "no metrics are sent");
        greet(&greeter).await;
    }
    greet(&greeter).await;
    let (code, stderr) = greeter.terminate().await;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(said(&stderr, r#""signal":"metrics""#), 1, "{stderr}");
    let spans = traces_only.received().spans;
    assert!(spans.iter().any(|span| span.trace == TRACE && span.kind == "server"), "{stderr}");
    assert!(!stderr.lines().any(|line| line.contains("telemetry was lost") && line.contains("traces")));
}

#[tokio::test]
async fn only_those_traces_are_sent_that_the_sampler_takes() {
    let world = RegistryAndLog::start().await;
    // The request comes in a trace that is sampled.
    for (sampler, spans) in [("always_off", 0), ("parentbased_always_off", 2)] {
        let receiver = Collector::start().await;
        let url = receiver.url();
        let greeter = Greeter::start(&world, &[(ENDPOINT, &url), ("OTEL_TRACES_SAMPLER", sampler)]).await;
        greet(&greeter).await;
        let (code, stderr) = greeter.terminate().await;
        assert_eq!(code, Some(0), "{stderr}");
        let received = receiver.received();
        assert_eq!(received.spans.len(), spans, "{sampler}: {:#?}", received.spans);
        assert!(!received.logs.is_empty() && !received.points.is_empty(), "{sampler}");
    }
}

#[tokio::test]
async fn what_would_lose_telemetry_in_silence_is_refused() {
    for (name, value) in [
        (ENDPOINT, "https://collector:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
    ] {
        let (code, _, stderr) = run(&[], &[(ENDPOINT, "http://127.0.0.1:4318"), (name, value)]).await;
        assert_eq!(code, Some(78), "{stderr}");
        assert!(stderr.starts_with(&format!("greeter: configuration: {name}: \"{value}\"")), "{stderr}");
        assert_eq!(stderr.lines().count(), 1);
    }
}
