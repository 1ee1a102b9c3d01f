//! Redirects to the slash, CORS, compression and the page of services, over HTTP/1 and HTTP/2.

use std::io::Read;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use bytes::Bytes;
use http_body_util::BodyExt;
use hubspoke_gateway::GatewayConfig;
use hubspoke_gateway::config::{CorsConfig, ServiceConfig};
use hubspoke_testkit::DEADLINE;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::callers::{Answer, Caller, read};
use super::support::*;

/// A gateway with the service `shop`.
async fn gateway(instance: &FakeInstance, change: impl FnOnce(&mut ServiceConfig)) -> Gateway {
    let gateway = Gateway::start(|config: &mut GatewayConfig| {
        let mut shop = ServiceConfig::default();
        change(&mut shop);
        config.services.insert("shop".to_owned(), shop);
    })
    .await;
    gateway.set("shop", &[instance.info("shop")]).await;
    gateway
}

#[tokio::test]
async fn a_name_alone_is_redirected_to_its_slash() {
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = gateway(&instance, |shop| shop.slash = true).await;
    let mut tasks = JoinSet::new();
    for mut caller in Caller::both(&gateway, &mut tasks).await {
        let answer = caller.call("POST", "http://hub.test/shop?a=b", &[]).await;
        assert_eq!((answer.status, answer.header("location")), (308, Some("/shop/?a=b")));
        assert!(answer.header("hub-instance").unwrap().starts_with("gateway-"));
        for path in ["hub.test/shop/", "hub.test/shop/a", "shop.localhost/shop", "shop.localhost/"] {
            assert_eq!(caller.call("GET", &format!("http://{path}"), &[]).await.status, 200, "{path}");
        }
    }
    assert_eq!(instance.requests().len(), 8);
}

fn cors(change: impl FnOnce(&mut CorsConfig)) -> CorsConfig {
    let mut cors = CorsConfig::default();
    cors.origins = vec!["https://app.test".to_owned()];
    change(&mut cors);
    cors
}

#[tokio::test]
async fn pages_of_listed_origins_may_use_a_service_and_no_others() {
    let own = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nvary: accept\r\naccess-control-allow-origin: *\r\n\
               access-control-allow-credentials: true\r\n\r\nhello";
    let instance = FakeInstance::responding(own).await;
    let gateway = gateway(&instance, |shop| {
        shop.cors = Some(cors(|cors| {
            cors.credentials = true;
            cors.headers = vec!["x-token".to_owned()];
            cors.expose = vec!["x-total".to_owned()];
        }));
    })
    .await;
    let mut tasks = JoinSet::new();
    let vary = |answer: &Answer| {
        let all = answer.headers.get_all("vary").iter().map(|value| value.to_str().unwrap().to_owned());
        all.collect::<Vec<_>>().join(", ")
    };
    for mut caller in Caller::both(&gateway, &mut tasks).await {
        let ask = [("origin", "https://app.test"), ("access-control-request-method", "PUT")];
        let answer = caller.call("OPTIONS", "http://hub.test/shop/a", &ask).await;
        assert_eq!((answer.status, answer.body.len()), (204, 0));
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.test"));
        assert_eq!(answer.header("access-control-allow-headers"), Some("x-token"));
        let ask = [("origin", "https://evil.test"), ("access-control-request-method", "GET")];
        let answer = caller.call("OPTIONS", "http://hub.test/shop/a", &ask).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, None));
        assert!(vary(&answer).contains("origin"));
        assert_eq!(instance.requests().len(), 0, "preflights are the gateway's");

        let answer = caller.call("GET", "http://shop.localhost/a", &[("origin", "https://app.test")]).await;
        assert_eq!((answer.status, answer.text(), &*vary(&answer)), (200, "hello", "accept, origin"));
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.test"));
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(answer.header("access-control-expose-headers"), Some("x-total"));
        for fields in [&[("origin", "https://evil.test")][..], &[]] {
            let answer = caller.call("GET", "http://hub.test/shop/a", fields).await;
            assert_eq!((answer.status, &*vary(&answer)), (200, "accept, origin"));
            assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("access-control")));
        }
        // Without the page's method it is no preflight.
        let answer = caller.call("OPTIONS", "http://hub.test/shop/", &[("origin", "https://app.test")]).await;
        assert_eq!(answer.text(), "hello");
        instance.seen.lock().unwrap().clear();
    }
    gateway.set("shop", &[]).await;
    for mut caller in Caller::both(&gateway, &mut tasks).await {
        let answer = caller.call("GET", "http://hub.test/shop/a", &[("origin", "https://app.test")]).await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.test"), "it may read why");
    }
}

const PAGE: &str = "the same again and again, ";

fn page() -> String {
    PAGE.repeat(1000)
}

