//! Who sent an entry, and that a key is only its sender's.

use std::io::Write as _;
use std::net::IpAddr;

use hubspoke_protocol::ServiceInfo;
use hubspoke_testkit::{FakeRegistry, eventually};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};

use super::fixture::{Log, entries, problem, texts};

const KEY: &str = "Idempotency-Key";

/// A client that connects from this address.
fn client_at(addr: &str) -> Client {
    let addr: IpAddr = addr.parse().unwrap();
    Client::builder().no_proxy().local_address(addr).build().unwrap()
}

/// What was accepted: the number of the first entry, and whether it had been stored before.
async fn accepted(reply: Response) -> (u64, bool) {
    assert_eq!(reply.status(), 200);
    let reply: Value = reply.json().await.unwrap();
    (reply["first_seq"].as_u64().unwrap(), reply["duplicate"] == true)
}

async fn send(post: RequestBuilder) -> Response {
    post.send().await.unwrap()
}

#[tokio::test]
async fn a_key_belongs_to_its_sender_and_to_one_content() {
    let log = Log::start().await;
    let post_to = |path: &str, text: &str| log.post(path).header(KEY, "k").body(text.to_owned());
    let post = |text: &str| post_to("/log", text);
    let visit_to = |path: &str, text: &str| post_to(path, text).header("Hub-Source", "visit/visit-1");
    let visit = |text: &str| visit_to("/log", text);
    assert_eq!(accepted(send(post("a")).await).await, (1, false));
    assert_eq!(accepted(send(visit("a")).await).await, (2, false));
    assert_eq!(accepted(send(post("a").header("Hub-Source", "visit/visit-2")).await).await, (3, false));
    assert_eq!(accepted(send(post("a").header("Hub-Source", "visit")).await).await, (4, false));
    // Another connection from the same host is the same sender; another host is not.
    let [same, other] =
        ["127.0.0.1", "127.0.0.2"].map(|addr| client_at(addr).post(format!("{}/log", log.url)));
    assert_eq!(accepted(send(same.header(KEY, "k").body("a")).await).await, (1, true));
    assert_eq!(accepted(send(other.header(KEY, "k").body("a")).await).await, (5, false));

    let reused =
        "this sender has used the key for another content; a key belongs to one request and its retries";
    for conflict in [
        visit("b"),
        visit_to("/log?level=warn", "a"),
        visit_to("/log?source=cart", "a"),
        visit("\"a\"\n\"b\"").header("content-type", "application/x-ndjson"),
        visit("{\"msg\":\"a\",\"user\":7}").header("content-type", "application/json"),
    ] {
        assert_eq!(problem(send(conflict).await, 422).await, reused);
    }
    // A retry may be of another trace, and written in another way.
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for retry in [
        visit("a").header("traceparent", trace),
        visit("\"a\"").header("content-type", "application/json"),
        log.post("/log?key=k").header("Hub-Source", "visit/visit-1").body("a"),
    ] {
        assert_eq!(accepted(send(retry).await).await, (2, true));
    }
    assert_eq!(entries(&log.file()).len(), 5);

    // All this holds after a restart.
    let log = Log::start_in(log.stop().await, |_| {}).await;
    let visit = |text: &str| {
        log.post("/log").header(KEY, "k").header("Hub-Source", "visit/visit-1").body(text.to_owned())
    };
    assert_eq!(accepted(send(visit("a")).await).await, (2, true));
    problem(send(visit("b")).await, 422).await;
    assert_eq!(accepted(send(log.post("/log").header(KEY, "k").body("a")).await).await, (1, true));
    let cart = log.post("/log").header(KEY, "k").header("Hub-Source", "cart").body("a");
    assert_eq!(accepted(send(cart).await).await, (6, false));
    log.stop().await;
}

#[tokio::test]
async fn a_batch_is_compared_as_a_whole() {
    let log = Log::start().await;
    let key = "k".repeat(255);
    let lines = |body: &str| {
        let post = log.post("/log").header(KEY, &key).header("content-type", "application/x-ndjson");
        post.body(body.to_owned())
    };
    assert_eq!(accepted(send(lines("\"a\"\n{\"msg\":\"b\",\"n\":1}")).await).await, (1, false));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"\"a\"\n\n{ \"message\":\"b\", \"n\":1 }\n").unwrap();
    let gzip = lines("").header("content-encoding", "gzip").body(gzip.finish().unwrap());
    assert_eq!(accepted(send(gzip).await).await, (1, true));
    for other in
        ["\"a\"", "\"a\"\n\"b\"", "{\"msg\":\"b\",\"n\":1}\n\"a\"", "\"a\"\n{\"msg\":\"b\",\"n\":1}\n\"c\""]
    {
        problem(send(lines(other)).await, 422).await;
    }
    assert_eq!(texts(&entries(&log.file())), ["a", "b"]);
    let long = log.post("/log").header(KEY, "k".repeat(256)).body("x");
    assert_eq!(problem(send(long).await, 400).await, "Idempotency-Key: must be 1 to 255 bytes");
    log.stop().await;
}

