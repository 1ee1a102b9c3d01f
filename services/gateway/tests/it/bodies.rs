//! Bodies: streaming in both directions, trailers, `Expect: 100-continue`, limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::StreamExt;

use super::support::*;

#[tokio::test]
async fn a_body_is_passed_on_while_the_client_is_still_sending() {
    let instance = FakeInstance::script(|mut raw, seen| async move {
        raw.read_until(|text| text.contains("first")).await;
        seen.lock().unwrap().push("first".to_owned());
        raw.read_until(|text| text.ends_with("0\r\n\r\n")).await;
        raw.write(HELLO).await;
        raw.read_to_end().await;
    })
    .await;
    let gateway = Gateway::with("svc", &instance).await;
    let mut raw = gateway.connect().await;
    raw.write("POST /svc HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
    eventually("the instance has the first part", async || !instance.requests().is_empty()).await;
    raw.write("4\r\nlast\r\n0\r\n\r\n").await;
    assert!(raw.response().await.ends_with("hello"));
}

#[tokio::test]
async fn a_response_is_passed_on_while_the_instance_is_still_sending() {
    let instance = FakeInstance::script(|mut raw, seen| async move {
        raw.request().await;
        raw.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
        while seen.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        raw.write("4\r\nlast\r\n0\r\n\r\n").await;
        raw.read_to_end().await;
    })
    .await;
    let gateway = Gateway::with("svc", &instance).await;
    let mut stream = gateway.get("/svc").await.bytes_stream();
    assert_eq!(stream.next().await.unwrap().unwrap(), "first");
    instance.seen.lock().unwrap().push("go on".to_owned());
    assert_eq!(stream.next().await.unwrap().unwrap(), "last");
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn trailers_are_passed_on_in_both_directions() {
    let instance = FakeInstance::responding(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 42\r\n\r\n",
    )
    .await;
    let gateway = Gateway::with("svc", &instance).await;
    let mut raw = gateway.connect().await;
    raw.write(
        "POST /svc HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te\r\nTrailer: x-mine\r\n\
         Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-mine: 7\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n",
    )
    .await;
    let response = raw.read_until(|text| text.ends_with("x-sum: 42\r\n\r\n")).await;
    assert!(response.contains("\r\n0\r\nx-sum: 42\r\n"), "{response}");
    let seen = instance.requests().remove(0);
    assert!(seen.ends_with("\r\n0\r\nx-mine: 7\r\n\r\n"), "{seen}");
}

#[tokio::test]
async fn one_connection_carries_several_requests_with_bodies() {
    let instance = FakeInstance::serve(Router::new().route("/svc", post(async |body: String| body))).await;
    let gateway = Gateway::with("svc", &instance).await;
    let mut raw = gateway.connect().await;
    let post = "POST /svc HTTP/1.1\r\nHost: a\r\n";
    // In one write, so that each body is read together with the next head.
    raw.write(format!(
        "{post}Content-Length: 3\r\n\r\none{post}Transfer-Encoding: chunked\r\n\r\n2\r\ntw\r\n1\r\no\r\n0\r\n\r\n\
         {post}Content-Length: 0\r\n\r\n{post}Content-Length: 4\r\nConnection: close\r\n\r\nlast"
    ))
    .await;
    let responses = raw.read_to_end().await;
    let bodies: Vec<&str> = responses
        .split("HTTP/1.1 200 OK\r\n")
        .skip(1)
        .map(|response| response.split_once("\r\n\r\n").unwrap().1)
        .collect();
    assert_eq!(bodies, ["one", "two", "", "last"], "{responses}");
}

#[tokio::test]
async fn an_http10_client_gets_no_chunked_body() {
    let instance = FakeInstance::responding(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    )
    .await;
    let gateway = Gateway::with("svc", &instance).await;
    let response = gateway.raw("GET /svc HTTP/1.0\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.0 200 OK\r\n") && response.ends_with("\r\n\r\nhello"), "{response}");
    assert_eq!(header(&response, "transfer-encoding"), None, "{response}");
    // It may keep its connection if the response has a length.
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::with("svc", &instance).await;
    let mut raw = gateway.connect().await;
    for _ in 0..2 {
        raw.write("GET /svc HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        let response = raw.response().await;
        assert_eq!(header(&response, "connection").as_deref(), Some("keep-alive"), "{response}");
    }
}

#[tokio::test]
async fn an_instance_may_respond_before_it_has_the_whole_body() {
    let instance = FakeInstance::script(|mut raw, seen| async move {
        loop {
            let head = raw.read_until(|text| text.contains("\r\n\r\n")).await;
            if head.is_empty() {
                return;
            }
            raw.write(HELLO).await;
            let so_far = head.split_once("\r\n\r\n").unwrap().1.len();
            raw.read_until(|rest| so_far + rest.len() >= 300_000).await;
            seen.lock().unwrap().push(head);
        }
    })
    .await;
    let gateway = Gateway::with("svc", &instance).await;
    let mut raw = gateway.connect().await;
    for n in 1..=3 {
        raw.write("POST /svc HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n").await;
        raw.write([b'x'; 1000]).await;
        assert!(raw.response().await.ends_with("hello"));
        // The client may finish sending, and its connection carries the next request.
        raw.write(vec![b'x'; 299_000]).await;
        eventually("the instance has the whole body", async || instance.requests().len() == n).await;
    }
}

#[tokio::test]
async fn a_chunked_response_with_a_content_length_loses_it() {
    let instance = FakeInstance::responding(
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    )
    .await;
    let gateway = Gateway::with("svc", &instance).await;
    let mut raw = gateway.connect().await;
    raw.write("GET /svc HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let response = raw.read_until(|text| text.ends_with("0\r\n\r\n")).await;
    assert_eq!(header(&response, "content-length"), None, "{response}");
    assert_eq!(header(&response, "transfer-encoding").as_deref(), Some("chunked"), "{response}");
    assert!(response.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "{response}");
}

#[tokio::test]
async fn a_get_may_have_a_body() {
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::with("svc", &instance).await;
    let mut raw = gateway.connect().await;
    raw.write("GET /svc HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nquery\r\n0\r\n\r\n")
        .await;
    assert!(raw.response().await.ends_with("hello"));
    raw.write("GET /svc HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nquery").await;
    assert!(raw.response().await.ends_with("hello"));
    let seen = instance.requests();
    assert!(seen[0].ends_with("\r\n\r\n5\r\nquery\r\n0\r\n\r\n"), "{seen:?}");
    assert!(seen[1].ends_with("\r\n\r\nquery"), "{seen:?}");
}

#[tokio::test]
async fn responses_without_a_body_keep_their_content_length_and_the_connection() {
    let instance = FakeInstance::script(|mut raw, _| async move {
        while let Some(request) = raw.request().await {
            let response = match request.split(' ').next().unwrap() {
                "HEAD" => "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n",
                "GET" => "HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\n\r\n",
                _ => "HTTP/1.1 204 No Content\r\n\r\n",
            };
            raw.write(response).await;
        }
    })
    .await;
    let gateway = Gateway::with("svc", &instance).await;
    let mut raw = gateway.connect().await;
    for (method, code) in [("HEAD", 200), ("GET", 304), ("DELETE", 204), ("HEAD", 200)] {
        raw.write(format!("{method} /svc HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let response = raw.read_until(|text| text.ends_with("\r\n\r\n")).await;
        assert_eq!(status(&response), code, "{response}");
        let length = header(&response, "content-length");
        assert_eq!(length.as_deref(), (code == 200).then_some("1000"), "{response}");
    }
}

#[tokio::test]
async fn the_instance_answers_expect_100_continue() {
    let instance = FakeInstance::script(|mut raw, _| async move {
        let head = raw.read_until(|text| text.contains("\r\n\r\n")).await;
        if head.contains("/svc/no") {
            raw.write("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").await;
        } else {
            raw.write("HTTP/1.1 100 Continue\r\n\r\n").await;
            raw.read_until(|text| text.ends_with("body")).await;
            raw.write(HELLO).await;
        }
        raw.read_to_end().await;
    })
    .await;
    let gateway = Gateway::with("svc", &instance).await;
    let head = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    };
    let mut raw = gateway.connect().await;
    raw.write(head("/svc")).await;
    let interim = raw.read_until(|text| text.ends_with("\r\n\r\n")).await;
    assert_eq!(status(&interim), 100);
    raw.write("body").await;
    assert!(raw.response().await.ends_with("hello"));
    let mut raw = gateway.connect().await;
    raw.write(head("/svc/no")).await;
    let response = raw.read_to_end().await;
    assert_eq!(
        (status(&response), header(&response, "connection").as_deref()),
        (401, Some("close")),
        "{response}"
    );
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_by_its_length_or_while_streaming() {
    let taken = Router::new().route("/svc", post(async |body: Bytes| body.len().to_string()));
    let instance = FakeInstance::serve(taken).await;
    let gateway = Gateway::start(|config| {
        config.services.entry("svc".to_owned()).or_default().body_size = Some(bytesize::ByteSize::b(1000));
    })
    .await;
    gateway.set("svc", &[instance.info("svc")]).await;
    let send = async |body: reqwest::Body| gateway.request("POST", "/svc").body(body).send().await.unwrap();
    let streamed = |n: usize| {
        let parts = (0..n).map(|_| Ok::<_, std::io::Error>("0123456789"));
        reqwest::Body::wrap_stream(futures_util::stream::iter(parts))
    };
    assert_eq!(send(vec![b'x'; 1000].into()).await.text().await.unwrap(), "1000");
    assert_eq!(send(vec![b'x'; 1001].into()).await.status(), 413);
    assert_eq!(send(streamed(100)).await.text().await.unwrap(), "1000");
    let response = send(streamed(101)).await;
    assert_eq!(response.status(), 413);
    assert_eq!(response.json::<serde_json::Value>().await.unwrap()["cause"], "body-too-large");
}

#[tokio::test]
async fn a_client_whose_body_is_not_wanted_gets_the_response_and_keeps_its_connection() {
    const SIZE: usize = 20 << 20;
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::start(|config| config.limits.body_size = bytesize::ByteSize::mib(1)).await;
    gateway.set("svc", &[instance.info("svc")]).await;
    for (head, code, cause) in [
        ("POST /nowhere HTTP/1.1\r\nHost: a\r\n", 404, "no-such-service"),
        ("TRACE /svc HTTP/1.1\r\nHost: a\r\n", 405, "method-not-allowed"),
        ("POST /svc HTTP/1.1\r\nHost: a\r\n", 413, "body-too-large"),
    ] {
        let mut raw = gateway.connect().await;
        // Simple clients write the whole request before they read.
        raw.write(format!("{head}Content-Length: {SIZE}\r\n\r\n")).await;
        raw.write(vec![b'x'; SIZE]).await;
        let response = raw.response().await;
        assert_eq!((status(&response), &problem(&response)["cause"]), (code, &cause.into()), "{response}");
        raw.write("GET /svc HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(raw.response().await.ends_with("hello"), "{cause}");
    }
    // Also with Connection: close.
    let mut raw = gateway.connect().await;
    raw.write(format!(
        "POST /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {SIZE}\r\n\r\n"
    ))
    .await;
    raw.write(vec![b'x'; SIZE]).await;
    assert_eq!(status(&raw.read_to_end().await), 404);
    // A body without a length is refused while streaming.
    let mut raw = gateway.connect().await;
    raw.write("POST /svc HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let chunk = [format!("{:x}\r\n", 1 << 20).as_bytes(), &vec![b'x'; 1 << 20], b"\r\n"].concat();
    for _ in 0..20 {
        raw.write(&chunk).await;
    }
    assert_eq!(status(&raw.response().await), 413);
}

#[tokio::test]
async fn a_refused_client_that_expects_100_continue_does_not_get_it() {
    let gateway = Gateway::with("svc", &FakeInstance::responding(HELLO).await).await;
    let response = gateway
        .raw("POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        .await;
    assert_eq!(status(&response), 404, "{response}");
    assert!(!response.contains("100 Continue"), "{response}");
}

#[tokio::test]
async fn large_bodies_are_streamed_in_both_directions() {
    const SIZE: u64 = 200 << 20;
    let sum = Arc::new(AtomicU64::new(0));
    let counted = sum.clone();
    let router = Router::new()
        .route(
            "/svc/up",
            post(async move |body: Body| {
                let mut body = body.into_data_stream();
                while let Some(part) = body.next().await {
                    counted.fetch_add(part.unwrap().len() as u64, Relaxed);
                }
                "done"
            }),
        )
        .route("/svc/down", get(async || Body::from_stream(parts(SIZE))));
    let instance = FakeInstance::serve(router.layer(axum::extract::DefaultBodyLimit::disable())).await;
    let gateway = Gateway::with("svc", &instance).await;
    let up = gateway
        .request("POST", "/svc/up")
        .body(reqwest::Body::wrap_stream(parts(SIZE)))
        .send()
        .await
        .unwrap();
    assert_eq!(up.text().await.unwrap(), "done");
    assert_eq!(sum.load(Relaxed), SIZE);
    let mut down = gateway.get("/svc/down").await.bytes_stream();
    let mut size = 0;
    while let Some(part) = down.next().await {
        size += part.unwrap().len() as u64;
    }
    assert_eq!(size, SIZE);
}

fn parts(size: u64) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static {
    let part = Bytes::from(vec![b'x'; 64 << 10]);
    futures_util::stream::iter((0..size / part.len() as u64).map(move |_| Ok(part.clone())))
}