fn unpacked(answer: &Answer) -> String {
    let mut text = String::new();
    match answer.header("content-encoding") {
        Some("gzip") => drop(flate2::read::GzDecoder::new(&*answer.body).read_to_string(&mut text).unwrap()),
        Some("zstd") => text = String::from_utf8(zstd::stream::decode_all(&*answer.body).unwrap()).unwrap(),
        None => answer.text().clone_into(&mut text),
        other => panic!("{other:?}"),
    }
    text
}

async fn pages() -> FakeInstance {
    let html = ("content-type", "text/html; charset=utf-8");
    FakeInstance::serve(
        Router::new()
            .route("/shop/page", get(move || async move { ([html, ("etag", "\"1\"")], page()) }))
            .route("/shop/small", get(move || async move { ([html], "small") }))
            .route("/shop/image", get(|| async { ([("content-type", "image/png")], page()) }))
            .route("/shop/packed", get(move || async move { ([html, ("content-encoding", "br")], page()) }))
            .route("/shop/empty", get(|| async { StatusCode::NO_CONTENT }))
            .route("/shop/missing", get(move || async move { (StatusCode::NOT_FOUND, [html], page()) }))
            .route(
                "/shop/part",
                get(move |headers: HeaderMap| async move {
                    assert_eq!(headers["range"], "bytes=0-999");
                    let part = page().split_off(page().len() - 2000);
                    (StatusCode::PARTIAL_CONTENT, [html, ("content-range", "bytes 0-1999/26000")], part)
                }),
            ),
    )
    .await
}

#[tokio::test]
async fn texts_are_compressed_for_clients_that_accept_it_and_nothing_else_is() {
    let instance = pages().await;
    let gateway = gateway(&instance, |shop| shop.compress = true).await;
    let mut tasks = JoinSet::new();
    for mut caller in Caller::both(&gateway, &mut tasks).await {
        for (accept, coding) in [
            ("gzip, deflate, br, zstd", Some("zstd")),
            ("gzip", Some("gzip")),
            ("br", None),
            ("gzip;q=0", None),
        ] {
            for path in ["page", "missing"] {
                let url = format!("http://hub.test/shop/{path}");
                let answer = caller.call("GET", &url, &[("accept-encoding", accept)]).await;
                assert_eq!(
                    (answer.header("content-encoding"), answer.header("vary")),
                    (coding, Some("accept-encoding"))
                );
                assert_eq!(unpacked(&answer), page());
                assert_eq!(answer.header("content-length").is_none(), coding.is_some());
                if path == "page" {
                    let tag = if coding.is_some() { "W/\"1\"" } else { "\"1\"" };
                    assert_eq!(answer.header("etag"), Some(tag));
                }
                assert!(coding.is_none() || answer.body.len() < 1000, "{}", answer.body.len());
            }
        }
        let accept = [("accept-encoding", "gzip, zstd"), ("range", "bytes=0-999")];
        for (path, length) in
            [("small", 5), ("image", 26_000), ("part", 2000), ("packed", 26_000), ("empty", 0)]
        {
            let answer = caller.call("GET", &format!("http://hub.test/shop/{path}"), &accept).await;
            let own = (path == "packed").then_some("br");
            assert_eq!((answer.header("content-encoding"), answer.body.len()), (own, length), "{path}");
            assert_eq!(answer.header("vary"), None, "{path}");
        }
        let head = caller.call("HEAD", "http://hub.test/shop/page", &accept).await;
        assert_eq!((head.header("content-encoding"), head.header("content-length")), (None, Some("26000")));
        assert_eq!(head.header("etag"), Some("\"1\""));
    }
    // The connection to the instance is used again after each of them.
    assert!(gateway.metric("pooled", &[]).await <= 2);
    assert_eq!(gateway.metric("failures", &["shop"]).await, 0);
}

