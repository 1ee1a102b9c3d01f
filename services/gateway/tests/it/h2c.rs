//! HTTP/2 without TLS, to clients and to instances.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt, Full, StreamBody};
use hubspoke_protocol::ServiceInfo;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2::Builder;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::h2c_instance::declining;
use super::support::*;

type Client<B = Full<Bytes>> = hyper::client::conn::http2::SendRequest<B>;

async fn client(gateway: &Gateway, tasks: &mut JoinSet<()>) -> Client {
    client_with(gateway, tasks, Builder::new(TokioExecutor::new())).await
}

async fn client_with<B>(
    gateway: &Gateway,
    tasks: &mut JoinSet<()>,
    builder: Builder<TokioExecutor>,
) -> Client<B>
where
    B: Body<Data = Bytes, Error = Infallible> + Unpin + Send + 'static,
{
    let stream = TcpStream::connect(gateway.addr).await.unwrap();
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tasks.spawn(async move { drop(connection.await) });
    sender
}

/// A gRPC-like method: responds with the path and length that it got, and its status in trailers.
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
async fn a_grpc_call_is_passed_on_with_its_trailers() {
    let mut tasks = JoinSet::new();
    let info = grpc_instance(&mut tasks).await;
    let gateway = Gateway::start(|_| ()).await;
    gateway.set("svc", &[info]).await;
    let client = client(&gateway, &mut tasks).await;
    let calls = (0..100_usize).map(async |n| {
        let request = Request::post(format!("http://example.org/svc/pkg.Service/Method{n}"))
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .body(Full::from(vec![0; n * 100]))
            .unwrap();
        let response = client.clone().send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        // An instance that registered without an id is not identified by its address.
        assert!(response.headers()["hub-instance"].to_str().unwrap().starts_with("svc-"));
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        let text = format!("http://example.org/svc/pkg.Service/Method{n} {}", n * 100);
        assert_eq!(body.to_bytes(), text.as_bytes());
    });
    futures_util::future::join_all(calls).await;
}

/// What a stock client does: it can't put the service's name in front of its methods.
#[tokio::test]
async fn a_grpc_client_that_names_the_service_in_its_authority_keeps_its_path() {
    let mut tasks = JoinSet::new();
    let info = grpc_instance(&mut tasks).await;
    let gateway = Gateway::start(|_| ()).await;
    gateway.set("svc", &[info]).await;
    let mut client = client(&gateway, &mut tasks).await;
    let request = Request::post("http://svc.localhost:20001/pkg.Service/Method")
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(Full::from("12345"))
        .unwrap();
    let response = client.send_request(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes(), "http://svc.localhost:20001/pkg.Service/Method 5");
}

#[tokio::test]
async fn an_http2_client_reaches_an_http1_instance() {
    let mut tasks = JoinSet::new();
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::with("svc", &instance).await;
    let mut client = client(&gateway, &mut tasks).await;
    let request = Request::post("http://example.org/svc?q")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(Full::from("body"))
        .unwrap();
    let response = client.send_request(request).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
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
    let gateway = Gateway::start(|_| ()).await;
    gateway.set("svc", &[info]).await;
    let mut raw = gateway.connect().await;
    raw.write(
        "POST /svc/x HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te\r\nContent-Length: 3\r\n\r\nabc",
    )
    .await;
    let response = raw.read_until(|text| text.ends_with("0\r\n\r\n")).await;
    assert_eq!(status(&response), 200);
    assert!(response.contains("http://a/svc/x 3"), "{response}");
}

#[tokio::test]
async fn a_shutdown_closes_http2_connections() {
    let mut tasks = JoinSet::new();
    let instance = FakeInstance::responding(HELLO).await;
    let mut gateway = Gateway::with("svc", &instance).await;
    let mut client = client(&gateway, &mut tasks).await;
    let request = || Request::get("http://a/svc").body(Full::default()).unwrap();
    client.send_request(request()).await.unwrap().into_body().collect().await.unwrap();
    gateway.begin_shutdown();
    gateway.stopped().await;
    eventually("the connection is closed", async || client.is_closed()).await;
}

