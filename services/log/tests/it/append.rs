//! `POST /log` and `POST /v1/logs`.

use std::io::Write as _;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use hubspoke_testkit::{RawConn, eventually};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use super::fixture::{Log, entries, problem, texts};

#[tokio::test]
async fn any_text_is_one_entry_and_the_reply_has_its_sequence_number() {
    let log = Log::start().await;
    for (n, text) in ["hello", "{\"ts\":\"forged\"}\n{\"seq\":1}", "ü\u{0}\u{7f}"].into_iter().enumerate() {
        let reply = log.post("/log").body(text).send().await.unwrap();
        assert_eq!(reply.status(), 200);
        assert!(reply.headers().contains_key("hub-instance"));
        let seq = n + 1;
        assert_eq!(
            reply.json::<Value>().await.unwrap(),
            json!({"accepted": 1, "first_seq": seq, "last_seq": seq})
        );
        assert_eq!(entries(&log.file())[n]["msg"], text, "acknowledged, so it is in the file");
    }
    assert_eq!(entries(&log.file()).len(), 3);
    log.stop().await;
}

#[tokio::test]
async fn sender_trace_level_and_bytes_are_stored() {
    let log = Log::start().await;
    let reply = log
        .post("/log?level=WARN&source=back+up")
        .header("Hub-Source", "visit/visit-1a2b")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .body(b"caf\xe9".to_vec())
        .send()
        .await
        .unwrap();
    assert_eq!(reply.status(), 200);
    let entry = &entries(&log.file())[0];
    for (key, value) in [
        ("source", "visit"),
        ("source_id", "visit-1a2b"),
        ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("level", "warn"),
        ("claimed", "back up"),
        ("msg", "caf\u{fffd}"),
        ("msg_base64", "Y2Fm6Q=="),
    ] {
        assert_eq!(entry[key], value, "{entry}");
    }
    assert_eq!(entry["ts"].as_str().unwrap().len(), 27);
    log.stop().await;
}

#[tokio::test]
async fn invalid_requests_are_refused_with_the_reason() {
    let log = Log::start_with(|config| {
        config.own.max_entry = ByteSize::b(100);
        config.own.max_batch = ByteSize::b(1_000);
    })
    .await;
    let empty = log.post("/log").body("").send().await.unwrap();
    assert_eq!(problem(empty, 400).await, "the entry is empty");
    let long = log.post("/log").body("x".repeat(101)).send().await.unwrap();
    assert_eq!(problem(long, 413).await, "the body is longer than 100 bytes");
    assert_eq!(log.post("/log").body("x".repeat(100)).send().await.unwrap().status(), 200);
    problem(log.append_lines("\n".repeat(1_001)).await, 413).await;
    let header =
        |name: &'static str, value: &'static str| log.post("/log").header(name, value).body("x").send();
    problem(header("Idempotency-Key", "").await.unwrap(), 400).await;
    problem(header("content-encoding", "br").await.unwrap(), 415).await;
    problem(header("content-encoding", "gzip").await.unwrap(), 400).await;
    problem(log.post("/log?level=loud").body("x").send().await.unwrap(), 400).await;
    for (query, reason) in [
        ("lvl=warn", "lvl: unknown parameter; the known ones are level, source, trace_id and key"),
        ("source=", "source: must be 1 to 200 bytes"),
        ("trace_id=4bf9", "trace_id: must be 32 lower-case hexadecimal digits, not all zero"),
        ("key=", "key: must be 1 to 255 bytes"),
    ] {
        let reply = log.post(&format!("/log?{query}")).body("x").send().await.unwrap();
        assert_eq!(problem(reply, 400).await, reason);
    }
    let two = log.post("/log?key=b").header("Idempotency-Key", "a").body("x").send().await.unwrap();
    assert_eq!(problem(two, 400).await, "key: the request has another Idempotency-Key");
    problem(log.http.put(format!("{}/log", log.url)).send().await.unwrap(), 405).await;
    problem(log.get("/nowhere").send().await.unwrap(), 404).await;
    assert_eq!(entries(&log.file()).len(), 1);
    log.stop().await;
}

