//! How a client's connection ends: what its client can tell from that, and that nothing of it is left.

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

/// Shorter than any patience of the gateway's that is meant for clients which still send.
const SOON: Duration = Duration::from_secs(4);

#[tokio::test]
async fn a_reply_that_broke_off_does_not_look_whole_to_an_old_client() {
    let instance = Instance::script(|mut raw, _| async move {
        raw.request().await;
        raw.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    })
    .await;
    let hub = Hub::with("svc", &instance).await;
    let mut raw = hub.connect().await;
    raw.write("GET /svc HTTP/1.0\r\n\r\n").await;
    let mut read = Vec::new();
    let end = tokio::time::timeout(PATIENCE, raw.0.read_to_end(&mut read)).await.unwrap();
    assert!(end.is_err(), "it ends like a whole one: {}", String::from_utf8_lossy(&read));
}

#[tokio::test]
async fn a_client_that_is_not_asked_for_its_body_is_not_waited_for() {
    // It answers a head.
    let instance = Instance::script(|mut raw, _| async move {
        raw.read_until(|text| text.contains("\r\n\r\n")).await;
        raw.write(HELLO).await;
        raw.rest().await;
    })
    .await;
    let hub = Hub::with("svc", &instance).await;
    let mut raw = hub.connect().await;
    raw.write("POST /svc HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n").await;
    let reply = tokio::time::timeout(SOON, raw.rest()).await.expect("the connection ends soon");
    assert_eq!((status(&reply), header(&reply, "connection").as_deref()), (200, Some("close")), "{reply}");
}

/// An HTTP/2 instance that takes all it gets, and answers without end.
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
async fn the_socket_of_a_client_that_was_cut_off_is_closed_whoever_reads_its_body() {
    let mut tasks = JoinSet::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut info = ServiceInfo::new("svc", listener.local_addr().unwrap().to_string());
    info.meta.insert("protocol".to_owned(), "h2c".to_owned());
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        drop(builder.serve_connection(TokioIo::new(stream), hyper::service::service_fn(endless)).await);
    });
    let hub = Hub::start(|config| config.timeouts.idle = Duration::from_secs(1)).await;
    hub.set("svc", &[info]).await;
    let mut raw = hub.connect().await;
    raw.write("POST /svc HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    // It sends on and on, and reads nothing.
    let sending = async { while raw.0.write_all(b"5\r\nhello\r\n").await.is_ok() {} };
    tokio::time::timeout(PATIENCE, sending).await.expect("the socket is closed");
}