#[tokio::test]
async fn the_idle_timeout_applies_to_bodies_but_not_to_grpc_streams() {
    const IDLE: Duration = Duration::from_millis(200);
    let mut tasks = JoinSet::new();
    let info = grpc_instance(&mut tasks).await;
    let gateway = Gateway::start(|config| config.timeouts.idle = IDLE).await;
    gateway.set("svc", &[info]).await;
    for (kind, code) in [("application/grpc", 200), ("application/octet-stream", 408)] {
        let parts = futures_util::stream::unfold(0, async |n| {
            tokio::time::sleep(IDLE * 3 * u32::from(n > 0)).await;
            (n < 3).then(|| (Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"part"))), n + 1))
        });
        let mut client: Client<StreamBody<_>> =
            client_with(&gateway, &mut tasks, Builder::new(TokioExecutor::new())).await;
        let request =
            Request::post("http://a/svc/call").header("te", "trailers").header("content-type", kind);
        let request = request.body(StreamBody::new(Box::pin(parts))).unwrap();
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.status(), code, "{kind}");
        if code == 200 {
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "http://a/svc/call 12");
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_not_read_is_dropped_and_the_others_go_on() {
    let mut tasks = JoinSet::new();
    let instance = FakeInstance::script(|mut raw, seen| async move {
        while let Some(request) = raw.request().await {
            if request.starts_with("GET /svc/short ") {
                raw.write(HELLO).await;
                continue;
            }
            raw.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 1_u64 << 40)).await;
            let part = vec![b'x'; 1 << 16];
            while tokio::io::AsyncWriteExt::write_all(&mut raw.stream, &part).await.is_ok() {}
            seen.lock().unwrap().push("cut off".to_owned());
        }
    })
    .await;
    let gateway = Gateway::start(|config| {
        config.timeouts.idle = Duration::from_millis(300);
        config.timeouts.keep_alive = Duration::from_secs(1);
    })
    .await;
    gateway.set("svc", &[instance.info("svc")]).await;
    let get = |path: &str| Request::get(format!("http://a{path}")).body(Full::default()).unwrap();
    // One response fits its stream's window, the other does not, and is not read. The connection's window is ample.
    let mut builder = Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(1000).initial_connection_window_size(1 << 20);
    let mut client: Client = client_with(&gateway, &mut tasks, builder).await;
    let long = client.send_request(get("/svc/long")).await.unwrap();
    assert_eq!(long.status(), 200);
    eventually("the instance's connection is closed", async || {
        let short = client.send_request(get("/svc/short")).await.unwrap();
        assert_eq!(short.into_body().collect().await.unwrap().to_bytes(), "hello");
        !instance.requests().is_empty()
    })
    .await;
    eventually("nothing is in flight", async || gateway.metric("in_flight", &["svc"]).await == 0).await;
    assert!(long.into_body().collect().await.is_err());
    assert_eq!(gateway.metric("instance_failures", &["svc"]).await, 0);
    // A connection without any progress is closed.
    let mut builder = Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(0);
    let mut client: Client = client_with(&gateway, &mut tasks, builder).await;
    let unread = client.send_request(get("/svc/short")).await.unwrap();
    eventually("the connection is closed", async || client.is_closed()).await;
    assert!(unread.into_body().collect().await.is_err());
}

#[tokio::test]
async fn a_client_that_does_not_read_its_socket_is_closed() {
    let instance = FakeInstance::script(|mut raw, _| async move {
        raw.request().await;
        raw.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 1_u64 << 40)).await;
        let part = vec![b'x'; 1 << 16];
        while tokio::io::AsyncWriteExt::write_all(&mut raw.stream, &part).await.is_ok() {}
    })
    .await;
    let gateway = Gateway::start(|config| config.timeouts.idle = Duration::from_millis(300)).await;
    gateway.set("svc", &[instance.info("svc")]).await;
    // The windows are wide open, but the client's event loop stops once it has the head.
    let addr = gateway.addr;
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let stuck = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let status = runtime.block_on(async move {
            let mut builder = Builder::new(TokioExecutor::new());
            builder.initial_stream_window_size(1 << 30).initial_connection_window_size(1 << 30);
            let stream = TcpStream::connect(addr).await.unwrap();
            let (mut client, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(async move { drop(connection.await) });
            let request = Request::get("http://a/svc").body(Full::<Bytes>::default()).unwrap();
            let response = client.send_request(request).await.unwrap();
            (response.status(), response, client)
        });
        let _ = held.recv(); // until `hold` is dropped
        status.0
    });
    eventually("the request has arrived", async || gateway.metric("requests", &["svc"]).await == 1).await;
    eventually("the connection is closed", async || gateway.metric("connections", &[]).await == 0).await;
    assert_eq!(gateway.metric("in_flight", &["svc"]).await, 0);
    drop(hold);
    assert_eq!(stuck.join().unwrap(), 200);
}

