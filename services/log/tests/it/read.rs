//! `GET /log`.

use std::time::Duration;

use bytesize::ByteSize;
use hubspoke_testkit::eventually;

use super::fixture::{Log, chunk, ndjson, problem, texts};

#[tokio::test]
async fn entries_are_found_by_content_and_sender() {
    let log = Log::start().await;
    log.append("plain").await;
    let post = log.post("/log?level=error").header("Hub-Source", "visit").body("disk \"hot\"");
    assert_eq!(post.send().await.unwrap().status(), 200);
    assert_eq!(log.post("/log?source=backup").body("disk cold").send().await.unwrap().status(), 200);
    for (path, expected) in [
        ("/log", vec!["disk cold", "disk \"hot\"", "plain"]),
        ("/log?order=asc&limit=2", vec!["plain", "disk \"hot\""]),
        ("/log?contains=disk", vec!["disk cold", "disk \"hot\""]),
        ("/log?contains=%22hot%22", vec!["disk \"hot\""]),
        ("/log?source=visit", vec!["disk \"hot\""]),
        ("/log?source=backup", vec![]),
        ("/log?claimed=backup", vec!["disk cold"]),
        ("/log?claimed=visit", vec![]),
        ("/log?level=warn", vec!["disk \"hot\""]),
        ("/log?regex=%5Eplain%24", vec!["plain"]),
        ("/log?since=1h", vec!["disk cold", "disk \"hot\"", "plain"]),
        ("/log?until=1h", vec![]),
    ] {
        assert_eq!(texts(&log.find(path).await), expected, "{path}");
    }
    problem(log.get("/log?regex=(").send().await.unwrap(), 400).await;
    problem(log.get("/log?x=1").send().await.unwrap(), 400).await;
    log.stop().await;
}

#[tokio::test]
async fn the_next_page_begins_after_the_cursor_across_files() {
    let log = Log::start_with(|config| config.own.rotate.size = ByteSize::b(1_000)).await;
    for n in 0..50 {
        log.append(&n.to_string()).await;
    }
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = log.find(&format!("/log?order=asc&limit=7{cursor}")).await;
        let Some(last) = page.last() else { break };
        cursor = format!("&cursor={}:{}", last["instance"].as_str().unwrap(), last["seq"]);
        seen.extend(texts(&page).into_iter().map(str::to_owned));
    }
    assert_eq!(seen, (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
    log.stop().await;
}

#[tokio::test]
async fn a_large_result_is_streamed_and_excess_readers_get_a_503() {
    let log = Log::start_with(|config| config.own.max_queries = 1).await;
    log.fill(10_000, 1_000).await;
    // The reply is larger than all buffers, so this reader has the only permit until it reads on.
    let slow = log.get("/log?limit=0&order=asc").send().await.unwrap();
    let refused = log.get("/log").send().await.unwrap();
    assert_eq!(refused.headers()["retry-after"], "1");
    problem(refused, 503).await;
    assert_eq!(slow.text().await.unwrap().lines().count(), 10_000);
    log.stop().await;
}

#[tokio::test]
async fn a_stalled_reader_is_aborted_and_makes_room_for_others() {
    let log = Log::start_with(|config| {
        config.own.max_queries = 1;
        config.own.max_stall = Duration::from_millis(200);
    })
    .await;
    log.fill(10_000, 1_000).await;
    for path in ["/log?limit=0", "/log/all?limit=0", "/log/tail?since=1h"] {
        let stalled = admitted(&log, path).await;
        drop(admitted(&log, "/log?limit=1").await);
        assert!(stalled.text().await.is_err(), "{path}: no client mistakes a part for the whole");
    }
    log.stop().await;
}

/// Sends a query until it gets a permit.
async fn admitted(log: &Log, path: &str) -> reqwest::Response {
    let mut admitted = None;
    eventually(path, async || {
        let reply = log.get(path).send().await.unwrap();
        assert!(matches!(reply.status().as_u16(), 200 | 503), "{}", reply.status());
        reply.status() == 200 && admitted.replace(reply).is_none()
    })
    .await;
    admitted.unwrap()
}

#[tokio::test]
async fn entries_of_any_length_are_read_and_followed_as_sent() {
    let log = Log::start().await;
    let limit = 256 << 10;
    let mut follow = log.get("/log/tail").send().await.unwrap();
    let mut sent = Vec::new();
    for len in [1, 2, 3, 100, 4_095, 4_096, 65_535, 65_536, limit / 2 + 1, limit - 1, limit] {
        // Some are longer once escaped.
        for fill in ["x", "\n", "\u{1}", "ü"] {
            let mut text = fill.repeat(len / fill.len());
            text.push_str(&"y".repeat(len - text.len()));
            log.append(&text).await;
            sent.push(text);
        }
    }
    problem(log.post("/log").body("x".repeat(limit + 1)).send().await.unwrap(), 413).await;
    let found = log.find("/log?order=asc&limit=0").await;
    assert!(texts(&found) == sent);
    let newest = log.find("/log?limit=1").await;
    assert!(texts(&newest) == sent[sent.len() - 1..]);
    let mut followed = Vec::new();
    let mut events = Vec::new();
    while followed.len() < sent.len() {
        events.extend(chunk(&mut follow).await.unwrap());
        while let Some(end) = events.iter().position(|b| *b == b'\n') {
            let line = String::from_utf8(events.drain(..=end).collect()).unwrap();
            followed.extend(line.strip_prefix("data: ").map(|data| ndjson(data).remove(0)));
        }
    }
    assert!(texts(&followed) == sent);
    log.stop().await;
}
