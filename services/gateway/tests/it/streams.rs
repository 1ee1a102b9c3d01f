//! Streams without an end: upgrades, WebSocket, server-sent events.

use std::collections::VecDeque;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use futures_util::StreamExt;
use hubspoke_protocol::sse;
use tokio::io::AsyncReadExt;

use super::support::*;

#[tokio::test]
async fn an_upgraded_connection_is_a_tunnel() {
    let instance = FakeInstance::script(|mut raw, seen| async move {
        let head = raw.request().await.unwrap();
        seen.lock().unwrap().push(head);
        // The first bytes of the new protocol follow the 101 directly.
        raw.write("HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: chat\r\n\r\nwelcome")
            .await;
        let mut buffer = [0; 1024];
        loop {
            let n = raw.stream.read(&mut buffer).await.unwrap();
            if n == 0 {
                break;
            }
            raw.write(buffer[..n].to_ascii_uppercase()).await;
        }
    })
    .await;
    let gateway = Gateway::with("svc", &instance).await;
    let mut raw = gateway.connect().await;
    raw.write("GET /svc HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n").await;
    let head = raw.read_until(|text| text.ends_with("welcome")).await;
    assert_eq!(status(&head), 101);
    assert_eq!(header(&head, "upgrade").as_deref(), Some("chat"));
    // Bytes that look like a smuggled request are just bytes now.
    raw.write("get / http/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n").await;
    let echoed = raw.read_until(|text| text.ends_with("\r\n\r\n")).await;
    assert!(echoed.starts_with("GET / HTTP/1.1\r\nCONTENT-LENGTH: 1"), "{echoed}");
    assert_eq!(header(&instance.requests()[0], "upgrade").as_deref(), Some("chat"));
    drop(raw);
}

#[tokio::test]
async fn an_offer_to_upgrade_to_another_http_is_ignored() {
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::with("svc", &instance).await;
    let mut raw = gateway.connect().await;
    // What Java's and Apache's clients send in their requests.
    for upgrade in ["h2c", "TLS/1.2", "h2c, TLS/1.3, HTTP/2.0"] {
        raw.write(format!(
            "GET /svc HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\n\
             HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n\r\n",
        ))
        .await;
        assert!(raw.response().await.ends_with("hello"));
    }
    assert!(instance.requests().iter().all(|seen| header(seen, "upgrade").is_none()));
    // They share a connection; requests for an upgrade don't.
    assert_eq!(gateway.metric("connections_opened", &["svc"]).await, 1);
}

/// The instance's 101 would be an error, and held against it.
#[tokio::test]
async fn an_http_1_0_client_can_not_ask_for_an_upgrade() {
    let instance = FakeInstance::script(|mut raw, _| async move {
        while let Some(request) = raw.request().await {
            let upgraded = header(&request, "upgrade").is_some();
            raw.write(if upgraded {
                "HTTP/1.1 101 Switching Protocols\r\nupgrade: chat\r\n\r\n"
            } else {
                HELLO
            })
            .await;
        }
    })
    .await;
    let gateway = Gateway::with("svc", &instance).await;
    for _ in 0..6 {
        let request = "GET /svc HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n";
        assert_eq!(status(&gateway.raw(request).await), 200);
    }
    assert_eq!(gateway.metric("instance_failures", &["svc"]).await, 0);
}

#[tokio::test]
async fn an_instance_may_decline_an_upgrade() {
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::with("svc", &instance).await;
    let mut raw = gateway.connect().await;
    for _ in 0..2 {
        raw.write("GET /svc HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n").await;
        assert!(raw.response().await.ends_with("hello"));
    }
}

#[tokio::test]
async fn a_websocket_is_passed_through() {
    use axum::extract::ws::{Message, WebSocketUpgrade};
    let router = Router::new().route(
        "/svc/ws",
        get(async |upgrade: WebSocketUpgrade| {
            upgrade.on_upgrade(async |mut socket| {
                while let Some(Ok(message)) = socket.recv().await {
                    if let Message::Text(text) = message {
                        socket.send(Message::Text(format!("echo {text}").into())).await.unwrap();
                    }
                }
            })
        }),
    );
    let instance = FakeInstance::serve(router).await;
    let gateway = Gateway::with("svc", &instance).await;
    let (mut socket, _) =
        tokio_tungstenite::connect_async(format!("ws://{}/svc/ws", gateway.addr)).await.unwrap();
    for n in 0..100 {
        futures_util::SinkExt::send(&mut socket, format!("message {n}").into()).await.unwrap();
        let response = socket.next().await.unwrap().unwrap();
        assert_eq!(response.into_text().unwrap().as_str(), format!("echo message {n}"));
    }
    socket.close(None).await.unwrap();
}

/// A client of server-sent events.
struct Events<S> {
    stream: S,
    parser: sse::Parser,
    parsed: VecDeque<sse::Event>,
}

impl<S: futures_util::Stream<Item = reqwest::Result<Bytes>> + Unpin> Events<S> {
    async fn next(&mut self) -> sse::Event {
        while self.parsed.is_empty() {
            let part = tokio::time::timeout(DEADLINE, self.stream.next()).await.unwrap().unwrap().unwrap();
            let mut events = Vec::new();
            self.parser.feed(&part, &mut events).unwrap();
            self.parsed.extend(events);
        }
        self.parsed.pop_front().unwrap()
    }
}

#[tokio::test]
async fn server_sent_events_arrive_at_once_and_can_be_resumed() {
    use axum::response::sse::{Event, KeepAlive, Sse};
    let (send, _) = tokio::sync::broadcast::channel::<u64>(16);
    let sender = send.clone();
    let router = Router::new().route(
        "/svc/events",
        get(async move |headers: axum::http::HeaderMap| {
            let last = headers.get("last-event-id").map_or("0", |id| id.to_str().unwrap()).parse().unwrap();
            let receiver = sender.subscribe();
            let missed = futures_util::stream::iter((1..=last).last().map(|n: u64| n + 1));
            let live = futures_util::stream::unfold(receiver, async |mut receiver| {
                receiver.recv().await.ok().map(|n| (n, receiver))
            });
            let events = missed.chain(live).map(|n| {
                Ok::<_, std::convert::Infallible>(
                    Event::default().id(n.to_string()).data(format!("event {n}\nof many")),
                )
            });
            Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_millis(20)))
        }),
    );
    let instance = FakeInstance::serve(router).await;
    let gateway = Gateway::start(|config| config.timeouts.idle = Duration::from_millis(100)).await;
    gateway.set("svc", &[instance.info("svc")]).await;
    let open = async |last: &str| {
        let request = gateway.request("GET", "/svc/events").header("accept", "text/event-stream");
        let response = request.header("last-event-id", last).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events { stream: response.bytes_stream(), parser: sse::Parser::new(1000), parsed: VecDeque::new() }
    };
    let mut events = open("0").await;
    for n in 1..=20 {
        send.send(n).unwrap();
        // Each is sent only after the one before has arrived.
        let event = events.next().await;
        assert_eq!((event.id, event.data), (n.to_string(), format!("event {n}\nof many")));
    }
    drop(events);
    let mut events = open("20").await;
    assert_eq!(events.next().await.id, "21");
}