#[tokio::test]
async fn batches_are_stored_together_and_invalid_lines_are_reported_one_by_one() {
    let log = Log::start().await;
    let body = "\"one\"\n{\"msg\":\"two\",\"level\":\"error\",\"user\":7}\n{broken\n{\"three\":3}\n";
    let reply = log.append_lines(body.to_owned()).await;
    assert_eq!(reply.status(), 200);
    let reply: Value = reply.json().await.unwrap();
    assert_eq!((&reply["accepted"], &reply["last_seq"]), (&json!(3), &json!(3)));
    assert_eq!((&reply["failed"][0]["line"], &reply["failed"][0]["status"]), (&json!(3), &json!(400)));
    let stored = entries(&log.file());
    assert_eq!(texts(&stored), ["one", "two", "{\"three\":3}"]);
    assert_eq!(stored[1]["fields"], json!({"user": 7}));

    let list =
        log.post("/log").header("content-type", "application/json").body("[\"four\", {\"msg\":\"five\"}]");
    assert_eq!(list.send().await.unwrap().status(), 200);
    assert_eq!(texts(&entries(&log.file()))[3..], ["four", "five"]);
    let invalid = log.append_lines("{\n{\n".to_owned()).await;
    assert_eq!(invalid.status(), 400);
    assert_eq!(invalid.json::<Value>().await.unwrap()["failed"].as_array().unwrap().len(), 2);
    log.stop().await;
}

#[tokio::test]
async fn a_small_body_of_very_many_entries_is_refused_valid_or_not() {
    let log = Log::start().await;
    for line in ["1\n", "{\n"] {
        let reply = log.append_lines(line.repeat(4 << 20)).await;
        assert_eq!(problem(reply, 413).await, "the batch has more than 10000 entries");
    }
    let list = format!("[{}1]", "1,".repeat(4 << 20 >> 1));
    let reply = log.post("/log").header("content-type", "application/json").body(list);
    problem(reply.send().await.unwrap(), 413).await;
    let records = [&[0x0a, 6, 0x12, 4, 0x12, 0, 0x12, 0][..]; 5_001].concat();
    let reply = log.post("/v1/logs").header("content-type", "application/x-protobuf").body(records);
    problem(reply.send().await.unwrap(), 413).await;
    // 640,000 empty messages, which take two bytes each, and a hundred megabytes decoded.
    let messages = [0x0a, 0].repeat(640_000);
    let reply = log.post("/v1/logs").header("content-type", "application/x-protobuf").body(messages);
    problem(reply.send().await.unwrap(), 413).await;
    let members = format!("{{\"msg\":\"m\"{}}}\n", ",\"\":1".repeat(5_000));
    problem(log.append_lines(members).await, 400).await;
    assert!(entries(&log.file()).is_empty());

    let reply = log.append_lines("{\n".repeat(10_000)).await;
    assert_eq!(reply.status(), 400);
    let reply: Value = reply.json().await.unwrap();
    assert_eq!((reply["failed"].as_array().unwrap().len(), &reply["failed_count"]), (100, &json!(10_000)));
    let reply = log.append_lines("1\n".repeat(9_000) + &"{\n".repeat(1_000)).await;
    assert_eq!(reply.status(), 200);
    let reply: Value = reply.json().await.unwrap();
    assert_eq!((&reply["accepted"], &reply["failed_count"]), (&json!(9_000), &json!(1_000)));
    log.stop().await;
}

/// A connection that has sent the head of a request with a body of this length, and nine bytes of it.
async fn half_sent(log: &Log, length: usize) -> RawConn {
    let mut conn = RawConn::connect(log.url.strip_prefix("http://").unwrap()).await;
    let head = "POST /log HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson";
    conn.write(format!("{head}\r\nContent-Length: {length}\r\n\r\n{}", "\n".repeat(9))).await;
    conn
}

#[tokio::test]
async fn the_bodies_in_progress_share_a_bound() {
    let log = Log::start_with(|config| {
        config.own.max_batch = ByteSize::mib(1);
        config.own.max_bodies = ByteSize::mib(2);
    })
    .await;
    let post = || log.post("/log").header("content-type", "application/x-ndjson");
    let large = || post().body("1".to_owned() + &"\n".repeat(200 << 10)).send();
    // Small on the wire, large once it is decompressed.
    let body = zstd::bulk::compress(("1".to_owned() + &"\n".repeat(500 << 10)).as_bytes(), 3).unwrap();
    let compressed = || post().header("content-encoding", "zstd").body(body.clone()).send();
    assert_eq!(
        (large().await.unwrap().status(), compressed().await.unwrap().status()),
        (StatusCode::OK, StatusCode::OK)
    );

    // These reserve memory for the length that they have announced, although hardly any of it has come.
    let first = half_sent(&log, 1_048_576).await;
    let second = half_sent(&log, 800_000).await;
    eventually_refused(compressed).await;
    assert_eq!(large().await.unwrap().status(), 200, "there is room for this one");
    let third = half_sent(&log, 200_000).await;
    eventually_refused(large).await;
    log.append("small ones pass").await;
    drop([first, second, third]);
    let dropped = Instant::now();
    eventually("the memory is free again", async || large().await.unwrap().status() == 200).await;
    assert!(dropped.elapsed() < Duration::from_secs(8), "sooner than they would time out");
    log.stop().await;
}

