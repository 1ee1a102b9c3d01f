//! Budgets for what clients can make the gateway keep: what is small is served even when they are used up.

use std::time::{Duration, Instant};

use bytesize::ByteSize;
use tokio::io::AsyncWriteExt;

use super::support::*;

const GET: &str = "GET /svc/quick HTTP/1.1\r\nHost: a\r\n\r\n";

/// A head of some 20 kB without its end.
fn large_head(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Large: {}\r\n", "y".repeat(20_000))
}

async fn gateway_with(instance: &FakeInstance) -> Gateway {
    let gateway = Gateway::start(|config| config.limits.head_memory = ByteSize::kib(64)).await;
    gateway.set("svc", &[instance.info("svc")]).await;
    gateway
}

#[tokio::test]
async fn unfinished_heads_share_a_budget() {
    let instance = silent().await;
    let gateway = gateway_with(&instance).await;
    let began = Instant::now();
    let mut held = Vec::new();
    for _ in 0..20 {
        let mut raw = gateway.connect().await;
        raw.write(large_head("/svc")).await;
        held.push(raw);
    }
    for _ in 0..20 {
        assert_eq!(status(&gateway.connect_and(GET).await), 200);
    }
    for mut raw in held {
        let response = raw.response().await;
        // 503 while there is no memory, 408 for those that are late after that.
        assert!([503, 408].contains(&status(&response)), "{response}");
    }
    // Long before `request_header` would have ended them.
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    let response = gateway.connect_and(&(large_head("/svc/quick") + "\r\n")).await;
    assert_eq!(status(&response), 200, "{response}");
}

#[tokio::test]
async fn large_heads_in_flight_share_a_budget() {
    let instance = silent().await;
    let gateway = gateway_with(&instance).await;
    let mut held = Vec::new();
    for n in 1..=3 {
        let mut raw = gateway.connect().await;
        raw.write(large_head("/svc") + "\r\n").await;
        held.push(raw);
        eventually("it is in flight", async || instance.requests().len() == n).await;
    }
    let response = gateway.connect_and(&(large_head("/svc") + "\r\n")).await;
    assert_eq!((status(&response), &problem(&response)["cause"]), (503, &"overloaded".into()));
    assert_eq!(status(&gateway.connect_and(GET).await), 200);
    drop(held);
    eventually("its memory is free again", async || {
        status(&gateway.connect_and(&(large_head("/svc/quick") + "\r\n")).await) == 200
    })
    .await;
}

#[tokio::test]
async fn http2_header_blocks_without_an_end_share_the_same_budget() {
    let instance = silent().await;
    let gateway = gateway_with(&instance).await;
    let settings = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    let begun: &[u8] = &[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82]; // HEADERS without END_HEADERS
    let mut held = gateway.connect().await;
    eventually("the second is closed at once", async || {
        held = gateway.connect().await;
        held.write([&settings, begun].concat()).await;
        let mut second = gateway.connect().await;
        second.write(&settings).await;
        drop(second.stream.write_all(begun).await);
        let closed = tokio::time::timeout(Duration::from_millis(200), second.read_to_end());
        closed.await.is_ok()
    })
    .await;
    assert_eq!(status(&gateway.connect_and(GET).await), 200);
    let began = Instant::now();
    held.read_to_end().await;
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_body_that_finds_no_memory_is_not_retried() {
    let broken = || FakeInstance::script(|mut raw, _| async move { drop(raw.request().await) });
    let (broken, other) = (broken().await, broken().await);
    for (memory, attempts) in [(ByteSize::mib(1), 2), (ByteSize::b(10), 1)] {
        let gateway = Gateway::start(|config| config.limits.replay_memory = memory).await;
        gateway.set("svc", &[broken.info("svc"), other.info("svc")]).await;
        let response = gateway.request("PUT", "/svc").body(vec![b'x'; 5000]).send().await.unwrap();
        let problem: serde_json::Value = response.json().await.unwrap();
        assert_eq!(problem["attempts"], attempts, "{problem}");
    }
}

#[tokio::test]
async fn http2_connections_have_a_limit_of_their_own() {
    let instance = silent().await;
    let gateway = Gateway::start(|config| config.limits.h2_connections = 2).await;
    gateway.set("svc", &[instance.info("svc")]).await;
    let settings = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    let open = async |addr: &str| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("{addr}:0").parse().unwrap()).unwrap();
        let mut raw = RawConn { stream: socket.connect(gateway.addr).await.unwrap() };
        raw.write(&settings).await;
        let mut frame = [0; 9];
        tokio::io::AsyncReadExt::read_exact(&mut raw.stream, &mut frame).await.unwrap();
        raw
    };
    let held = open("127.0.0.2").await;
    // One address gets half of them; the other half is for others.
    let mut refused = open("127.0.0.2").await;
    tokio::time::timeout(DEADLINE, refused.read_to_end()).await.unwrap();
    let other = open("127.0.0.3").await;
    assert_eq!(status(&gateway.connect_and(GET).await), 200);
    drop((held, other));
}

#[tokio::test]
async fn responses_pass_while_memory_for_unread_ones_is_short() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut h2c = hubspoke_protocol::ServiceInfo::new("svc", listener.local_addr().unwrap().to_string());
    h2c.meta.insert("protocol".to_owned(), "h2c".to_owned());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service =
                hyper::service::service_fn(async |request: http::Request<hyper::body::Incoming>| {
                    let size = if request.uri().path() == "/svc/big" { 32 << 20 } else { 200_000 };
                    let body = http_body_util::Full::new(bytes::Bytes::from(vec![b'x'; size]));
                    Ok::<_, std::convert::Infallible>(http::Response::new(body))
                });
            let builder = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
            let connection = builder.serve_connection(hyper_util::rt::TokioIo::new(stream), service);
            connections.spawn(async move { drop(connection.await) });
        }
    });
    let h1 = FakeInstance::script(|mut raw, _| async move {
        while let Some(request) = raw.request().await {
            let size = if request.starts_with("GET /svc/big ") { 32 << 20 } else { 200_000 };
            raw.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n")).await;
            drop(raw.stream.write_all(&vec![b'x'; size]).await);
        }
    })
    .await;
    for instance in [h2c, h1.info("svc")] {
        let gateway = Gateway::start(|config| config.limits.buffer_memory = ByteSize::kib(256)).await;
        gateway.set("svc", &[instance]).await;
        let mut unread = Vec::new();
        for _ in 0..8 {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            let mut raw = RawConn { stream: socket.connect(gateway.addr).await.unwrap() };
            raw.write("GET /svc/big HTTP/1.1\r\nHost: a\r\n\r\n").await;
            unread.push(raw);
        }
        eventually("they are answered", async || gateway.metric("replies", &["svc"]).await == 8).await;
        for _ in 0..3 {
            assert_eq!(gateway.get("/svc/small").await.bytes().await.unwrap().len(), 200_000);
        }
        // What waited is complete once it is read.
        let mut read = Vec::new();
        let reading = tokio::io::AsyncReadExt::read_to_end(&mut unread[0].stream, &mut read);
        let _ = tokio::time::timeout(Duration::from_secs(3), reading).await;
        assert!(read.len() > 1 << 20, "{}", read.len());
    }
}
