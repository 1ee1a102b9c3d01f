//! Connections that say nothing, or not enough.

use std::net::SocketAddr;

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

async fn start(head: Duration, connections: usize) -> (SocketAddr, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (begin, begun) = watch::channel(false);
    let slow = async move || {
        tokio::time::sleep(head * 5 / 4).await;
        "served"
    };
    let app = Router::new().route("/", get(async || "served")).route("/slow", get(slow));
    let drain = Drain::new(begun, Duration::from_secs(10));
    tokio::spawn(serve_within(Limits { head, connections }, listener, app, drain));
    (addr, begin)
}

async fn in_time<T>(what: &str, done: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), done).await.expect(what)
}

/// Reads until the other side closes.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    let _ = in_time("it is closed", stream.read_to_end(&mut text)).await; // a reset is an end too
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn a_connection_without_a_whole_first_head_is_ended() {
    let (addr, _begin) = start(Duration::from_millis(50), 100).await;
    for sent in [&b""[..], b"P", &PREFACE[..14], b"GET / HTTP/1.1\r\nHost: x\r\n", PREFACE] {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let got = rest(stream).await;
        assert!(!got.contains("served"), "{sent:?}: {got}");
    }
}

#[tokio::test]
async fn a_connection_that_was_used_may_last() {
    let (ended, connection) = tokio::sync::oneshot::channel::<()>();
    let heard = Arc::new(AtomicBool::new(true));
    let mut serving = pin!(until_silent(connection, Duration::ZERO, heard));
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut serving).await.is_err(), "cut off");
    ended.send(()).unwrap();
    in_time("the end", serving).await;
}

#[tokio::test]
async fn a_request_may_take_longer_than_its_head() {
    let head = Duration::from_secs(1);
    let (addr, _begin) = start(head, 100).await;
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(rest(stream).await.ends_with("served"));
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_until_others_end() {
    let (addr, _begin) = start(Duration::from_secs(60), 2).await;
    let silent = [TcpStream::connect(addr).await.unwrap(), TcpStream::connect(addr).await.unwrap()];
    let mut third = TcpStream::connect(addr).await.unwrap();
    third.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(50), third.peek(&mut byte)).await;
    assert!(early.is_err(), "served beyond the bound");
    drop(silent);
    assert!(rest(third).await.ends_with("served"));
}

#[tokio::test]
async fn a_silent_connection_holds_up_no_drain() {
    let (addr, begin) = start(Duration::from_secs(60), 100).await;
    let silent = TcpStream::connect(addr).await.unwrap();
    // Accepted in order: once the second is served, the first is there.
    let mut other = TcpStream::connect(addr).await.unwrap();
    other.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(rest(other).await.ends_with("served"));
    begin.send_replace(true);
    assert_eq!(rest(silent).await, "");
}
