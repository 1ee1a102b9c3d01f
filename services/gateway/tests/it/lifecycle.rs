//! Changes of instances, and shutdown, with requests in flight.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use futures_util::StreamExt;
use tokio::sync::Notify;

use super::support::*;

const GET: &str = "GET /svc HTTP/1.1\r\nHost: a\r\n\r\n";

/// A service whose `/svc/slow` waits for a permit, and whose `/svc/stream` never ends.
async fn slow() -> FakeInstance {
    slow_until(Arc::default()).await
}

async fn slow_until(go_on: Arc<Notify>) -> FakeInstance {
    let router = Router::new()
        .route("/svc", get(async || "fast"))
        .route(
            "/svc/slow",
            get(async move || {
                go_on.notified().await;
                "slow"
            }),
        )
        .route(
            "/svc/stream",
            get(async || {
                let ticks = futures_util::stream::unfold((), async |()| {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Some((Ok::<_, std::io::Error>("data: tick\n\n"), ()))
                });
                ([("content-type", "text/event-stream")], axum::body::Body::from_stream(ticks))
            }),
        );
    FakeInstance::serve(router).await
}

#[tokio::test]
async fn a_shutdown_finishes_requests_in_flight_and_accepts_no_more() {
    let go_on = Arc::<Notify>::default();
    let instance = slow_until(go_on.clone()).await;
    let mut gateway = Gateway::with("svc", &instance).await;
    let mut idle = gateway.connect().await;
    idle.write(GET).await;
    assert!(idle.response().await.ends_with("fast"));
    let request = gateway.request("GET", "/svc/slow").send();
    let request = tokio::spawn(request);
    eventually("the request is in flight", async || gateway.metric("in_flight", &["svc"]).await == 1).await;
    gateway.begin_shutdown();
    assert_eq!(idle.read_to_end().await, ""); // closed
    go_on.notify_one();
    let response = request.await.unwrap().unwrap();
    assert_eq!(response.headers()["connection"], "close");
    assert_eq!(response.text().await.unwrap(), "slow");
    gateway.stopped().await;
    assert!(tokio::net::TcpStream::connect(gateway.addr).await.is_err());
}

#[tokio::test]
async fn a_shutdown_answers_pipelined_requests_that_were_read() {
    let go_on = Arc::<Notify>::default();
    let ended = go_on.clone();
    let instance = FakeInstance::script(move |mut raw, seen| {
        let go_on = go_on.clone();
        async move {
            while let Some(request) = raw.request().await {
                seen.lock().unwrap().push(request);
                raw.write("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").await;
                go_on.notified().await;
                raw.write("hello").await;
            }
        }
    })
    .await;
    let mut gateway = Gateway::with("svc", &instance).await;
    let mut raw = gateway.connect().await;
    raw.write(GET.repeat(2)).await;
    let begun = raw.read_until(|text| text.ends_with("\r\n\r\n")).await;
    assert_eq!((status(&begun), header(&begun, "connection")), (200, None), "{begun}");
    gateway.begin_shutdown();
    let addr = gateway.addr;
    eventually("the workers drain", async || tokio::net::TcpStream::connect(addr).await.is_err()).await;
    ended.notify_one();
    raw.read_until(|text| text.ends_with("\r\n\r\n")).await;
    ended.notify_one();
    assert_eq!(raw.read_to_end().await, "hello");
    assert_eq!(instance.requests().len(), 2);
    gateway.stopped().await;
}

#[tokio::test]
async fn a_client_that_connected_before_the_shutdown_is_served() {
    let instance = slow().await;
    let mut gateway = Gateway::with("svc", &instance).await;
    let mut used = gateway.connect().await;
    used.write(GET).await;
    used.response().await;
    let mut fresh = Vec::new();
    for _ in 0..20 {
        fresh.push(gateway.connect().await);
    }
    let mut silent = gateway.connect().await;
    eventually("all are accepted", async || gateway.metric("connections", &[]).await == 22).await;
    gateway.begin_shutdown();
    assert_eq!(used.read_to_end().await, ""); // the workers are draining now
    for raw in &mut fresh {
        raw.write(GET).await;
    }
    for raw in &mut fresh {
        let response = raw.read_to_end().await;
        assert_eq!(
            (status(&response), header(&response, "connection").as_deref()),
            (200, Some("close")),
            "{response}"
        );
        assert!(response.ends_with("fast"), "{response}");
    }
    assert_eq!(silent.read_to_end().await, "");
    gateway.stopped().await;
}

#[tokio::test]
async fn new_connections_are_accepted_during_the_drain_delay() {
    let instance = slow().await;
    let mut gateway = Gateway::start(|config| config.drain_delay = Duration::from_secs(2)).await;
    gateway.set("svc", &[instance.info("svc")]).await;
    gateway.begin_shutdown();
    eventually("the gateway is not ready", async || gateway.get_control("/readyz").await.0 == 503).await;
    eventually("responses carry Connection: close", async || {
        let response = gateway.connect_and(GET).await;
        assert!(response.ends_with("fast"), "{response}");
        header(&response, "connection").as_deref() == Some("close")
    })
    .await;
    gateway.stopped().await;
    assert!(tokio::net::TcpStream::connect(gateway.addr).await.is_err());
}

