//! Bodies on their way: streamed in both directions, trailers, continue, limits, upgrades.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::StreamExt;
use hub_gateway::config::ServiceConfig;
use tokio::io::AsyncReadExt;

use super::support::*;

#[tokio::test]
async fn a_body_reaches_the_instance_while_the_client_still_sends() {
    let instance = Instance::script(|mut raw, seen| async move {
        raw.read_until(|text| text.contains("first")).await;
        seen.lock().unwrap().push("first".to_owned());
        raw.read_until(|text| text.ends_with("0\r\n\r\n")).await;
        raw.write(HELLO).await;
        raw.rest().await;
    })
    .await;
    let hub = Hub::with("svc", &instance).await;
    let mut raw = hub.connect().await;
    raw.write("POST /svc HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
    until("the instance has the first part", async || !instance.requests().is_empty()).await;
    raw.write("4\r\nlast\r\n0\r\n\r\n").await;
    assert!(raw.reply().await.ends_with("hello"));
}

#[tokio::test]
async fn a_reply_reaches_the_client_while_the_instance_still_sends() {
    let instance = Instance::script(|mut raw, seen| async move {
        raw.request().await;
        raw.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
        while seen.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        raw.write("4\r\nlast\r\n0\r\n\r\n").await;
        raw.rest().await;
    })
    .await;
    let hub = Hub::with("svc", &instance).await;
    let mut stream = hub.get("/svc").await.bytes_stream();
    assert_eq!(stream.next().await.unwrap().unwrap(), "first");
    instance.seen.lock().unwrap().push("go on".to_owned());
    assert_eq!(stream.next().await.unwrap().unwrap(), "last");
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn trailers_pass_in_both_directions() {
    let instance = Instance::reply(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 42\r\n\r\n",
    )
    .await;
    let hub = Hub::with("svc", &instance).await;
    let mut raw = hub.connect().await;
    raw.write(
        "POST /svc HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te\r\nTrailer: x-mine\r\n\
         Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-mine: 7\r\n\r\n",
    )
    .await;
    let reply = raw.read_until(|text| text.ends_with("x-sum: 42\r\n\r\n")).await;
    assert!(reply.contains("\r\n0\r\nx-sum: 42\r\n"), "{reply}");
    let seen = instance.requests().remove(0);
    assert!(seen.ends_with("\r\n0\r\nx-mine: 7\r\n\r\n"), "{seen}");
}

#[tokio::test]
async fn an_instance_may_answer_before_it_has_the_whole_body() {
    let instance = Instance::script(|mut raw, seen| async move {
        loop {
            let head = raw.read_until(|text| text.contains("\r\n\r\n")).await;
            if head.is_empty() {
                return;
            }
            raw.write(HELLO).await;
            let so_far = head.split_once("\r\n\r\n").unwrap().1.len();
            raw.read_until(|rest| so_far + rest.len() >= 300_000).await;
            seen.lock().unwrap().push(head);
        }
    })
    .await;
    let hub = Hub::with("svc", &instance).await;
    let mut raw = hub.connect().await;
    for n in 1..=3 {
        raw.write("POST /svc HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n").await;
        raw.write([b'x'; 1000]).await;
        assert!(raw.reply().await.ends_with("hello"));
        // The client is not cut off, and its connection carries the next request.
        raw.write(vec![b'x'; 299_000]).await;
        until("the instance has it all", async || instance.requests().len() == n).await;
    }
}

#[tokio::test]
async fn a_reply_with_two_lengths_has_the_one_it_was_read_by() {
    let instance = Instance::reply(
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    )
    .await;
    let hub = Hub::with("svc", &instance).await;
    let mut raw = hub.connect().await;
    raw.write("GET /svc HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let reply = raw.read_until(|text| text.ends_with("0\r\n\r\n")).await;
    assert_eq!(header(&reply, "content-length"), None, "{reply}");
    assert_eq!(header(&reply, "transfer-encoding").as_deref(), Some("chunked"), "{reply}");
    assert!(reply.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "{reply}");
}

#[tokio::test]
async fn a_get_may_have_a_body() {
    let instance = Instance::reply(HELLO).await;
    let hub = Hub::with("svc", &instance).await;
    let mut raw = hub.connect().await;
    raw.write("GET /svc HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nquery\r\n0\r\n\r\n")
        .await;
    assert!(raw.reply().await.ends_with("hello"));
    raw.write("GET /svc HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nquery").await;
    assert!(raw.reply().await.ends_with("hello"));
    let seen = instance.requests();
    assert!(seen[0].ends_with("\r\n\r\n5\r\nquery\r\n0\r\n\r\n"), "{seen:?}");
    assert!(seen[1].ends_with("\r\n\r\nquery"), "{seen:?}");
}

#[tokio::test]
async fn head_and_bodiless_replies_keep_their_length_and_the_connection() {
    let instance = Instance::script(|mut raw, _| async move {
        while let Some(request) = raw.request().await {
            let reply = match request.split(' ').next().unwrap() {
                "HEAD" => "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n",
                "GET" => "HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\n\r\n",
                _ => "HTTP/1.1 204 No Content\r\n\r\n",
            };
            raw.write(reply).await;
        }
    })
    .await;
    let hub = Hub::with("svc", &instance).await;
    let mut raw = hub.connect().await;
    for (method, code) in [("HEAD", 200), ("GET", 304), ("DELETE", 204), ("HEAD", 200)] {
        raw.write(format!("{method} /svc HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let reply = raw.read_until(|text| text.ends_with("\r\n\r\n")).await;
        assert_eq!(status(&reply), code, "{reply}");
        let length = header(&reply, "content-length");
        assert_eq!(length.as_deref(), (code == 200).then_some("1000"), "{reply}");
    }
}

#[tokio::test]
async fn the_instance_decides_whether_the_body_is_wanted() {
    let instance = Instance::script(|mut raw, _| async move {
        let head = raw.read_until(|text| text.contains("\r\n\r\n")).await;
        if head.contains("/svc/no") {
            raw.write("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").await;
        } else {
            raw.write("HTTP/1.1 100 Continue\r\n\r\n").await;
            raw.read_until(|text| text.ends_with("body")).await;
            raw.write(HELLO).await;
        }
        raw.rest().await;
    })
    .await;
    let hub = Hub::with("svc", &instance).await;
    let head = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    };
    let mut raw = hub.connect().await;
    raw.write(head("/svc")).await;
    let interim = raw.read_until(|text| text.ends_with("\r\n\r\n")).await;
    assert_eq!(status(&interim), 100);
    raw.write("body").await;
    assert!(raw.reply().await.ends_with("hello"));
    let mut raw = hub.connect().await;
    raw.write(head("/svc/no")).await;
    assert_eq!(status(&raw.reply().await), 401);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_by_its_length_or_while_it_streams() {
    let taken = Router::new().route("/svc", post(async |body: Bytes| body.len().to_string()));
    let instance = Instance::serve(taken).await;
    let hub = Hub::start(|config| {
        let own = ServiceConfig { body_size: Some(bytesize::ByteSize::b(1000)), ..ServiceConfig::default() };
        config.services.insert("svc".to_owned(), own);
    })
    .await;
    hub.set("svc", &[instance.info("svc")]).await;
    let send = async |body: reqwest::Body| hub.request("POST", "/svc").body(body).send().await.unwrap();
    let streamed = |n: usize| {
        let parts = (0..n).map(|_| Ok::<_, std::io::Error>("0123456789"));
        reqwest::Body::wrap_stream(futures_util::stream::iter(parts))
    };
    assert_eq!(send(vec![b'x'; 1000].into()).await.text().await.unwrap(), "1000");
    assert_eq!(send(vec![b'x'; 1001].into()).await.status(), 413);
    assert_eq!(send(streamed(100)).await.text().await.unwrap(), "1000");
    let reply = send(streamed(101)).await;
    assert_eq!(reply.status(), 413);
    assert_eq!(reply.json::<serde_json::Value>().await.unwrap()["cause"], "body-too-large");
}

#[tokio::test]
async fn a_client_that_is_refused_early_learns_why_and_keeps_its_connection() {
    const SIZE: usize = 20 << 20;
    let instance = Instance::reply(HELLO).await;
    let hub = Hub::start(|config| config.limits.body_size = bytesize::ByteSize::mib(1)).await;
    hub.set("svc", &[instance.info("svc")]).await;
    for (head, code, cause) in [
        ("POST /nowhere HTTP/1.1\r\nHost: a\r\n", 404, "no-such-service"),
        ("TRACE /svc HTTP/1.1\r\nHost: a\r\n", 405, "method-not-allowed"),
        ("POST /svc HTTP/1.1\r\nHost: a\r\n", 413, "body-too-large"),
    ] {
        let mut raw = hub.connect().await;
        // All of it is written before anything is read, as simple clients do.
        raw.write(format!("{head}Content-Length: {SIZE}\r\n\r\n")).await;
        raw.write(vec![b'x'; SIZE]).await;
        let reply = raw.reply().await;
        assert_eq!((status(&reply), &problem(&reply)["cause"]), (code, &cause.into()), "{reply}");
        raw.write("GET /svc HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(raw.reply().await.ends_with("hello"), "{cause}");
    }
    // One that wants its connection closed gets to read it too.
    let mut raw = hub.connect().await;
    raw.write(format!(
        "POST /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {SIZE}\r\n\r\n"
    ))
    .await;
    raw.write(vec![b'x'; SIZE]).await;
    assert_eq!(status(&raw.rest().await), 404);
    // A body whose length was not said is refused on its way.
    let mut raw = hub.connect().await;
    raw.write("POST /svc HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let chunk = [format!("{:x}\r\n", 1 << 20).as_bytes(), &vec![b'x'; 1 << 20], b"\r\n"].concat();
    for _ in 0..20 {
        raw.write(&chunk).await;
    }
    assert_eq!(status(&raw.reply().await), 413);
}

#[tokio::test]
async fn a_client_that_is_refused_while_it_holds_its_body_back_is_not_asked_for_it() {
    let hub = Hub::with("svc", &Instance::reply(HELLO).await).await;
    let reply = hub
        .raw("POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        .await;
    assert_eq!(status(&reply), 404, "{reply}");
    assert!(!reply.contains("100 Continue"), "{reply}");
}

#[tokio::test]
async fn large_bodies_stream_through_in_both_directions() {
    const SIZE: u64 = 200 << 20;
    let sum = Arc::new(AtomicU64::new(0));
    let counted = sum.clone();
    let router = Router::new()
        .route(
            "/svc/up",
            post(async move |body: Body| {
                let mut body = body.into_data_stream();
                while let Some(part) = body.next().await {
                    counted.fetch_add(part.unwrap().len() as u64, Relaxed);
                }
                "done"
            }),
        )
        .route("/svc/down", get(async || Body::from_stream(parts(SIZE))));
    let instance = Instance::serve(router.layer(axum::extract::DefaultBodyLimit::disable())).await;
    let hub = Hub::with("svc", &instance).await;
    let up =
        hub.request("POST", "/svc/up").body(reqwest::Body::wrap_stream(parts(SIZE))).send().await.unwrap();
    assert_eq!(up.text().await.unwrap(), "done");
    assert_eq!(sum.load(Relaxed), SIZE);
    let mut down = hub.get("/svc/down").await.bytes_stream();
    let mut size = 0;
    while let Some(part) = down.next().await {
        size += part.unwrap().len() as u64;
    }
    assert_eq!(size, SIZE);
}

fn parts(size: u64) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static {
    let part = Bytes::from(vec![b'x'; 64 << 10]);
    futures_util::stream::iter((0..size / part.len() as u64).map(move |_| Ok(part.clone())))
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel() {
    let instance = Instance::script(|mut raw, seen| async move {
        let head = raw.request().await.unwrap();
        seen.lock().unwrap().push(head);
        // The first bytes of the new protocol come right behind the 101.
        raw.write("HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: chat\r\n\r\nwelcome")
            .await;
        let mut buffer = [0; 1024];
        loop {
            let n = raw.0.read(&mut buffer).await.unwrap();
            if n == 0 {
                break;
            }
            raw.write(buffer[..n].to_ascii_uppercase()).await;
        }
    })
    .await;
    let hub = Hub::with("svc", &instance).await;
    let mut raw = hub.connect().await;
    raw.write("GET /svc HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n").await;
    let head = raw.read_until(|text| text.ends_with("welcome")).await;
    assert_eq!(status(&head), 101);
    assert_eq!(header(&head, "upgrade").as_deref(), Some("chat"));
    // What looks like a smuggled request is nobody's business now.
    raw.write("get / http/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n").await;
    let echoed = raw.read_until(|text| text.ends_with("\r\n\r\n")).await;
    assert!(echoed.starts_with("GET / HTTP/1.1\r\nCONTENT-LENGTH: 1"), "{echoed}");
    assert_eq!(header(&instance.requests()[0], "upgrade").as_deref(), Some("chat"));
    drop(raw);
}

#[tokio::test]
async fn http2_is_not_switched_to() {
    let instance = Instance::reply(HELLO).await;
    let hub = Hub::with("svc", &instance).await;
    let mut raw = hub.connect().await;
    for _ in 0..3 {
        raw.write(
            "GET /svc HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
             HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n\r\n",
        )
        .await;
        assert!(raw.reply().await.ends_with("hello"));
    }
    assert!(instance.requests().iter().all(|seen| header(seen, "upgrade").is_none()));
    // On one connection, as any other request: an upgrade has one of its own.
    assert_eq!(hub.metric("connections_opened", &["svc"]).await, 1);
}

#[tokio::test]
async fn an_instance_may_decline_an_upgrade() {
    let instance = Instance::reply(HELLO).await;
    let hub = Hub::with("svc", &instance).await;
    let mut raw = hub.connect().await;
    for _ in 0..2 {
        raw.write("GET /svc HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n").await;
        assert!(raw.reply().await.ends_with("hello"));
    }
}

#[tokio::test]
async fn a_websocket_talks_through() {
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
    let instance = Instance::serve(router).await;
    let hub = Hub::with("svc", &instance).await;
    let (mut socket, _) =
        tokio_tungstenite::connect_async(format!("ws://{}/svc/ws", hub.addr)).await.unwrap();
    for n in 0..100 {
        futures_util::SinkExt::send(&mut socket, format!("message {n}").into()).await.unwrap();
        let reply = socket.next().await.unwrap().unwrap();
        assert_eq!(reply.into_text().unwrap().as_str(), format!("echo message {n}"));
    }
    socket.close(None).await.unwrap();
}

/// Reads events as browsers do: fields by line, an event by an empty one, comments for nothing.
struct Events<S> {
    stream: S,
    text: String,
}

impl<S: futures_util::Stream<Item = reqwest::Result<Bytes>> + Unpin> Events<S> {
    /// The next event's id and data.
    async fn next(&mut self) -> Option<(String, String)> {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let values = event.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                    values.collect::<Vec<_>>().join("\n")
                };
                let found = (field("id"), field("data"));
                self.text = rest.to_owned();
                if !found.1.is_empty() {
                    return Some(found);
                }
            }
            let part = tokio::time::timeout(PATIENCE, self.stream.next()).await.unwrap()?.ok()?;
            self.text += std::str::from_utf8(&part).unwrap();
        }
    }
}

#[tokio::test]
async fn a_client_of_server_sent_events_gets_each_at_once_and_can_come_back() {
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
    let instance = Instance::serve(router).await;
    let hub = Hub::start(|config| config.timeouts.idle = Duration::from_millis(100)).await;
    hub.set("svc", &[instance.info("svc")]).await;
    let open = async |last: &str| {
        let request = hub.request("GET", "/svc/events").header("accept", "text/event-stream");
        let reply = request.header("last-event-id", last).send().await.unwrap();
        assert_eq!(reply.headers()["content-type"], "text/event-stream");
        Events { stream: reply.bytes_stream(), text: String::new() }
    };
    let mut events = open("0").await;
    for n in 1..=20 {
        send.send(n).unwrap();
        // Each is sent only when the one before is here.
        assert_eq!(events.next().await.unwrap(), (n.to_string(), format!("event {n}\nof many")));
    }
    drop(events);
    let mut events = open("20").await;
    assert_eq!(events.next().await.unwrap().0, "21");
}
