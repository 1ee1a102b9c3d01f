//! Clients that are slow on purpose: the four modes of slowhttptest, each with its bound and with others served
//! meanwhile.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::net::tcp::OwnedReadHalf;
use tokio::task::JoinSet;

use super::support::*;

const CLIENTS: u64 = 50;
const BOUND: Duration = Duration::from_secs(1);
/// Between two bytes of a slow client.
const PACE: Duration = Duration::from_millis(50);

/// Many clients that write `first` and then `more`, again and again, whatever comes; their replies.
async fn attack(hub: &Hub, first: &'static str, more: &'static str) -> Vec<String> {
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let mut raw = hub.connect().await;
        raw.write(first).await;
        clients.spawn(async move {
            let (reading, mut writing) = raw.0.into_split();
            let drip = async {
                while writing.write_all(more.as_bytes()).await.is_ok() {
                    tokio::time::sleep(PACE).await;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = drip => unreachable!(),
                reply = reply_on(reading) => reply,
            }
        });
    }
    let mut replies = Vec::new();
    while let Some(reply) = clients.join_next().await {
        // Nobody else waits for them.
        assert_eq!(hub.get("/other").await.status(), 200);
        replies.push(reply.unwrap());
    }
    replies
}

async fn reply_on(mut reading: OwnedReadHalf) -> String {
    let mut read = Vec::new();
    let whole = async {
        while !is_whole(&String::from_utf8_lossy(&read))
            && reading.read_buf(&mut read).await.is_ok_and(|n| n > 0)
        {}
    };
    tokio::time::timeout(PATIENCE, whole).await.expect("the gateway says something");
    String::from_utf8_lossy(&read).into_owned()
}

async fn nothing_is_left(hub: &Hub) {
    until("nothing is in flight", async || hub.metric("in_flight", &[r#"service="svc""#]).await == 0).await;
    assert_eq!(hub.metric("instance_failures", &[r#"service="svc""#]).await, 0);
}

#[tokio::test]
async fn slow_headers() {
    let other = Instance::reply(HELLO).await;
    let hub = Hub::start(|config| config.timeouts.request_header = BOUND).await;
    hub.set("other", &[other.info("other")]).await;
    let replies = attack(&hub, "GET /other HTTP/1.1\r\nHost: a\r\n", "X: y\r\n").await;
    for reply in replies {
        assert_eq!((status(&reply), &problem(&reply)["cause"]), (408, &"request-timeout".into()), "{reply}");
    }
    assert_eq!(hub.metric("refusals", &["request-timeout"]).await, CLIENTS);
}

#[tokio::test]
async fn endless_empty_lines() {
    let other = Instance::reply(HELLO).await;
    let hub = Hub::start(|config| config.timeouts.request_header = BOUND).await;
    hub.set("other", &[other.info("other")]).await;
    for reply in attack(&hub, "\r\n", "\r\n").await {
        assert_eq!((status(&reply), &problem(&reply)["cause"]), (408, &"request-timeout".into()), "{reply}");
    }
}

#[tokio::test]
async fn slow_body() {
    let (instance, other) = (Instance::reply(HELLO).await, Instance::reply(HELLO).await);
    let hub = Hub::start(|config| {
        config.timeouts.idle = BOUND; // a byte every 50 ms is within that
        config.limits.body_rate = bytesize::ByteSize::b(1000);
    })
    .await;
    hub.set("svc", &[instance.info("svc")]).await;
    hub.set("other", &[other.info("other")]).await;
    let post = "POST /svc HTTP/1.1\r\nHost: a\r\nContent-Length: 8192\r\n\r\n";
    for reply in attack(&hub, post, "x").await {
        assert_eq!((status(&reply), &problem(&reply)["cause"]), (408, &"request-timeout".into()), "{reply}");
    }
    nothing_is_left(&hub).await;
    assert_eq!(hub.metric("failures", &["request-timeout"]).await, CLIENTS);
}

#[tokio::test]
async fn a_body_that_is_fast_enough_is_not_slow() {
    let instance = Instance::reply(HELLO).await;
    let hub = Hub::start(|config| {
        config.timeouts.idle = BOUND;
        config.limits.body_rate = bytesize::ByteSize::b(1000);
    })
    .await;
    hub.set("svc", &[instance.info("svc")]).await;
    let mut raw = hub.connect().await;
    raw.write("POST /svc HTTP/1.1\r\nHost: a\r\nContent-Length: 40000\r\n\r\n").await;
    for _ in 0..20 {
        raw.write([b'x'; 2000]).await;
        tokio::time::sleep(PACE).await;
    }
    assert!(raw.reply().await.ends_with("hello"));
}

#[tokio::test]
async fn slow_read() {
    let other = Instance::reply(HELLO).await;
    let instance = Instance::script(|mut raw, seen| async move {
        raw.request().await;
        raw.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 1_u64 << 40)).await;
        let part = vec![b'x'; 1 << 16];
        while raw.0.write_all(&part).await.is_ok() {}
        seen.lock().unwrap().push("cut off".to_owned());
    })
    .await;
    let hub = Hub::start(|config| config.timeouts.idle = BOUND).await;
    hub.set("svc", &[instance.info("svc")]).await;
    hub.set("other", &[other.info("other")]).await;
    let mut clients = JoinSet::new();
    for _ in 0..20 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(2304).unwrap();
        let mut raw = Raw(socket.connect(hub.addr).await.unwrap());
        raw.write("GET /svc HTTP/1.1\r\nHost: a\r\n\r\n").await;
        clients.spawn(async move {
            // A byte at a time opens no window.
            while raw.0.read(&mut [0]).await.is_ok_and(|n| n == 1) {
                tokio::time::sleep(PACE).await;
            }
        });
    }
    until("all are cut off", async || {
        assert_eq!(hub.get("/other").await.status(), 200);
        instance.requests().len() == 20
    })
    .await;
    nothing_is_left(&hub).await;
}

#[tokio::test]
async fn many_ranges() {
    let instance = Instance::reply(HELLO).await;
    let hub = Hub::with("svc", &instance).await;
    let get = |ranges: usize| {
        let list: Vec<_> = (0..ranges).map(|n| format!("5-{n}")).collect();
        format!("GET /svc HTTP/1.1\r\nHost: a\r\nRange: bytes=0-,{}\r\n\r\n", list.join(","))
    };
    // What they mean is the instance's to say: the gateway passes one field on, and that has its size.
    assert_eq!(status(&hub.connect_and(&get(1300)).await), 200);
    assert!(header(&instance.requests()[0], "range").unwrap().ends_with(",5-1299"));
    assert_eq!(problem(&hub.connect_and(&get(10_000)).await)["cause"], "head-too-large");
    assert_eq!(instance.requests().len(), 1);
}
