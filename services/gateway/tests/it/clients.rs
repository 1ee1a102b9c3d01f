//! What one client address may take of a service, and that others get the rest.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::support::*;

const GET: &str = "GET /svc HTTP/1.1\r\nHost: a\r\n\r\n";

/// A connection from one of this machine's addresses.
async fn stream_from(gateway: &Gateway, addr: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{addr}:0").parse().unwrap()).unwrap();
    socket.connect(gateway.addr).await.unwrap()
}

async fn raw_from(gateway: &Gateway, addr: &str, bytes: &str) -> RawConn {
    let mut raw = RawConn { stream: stream_from(gateway, addr).await };
    raw.write(bytes).await;
    raw
}

async fn gateway_with(instance: &FakeInstance, in_flight: usize, client_in_flight: usize) -> Gateway {
    let gateway = Gateway::start(|config| {
        config.limits.client_in_flight = client_in_flight;
        config.services.entry("svc".to_owned()).or_default().in_flight = Some(in_flight);
        config.trusted_proxies = vec!["127.0.0.9/32".parse().unwrap()];
    })
    .await;
    gateway.set("svc", &[instance.info("svc")]).await;
    gateway
}

fn assert_refused(response: &str) {
    assert_eq!((status(response), &problem(response)["cause"]), (429, &"client-overloaded".into()));
    assert_eq!(header(response, "retry-after").as_deref(), Some("1"));
}

#[tokio::test]
async fn one_address_at_its_limit_leaves_others_their_service() {
    let instance = silent().await;
    let gateway = gateway_with(&instance, 10, 100).await;
    let mut held = Vec::new();
    for n in 1..=5 {
        held.push(raw_from(&gateway, "127.0.0.2", GET).await);
        eventually("it is in flight", async || instance.requests().len() == n).await;
    }
    assert_refused(&raw_from(&gateway, "127.0.0.2", GET).await.response().await);
    // Others get the other half, and one of them alone gets no more than that.
    let quick = GET.replace("/svc", "/svc/quick");
    for addr in ["127.0.0.3", "127.0.0.4"] {
        let response = raw_from(&gateway, addr, &quick).await.response().await;
        assert_eq!(status(&response), 200, "{response}");
    }
    held.pop();
    eventually("its place is free again", async || {
        status(&raw_from(&gateway, "127.0.0.2", &quick).await.response().await) == 200
    })
    .await;
    assert_eq!(gateway.metric("instance_failures", &["svc"]).await, 0);
}

#[tokio::test]
async fn the_streams_of_an_address_count_together() {
    let instance = silent().await;
    let gateway = gateway_with(&instance, 1000, 6).await;
    let mut tasks = JoinSet::new();
    let mut requests = JoinSet::new();
    // Bodies that never begin, as gRPC streams may: the instance does not speak HTTP/2.
    for _ in 0..2 {
        let (sender, connection): (SendRequest<StreamBody<_>>, _) = Builder::new(TokioExecutor::new())
            .handshake(TokioIo::new(stream_from(&gateway, "127.0.0.2").await))
            .await
            .unwrap();
        tasks.spawn(async move { drop(connection.await) });
        for _ in 0..5 {
            let mut sender = sender.clone();
            let pending =
                futures_util::stream::pending::<Result<hyper::body::Frame<Bytes>, std::io::Error>>();
            let request = Request::post("http://a/svc/call").header("content-type", "application/grpc");
            let request = request.body(StreamBody::new(pending)).unwrap();
            requests.spawn(async move { sender.send_request(request).await.unwrap().status().as_u16() });
        }
    }
    for _ in 0..4 {
        assert_eq!(requests.join_next().await.unwrap().unwrap(), 429);
    }
    assert_eq!(gateway.metric("in_flight", &["svc"]).await, 6);
    assert_refused(&raw_from(&gateway, "127.0.0.2", GET).await.response().await);
    let quick = GET.replace("/svc", "/svc/quick");
    assert_eq!(status(&raw_from(&gateway, "127.0.0.3", &quick).await.response().await), 200);
}

