use std::time::{Duration, Instant};

use bytesize::ByteSize;

use super::fixture::{Log, problem, texts};

#[tokio::test]
async fn entries_are_found_by_what_they_say_and_who_said_it() {
    let log = Log::start().await;
    log.say("plain").await;
    let post = log.post("/log?level=error").header("Hub-Source", "visit").body("disk \"hot\"");
    assert_eq!(post.send().await.unwrap().status(), 200);
    log.say("disk cold").await;
    for (path, expected) in [
        ("/log", vec!["disk cold", "disk \"hot\"", "plain"]),
        ("/log?order=asc&limit=2", vec!["plain", "disk \"hot\""]),
        ("/log?contains=disk", vec!["disk cold", "disk \"hot\""]),
        ("/log?contains=%22hot%22", vec!["disk \"hot\""]),
        ("/log?source=visit", vec!["disk \"hot\""]),
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
async fn pages_go_on_behind_their_last_entry_across_files() {
    let log = Log::start_with(|config| config.own.rotate.size = ByteSize::b(1_000)).await;
    for n in 0..50 {
        log.say(&n.to_string()).await;
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
async fn a_large_result_streams_and_more_readers_than_allowed_are_told_to_come_back() {
    let log = Log::start_with(|config| config.own.max_queries = 1).await;
    let line = format!("\"{}\"\n", "x".repeat(1_000));
    for _ in 0..10 {
        let post = log.post("/log").header("content-type", "application/x-ndjson").body(line.repeat(1_000));
        assert_eq!(post.send().await.unwrap().status(), 200);
    }
    // The first reply is larger than what may wait for a reader, so its reader holds the one permit.
    let slow = log.get("/log?limit=0&order=asc").send().await.unwrap();
    let refused = log.get("/log").send().await.unwrap();
    assert_eq!(refused.headers()["retry-after"], "1");
    problem(refused, 503).await;
    assert_eq!(slow.text().await.unwrap().lines().count(), 10_000);
    log.stop().await;
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_given_up_and_makes_room_for_others() {
    let log = Log::start_with(|config| {
        config.own.max_queries = 1;
        config.own.max_stall = Duration::from_millis(200);
    })
    .await;
    let line = format!("\"{}\"\n", "x".repeat(1_000));
    for _ in 0..10 {
        let post = log.post("/log").header("content-type", "application/x-ndjson").body(line.repeat(1_000));
        assert_eq!(post.send().await.unwrap().status(), 200);
    }
    for path in ["/log?limit=0", "/log/all?limit=0", "/log/tail?since=1h"] {
        let stalled = let_in(&log, path).await;
        drop(let_in(&log, "/log?limit=1").await);
        assert!(stalled.text().await.is_err(), "{path}: nobody takes a part for the whole");
    }
    log.stop().await;
}

/// Asks until there is a place among those who read.
async fn let_in(log: &Log, path: &str) -> reqwest::Response {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let reply = log.get(path).send().await.unwrap();
        if reply.status() == 200 {
            return reply;
        }
        assert_eq!(reply.status(), 503);
        assert!(Instant::now() < deadline, "{path}: never let in");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn entries_of_any_length_come_back_as_they_were_sent_by_query_and_by_tail() {
    let log = Log::start().await;
    let limit = 256 << 10;
    let mut follow = log.get("/log/tail").send().await.unwrap();
    let mut sent = Vec::new();
    for len in [1, 2, 3, 100, 4_095, 4_096, 65_535, 65_536, limit / 2 + 1, limit - 1, limit] {
        // Some are longer escaped than they are.
        for fill in ["x", "\n", "\u{1}", "ü"] {
            let mut text = fill.repeat(len / fill.len());
            text.push_str(&"y".repeat(len - text.len()));
            log.say(&text).await;
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
        let chunk =
            tokio::time::timeout(Duration::from_secs(20), follow.chunk()).await.expect("no more comes");
        events.extend(chunk.unwrap().unwrap());
        while let Some(end) = events.iter().position(|b| *b == b'\n') {
            let line = String::from_utf8(events.drain(..=end).collect()).unwrap();
            followed.extend(line.strip_prefix("data: ").map(|data| super::fixture::ndjson(data).remove(0)));
        }
    }
    assert!(texts(&followed) == sent);
    log.stop().await;
}
