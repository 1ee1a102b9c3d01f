//! Instances that speak HTTP/2: how many streams they allow, and what they send before the final response.

use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::SendResponse;
use hubspoke_protocol::ServiceInfo;
use hubspoke_testkit::h2::{self as frames, H2Conn, flag, frame, kind, settings};
use hubspoke_testkit::raw::RawConn;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::support::*;

/// An instance that allows `streams` at a time, and handles each with `handle`.
async fn instance<F>(
    tasks: &mut JoinSet<()>,
    streams: u32,
    handle: impl Fn(http::Request<h2::RecvStream>, SendResponse<Bytes>) -> F + Copy + Send + 'static,
) -> ServiceInfo
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut info = ServiceInfo::new("svc", listener.local_addr().unwrap().to_string());
    info.meta.insert("protocol".to_owned(), "h2c".to_owned());
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            connections.spawn(async move {
                let mut handlers = JoinSet::new();
                let mut builder = h2::server::Builder::new();
                let handshake = builder.max_concurrent_streams(streams).handshake(stream);
                let Ok(mut connection) = handshake.await else { return };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    handlers.spawn(handle(request, respond));
                }
            });
        }
    });
    info
}

fn ok() -> http::Response<()> {
    http::Response::builder().header("content-length", "5").body(()).unwrap()
}

async fn slow(_: http::Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) {
    tokio::time::sleep(Duration::from_millis(400)).await;
    let Ok(mut stream) = respond.send_response(ok(), false) else { return };
    let _ = stream.send_data(Bytes::from_static(b"hello"), true);
}

#[tokio::test]
async fn requests_beyond_an_instances_streams_wait_and_nobody_is_blamed() {
    let mut tasks = JoinSet::new();
    let info = instance(&mut tasks, 1, slow).await;
    let gateway = Gateway::start(|config| {
        config.workers = 1;
        config.timeouts.first_byte = Duration::from_millis(700);
    })
    .await;
    gateway.set("svc", &[info]).await;
    // More than there are connections: the last ones wait for the first.
    for count in [3, 40] {
        let requests = (0..count).map(|_| async {
            let response = gateway.request("POST", "/svc").body("abc").send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        });
        for response in futures_util::future::join_all(requests).await {
            assert_eq!(response, (200, "hello".to_owned()));
        }
    }
    assert_eq!(gateway.metric("instance_failures", &["svc"]).await, 0);
    assert_eq!(gateway.metric("retries", &["svc"]).await, 0);
}

/// An instance that sends `first` on each connection, and answers nothing.
async fn silent(first: Vec<u8>) -> (FakeInstance, ServiceInfo) {
    let instance = FakeInstance::script(move |mut raw: RawConn, _| {
        let first = first.clone();
        async move {
            raw.write(first).await;
            let mut sink = Vec::new();
            let _ = raw.stream.read_to_end(&mut sink).await;
        }
    })
    .await;
    let mut info = instance.info("svc");
    info.meta.insert("protocol".to_owned(), "h2c".to_owned());
    (instance, info)
}

#[tokio::test]
async fn an_instance_that_allows_no_stream_is_overloaded_and_one_without_settings_is_broken() {
    for (first, code, cause, failures) in [
        (frame(kind::SETTINGS, 0, 0, &settings(&[(3, 0)])), 503, "overloaded", 0),
        (Vec::new(), 504, "connect-timeout", 6),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), 502, "connect-failed", 6),
    ] {
        let (_instance, info) = silent(first).await;
        let gateway = Gateway::start(|config| {
            config.timeouts.connect = Duration::from_millis(200);
            config.timeouts.first_byte = Duration::from_millis(300);
            config.timeouts.total = Duration::from_millis(300);
            config.retry.attempts = 0;
        })
        .await;
        gateway.set("svc", &[info]).await;
        for _ in 0..6 {
            let response = gateway.get("/svc").await;
            assert_eq!(response.status(), code);
            let problem: serde_json::Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
            assert_eq!(problem["cause"], cause);
        }
        assert_eq!(gateway.metric("instance_failures", &["svc"]).await, failures, "{cause}");
    }
}

/// Ends its response with an empty frame.
async fn empty_end(_: http::Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
    stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    stream.send_data(Bytes::new(), true).unwrap();
}