#[tokio::test]
async fn only_a_service_that_speaks_http2_has_streams_without_a_timeout() {
    let instance = silent().await;
    let gateway = Gateway::start(|config| config.timeouts.idle = Duration::from_millis(300)).await;
    gateway.set("svc", &[instance.info("svc")]).await;
    let (mut sender, connection): (SendRequest<StreamBody<_>>, _) = Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(TcpStream::connect(gateway.addr).await.unwrap()))
        .await
        .unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(connection.await) });
    let pending = futures_util::stream::pending::<Result<hyper::body::Frame<Bytes>, std::io::Error>>();
    let request = Request::post("http://a/svc/call").header("content-type", "application/grpc");
    let response = sender.send_request(request.body(StreamBody::new(pending)).unwrap()).await.unwrap();
    assert_eq!(response.status(), 408);
    assert_eq!(gateway.metric("instance_failures", &["svc"]).await, 0);
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_counts_as_itself() {
    let instance = silent().await;
    let gateway = gateway_with(&instance, 1000, 2).await;
    let from = |client: &str, path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6, {client}\r\n\r\n")
    };
    let mut held = Vec::new();
    for (n, client) in ["2001:db8::1", "[2001:db8::2]:4711"].iter().enumerate() {
        held.push(raw_from(&gateway, "127.0.0.9", &from(client, "/svc")).await);
        eventually("it is in flight", async || instance.requests().len() == n + 1).await;
    }
    // Any address of the same /64.
    let response = raw_from(&gateway, "127.0.0.9", &from("2001:db8::ffff:3", "/svc")).await.response().await;
    assert_refused(&response);
    for other in ["2001:db8:0:1::1", "203.0.113.7"] {
        let response = raw_from(&gateway, "127.0.0.9", &from(other, "/svc/quick")).await.response().await;
        assert_eq!(status(&response), 200, "{response}");
    }
    // An untrusted client can't claim to be another.
    for _ in 0..2 {
        held.push(raw_from(&gateway, "127.0.0.2", &from("203.0.113.8", "/svc")).await);
    }
    eventually("they are in flight", async || instance.requests().len() == 4).await;
    assert_refused(&raw_from(&gateway, "127.0.0.2", &from("203.0.113.9", "/svc")).await.response().await);
    // The proxy's own requests, which have no other address, are not limited.
    for n in 5..=7 {
        held.push(raw_from(&gateway, "127.0.0.9", GET).await);
        eventually("it is in flight", async || instance.requests().len() == n).await;
    }
}

#[tokio::test]
async fn tails_and_upgraded_connections_count() {
    let instance = FakeInstance::script(|mut raw, _| async move {
        while let Some(request) = raw.request().await {
            if request.starts_with("GET /svc/quick ") {
                raw.write(HELLO).await;
            } else if request.starts_with("GET /svc/tail ") {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n:\n\n";
                raw.write(head).await;
            } else {
                let head = "HTTP/1.1 101 Switching Protocols\r\nupgrade: chat\r\nconnection: upgrade\r\n\r\n";
                raw.write(head).await;
            }
        }
    })
    .await;
    let gateway = gateway_with(&instance, 1000, 2).await;
    let tail = GET.replace("/svc", "/svc/tail");
    let upgrade = GET.replace("\r\n\r\n", "\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n");
    let mut tail = raw_from(&gateway, "127.0.0.2", &tail).await;
    assert!(tail.read_until(|text| text.contains(":\n\n")).await.contains("text/event-stream"));
    let mut upgraded = raw_from(&gateway, "127.0.0.2", &upgrade).await;
    assert_eq!(status(&upgraded.response().await), 101);
    assert_refused(&raw_from(&gateway, "127.0.0.2", GET).await.response().await);
    drop(upgraded);
    let quick = GET.replace("/svc", "/svc/quick");
    eventually("its place is free again", async || {
        status(&raw_from(&gateway, "127.0.0.2", &quick).await.response().await) == 200
    })
    .await;
    drop(tail);
    let (mut sender, connection): (SendRequest<Empty<Bytes>>, _) = Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(stream_from(&gateway, "127.0.0.2").await))
        .await
        .unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(connection.await) });
    eventually("a stream gets it", async || {
        let request = Request::get("http://a/svc/quick").body(Empty::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        response.status() == 200 && response.into_body().collect().await.is_ok()
    })
    .await;
}