#[tokio::test]
async fn an_upgraded_connection_lasts_until_the_shutdown_grace_is_over() {
    let instance = FakeInstance::script(|mut raw, _| async move {
        raw.request().await;
        raw.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n").await;
        let (mut reading, mut writing) = raw.stream.split();
        drop(tokio::io::copy(&mut reading, &mut writing).await);
    })
    .await;
    let mut gateway = Gateway::with("svc", &instance).await;
    let mut used = gateway.connect().await;
    used.write("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n").await;
    used.response().await;
    let mut raw = gateway.connect().await;
    raw.write("GET /svc HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n").await;
    assert_eq!(status(&raw.read_until(|text| text.ends_with("\r\n\r\n")).await), 101);
    gateway.begin_shutdown();
    assert_eq!(used.read_to_end().await, ""); // the workers are draining now
    for n in 0..10 {
        let word = format!("word {n}");
        raw.write(&word).await;
        assert_eq!(raw.read_until(|text| text.len() >= word.len()).await, word);
    }
    gateway.stopped().await;
    assert_eq!(raw.read_to_end().await, "");
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_endless_streams() {
    let instance = slow().await;
    let mut gateway = Gateway::with("svc", &instance).await;
    let stream = gateway.get("/svc/stream").await;
    gateway.begin_shutdown();
    gateway.stopped().await;
    assert!(stream.bytes().await.is_err()); // broken off, not ended as if complete
}

#[tokio::test]
async fn a_stream_outlives_the_removal_of_its_instance() {
    let instance = slow().await;
    let gateway = Gateway::with("svc", &instance).await;
    let mut stream = gateway.get("/svc/stream").await.bytes_stream();
    stream.next().await.unwrap().unwrap();
    gateway.set("svc", &[]).await;
    assert_eq!(gateway.get("/svc").await.status(), 503);
    for _ in 0..10 {
        stream.next().await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn streams_of_a_removed_instance_end_in_bounded_time() {
    let instance = FakeInstance::script(|mut raw, _| async move {
        let request = raw.request().await.unwrap_or_default();
        if request.contains("upgrade") {
            raw.write("HTTP/1.1 101 Switching Protocols\r\nupgrade: chat\r\nconnection: upgrade\r\n\r\n")
                .await;
        } else if request.starts_with("GET /svc/download ") {
            raw.write("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await;
            while tokio::io::AsyncWriteExt::write_all(&mut raw.stream, b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        } else {
            raw.write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n:\n\n").await;
        }
        // As silent as a host that has vanished.
        drop(raw.read_to_end().await);
    })
    .await;
    let gateway = Gateway::start(|config| {
        config.timeouts.removed = Duration::from_millis(300);
    })
    .await;
    gateway.set("svc", &[instance.info("svc")]).await;
    let mut streams = Vec::new();
    for (path, more) in [("tail", ""), ("download", ""), ("x", "Connection: upgrade\r\nUpgrade: chat\r\n")] {
        let mut raw = gateway.connect().await;
        raw.write(format!("GET /svc/{path} HTTP/1.1\r\nHost: a\r\n{more}\r\n")).await;
        assert!(raw.read_until(|text| text.contains("\r\n\r\n")).await.starts_with("HTTP/1.1 "));
        streams.push(raw);
    }
    gateway.set("svc", &[]).await;
    for mut stream in streams {
        stream.read_to_end().await;
    }
    assert_eq!(gateway.metric("instance_failures", &["svc"]).await, 0);
}

#[tokio::test]
async fn idle_connections_to_a_removed_instance_are_closed() {
    let instance = slow().await;
    let gateway = Gateway::with("svc", &instance).await;
    gateway.get("/svc").await.text().await.unwrap();
    eventually("a connection is idle", async || gateway.metric("pooled", &["svc"]).await == 1).await;
    gateway.set("svc", &[]).await;
    gateway.set("svc", &[instance.info("svc")]).await;
    assert_eq!(gateway.metric("pooled", &["svc"]).await, 0);
}

#[tokio::test]
async fn requests_are_counted() {
    let instance = slow().await;
    let gateway = Gateway::with("svc", &instance).await;
    for _ in 0..3 {
        gateway.get("/svc").await.text().await.unwrap();
    }
    gateway.get("/svc/none").await.text().await.unwrap();
    gateway.get("/nowhere").await.text().await.unwrap();
    assert_eq!(gateway.metric("replies", &["svc-", r#"status="200""#]).await, 3);
    assert_eq!(gateway.metric("replies", &["svc-", r#"status="404""#]).await, 1);
    assert_eq!(gateway.metric("requests", &["svc"]).await, 4);
    assert_eq!(gateway.metric("refusals", &["no-such-service"]).await, 1);
    assert_eq!(gateway.metric("request_duration_seconds_count", &["svc"]).await, 4);
    let (_, all) = gateway.get_control("/metrics").await;
    let names = all.lines().filter_map(|line| line.strip_prefix("# TYPE hub_gateway_")?.split(' ').next());
    for name in names.map(|name| name.trim_end_matches("_total")) {
        assert!(METRICS.iter().any(|known| known.trim_end_matches("_count") == name), "{name} is new");
    }
    // Counters of events that have not happened are not shown.
    let shown = |name: &&&str| all.contains(&format!("\nhub_gateway_{name}"));
    assert_eq!(
        METRICS.iter().filter(|name| !shown(name)).collect::<Vec<_>>(),
        [&"failures", &"refused_hosts"]
    );
}
