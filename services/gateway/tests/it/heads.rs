//! HTTP/2 heads as raw frames: what is refused, and what a response without a body looks like.

use std::time::Duration;

use hubspoke_testkit::h2::{self, Frame, H2Conn, flag, kind};

use super::support::*;

/// A path, further fields, and the status.
type Probe<'a> = (&'a str, &'a [(&'a str, &'a str)], u16);

/// Sends a request, and returns all frames of its stream, to its end or reset.
async fn frames(conn: &mut H2Conn, stream: u32, fields: &[(&str, &str)]) -> Vec<Frame> {
    conn.write(h2::head(stream, fields, true)).await;
    let mut frames = Vec::new();
    while let Some(frame) =
        conn.read_until(|frame| frame.stream == stream || frame.kind == kind::GOAWAY).await
    {
        let is_last = matches!(frame.kind, kind::RST_STREAM | kind::GOAWAY)
            || matches!(frame.kind, kind::DATA | kind::HEADERS) && frame.flags & flag::END_STREAM != 0;
        frames.push(frame);
        if is_last {
            break;
        }
    }
    frames
}

#[tokio::test]
async fn a_response_to_head_has_no_data_whoever_makes_it() {
    let instance = FakeInstance::responding("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").await;
    let gateway = Gateway::start(|config| {
        config.services.entry("full".to_owned()).or_default().in_flight = Some(0);
        config.timeouts.connect = Duration::from_millis(200);
    })
    .await;
    let closed = ClosedPort::new();
    let refusing = hubspoke_protocol::ServiceInfo::new("dead", closed.addr().to_string());
    gateway.set("svc", &[instance.info("svc")]).await;
    gateway.set("empty", &[]).await;
    gateway.set("full", &[instance.info("full")]).await;
    gateway.set("dead", &[refusing]).await;
    let mut conn = H2Conn::connect(gateway.addr).await;
    let long = format!("/svc/{}", "a".repeat(9000));
    let causes: &[Probe<'_>] = &[
        ("/svc", &[], 200),
        ("/nosuch", &[], 404),
        ("/svc/..", &[], 400),
        ("/svc", &[("host", "b")], 400),
        ("/svc", &[("content_length", "1")], 400),
        (&long, &[], 414),
        ("/empty", &[], 503),
        ("/full", &[], 503),
        ("/dead", &[], 502),
    ];
    for (at, (path, fields, code)) in causes.iter().enumerate() {
        let stream = u32::try_from(at).unwrap() * 2 + 1;
        let fields = [&h2::pseudo("HEAD", path)[..], fields].concat();
        let frames = frames(&mut conn, stream, &fields).await;
        assert_eq!(frames.len(), 1, "{path}: {frames:?}");
        assert_eq!(frames[0].status(), Some(*code), "{path}");
    }
    // The same paths do have data with another method.
    let get = frames(&mut conn, 99, &h2::pseudo("GET", "/nosuch")).await;
    assert!(get.iter().any(|frame| frame.kind == kind::DATA && !frame.payload.is_empty()));
    let options = frames(&mut conn, 101, &h2::pseudo("OPTIONS", "*")).await;
    assert_eq!((options.len(), options[0].status()), (1, Some(204)));
}

#[tokio::test]
async fn statuses_without_a_body_have_none_over_http2() {
    for (response, code) in [
        ("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", 204),
        ("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", 304),
    ] {
        let instance = FakeInstance::responding(response).await;
        let gateway = Gateway::with("svc", &instance).await;
        let mut conn = H2Conn::connect(gateway.addr).await;
        let frames = frames(&mut conn, 1, &h2::pseudo("GET", "/svc")).await;
        assert_eq!((frames.len(), frames[0].status()), (1, Some(code)));
    }
}

#[tokio::test]
async fn http2_requests_are_held_to_the_rules_of_http1() {
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::with("svc", &instance).await;
    let get = h2::pseudo("GET", "/svc");
    let with = |fields: &[(&'static str, &'static str)]| [&get[..], fields].concat();
    let instead = |name: &str, value: &'static str| {
        get.iter().map(|(other, old)| (*other, if *other == name { value } else { *old })).collect::<Vec<_>>()
    };
    let refused = [
        with(&[("content-length", "")]),
        with(&[("content-length", " ")]),
        with(&[("content-length", "+0")]),
        with(&[("content-length", "-0")]),
        with(&[("content-length", "0x0")]),
        with(&[("content-length", "0,0")]),
        with(&[("content-length", "0, 0")]),
        with(&[("content-length", "0 ")]),
        with(&[("content-length", " 0")]),
        with(&[("content-length", "0"), ("content-length", "0")]),
        with(&[("content-length", ""), ("content-length", "0")]),
        with(&[("content-length", "99999999999999999999")]),
        with(&[("content-length", "18446744073709551615")]),
        with(&[("content-length", "18446744073709551614")]),
        with(&[("content_length", "0")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("transfer_encoding", "chunked")]),
        with(&[("x", " leading")]),
        with(&[("x", "trailing\t")]),
        with(&[("x", "a\rb")]),
        with(&[("te", "gzip")]),
        with(&[("te", "trailers, gzip")]),
        with(&[("host", "b")]),
        with(&[("host", "a"), ("host", "a")]),
        with(&[("host", "a:80")]),
        with(&[("host", "x@a")]),
        instead(":authority", "x@a"),
        instead(":authority", ":y@a"),
        instead(":authority", "a b"),
        instead(":authority", "a/b"),
        instead(":authority", "a?b"),
        instead(":authority", "a:99999"),
        instead(":authority", "a:+1"),
        instead(":authority", ""),
        instead(":scheme", "ftp"),
        instead(":scheme", ""),
        instead(":path", "svc"),
        instead(":path", "*"),
        instead(":path", "http://a/svc"),
        instead(":path", "/svc x"),
        instead(":path", "/svc\tx"),
        instead(":path", "/svc\u{7f}"),
        instead(":path", "/svc/%00"),
        instead(":path", "/svc\\x"),
        instead(":path", "/svc/../x"),
        instead(":path", "/svc/%"),
        instead(":method", "CONNECT"),
        instead(":method", "TRACE"),
        instead(":method", "G T"),
        instead(":method", ""),
    ];
    for fields in &refused {
        let mut conn = H2Conn::connect(gateway.addr).await;
        let frames = frames(&mut conn, 1, fields).await;
        let is_refused = frames.iter().any(|frame| {
            frame.status().is_some_and(|status| (400..500).contains(&status)) || frame.error_code().is_some()
        });
        assert!(is_refused || frames.is_empty(), "{fields:?}: {frames:?}");
        assert_eq!(instance.requests(), Vec::<String>::new(), "{fields:?}");
    }
    for fields in [
        with(&[("content-length", "0")]),
        with(&[("content-length", "00")]),
        with(&[("host", "A")]),
        with(&[("te", "trailers")]),
        with(&[("x", "a b"), ("y", "")]),
        instead(":scheme", "https"),
        instead(":authority", "[::1]:80"),
        instead(":path", "/svc?a=b c".trim_end_matches(" c")),
    ] {
        let mut conn = H2Conn::connect(gateway.addr).await;
        let frames = frames(&mut conn, 1, &fields).await;
        assert_eq!(frames[0].status(), Some(200), "{fields:?}");
    }
    assert!(instance.requests().iter().all(|request| header(request, "transfer-encoding").is_none()));
}
