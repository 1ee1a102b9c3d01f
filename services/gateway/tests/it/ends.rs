//! How client connections end: what the client can tell from it, and that nothing of them remains.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hubspoke_protocol::ServiceInfo;
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::support::*;

/// Shorter than the timeouts that the gateway has for clients that are still sending.
const SOON: Duration = Duration::from_secs(4);

#[tokio::test]
async fn a_response_that_broke_off_does_not_look_complete_to_an_http10_client() {
    let instance = FakeInstance::script(|mut raw, _| async move {
        raw.request().await;
        raw.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    })
    .await;
    let gateway = Gateway::with("svc", &instance).await;
    let mut raw = gateway.connect().await;
    raw.write("GET /svc HTTP/1.0\r\n\r\n").await;
    let mut read = Vec::new();
    let end = tokio::time::timeout(DEADLINE, raw.stream.read_to_end(&mut read)).await.unwrap();
    assert!(end.is_err(), "it ends like a complete one: {}", String::from_utf8_lossy(&read));
}

#[tokio::test]
async fn a_client_that_got_no_100_continue_is_not_waited_for() {
    // It responds to a head.
    let instance = FakeInstance::script(|mut raw, _| async move {
        raw.read_until(|text| text.contains("\r\n\r\n")).await;
        raw.write(HELLO).await;
        raw.read_to_end().await;
    })
    .await;
    let gateway = Gateway::with("svc", &instance).await;
    let mut raw = gateway.connect().await;
    raw.write("POST /svc HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n").await;
    let response = tokio::time::timeout(SOON, raw.read_to_end()).await.expect("the connection ends soon");
    assert_eq!(
        (status(&response), header(&response, "connection").as_deref()),
        (200, Some("close")),
        "{response}"
    );
}

/// An HTTP/2 instance that reads every body and responds without end.
async fn endless(
    request: Request<Incoming>,
) -> Result<Response<impl http_body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let mut body = request.into_body();
    tokio::spawn(async move { while let Some(Ok(_)) = body.frame().await {} });
    let frames =
        std::iter::repeat_with(|| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'x'; 1 << 14]))));
    Ok(Response::new(StreamBody::new(futures_util::stream::iter(frames))))
}

#[tokio::test]
async fn the_socket_of_a_client_that_stops_reading_is_closed_while_its_body_is_still_read() {
    let mut tasks = JoinSet::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut info = ServiceInfo::new("svc", listener.local_addr().unwrap().to_string());
    info.meta.insert("protocol".to_owned(), "h2c".to_owned());
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        drop(builder.serve_connection(TokioIo::new(stream), hyper::service::service_fn(endless)).await);
    });
    let gateway = Gateway::start(|config| config.timeouts.idle = Duration::from_secs(1)).await;
    gateway.set("svc", &[info]).await;
    let mut raw = gateway.connect().await;
    raw.write("POST /svc HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    // It keeps sending and never reads.
    let sending = async { while raw.stream.write_all(b"5\r\nhello\r\n").await.is_ok() {} };
    tokio::time::timeout(DEADLINE, sending).await.expect("the socket is closed");
}