#[tokio::test]
async fn http2_heads_get_the_same_checks() {
    let mut tasks = JoinSet::new();
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::with("svc", &instance).await;
    let mut client = client(&gateway, &mut tasks).await;
    let request = |path: &str, fields: &[(&str, &str)]| {
        let request = Request::post(format!("http://a{path}"));
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(Full::from("abc")).unwrap()
    };
    let many = vec![("a", "b"); 101];
    let long = format!("/svc/{}", "a".repeat(9000));
    for (request, code, cause) in [
        (request(&long, &[]), 414, "target-too-long"),
        (request("/svc", &many), 431, "head-too-large"),
        (request("/svc", &[("content-length", "3"), ("content-length", "3")]), 400, "bad-framing"),
        (request("/svc", &[("content_length", "3")]), 400, "bad-framing"),
        (request("/svc", &[("transfer_encoding", "chunked")]), 400, "bad-framing"),
        (request("/svc/../x", &[]), 400, "bad-target"),
        (request("/svc/.%2e;a/x", &[]), 400, "bad-target"),
        (request("/svc/a%5cb", &[]), 400, "bad-target"),
        (request("/svc/a%00", &[]), 400, "bad-target"),
        (request("/svc/a%2fb", &[]), 400, "bad-target"),
        (request("/svc/%zz", &[]), 400, "bad-target"),
        (request("/svc", &[("host", "b")]), 400, "bad-host"),
        (request("/svc", &[("host", "a"), ("host", "a")]), 400, "bad-host"),
        (request("/Svc", &[]), 404, "no-such-service"),
    ] {
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.status(), code, "{cause}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["cause"], cause);
    }
    assert!(instance.requests().is_empty());
    let most = vec![("a", "b"); 99];
    assert_eq!(client.send_request(request("/svc", &most)).await.unwrap().status(), 200);
    let trace = Request::builder().method("TRACE").uri("http://a/svc").body(Full::default()).unwrap();
    assert_eq!(client.send_request(trace).await.unwrap().status(), 405);
}

#[tokio::test]
async fn the_streams_of_a_connection_are_limited() {
    let mut tasks = JoinSet::new();
    let instance = FakeInstance::script(|mut raw, seen| async move {
        while let Some(request) = raw.request().await {
            seen.lock().unwrap().push(request);
            while !seen.lock().unwrap().iter().any(|entry| entry == "go on") {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            raw.write(HELLO).await;
        }
    })
    .await;
    let gateway = Gateway::start(|config| config.limits.streams = 2).await;
    gateway.set("svc", &[instance.info("svc")]).await;
    let mut first = client(&gateway, &mut tasks).await;
    // The first response comes with the server's settings.
    let other = Request::get("http://a/nowhere").body(Full::default()).unwrap();
    assert_eq!(first.send_request(other).await.unwrap().status(), 404);
    let mut responses = JoinSet::new();
    for _ in 0..5 {
        let mut client = first.clone();
        let request = Request::get("http://a/svc").body(Full::default()).unwrap();
        responses.spawn(async move { client.send_request(request).await.unwrap().status() });
    }
    eventually("the instance has two", async || instance.requests().len() == 2).await;
    assert_eq!(gateway.metric("in_flight", &["svc"]).await, 2);
    instance.seen.lock().unwrap().push("go on".to_owned());
    while let Some(status) = responses.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    assert_eq!(gateway.metric("requests", &["svc"]).await, 5);
}

#[tokio::test]
async fn a_request_that_an_instance_declines_is_retried() {
    let refused_stream: fn([u8; 4]) -> Vec<u8> = |id| [&[0, 0, 4, 3, 0][..], &id, &[0, 0, 0, 7]].concat();
    let goaway: fn([u8; 4]) -> Vec<u8> = |_| [&[0, 0, 8, 7, 0][..], &[0; 12]].concat();
    for answer in [refused_stream, goaway] {
        let mut tasks = JoinSet::new();
        let good = grpc_instance(&mut tasks).await;
        let declining = declining(answer).await;
        let mut info = declining.info("svc");
        info.meta.insert("protocol".to_owned(), "h2c".to_owned());
        let gateway = Gateway::start(|_| ()).await;
        gateway.set("svc", &[good, info]).await;
        let head = "POST /svc/once HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te\r\nContent-Length: 3\r\n\r\nabc";
        eventually("the declining instance was picked", async || {
            let mut raw = gateway.connect().await;
            raw.write(head).await;
            let response = raw.read_until(|text| text.ends_with("0\r\n\r\n") || text.contains("}")).await;
            assert!(response.contains("/svc/once 3"), "{response}");
            !declining.requests().is_empty()
        })
        .await;
    }
}

#[tokio::test]
async fn an_offer_to_upgrade_is_ignored_if_the_instance_speaks_http2() {
    let mut tasks = JoinSet::new();
    let info = grpc_instance(&mut tasks).await;
    let gateway = Gateway::start(|_| ()).await;
    gateway.set("svc", &[info]).await;
    for upgrade in ["websocket", "TLS/1.2", "h2c", "h2c, websocket", "chat/1"] {
        let mut raw = gateway.connect().await;
        for _ in 0..6 {
            raw.write(format!(
                "GET /svc/x HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te, upgrade, HTTP2-Settings\r\n\
                 Upgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABk\r\nSec-WebSocket-Version: 13\r\n\r\n"
            ))
            .await;
            let response = raw.read_until(|text| text.ends_with("0\r\n\r\n") || text.contains('}')).await;
            assert_eq!(status(&response), 200, "{upgrade}: {response}");
        }
    }
    assert_eq!(gateway.metric("instance_failures", &["svc"]).await, 0);
    assert_eq!(gateway.metric("ejections", &["svc"]).await, 0);
}
