//! HTTP/2 without TLS, on either side.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt, Full, StreamBody};
use hub_client::protocol::ServiceInfo;
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::support::*;

type Client = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn client(hub: &Hub, tasks: &mut JoinSet<()>) -> Client {
    let stream = TcpStream::connect(hub.addr).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tasks.spawn(async move { drop(connection.await) });
    sender
}

/// A server of one method as gRPC has them: it answers with what it got, and its status comes in trailers.
async fn grpc(
    mut request: Request<Incoming>,
) -> Result<Response<impl http_body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    assert_eq!(request.version(), Version::HTTP_2);
    assert_eq!(request.headers()["te"], "trailers");
    assert!(!request.headers().contains_key("connection"));
    let path = request.uri().to_string();
    let body = request.body_mut().collect().await.unwrap().to_bytes();
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
    let frames = [Frame::data(Bytes::from(format!("{path} {}", body.len()))), Frame::trailers(trailers)];
    let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, Infallible>)));
    Ok(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
}

async fn grpc_instance(tasks: &mut JoinSet<()>) -> ServiceInfo {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut info = ServiceInfo::new("svc", listener.local_addr().unwrap().to_string());
    info.meta.insert("protocol".to_owned(), "h2c".to_owned());
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper::service::service_fn(grpc);
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            connections.spawn(async move { drop(connection.await) });
        }
    });
    info
}

#[tokio::test]
async fn a_grpc_call_passes_with_its_trailers() {
    let mut tasks = JoinSet::new();
    let info = grpc_instance(&mut tasks).await;
    let hub = Hub::start(|_| ()).await;
    hub.set("svc", &[info]).await;
    let client = client(&hub, &mut tasks).await;
    let calls = (0..100_usize).map(async |n| {
        let request = Request::post(format!("http://example.org/svc/pkg.Service/Method{n}"))
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .body(Full::from(vec![0; n * 100]))
            .unwrap();
        let reply = client.clone().send_request(request).await.unwrap();
        assert_eq!(reply.status(), 200);
        // An instance that registered without an id is not told by its address.
        assert!(reply.headers()["hub-instance"].to_str().unwrap().starts_with("svc-"));
        let body = reply.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        let text = format!("http://example.org/svc/pkg.Service/Method{n} {}", n * 100);
        assert_eq!(body.to_bytes(), text.as_bytes());
    });
    futures_util::future::join_all(calls).await;
}

#[tokio::test]
async fn an_http2_client_reaches_an_http1_instance() {
    let mut tasks = JoinSet::new();
    let instance = Instance::reply(HELLO).await;
    let hub = Hub::with("svc", &instance).await;
    let mut client = client(&hub, &mut tasks).await;
    let request = Request::post("http://example.org/svc?q")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(Full::from("body"))
        .unwrap();
    let reply = client.send_request(request).await.unwrap();
    assert_eq!(reply.version(), Version::HTTP_2);
    assert_eq!(reply.into_body().collect().await.unwrap().to_bytes(), "hello");
    let seen = &instance.requests()[0];
    assert!(seen.starts_with("POST /svc?q HTTP/1.1\r\n"), "{seen}");
    assert_eq!(header(seen, "host").as_deref(), Some("example.org"));
    assert_eq!(header(seen, "cookie").as_deref(), Some("a=1; b=2"));
    assert!(header(seen, "via").unwrap().starts_with("2.0 gateway-"));
    let bad = Request::get("http://example.org/svc/%2e%2e/x").body(Full::default()).unwrap();
    assert_eq!(client.send_request(bad).await.unwrap().status(), 400);
    let hosts = Request::get("http://example.org/svc").header("host", "other").body(Full::default()).unwrap();
    assert_eq!(client.send_request(hosts).await.unwrap().status(), 400);
}

#[tokio::test]
async fn an_http1_client_reaches_an_http2_instance() {
    let mut tasks = JoinSet::new();
    let info = grpc_instance(&mut tasks).await;
    let hub = Hub::start(|_| ()).await;
    hub.set("svc", &[info]).await;
    let mut raw = hub.connect().await;
    raw.write(
        "POST /svc/x HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te\r\nContent-Length: 3\r\n\r\nabc",
    )
    .await;
    let reply = raw.read_until(|text| text.ends_with("0\r\n\r\n")).await;
    assert_eq!(status(&reply), 200);
    assert!(reply.contains("http://a/svc/x 3"), "{reply}");
}

#[tokio::test]
async fn a_stop_tells_http2_clients_to_go() {
    let mut tasks = JoinSet::new();
    let instance = Instance::reply(HELLO).await;
    let mut hub = Hub::with("svc", &instance).await;
    let mut client = client(&hub, &mut tasks).await;
    let request = || Request::get("http://a/svc").body(Full::default()).unwrap();
    client.send_request(request()).await.unwrap().into_body().collect().await.unwrap();
    hub.begin_stop();
    hub.stopped().await;
    until("the connection is closed", async || client.is_closed()).await;
}
