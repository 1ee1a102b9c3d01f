//! Interim responses (1xx): which of them clients get.

use hubspoke_testkit::h2::{self, H2Conn};

use super::support::*;

const PROCESSING: &str = "HTTP/1.1 102 Processing\r\n\r\n";
const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nlink: </b.js>\r\ncontent-length: 9\r\n\
                     connection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\r\n";

/// An instance that sends `interim`, waits for `"go on"`, and responds.
async fn hinting(interim: &'static str) -> FakeInstance {
    FakeInstance::script(move |mut raw, seen| async move {
        while let Some(request) = raw.request().await {
            seen.lock().unwrap().push(request);
            raw.write(interim).await;
            while !seen.lock().unwrap().iter().any(|entry| entry == "go on") {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            raw.write(HELLO).await;
        }
    })
    .await
}

fn go_on(instance: &FakeInstance) {
    instance.seen.lock().unwrap().push("go on".to_owned());
}

#[tokio::test]
async fn early_hints_arrive_before_the_response() {
    let instance = hinting([PROCESSING, HINTS].concat().leak()).await;
    let gateway = Gateway::with("svc", &instance).await;
    let mut raw = gateway.connect().await;
    raw.write("GET /svc HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let interim = raw.read_until(|text| text.matches("\r\n\r\n").count() == 2).await;
    let expected = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nlink: </b.js>\r\n\r\n";
    assert_eq!(interim, [PROCESSING, expected].concat());
    go_on(&instance);
    assert_eq!(status(&raw.response().await), 200);
    // The connections are used again, on both sides.
    raw.write("GET /svc HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let responses = raw.read_to_end().await;
    assert!(responses.contains("103 Early Hints") && responses.ends_with("hello"), "{responses}");
    assert_eq!(gateway.metric("connections_opened", &["svc"]).await, 1);
}

#[tokio::test]
async fn early_hints_arrive_over_http2_on_their_own_streams() {
    let instance = hinting([PROCESSING, HINTS].concat().leak()).await;
    let gateway = Gateway::with("svc", &instance).await;
    let mut conn = H2Conn::connect(gateway.addr).await;
    conn.write(
        [h2::head(1, &h2::pseudo("GET", "/svc"), true), h2::head(3, &h2::pseudo("HEAD", "/svc"), true)]
            .concat(),
    )
    .await;
    let mut heads = Vec::new();
    while heads.len() < 4 {
        let frame = conn.read_until(|frame| frame.status().is_some()).await.unwrap();
        heads.push((frame.stream, frame.status().unwrap()));
    }
    heads.sort_unstable();
    assert_eq!(heads, [(1, 102), (1, 103), (3, 102), (3, 103)]);
    go_on(&instance);
    let finals =
        async |conn: &mut H2Conn| conn.read_until(|frame| frame.status() == Some(200)).await.unwrap().stream;
    let mut streams = [finals(&mut conn).await, finals(&mut conn).await];
    streams.sort_unstable();
    assert_eq!(streams, [1, 3]);
    conn.write(h2::head(5, &h2::pseudo("GET", "/svc"), true)).await;
    assert_eq!(conn.response(5).await, (vec![102, 103, 200], b"hello".to_vec(), None));
}

#[tokio::test]
async fn an_http_1_0_client_gets_no_interim_response() {
    let instance = hinting(HINTS).await;
    go_on(&instance);
    let gateway = Gateway::with("svc", &instance).await;
    let response = gateway.raw("GET /svc HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.0 200 OK\r\n") && response.ends_with("hello"), "{response}");
}

#[tokio::test]
async fn a_100_that_nobody_waits_for_is_dropped() {
    let instance = hinting("HTTP/1.1 100 Continue\r\n\r\n").await;
    go_on(&instance);
    let gateway = Gateway::with("svc", &instance).await;
    let mut raw = gateway.connect().await;
    raw.write("POST /svc HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc").await;
    let response = raw.read_to_end().await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    let mut conn = H2Conn::connect(gateway.addr).await;
    conn.write(h2::head(1, &h2::pseudo("GET", "/svc"), true)).await;
    assert_eq!(conn.response(1).await.0, [200]);
}

#[tokio::test]
async fn an_http2_client_is_told_to_continue_by_the_instance() {
    let instance = FakeInstance::script(|mut raw, seen| async move {
        let head = raw.read_until(|text| text.ends_with("\r\n\r\n")).await;
        assert_eq!(header(&head, "expect").as_deref(), Some("100-continue"));
        raw.write("HTTP/1.1 100 Continue\r\n\r\n").await;
        let body = raw.read_until(|text| text.ends_with("abc")).await;
        seen.lock().unwrap().push(body);
        raw.write(HELLO).await;
    })
    .await;
    let gateway = Gateway::with("svc", &instance).await;
    let mut conn = H2Conn::connect(gateway.addr).await;
    let fields =
        [&h2::pseudo("POST", "/svc")[..], &[("expect", "100-continue"), ("content-length", "3")]].concat();
    conn.write(h2::head(1, &fields, false)).await;
    assert_eq!(conn.read_until(|frame| frame.status().is_some()).await.unwrap().status(), Some(100));
    conn.write(h2::frame(h2::kind::DATA, h2::flag::END_STREAM, 1, b"abc")).await;
    assert_eq!(conn.response(1).await, (vec![200], b"hello".to_vec(), None));
    assert_eq!(instance.requests(), ["abc"]);
}

#[tokio::test]
async fn interim_responses_are_bounded() {
    let large: &str = format!("HTTP/1.1 103 Early Hints\r\nlink: {}\r\n\r\n", "x".repeat(30_000)).leak();
    for interim in [PROCESSING.repeat(40), large.repeat(3)] {
        let instance = hinting(interim.leak()).await;
        go_on(&instance);
        let gateway = Gateway::with("svc", &instance).await;
        let response = gateway.raw("GET /svc HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let last = &response[response.rfind("HTTP/1.1 ").unwrap()..];
        assert_eq!((status(last), &problem(last)["cause"]), (502, &"bad-reply".into()));
        assert!(response.len() < 70_000);
    }
}