/// A sender that has its answer already relies on it.
#[tokio::test]
async fn without_waiting_for_the_writer_a_reused_key_is_stored_as_new() {
    let log = Log::start_with(|config| config.own.ack = hubspoke_log::store::AckMode::Queued).await;
    for text in ["a", "b", "a"] {
        assert_eq!(send(log.post("/log").header(KEY, "k").body(text)).await.status(), 200);
    }
    log.append("last").await;
    eventually("all are stored", async || texts(&entries(&log.file())) == ["a", "b", "last"]).await;
    log.stop().await;
}

#[tokio::test]
async fn the_sender_is_a_member_or_an_address_and_all_else_is_a_claim() {
    let log = Log::start().await;
    let line = json!({"msg": "line", "source": "visit", "source_id": "visit-1", "client": "10.0.0.1"});
    let posts = [
        log.post("/log").header("Hub-Source", "visit/visit-1").body("member"),
        log.post("/log?source=visit").body("parameter"),
        log.post("/log").header("content-type", "application/json").body(line.to_string()),
        log.post("/log").header("X-Forwarded-For", "10.0.0.1").header("Via", "1.1 gateway").body("forwarded"),
        log.post("/log").header("Hub-Source", "/visit-1").body("no name"),
    ];
    for post in posts {
        assert_eq!(send(post).await.status(), 200);
    }
    let who = |entry: &Value| {
        ["source", "source_id", "client", "claimed"].map(|key| entry[key].as_str().unwrap_or("").to_owned())
    };
    let stored = entries(&log.file());
    assert_eq!(who(&stored[0]), ["visit", "visit-1", "", ""]);
    assert_eq!(who(&stored[1]), ["", "", "127.0.0.1", "visit"]);
    assert_eq!(who(&stored[2]), ["", "", "127.0.0.1", "visit"]);
    assert_eq!(who(&stored[3]), ["", "", "127.0.0.1", ""]);
    assert_eq!(who(&stored[4]), ["", "", "127.0.0.1", ""]);
    assert_eq!(texts(&log.find("/log?source=visit").await), ["member"]);
    assert_eq!(texts(&log.find("/log?claimed=visit").await), ["line", "parameter"]);
    log.stop().await;
}

#[tokio::test]
async fn behind_a_registered_gateway_the_sender_is_the_caller() {
    let registry = FakeRegistry::start().await;
    registry.set("gateway", &[ServiceInfo::new("gateway", "127.0.0.1:20001")]);
    let log = Log::start_with(|config| config.common.registry.url = registry.url()).await;
    registry.registration(1).await;
    let post = |http: &Client, caller: &str| {
        let post = http.post(format!("{}/log", log.url)).header(KEY, "k");
        post.header("X-Forwarded-For", caller).body("a").send()
    };
    let [gateway, stranger] = ["127.0.0.1", "127.0.0.2"].map(client_at);
    eventually("it knows the gateway", async || {
        assert_eq!(post(&gateway, "10.0.0.1").await.unwrap().status(), 200);
        entries(&log.file()).last().unwrap()["client"] == "10.0.0.1"
    })
    .await;
    let before = entries(&log.file()).len();
    for (http, caller, expected) in [
        (&gateway, "10.0.0.1", None),
        (&gateway, "10.0.0.2", Some("10.0.0.2")),
        (&gateway, "203.0.113.7, 10.0.0.2", Some("203.0.113.7, 10.0.0.2")),
        (&stranger, "10.0.0.1", Some("127.0.0.2")),
        (&stranger, "10.0.0.2", None),
    ] {
        let duplicate = accepted(post(http, caller).await.unwrap()).await.1;
        assert_eq!(duplicate, expected.is_none(), "{caller}");
        if let Some(expected) = expected {
            assert_eq!(entries(&log.file()).last().unwrap()["client"], expected);
        }
    }
    assert_eq!(entries(&log.file()).len(), before + 3);
    log.stop().await;
}
