//! What lasts, over TLS: WebSockets, HTTP/2 streams, bodies in both directions at once.

use std::convert::Infallible;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::{any, get, post};
use futures_util::{SinkExt, StreamExt};
use tokio::task::JoinSet;
use tokio_rustls::rustls::version::TLS13;
use tokio_tungstenite::tungstenite;

use super::support::{FakeInstance, eventually};
use super::tls_support::{BOTH, TlsGateway};

async fn echo(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|mut socket| async move {
        while let Some(Ok(message)) = socket.next().await {
            if matches!(message, Message::Text(_) | Message::Binary(_)) && socket.send(message).await.is_err()
            {
                break;
            }
        }
    })
}

/// Numbers without an end, one per line, a thousand at a time.
async fn numbers() -> Body {
    let lines = |n: u32| (n * 1000..(n + 1) * 1000).map(|n| format!("{n}\n")).collect::<String>();
    let parts = futures_util::stream::iter(0..).map(move |n| Ok::<_, Infallible>(Bytes::from(lines(n))));
    Body::from_stream(parts)
}

async fn gateway() -> (TlsGateway, FakeInstance) {
    let routes = Router::new()
        .route("/live/ws", any(echo))
        .route("/live/numbers", get(numbers))
        .route("/live/echo", post(async |body: Body| body));
    let (it, instance) = (TlsGateway::start(&["a.example"]).await, FakeInstance::serve(routes).await);
    it.gateway.set("live", &[instance.info("live")]).await;
    (it, instance)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_passes_over_tls() {
    let (it, _instance) = gateway().await;
    for version in BOTH {
        let client = it.connect(&it.authority.client(&[version], &[b"http/1.1"]), "a.example").await;
        let (mut socket, _) =
            tokio_tungstenite::client_async("wss://a.example/live/ws", client.stream).await.unwrap();
        for size in [0, 10, 16_384, 300_000] {
            let sent = tungstenite::Message::binary(vec![b'x'; size]);
            socket.send(sent.clone()).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), sent, "{size}");
        }
        socket.close(None).await.unwrap();
        while socket.next().await.is_some_and(|message| message.is_ok()) {}
        drop(socket);
        eventually("the connection is gone", async || it.gateway.metric("in_flight", &["live"]).await == 0)
            .await;
    }
}

async fn h2_client(it: &TlsGateway) -> h2::client::SendRequest<Bytes> {
    let connector = it.authority.client(&[&TLS13], &[b"h2"]);
    // A stream that is not read must not use up the connection's window.
    let mut builder = h2::client::Builder::new();
    builder.initial_connection_window_size(8 << 20);
    let stream = it.connect(&connector, "a.example").await.stream;
    let (send, connection) = builder.handshake(stream).await.unwrap();
    tokio::spawn(connection);
    send
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_share_a_connection_and_each_goes_at_its_own_pace() {
    let (it, _instance) = gateway().await;
    let send = h2_client(&it).await;
    // One that nobody reads must not hold up the others.
    let request = || axum::http::Request::get("https://a.example/live/numbers").body(()).unwrap();
    let mut ready = send.clone().ready().await.unwrap();
    let unread = ready.send_request(request(), true).unwrap().0.await.unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let send = send.clone();
        tasks.spawn(async move {
            let mut send = send.ready().await.unwrap();
            let body = vec![b'y'; 200_000];
            let request = axum::http::Request::post("https://a.example/live/echo").body(()).unwrap();
            let (response, mut stream) = send.send_request(request, false).unwrap();
            let upload = tokio::spawn(async move {
                let mut rest = Bytes::from(body);
                while !rest.is_empty() {
                    stream.reserve_capacity(rest.len());
                    let some = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
                    let part = rest.split_to(some.min(rest.len()));
                    stream.send_data(part, rest.is_empty()).unwrap();
                }
            });
            let mut body = response.await.unwrap().into_body();
            let mut received = 0;
            while let Some(part) = body.data().await {
                let part = part.unwrap();
                received += part.len();
                body.flow_control().release_capacity(part.len()).unwrap();
            }
            upload.await.unwrap();
            received
        });
    }
    while let Some(received) = tasks.join_next().await {
        assert_eq!(received.unwrap(), 200_000);
    }
    // An endless one goes on for as long as it is read, and ends with its client.
    let mut body = unread.into_body();
    let mut lines = String::new();
    while lines.lines().count() < 50_000 {
        let part = body.data().await.unwrap().unwrap();
        body.flow_control().release_capacity(part.len()).unwrap();
        lines.push_str(std::str::from_utf8(&part).unwrap());
    }
    assert!(lines.starts_with("0\n1\n2\n") && lines.contains("\n49000\n"));
    drop((body, ready, send));
    eventually("the stream has ended", async || it.gateway.metric("in_flight", &["live"]).await == 0).await;
}
