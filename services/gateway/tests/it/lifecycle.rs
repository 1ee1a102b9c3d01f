//! Start, change of instances, and stop, with requests under way.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use futures_util::StreamExt;
use tokio::sync::Notify;

use super::support::*;

const GET: &str = "GET /svc HTTP/1.1\r\nHost: a\r\n\r\n";

/// A service whose `/svc/slow` waits for a permit, and whose `/svc/stream` never ends.
async fn slow() -> Instance {
    slow_until(Arc::default()).await
}

async fn slow_until(go_on: Arc<Notify>) -> Instance {
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
    Instance::serve(router).await
}

#[tokio::test]
async fn a_stop_finishes_what_is_in_flight_and_takes_no_more() {
    let go_on = Arc::<Notify>::default();
    let instance = slow_until(go_on.clone()).await;
    let mut hub = Hub::with("svc", &instance).await;
    let mut idle = hub.connect().await;
    idle.write(GET).await;
    assert!(idle.reply().await.ends_with("fast"));
    let request = hub.request("GET", "/svc/slow").send();
    let request = tokio::spawn(request);
    until("the request is in flight", async || hub.metric("in_flight", &["svc"]).await == 1).await;
    hub.begin_stop();
    assert_eq!(idle.rest().await, ""); // told to go by the end of the connection
    go_on.notify_one();
    let reply = request.await.unwrap().unwrap();
    assert_eq!(reply.headers()["connection"], "close");
    assert_eq!(reply.text().await.unwrap(), "slow");
    hub.stopped().await;
    assert!(tokio::net::TcpStream::connect(hub.addr).await.is_err());
}