/// Sends the request until there is no room for it.
async fn eventually_refused(send: impl AsyncFn() -> reqwest::Result<Response>) {
    eventually("a large body is refused", async || {
        let reply = send().await.unwrap();
        if reply.status() == 200 {
            return false;
        }
        assert_eq!(reply.headers()["retry-after"], "1");
        problem(reply, 503).await;
        true
    })
    .await;
}

#[tokio::test]
async fn compressed_bodies_are_decompressed_within_the_limits() {
    let log = Log::start().await;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"\"text\"\n").unwrap();
    let bodies =
        [("gzip", gzip.finish().unwrap()), ("zstd", zstd::bulk::compress(b"\"text\"\n", 1).unwrap())];
    for (name, body) in bodies {
        let post =
            log.post("/log").header("content-type", "application/x-ndjson").header("content-encoding", name);
        assert_eq!(post.body(body).send().await.unwrap().status(), 200);
    }
    assert_eq!(texts(&entries(&log.file())), ["text", "text"]);
    let bomb = zstd::bulk::compress(&vec![b'x'; 20 << 20], 3).unwrap();
    let post = log.post("/log").header("content-encoding", "zstd").body(bomb);
    problem(post.send().await.unwrap(), 413).await;
    log.stop().await;
}

#[tokio::test]
async fn a_retry_with_the_same_key_is_stored_once_even_after_a_restart() {
    let log = Log::start().await;
    let send = async |log: &Log| {
        let post = log
            .post("/log")
            .header("Idempotency-Key", "retry-1")
            .header("content-type", "application/x-ndjson");
        post.body("\"one\"\n\"two\"").send().await.unwrap().json::<Value>().await.unwrap()
    };
    assert_eq!(send(&log).await, json!({"accepted": 2, "first_seq": 1, "last_seq": 2}));
    let again = json!({"accepted": 2, "first_seq": 1, "last_seq": 2, "duplicate": true});
    assert_eq!(send(&log).await, again);
    let log = Log::start_in(log.stop().await, |_| {}).await;
    assert_eq!(send(&log).await, again);
    assert_eq!(entries(&log.file()).len(), 2);
    log.stop().await;
}

#[tokio::test]
async fn the_routes_are_below_the_registered_name() {
    let log = Log::start_with(|config| config.common.name = "journal".to_owned()).await;
    assert_eq!(log.post("/journal").body("x").send().await.unwrap().status(), 200);
    problem(log.post("/log").body("x").send().await.unwrap(), 404).await;
    log.stop().await;
}

#[tokio::test]
async fn an_opentelemetry_exporter_can_store_records() {
    use opentelemetry_proto::tonic::collector::logs::v1::{
        ExportLogsServiceRequest, ExportLogsServiceResponse,
    };
    use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value as Any};
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    use prost::Message as _;

    let log = Log::start().await;
    let text = |text: &str| Some(AnyValue { value: Some(Any::StringValue(text.to_owned())) });
    let log_records =
        vec![LogRecord { body: text("from afar"), ..LogRecord::default() }, LogRecord::default()];
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let body = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }],
    };
    for path in ["/v1/logs", "/log/v1/logs"] {
        let post = log.post(path).header("content-type", "application/x-protobuf").body(body.encode_to_vec());
        let reply = post.send().await.unwrap();
        assert_eq!(
            (reply.status().as_u16(), &reply.headers()["content-type"]),
            (200, &"application/x-protobuf".parse().unwrap())
        );
        let reply = ExportLogsServiceResponse::decode(reply.bytes().await.unwrap()).unwrap();
        assert_eq!(reply.partial_success.unwrap().rejected_log_records, 1);
    }
    assert_eq!(texts(&entries(&log.file())), ["from afar", "from afar"]);
    problem(log.post("/v1/logs").json(&json!({})).send().await.unwrap(), 415).await;
    let garbage = log.post("/v1/logs").header("content-type", "application/x-protobuf").body("garbage");
    problem(garbage.send().await.unwrap(), 400).await;
    log.stop().await;
}
