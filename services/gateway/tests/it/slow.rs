//! Clients that are slow on purpose: the four modes of slowhttptest. Each is cut off in time, and other clients are
//! served meanwhile.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::net::tcp::OwnedReadHalf;
use tokio::task::JoinSet;

use super::support::*;

const CLIENTS: u64 = 50;
const BOUND: Duration = Duration::from_secs(1);
/// The time between two bytes of a slow client.
const PACE: Duration = Duration::from_millis(50);

/// The responses to many clients that write `first`, and then `more` again and again.
async fn attack(gateway: &Gateway, first: &'static str, more: &'static str) -> Vec<String> {
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let mut raw = gateway.connect().await;
        raw.write(first).await;
        clients.spawn(async move {
            let (reading, mut writing) = raw.stream.into_split();
            let drip = async {
                while writing.write_all(more.as_bytes()).await.is_ok() {
                    tokio::time::sleep(PACE).await;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = drip => unreachable!(),
                response = read_response(reading) => response,
            }
        });
    }
    let mut responses = Vec::new();
    while let Some(response) = clients.join_next().await {
        // Other clients don't wait for them.
        assert_eq!(gateway.get("/other").await.status(), 200);
        responses.push(response.unwrap());
    }
    responses
}

async fn read_response(mut reading: OwnedReadHalf) -> String {
    let mut read = Vec::new();
    let whole = async {
        while !has_whole_body(&String::from_utf8_lossy(&read))
            && reading.read_buf(&mut read).await.is_ok_and(|n| n > 0)
        {}
    };
    tokio::time::timeout(DEADLINE, whole).await.expect("the gateway responds");
    String::from_utf8_lossy(&read).into_owned()
}

async fn assert_nothing_in_flight(gateway: &Gateway) {
    eventually("nothing is in flight", async || {
        gateway.metric("in_flight", &[r#"service="svc""#]).await == 0
    })
    .await;
    assert_eq!(gateway.metric("instance_failures", &[r#"service="svc""#]).await, 0);
}

#[tokio::test]
async fn a_head_that_is_sent_too_slowly_is_a_408() {
    let other = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::start(|config| config.timeouts.request_header = BOUND).await;
    gateway.set("other", &[other.info("other")]).await;
    let responses = attack(&gateway, "GET /other HTTP/1.1\r\nHost: a\r\n", "X: y\r\n").await;
    for response in responses {
        assert_eq!(
            (status(&response), &problem(&response)["cause"]),
            (408, &"request-timeout".into()),
            "{response}"
        );
    }
    assert_eq!(gateway.metric("refusals", &["request-timeout"]).await, CLIENTS);
}

#[tokio::test]
async fn endless_empty_lines_are_a_408() {
    let other = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::start(|config| config.timeouts.request_header = BOUND).await;
    gateway.set("other", &[other.info("other")]).await;
    for response in attack(&gateway, "\r\n", "\r\n").await {
        assert_eq!(
            (status(&response), &problem(&response)["cause"]),
            (408, &"request-timeout".into()),
            "{response}"
        );
    }
}

#[tokio::test]
async fn a_body_that_is_sent_too_slowly_is_a_408() {
    let (instance, other) = (FakeInstance::responding(HELLO).await, FakeInstance::responding(HELLO).await);
    let gateway = Gateway::start(|config| {
        config.timeouts.idle = BOUND; // longer than the pause between two bytes
        config.limits.body_rate = bytesize::ByteSize::b(1000);
    })
    .await;
    gateway.set("svc", &[instance.info("svc")]).await;
    gateway.set("other", &[other.info("other")]).await;
    let post = "POST /svc HTTP/1.1\r\nHost: a\r\nContent-Length: 8192\r\n\r\n";
    for response in attack(&gateway, post, "x").await {
        assert_eq!(
            (status(&response), &problem(&response)["cause"]),
            (408, &"request-timeout".into()),
            "{response}"
        );
    }
    assert_nothing_in_flight(&gateway).await;
    assert_eq!(gateway.metric("failures", &["request-timeout"]).await, CLIENTS);
}

#[tokio::test]
async fn a_body_above_the_minimum_rate_is_accepted() {
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::start(|config| {
        config.timeouts.idle = BOUND;
        config.limits.body_rate = bytesize::ByteSize::b(1000);
    })
    .await;
    gateway.set("svc", &[instance.info("svc")]).await;
    let mut raw = gateway.connect().await;
    raw.write("POST /svc HTTP/1.1\r\nHost: a\r\nContent-Length: 40000\r\n\r\n").await;
    for _ in 0..20 {
        raw.write([b'x'; 2000]).await;
        tokio::time::sleep(PACE).await;
    }
    assert!(raw.response().await.ends_with("hello"));
}

#[tokio::test]
async fn a_client_that_reads_too_slowly_is_disconnected() {
    let other = FakeInstance::responding(HELLO).await;
    let instance = FakeInstance::script(|mut raw, seen| async move {
        raw.request().await;
        raw.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 1_u64 << 40)).await;
        let part = vec![b'x'; 1 << 16];
        while raw.stream.write_all(&part).await.is_ok() {}
        seen.lock().unwrap().push("cut off".to_owned());
    })
    .await;
    let gateway = Gateway::start(|config| config.timeouts.idle = BOUND).await;
    gateway.set("svc", &[instance.info("svc")]).await;
    gateway.set("other", &[other.info("other")]).await;
    let mut clients = JoinSet::new();
    for _ in 0..20 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(2304).unwrap();
        let mut raw = RawConn { stream: socket.connect(gateway.addr).await.unwrap() };
        raw.write("GET /svc HTTP/1.1\r\nHost: a\r\n\r\n").await;
        clients.spawn(async move {
            // Reading a byte at a time does not reopen the receive window.
            while raw.stream.read(&mut [0]).await.is_ok_and(|n| n == 1) {
                tokio::time::sleep(PACE).await;
            }
        });
    }
    eventually("all are disconnected", async || {
        assert_eq!(gateway.get("/other").await.status(), 200);
        instance.requests().len() == 20
    })
    .await;
    assert_nothing_in_flight(&gateway).await;
}

#[tokio::test]
async fn a_range_field_is_limited_only_in_size() {
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::with("svc", &instance).await;
    let get = |ranges: usize| {
        let list: Vec<_> = (0..ranges).map(|n| format!("5-{n}")).collect();
        format!("GET /svc HTTP/1.1\r\nHost: a\r\nRange: bytes=0-,{}\r\n\r\n", list.join(","))
    };
    // The gateway passes the field on; only its size is limited.
    assert_eq!(status(&gateway.connect_and(&get(1300)).await), 200);
    assert!(header(&instance.requests()[0], "range").unwrap().ends_with(",5-1299"));
    assert_eq!(problem(&gateway.connect_and(&get(10_000)).await)["cause"], "head-too-large");
    assert_eq!(instance.requests().len(), 1);
}
