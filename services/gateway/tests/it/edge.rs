//! Raw requests: which ones the gateway refuses, and what the instance gets of the others.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::support::*;

/// The expected outcome of a probe.
enum Expect {
    /// The gateway refuses it with this status and cause; the instance gets nothing.
    Refused(u16, &'static str),
    /// The instance gets exactly this, plus the fields that the gateway adds to every request.
    Passed(&'static str),
}
use Expect::{Passed, Refused};

#[tokio::test]
async fn an_invalid_request_is_refused_however_it_is_split_and_a_valid_one_is_passed_on() {
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::with("echo", &instance).await;
    let get = |rest: &str| format!("GET /echo HTTP/1.1\r\n{rest}\r\n");
    let to = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    let probes: Vec<(String, Expect)> = vec![
        // Host
        (get(""), Refused(400, "bad-host")),
        (get("Host: a\r\nHost: a\r\n"), Refused(400, "bad-host")),
        (get("Host: a\r\nhost: b\r\n"), Refused(400, "bad-host")),
        (get("Host: a b\r\n"), Refused(400, "bad-host")),
        (get("Host: a/b\r\n"), Refused(400, "bad-host")),
        (get("Host: user@a\r\n"), Refused(400, "bad-host")),
        (get("Host:\r\n"), Refused(400, "bad-host")),
        (get("Host: a:99999\r\n"), Refused(400, "bad-host")),
        (get("Host: [::1]:80\r\n"), Passed("GET /echo HTTP/1.1\r\nhost: [::1]:80\r\n\r\n")),
        ("GET /echo HTTP/1.0\r\n\r\n".into(), Passed("GET /echo HTTP/1.1\r\nhost: echo\r\n\r\n")),
        // Framing
        (get("Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n"), Refused(400, "bad-framing")),
        (get("Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n"), Refused(400, "bad-framing")),
        (get("Host: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n"), Refused(400, "bad-framing")),
        (get("Host: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n"), Refused(400, "bad-framing")),
        (get("Host: a\r\nContent-Length: +3\r\n"), Refused(400, "bad-framing")),
        (get("Host: a\r\nContent-Length: 3,3\r\n"), Refused(400, "bad-framing")),
        (get("Host: a\r\nTransfer-Encoding: gzip, chunked\r\n"), Refused(501, "transfer-coding")),
        (get("Host: a\r\nTransfer-Encoding: gzip\r\n"), Refused(501, "transfer-coding")),
        (
            get("Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            Refused(501, "transfer-coding"),
        ),
        (get("Host: a\r\nTransfer-Encoding : chunked\r\n"), Refused(400, "bad-framing")),
        (get("Host: a\r\nTransfer-Encoding:\u{b}chunked\r\n"), Refused(400, "bad-framing")),
        (
            "POST /echo HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
            Refused(400, "bad-framing"),
        ),
        (
            "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
                .into(),
            Passed("POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        ),
        (
            "POST /echo HTTP/1.1\r\nHost: a\r\nX-A: \t b \r\nx-a:c\r\nContent-Length:  3 \r\n\r\nabc".into(),
            Passed("POST /echo HTTP/1.1\r\nhost: a\r\nx-a: b\r\nx-a: c\r\ncontent-length: 3\r\n\r\nabc"),
        ),
        (
            "\r\nGET /echo HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, x-b\r\nX-B: 1\r\nUpgrade: h2c\r\n\r\n"
                .into(),
            Passed("GET /echo HTTP/1.1\r\nhost: a\r\n\r\n"),
        ),
        (
            "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n".into(),
            Refused(400, "bad-body"),
        ),
        (
            "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n"
                .into(),
            Refused(400, "bad-body"),
        ),
        (
            "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n".into(),
            Refused(400, "bad-body"),
        ),
        (get("Host: a\r\nContent_Length: 5\r\n"), Refused(400, "bad-framing")),
        // Syntax
        ("GET /echo HTTP/1.1\nHost: a\n\n".into(), Refused(400, "bad-framing")),
        (get("Host: a\r\nX: b\r\n c\r\n"), Refused(400, "bad-framing")),
        (get("Host: a\r\nX: b\0c\r\n"), Refused(400, "bad-framing")),
        (get("Host: a\r\nX : b\r\n"), Refused(400, "bad-framing")),
        (get("Host: a\r\nX\r\n"), Refused(400, "bad-framing")),
        ("GET /echo HTTP/1.2\r\nHost: a\r\n\r\n".into(), Refused(505, "http-version")),
        ("GET /echo HTTP/3.0\r\nHost: a\r\n\r\n".into(), Refused(505, "http-version")),
        ("GET /echo\r\n\r\n".into(), Refused(400, "bad-framing")),
        (
            "\x16\x03\x01\x02\0\x01\0\x01\u{7f}\x03\x03 a TLS hello\r\n\r\n".into(),
            Refused(400, "bad-framing"),
        ),
        // Sizes
        (to(&format!("/echo/{}", "a".repeat(9000))), Refused(414, "target-too-long")),
        (get(&format!("Host: a\r\nX: {}\r\n", "a".repeat(40_000))), Refused(431, "head-too-large")),
        (get(&format!("Host: a\r\n{}", "a: b\r\n".repeat(101))), Refused(431, "head-too-large")),
        // Methods
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n".into(), Refused(405, "method-not-allowed")),
        ("TRACE /echo HTTP/1.1\r\nHost: a\r\n\r\n".into(), Refused(405, "method-not-allowed")),
        ("PURGE /echo HTTP/1.1\r\nHost: a\r\n\r\n".into(), Passed("PURGE /echo HTTP/1.1\r\nhost: a\r\n\r\n")),
        // Targets
        (to("/echo/../other"), Refused(400, "bad-target")),
        (to("/echo/%2e%2E/other"), Refused(400, "bad-target")),
        (to("/echo/.%2e;a/other"), Refused(400, "bad-target")),
        (to("/echo/a%5cb"), Refused(400, "bad-target")),
        (to("/echo/a\\b"), Refused(400, "bad-target")),
        (to("/echo/a%00"), Refused(400, "bad-target")),
        (to("/echo/a%2fb"), Refused(400, "bad-target")),
        (to("/echo/%zz"), Refused(400, "bad-target")),
        (to("/echo#fragment"), Refused(400, "bad-target")),
        (to("echo"), Refused(400, "bad-target")),
        (to("*"), Refused(400, "bad-target")),
        (to("http://user@a/echo"), Refused(400, "bad-target")),
        (to("ftp://a/echo"), Refused(400, "bad-target")),
        (to("http://b:80/echo?x"), Passed("GET /echo?x HTTP/1.1\r\nhost: b:80\r\n\r\n")),
        (to("/echo//a/...?../x"), Passed("GET /echo//a/...?../x HTTP/1.1\r\nhost: a\r\n\r\n")),
        (to("/echo/%252e%252e/x"), Passed("GET /echo/%252e%252e/x HTTP/1.1\r\nhost: a\r\n\r\n")),
    ];
    for (probe, expected) in probes {
        // In one write, and in two: cut after the first byte, in the middle and before the last byte.
        for cut in [probe.len(), 1, probe.len() / 2, probe.len() - 1] {
            let (first, second) = probe.as_bytes().split_at(cut);
            let before = instance.requests().len();
            let mut raw = gateway.connect().await;
            raw.stream.set_nodelay(true).unwrap();
            raw.write(first).await;
            if !second.is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await; // so that mostly they are read separately
                // The first write may have been refused already, and the connection closed.
                drop(raw.stream.write_all(second).await);
            }
            let response = raw.response().await;
            let requests = instance.requests();
            match expected {
                Refused(code, cause) => {
                    assert_eq!(status(&response), code, "{probe:?}: {response}");
                    assert_eq!(problem(&response)["cause"], cause, "{probe:?}: {response}");
                    assert!(header(&response, "hub-instance").unwrap().starts_with("gateway-"), "{response}");
                    assert_eq!(header(&response, "allow").is_some(), code == 405, "{response}");
                    assert_eq!(requests.len(), before, "{probe:?} reached the instance");
                }
                Passed(request) => {
                    assert_eq!(status(&response), 200, "{probe:?}: {response}");
                    assert_eq!(requests.len(), before + 1, "{probe:?}");
                    assert_eq!(sorted(&without_added_fields(requests.last().unwrap())), sorted(request));
                }
            }
        }
    }
}

/// A request without the fields that the gateway adds to every one, which are checked.
fn without_added_fields(seen: &str) -> String {
    let (head, body) = seen.split_once("\r\n\r\n").unwrap();
    let mut added = Vec::new();
    let mut original = Vec::new();
    for line in head.split("\r\n") {
        match line.split_once(": ") {
            Some(("via", value)) => assert!(value.contains(" gateway-"), "{seen}"),
            Some(("traceparent", value)) => assert_eq!(value.len(), 55, "{seen}"),
            Some(("x-forwarded-for", value)) => assert_eq!(value, "127.0.0.1", "{seen}"),
            Some(("x-forwarded-proto", value)) => assert_eq!(value, "http", "{seen}"),
            Some(("x-forwarded-host", value)) => assert_eq!(header(seen, "host").as_deref(), Some(value)),
            _ => {
                original.push(line);
                continue;
            }
        }
        added.push(line.split_once(": ").unwrap().0);
    }
    added.sort_unstable();
    added.retain(|name| *name != "x-forwarded-host"); // HTTP/1.0 needs no Host
    assert_eq!(added, ["traceparent", "via", "x-forwarded-for", "x-forwarded-proto"], "{seen}");
    original.join("\r\n") + "\r\n\r\n" + body
}

/// The request line, the sorted fields, and the body.
fn sorted(request: &str) -> (String, Vec<String>, String) {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut lines = head.split("\r\n").map(str::to_owned);
    let first = lines.next().unwrap();
    let mut fields: Vec<_> = lines.collect();
    fields.sort();
    (first, fields, body.to_owned())
}

#[tokio::test]
async fn a_pipelined_request_is_answered_before_the_invalid_one_after_it() {
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::with("echo", &instance).await;
    let good = "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n";
    let smuggled =
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let response = gateway.raw(format!("{good}{smuggled}{good}")).await;
    let (first, second) = response.split_at(response.find("hello").unwrap() + 5);
    assert_eq!((status(first), status(second)), (200, 400), "{response}");
    assert_eq!(problem(second)["cause"], "bad-framing");
    assert_eq!(instance.requests().len(), 1);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::with("echo", &instance).await;
    let mut text: String = (0..20).map(|n| format!("GET /echo/{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    text += "GET /echo/last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let response = gateway.raw(text).await;
    assert_eq!(response.matches("HTTP/1.1 200 OK").count(), 21, "{response}");
    let seen: Vec<_> = instance.requests().iter().map(|r| r.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(seen.first().map(String::as_str), Some("/echo/0"));
    assert_eq!(seen.last().map(String::as_str), Some("/echo/last"));
    assert_eq!(seen.len(), 21);
}

#[tokio::test]
async fn options_asterisk_is_for_the_gateway_itself() {
    let gateway = Gateway::start(|_| ()).await;
    let response = gateway.raw("OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&response), 204);
    assert!(header(&response, "allow").unwrap().contains("PATCH"));
}

#[tokio::test]
async fn hop_by_hop_fields_are_removed_in_both_directions() {
    let instance = FakeInstance::responding(
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: x-internal\r\nx-internal: 1\r\nkeep-alive: timeout=9\r\n\
         x-public: 1\r\n\r\nhello",
    )
    .await;
    let gateway = Gateway::with("echo", &instance).await;
    let response = gateway
        .raw(
            "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close, X-Secret, te\r\nX-Secret: 1\r\nTE: trailers, gzip\r\n\
             Keep-Alive: 1\r\nProxy-Connection: keep-alive\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Prefix: /x\r\n\r\n",
        )
        .await;
    assert_eq!(status(&response), 200);
    assert_eq!(header(&response, "x-internal"), None);
    assert_eq!(header(&response, "keep-alive"), None);
    assert_eq!(header(&response, "x-public").as_deref(), Some("1"));
    let seen = instance.requests().remove(0);
    for gone in ["x-secret", "keep-alive", "proxy-connection", "x-forwarded-prefix"] {
        assert_eq!(header(&seen, gone), None, "{seen}");
    }
    assert_eq!(header(&seen, "te").as_deref(), Some("trailers"));
    assert_eq!(header(&seen, "x-forwarded-for").as_deref(), Some("127.0.0.1"));
}

#[tokio::test]
async fn a_request_with_this_gateway_in_via_is_a_loop() {
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::with("echo", &instance).await;
    gateway.get("/echo").await;
    let via = header(&instance.requests()[0], "via").unwrap();
    let response =
        gateway.request("GET", "/echo").header("via", format!("1.1 other, {via}")).send().await.unwrap();
    assert_eq!(response.status(), 508);
}