#[tokio::test]
async fn a_compressed_stream_arrives_as_it_is_sent() {
    let next = Arc::new(Semaphore::new(0));
    let waits = next.clone();
    let stream = move |kind: &'static str| {
        let waits = waits.clone();
        let parts = futures_util::stream::unfold(0, move |n| {
            let waits = waits.clone();
            async move {
                if n > 0 {
                    waits.acquire().await.unwrap().forget();
                }
                (n < 5).then(|| (Ok::<_, std::io::Error>(format!("part {n}\n\n")), n + 1))
            }
        });
        ([("content-type", kind)], Body::from_stream(parts))
    };
    let (text, events) = (stream.clone(), stream);
    let instance = FakeInstance::serve(
        Router::new()
            .route("/shop/text", get(move || async move { text("text/plain") }))
            .route("/shop/events", get(move || async move { events("text/event-stream") })),
    )
    .await;
    let gateway = gateway(&instance, |shop| shop.compress = true).await;
    let mut tasks = JoinSet::new();
    for mut caller in Caller::both(&gateway, &mut tasks).await {
        for (path, coding) in [("text", Some("zstd")), ("text", Some("gzip")), ("events", None)] {
            let accept = [("accept-encoding", coding.unwrap_or("gzip, zstd"))];
            let response = caller.send("GET", &format!("http://hub.test/shop/{path}"), &accept, "").await;
            let encoding = response.headers().get("content-encoding").map(|coding| coding.to_str().unwrap());
            assert_eq!(encoding, coding);
            let (mut body, mut received) = (response.into_body(), Vec::new());
            for n in 0..5 {
                // Nothing more is sent before what was sent has come.
                while !so_far(coding, &received).ends_with(&format!("part {n}\n\n")) {
                    let frame =
                        tokio::time::timeout(DEADLINE, body.frame()).await.expect("it waits in the gateway");
                    received.extend_from_slice(&frame.unwrap().unwrap().into_data().unwrap());
                }
                next.add_permits(1);
            }
            let rest = tokio::time::timeout(DEADLINE, body.collect()).await.unwrap().unwrap().to_bytes();
            received.extend_from_slice(&rest);
            assert_eq!(so_far(coding, &received).lines().count(), 10);
        }
    }
}

/// As much of the text as can be read already.
fn so_far(coding: Option<&str>, bytes: &[u8]) -> String {
    let mut reader: Box<dyn Read + '_> = match coding {
        Some("gzip") => Box::new(flate2::read::GzDecoder::new(bytes)),
        Some("zstd") => Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
        _ => Box::new(bytes),
    };
    let (mut text, mut part) = (Vec::new(), [0; 64]);
    while let Ok(n @ 1..) = reader.read(&mut part) {
        text.extend_from_slice(&part[..n]);
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn trailers_and_a_broken_response_pass_through_a_compressor() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n";
    let instance = FakeInstance::script(move |mut raw, _| async move {
        while let Some(request) = raw.request().await {
            raw.write(head).await;
            raw.write("5\r\nhello\r\n").await;
            if request.contains("/broken") {
                return;
            }
            raw.write("0\r\nx-sum: 1\r\n\r\n").await;
        }
    })
    .await;
    let gateway = gateway(&instance, |shop| shop.compress = true).await;
    let mut tasks = JoinSet::new();
    for mut caller in Caller::both(&gateway, &mut tasks).await {
        let accept = [("accept-encoding", "gzip"), ("te", "trailers")];
        let response = caller.send("GET", "http://hub.test/shop/", &accept, "").await;
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["x-sum"], "1");
        assert_eq!(so_far(Some("gzip"), &body.to_bytes()), "hello");
        let broken = match caller.try_send("GET", "http://hub.test/shop/broken", &accept, "").await {
            Ok(response) => response.into_body().collect().await.map(drop),
            Err(error) => Err(error),
        };
        assert!(broken.is_err(), "it does not look complete");
    }
}

#[tokio::test]
async fn the_page_of_services_lists_those_that_are_public() {
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::start(|config| {
        config.index = true;
        let mut shop = ServiceConfig::default();
        shop.hosts = Some(vec!["www.shop.test".to_owned()]);
        config.services.insert("shop".to_owned(), shop);
    })
    .await;
    gateway.set("shop", &[instance.info("shop")]).await;
    gateway.set("cart", &[]).await;
    let mut tasks = JoinSet::new();
    for mut caller in Caller::both(&gateway, &mut tasks).await {
        let answer = caller.call("GET", "http://localhost:20001/", &[]).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/html; charset=utf-8")));
        assert!(answer.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
        for link in ["/shop/", "//shop.localhost:20001/", "//www.shop.test/", "/cart/"] {
            assert!(answer.text().contains(&format!("<a href=\"{link}\">")), "{link} in {}", answer.text());
        }
        assert!(!answer.text().contains("gateway"));
        assert!(!caller.call("GET", "http://127.0.0.1/", &[]).await.text().contains("localhost"));
        let head = caller.call("HEAD", "http://127.0.0.1/?x", &[]).await;
        assert_eq!((head.status, head.body), (200, Bytes::new()));
        assert_eq!(caller.call("POST", "http://127.0.0.1/", &[]).await.status, 405);
        assert_eq!(caller.call("GET", "http://127.0.0.1/other", &[]).await.status, 404);
        assert_eq!(caller.call("GET", "http://shop.localhost/", &[]).await.text(), "hello");
    }
    let without = Gateway::with("shop", &instance).await;
    for mut caller in Caller::both(&without, &mut tasks).await {
        assert_eq!(read(caller.send("GET", "http://localhost/", &[], "").await).await.status, 404);
    }
}