#[tokio::test]
async fn a_stop_answers_what_was_read_behind_the_request_in_flight() {
    let go_on = Arc::<Notify>::default();
    let ended = go_on.clone();
    let instance = Instance::script(move |mut raw, seen| {
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
    let mut hub = Hub::with("svc", &instance).await;
    let mut raw = hub.connect().await;
    raw.write(GET.repeat(2)).await;
    let begun = raw.read_until(|text| text.ends_with("\r\n\r\n")).await;
    assert_eq!((status(&begun), header(&begun, "connection")), (200, None), "{begun}");
    hub.begin_stop();
    let addr = hub.addr;
    until("the workers drain", async || tokio::net::TcpStream::connect(addr).await.is_err()).await;
    ended.notify_one();
    raw.read_until(|text| text.ends_with("\r\n\r\n")).await;
    ended.notify_one();
    assert_eq!(raw.rest().await, "hello");
    assert_eq!(instance.requests().len(), 2);
    hub.stopped().await;
}

#[tokio::test]
async fn a_client_that_has_connected_before_the_stop_is_served() {
    let instance = slow().await;
    let mut hub = Hub::with("svc", &instance).await;
    let mut used = hub.connect().await;
    used.write(GET).await;
    used.reply().await;
    let mut fresh = Vec::new();
    for _ in 0..20 {
        fresh.push(hub.connect().await);
    }
    let mut silent = hub.connect().await;
    until("all are taken", async || hub.metric("connections", &[]).await == 22).await;
    hub.begin_stop();
    assert_eq!(used.rest().await, ""); // the workers drain from here on
    for raw in &mut fresh {
        raw.write(GET).await;
    }
    for raw in &mut fresh {
        let reply = raw.rest().await;
        assert_eq!(
            (status(&reply), header(&reply, "connection").as_deref()),
            (200, Some("close")),
            "{reply}"
        );
        assert!(reply.ends_with("fast"), "{reply}");
    }
    assert_eq!(silent.rest().await, "");
    hub.stopped().await;
}

#[tokio::test]
async fn new_connections_are_taken_for_the_drain_delay() {
    let instance = slow().await;
    let mut hub = Hub::start(|config| config.drain_delay = Duration::from_secs(2)).await;
    hub.set("svc", &[instance.info("svc")]).await;
    hub.begin_stop();
    until("the gateway is not ready", async || hub.get_control("/readyz").await.0 == 503).await;
    until("replies say that it drains", async || {
        let reply = hub.connect_and(GET).await;
        assert!(reply.ends_with("fast"), "{reply}");
        header(&reply, "connection").as_deref() == Some("close")
    })
    .await;
    hub.stopped().await;
    assert!(tokio::net::TcpStream::connect(hub.addr).await.is_err());
}

#[tokio::test]
async fn a_tunnel_goes_on_through_a_stop_until_its_grace_is_over() {
    let instance = Instance::script(|mut raw, _| async move {
        raw.request().await;
        raw.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n").await;
        let (mut reading, mut writing) = raw.0.split();
        drop(tokio::io::copy(&mut reading, &mut writing).await);
    })
    .await;
    let mut hub = Hub::with("svc", &instance).await;
    let mut used = hub.connect().await;
    used.write("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n").await;
    used.reply().await;
    let mut raw = hub.connect().await;
    raw.write("GET /svc HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n").await;
    assert_eq!(status(&raw.read_until(|text| text.ends_with("\r\n\r\n")).await), 101);
    hub.begin_stop();
    assert_eq!(used.rest().await, ""); // the workers drain from here on
    for n in 0..10 {
        let word = format!("word {n}");
        raw.write(&word).await;
        assert_eq!(raw.read_until(|text| text.len() >= word.len()).await, word);
    }
    hub.stopped().await;
    assert_eq!(raw.rest().await, "");
}

#[tokio::test]
async fn a_stop_is_bounded_however_long_a_stream_runs() {
    let instance = slow().await;
    let mut hub = Hub::with("svc", &instance).await;
    let stream = hub.get("/svc/stream").await;
    hub.begin_stop();
    hub.stopped().await;
    assert!(stream.bytes().await.is_err()); // cut, and not ended as if it were whole
}

#[tokio::test]
async fn instances_that_go_never_cut_a_stream_that_runs() {
    let instance = slow().await;
    let hub = Hub::with("svc", &instance).await;
    let mut stream = hub.get("/svc/stream").await.bytes_stream();
    stream.next().await.unwrap().unwrap();
    hub.set("svc", &[]).await;
    assert_eq!(hub.get("/svc").await.status(), 503);
    for _ in 0..10 {
        stream.next().await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn idle_connections_of_an_instance_that_went_are_closed() {
    let instance = slow().await;
    let hub = Hub::with("svc", &instance).await;
    hub.get("/svc").await.text().await.unwrap();
    until("a connection is kept", async || hub.metric("pooled", &["svc"]).await == 1).await;
    hub.set("svc", &[]).await;
    hub.set("svc", &[instance.info("svc")]).await;
    assert_eq!(hub.metric("pooled", &["svc"]).await, 0);
}

#[tokio::test]
async fn what_happens_is_counted() {
    let instance = slow().await;
    let hub = Hub::with("svc", &instance).await;
    for _ in 0..3 {
        hub.get("/svc").await.text().await.unwrap();
    }
    hub.get("/svc/none").await.text().await.unwrap();
    hub.get("/nowhere").await.text().await.unwrap();
    assert_eq!(hub.metric("replies", &["svc-", r#"status="200""#]).await, 3);
    assert_eq!(hub.metric("replies", &["svc-", r#"status="404""#]).await, 1);
    assert_eq!(hub.metric("requests", &["svc"]).await, 4);
    assert_eq!(hub.metric("refusals", &["no-such-service"]).await, 1);
    assert_eq!(hub.metric("request_duration_seconds_count", &["svc"]).await, 4);
    let (_, all) = hub.get_control("/metrics").await;
    let names = all.lines().filter_map(|line| line.strip_prefix("# TYPE hub_gateway_")?.split(' ').next());
    for name in names.map(|name| name.trim_end_matches("_total")) {
        assert!(METRICS.iter().any(|known| known.trim_end_matches("_count") == name), "{name} is new");
    }
    // What has not happened is not shown.
    let shown = |name: &&&str| all.contains(&format!("\nhub_gateway_{name}"));
    assert_eq!(METRICS.iter().filter(|name| !shown(name)).collect::<Vec<_>>(), [&"failures"]);
}
