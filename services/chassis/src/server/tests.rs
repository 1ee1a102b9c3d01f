//! Connections that send nothing, or not enough.

use std::net::SocketAddr;

use axum::body::{Body, Bytes};
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::connection_state::Client;
use super::*;

mod full;
mod http2;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

async fn start(head: Duration, connections: usize) -> (SocketAddr, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (start_drain, draining) = watch::channel(false);
    let slow = async move || {
        tokio::time::sleep(head * 5 / 4).await;
        "served"
    };
    let app = Router::new()
        .route("/", get(async || "served"))
        .route("/slow", get(slow))
        .route(
            "/busy",
            get(async || Body::from_stream(futures_util::stream::pending::<std::io::Result<Bytes>>())),
        )
        .route("/livez", get(async || "live"));
    let drain = Drain::new(draining, Duration::from_secs(10));
    let limits = PortLimits {
        head,
        connections,
        per_client: connections,
        streams: connections,
        streams_per_client: connections,
        reserve: 8,
        min_idle: Duration::from_millis(200),
        min_idle_unused: Duration::from_millis(200),
    };
    tokio::spawn(serve(limits, listener, app, drain, None));
    (addr, start_drain)
}

async fn in_time<T>(what: &str, done: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), done).await.expect(what)
}

/// Reads until the server closes.
async fn read_to_end(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    let _ = in_time("the server closes", stream.read_to_end(&mut text)).await; // or resets
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn a_connection_without_a_whole_first_head_is_closed() {
    let (addr, _drain) = start(Duration::from_millis(50), 100).await;
    for sent in [&b""[..], b"P", &PREFACE[..14], b"GET / HTTP/1.1\r\nHost: x\r\n", PREFACE] {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let got = read_to_end(stream).await;
        assert!(!got.contains("served"), "{sent:?}: {got}");
    }
}

#[tokio::test]
async fn a_connection_that_had_a_request_stays_open() {
    let (end, served) = tokio::sync::oneshot::channel::<()>();
    let connection = Arc::new(ConnectionState::new(Arc::new(Client::new([127, 0, 0, 1].into())), false));
    drop(connection.begin_request());
    let mut serving = pin!(with_first_head_timeout(served, Duration::ZERO, connection));
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut serving).await.is_err(), "cut off");
    end.send(()).unwrap();
    in_time("the end", serving).await;
}

#[tokio::test]
async fn a_request_may_take_longer_than_its_head() {
    let head = Duration::from_secs(1);
    let (addr, _drain) = start(head, 100).await;
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(read_to_end(stream).await.ends_with("served"));
}

#[tokio::test]
async fn a_silent_connection_does_not_delay_the_drain() {
    let (addr, start_drain) = start(Duration::from_secs(60), 100).await;
    let silent = TcpStream::connect(addr).await.unwrap();
    // Connections are accepted in order: when the second is served, the first is accepted.
    let mut other = TcpStream::connect(addr).await.unwrap();
    other.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(read_to_end(other).await.ends_with("served"));
    start_drain.send_replace(true);
    assert_eq!(read_to_end(silent).await, "");
}
