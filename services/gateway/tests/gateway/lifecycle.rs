//! Start, change of instances, and stop, with requests under way.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use futures_util::StreamExt;

use super::support::*;

/// A service whose `/svc/slow` takes a while, and whose `/svc/stream` never ends.
async fn slow() -> Instance {
    let router = Router::new()
        .route("/svc", get(async || "fast"))
        .route(
            "/svc/slow",
            get(async || {
                tokio::time::sleep(Duration::from_millis(400)).await;
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
    let instance = slow().await;
    let mut hub = Hub::with("svc", &instance).await;
    let mut idle = hub.connect().await;
    idle.write("GET /svc HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(idle.reply().await.ends_with("fast"));
    let request = hub.request("GET", "/svc/slow").send();
    let request = tokio::spawn(request);
    until("the request is in flight", async || hub.metric(&["hub_gateway_in_flight", "svc"]).await == 1)
        .await;
    hub.begin_stop();
    let reply = request.await.unwrap().unwrap();
    assert_eq!(reply.headers()["connection"], "close");
    assert_eq!(reply.text().await.unwrap(), "slow");
    assert_eq!(idle.rest().await, ""); // told to go by the end of the connection
    hub.stopped().await;
    assert!(tokio::net::TcpStream::connect(hub.addr).await.is_err());
}

#[tokio::test]
async fn a_client_that_has_connected_before_the_stop_is_served() {
    let instance = slow().await;
    let mut hub = Hub::with("svc", &instance).await;
    let get = "GET /svc HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut used = hub.connect().await;
    used.write(get).await;
    used.reply().await;
    let mut fresh = Vec::new();
    for _ in 0..20 {
        fresh.push(hub.connect().await);
    }
    let mut silent = hub.connect().await;
    until("all are taken", async || hub.metric(&["hub_gateway_connections{"]).await == 22).await;
    hub.begin_stop();
    assert_eq!(used.rest().await, ""); // the workers drain from here on
    for raw in &mut fresh {
        raw.write(get).await;
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
    until("a connection is kept", async || hub.metric(&["hub_gateway_pooled", "svc"]).await == 1).await;
    hub.set("svc", &[]).await;
    hub.set("svc", &[instance.info("svc")]).await;
    assert_eq!(hub.metric(&["hub_gateway_pooled", "svc"]).await, 0);
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
    assert_eq!(hub.metric(&["hub_gateway_replies_total", "svc-", r#"status="200""#]).await, 3);
    assert_eq!(hub.metric(&["hub_gateway_replies_total", "svc-", r#"status="404""#]).await, 1);
    assert_eq!(hub.metric(&["hub_gateway_requests_total", "svc"]).await, 4);
    assert_eq!(hub.metric(&["hub_gateway_refusals_total", "no-such-service"]).await, 1);
    assert_eq!(hub.metric(&["hub_gateway_request_duration_seconds_count", "svc"]).await, 4);
}