#[tokio::test]
async fn an_empty_last_frame_ends_a_response() {
    let mut tasks = JoinSet::new();
    let info = instance(&mut tasks, 100, empty_end).await;
    let gateway = Gateway::start(|_| ()).await;
    gateway.set("svc", &[info]).await;
    let mut conn = H2Conn::connect(gateway.addr).await;
    conn.write(frames::head(1, &frames::pseudo("GET", "/svc"), true)).await;
    assert_eq!(conn.response(1).await, (vec![200], b"hello".to_vec(), None));
    assert!(
        gateway.raw("GET /svc HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.ends_with("0\r\n\r\n")
    );
}

/// Two interim responses, then the final one when the body has come.
async fn hinting(mut request: http::Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) {
    let interim =
        |status: u16| http::Response::builder().status(status).header("link", "</a.css>").body(()).unwrap();
    respond.send_informational(interim(100)).unwrap();
    respond.send_informational(interim(103)).unwrap();
    while let Some(Ok(data)) = request.body_mut().data().await {
        let _ = request.body_mut().flow_control().release_capacity(data.len());
    }
    let mut stream = respond.send_response(ok(), false).unwrap();
    stream.send_data(Bytes::from_static(b"hello"), true).unwrap();
}

#[tokio::test]
async fn interim_responses_of_an_http2_instance_are_passed_on() {
    let mut tasks = JoinSet::new();
    let info = instance(&mut tasks, 100, hinting).await;
    let gateway = Gateway::start(|_| ()).await;
    gateway.set("svc", &[info]).await;
    let response = gateway.raw("GET /svc HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(
        response.starts_with("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\n"),
        "{response}"
    );
    let mut conn = H2Conn::connect(gateway.addr).await;
    conn.write(frames::head(1, &frames::pseudo("GET", "/svc"), true)).await;
    assert_eq!(conn.response(1).await, (vec![103, 200], b"hello".to_vec(), None));
    // A client that waits for 100 Continue gets it at once.
    let began = Instant::now();
    let mut raw = gateway.connect().await;
    raw.write("POST /svc HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
        .await;
    let interim = raw.read_until(|text| text.contains("103") && text.contains("100 Continue\r\n\r\n")).await;
    assert!(began.elapsed() < Duration::from_millis(900), "{interim}");
    raw.write("abc").await;
    assert!(raw.read_to_end().await.ends_with("hello"));
    let fields = [&frames::pseudo("POST", "/svc")[..], &[("expect", "100-continue")]].concat();
    conn.write(frames::head(3, &fields, false)).await;
    assert_eq!(conn.read_until(|frame| frame.status().is_some()).await.unwrap().status(), Some(100));
    conn.write(frame(kind::DATA, flag::END_STREAM, 3, b"abc")).await;
    assert_eq!(conn.response(3).await.0, [103, 200]);
    assert_eq!(gateway.metric("instance_failures", &["svc"]).await, 0);
}

/// A head and trailers of as many kilobytes as the path's last segment says.
async fn large(request: http::Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) {
    let kilobytes: usize = request.uri().path().trim_start_matches("/svc/").parse().unwrap();
    let field = |n| (format!("x-{n}").parse().unwrap(), "v".repeat(960).parse().unwrap());
    let fields: http::HeaderMap = (0..kilobytes).map(field).collect();
    let mut head = http::Response::new(());
    *head.headers_mut() = fields.clone();
    let mut stream = respond.send_response(head, false).unwrap();
    stream.send_data(Bytes::from_static(b"body"), false).unwrap();
    stream.send_trailers(fields).unwrap();
}

#[tokio::test]
async fn heads_and_trailers_may_be_as_large_as_over_http1() {
    let mut tasks = JoinSet::new();
    let info = instance(&mut tasks, 100, large).await;
    let gateway = Gateway::start(|_| ()).await;
    gateway.set("svc", &[info]).await;
    for kilobytes in [1, 17, 60] {
        let mut raw = gateway.connect().await;
        raw.write(format!("GET /svc/{kilobytes} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let response = raw.read_until(|text| text.contains("\r\n0\r\n") && text.ends_with("\r\n\r\n")).await;
        assert_eq!(status(&response), 200);
        assert_eq!(response.matches(&"v".repeat(960)).count(), kilobytes * 2, "{kilobytes}");
    }
    assert_eq!(gateway.metric("instance_failures", &["svc"]).await, 0);
}

/// An HTTP/2 instance that answers each HEADERS frame with `answer` of its stream id.
pub(crate) async fn declining(answer: impl Fn([u8; 4]) -> Vec<u8> + Copy + Send + 'static) -> FakeInstance {
    FakeInstance::script(move |mut raw, seen| async move {
        const PREFACE: usize = 24;
        const HEADERS: u8 = 1;
        raw.write([0, 0, 0, 4, 0, 0, 0, 0, 0]).await; // SETTINGS
        raw.stream.read_exact(&mut [0; PREFACE]).await.unwrap();
        let mut frame = [0; 9];
        while raw.stream.read_exact(&mut frame).await.is_ok() {
            let [_, high, low, kind, _, id @ ..] = frame;
            let mut payload = vec![0; usize::from(u16::from_be_bytes([high, low]))];
            raw.stream.read_exact(&mut payload).await.unwrap();
            if kind == HEADERS {
                seen.lock().unwrap().push(String::new());
                raw.write(answer(id)).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_stream_that_an_instance_resets_for_its_request_does_not_eject_it() {
    let reset = |reason: u8| move |id: [u8; 4]| [&[0, 0, 4, 3, 0][..], &id, &[0, 0, 0, reason]].concat();
    // PROTOCOL_ERROR, ENHANCE_YOUR_CALM, HTTP_1_1_REQUIRED; INTERNAL_ERROR
    for (reason, failures) in [(1, 0), (11, 0), (13, 0), (2, 8)] {
        let instance = declining(reset(reason)).await;
        let mut info = instance.info("svc");
        info.meta.insert("protocol".to_owned(), "h2c".to_owned());
        let gateway = Gateway::start(|config| config.retry.attempts = 0).await;
        gateway.set("svc", &[info]).await;
        for _ in 0..8 {
            assert_eq!(gateway.get("/svc").await.status(), 502);
        }
        assert_eq!(gateway.metric("instance_failures", &["svc"]).await, failures, "{reason}");
    }
}
