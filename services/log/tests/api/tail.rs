use std::time::Duration;

use reqwest::Response;
use serde_json::{Value, json};

use super::fixture::Log;

/// A reader of server-sent events.
struct Events {
    reply: Response,
    text: String,
}

impl Events {
    async fn follow(log: &Log, path: &str, last: Option<&str>) -> Self {
        let mut get = log.http.get(format!("{}{path}", log.url)).timeout(Duration::from_secs(60));
        if let Some(last) = last {
            get = get.header("Last-Event-ID", last);
        }
        let reply = get.send().await.unwrap();
        assert_eq!(reply.status(), 200);
        assert_eq!(reply.headers()["content-type"], "text/event-stream");
        Self { reply, text: String::new() }
    }

    /// The next event: its kind, id and data; `None` at the end.
    async fn next(&mut self) -> Option<(String, String, Value)> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let event: String = self.text.drain(..end + 2).collect();
                let field =
                    |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                let Some(data) = field("data: ") else { continue };
                let kind = field("event: ").unwrap_or_default();
                return Some((kind, field("id: ").unwrap(), serde_json::from_str(&data).unwrap()));
            }
            let chunk = tokio::time::timeout(Duration::from_secs(20), self.reply.chunk()).await;
            self.text.push_str(std::str::from_utf8(&chunk.expect("no event").unwrap()?).unwrap());
        }
    }

    async fn texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        while texts.len() < count {
            let (_, _, entry) = self.next().await.unwrap();
            texts.push(entry["msg"].as_str().unwrap().to_owned());
        }
        texts
    }
}

#[tokio::test]
async fn new_entries_come_to_all_who_follow_and_filters_hold() {
    let log = Log::start().await;
    log.say("before").await;
    let mut all = Events::follow(&log, "/log/tail", None).await;
    let mut some = Events::follow(&log, "/log/tail?contains=b", None).await;
    for text in ["a", "b", "c", "bb"] {
        log.say(text).await;
    }
    assert_eq!(all.texts(4).await, ["a", "b", "c", "bb"]);
    assert_eq!(some.texts(2).await, ["b", "bb"]);
    log.stop().await;
}

#[tokio::test]
async fn a_reader_that_comes_back_misses_nothing() {
    let log = Log::start().await;
    log.say("zero").await;
    let mut events = Events::follow(&log, "/log/tail", None).await;
    log.say("one").await;
    let (_, id, _) = events.next().await.unwrap();
    drop(events);
    log.say("two").await;
    log.say("three").await;
    let mut events = Events::follow(&log, "/log/tail", Some(&id)).await;
    log.say("four").await;
    assert_eq!(events.texts(3).await, ["two", "three", "four"]);
    let mut past = Events::follow(&log, "/log/tail?since=1h", None).await;
    assert_eq!(past.texts(5).await, ["zero", "one", "two", "three", "four"]);
    let mut last = Events::follow(&log, "/log/tail?limit=2", None).await;
    log.say("five").await;
    assert_eq!(last.texts(3).await, ["three", "four", "five"]);
    assert_eq!(log.get("/log/tail?order=desc").send().await.unwrap().status(), 400);
    log.stop().await;
}

#[tokio::test]
async fn following_ends_at_shutdown() {
    let log = Log::start().await;
    let mut events = Events::follow(&log, "/log/tail", None).await;
    log.say("last").await;
    assert_eq!(events.texts(1).await, ["last"]);
    let started = std::time::Instant::now();
    log.stop().await;
    assert!(started.elapsed() < Duration::from_secs(8), "well within shutdown_grace");
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_slow_reader_learns_what_it_missed_and_the_writer_does_not_wait() {
    let log = Log::start().await;
    let mut slow = Events::follow(&log, "/log/tail", None).await;
    log.say("first").await;
    assert_eq!(slow.texts(1).await, ["first"]);
    // More than the ring and all the buffers between here and there.
    let line = format!("\"{}\"\n", "x".repeat(4_000));
    for _ in 0..8 {
        let post = log.post("/log").header("content-type", "application/x-ndjson").body(line.repeat(1_000));
        assert_eq!(post.send().await.unwrap().status(), 200);
    }
    let mut last = 1;
    let mut dropped = 0;
    while last < 8_001 {
        let (kind, id, data) = slow.next().await.unwrap();
        let seq: u64 = id.rsplit_once(':').unwrap().1.parse().unwrap();
        if kind == "dropped" {
            dropped += data["dropped"].as_u64().unwrap();
            assert_eq!(data, json!({"dropped": seq - last}), "the count fits the numbers");
        } else {
            assert_eq!(seq, last + 1);
        }
        last = seq;
    }
    assert!(dropped > 0);
    log.stop().await;
}

#[tokio::test]
async fn what_comes_while_the_past_is_read_is_not_lost_though_memory_does_not_keep_it() {
    let log = Log::start().await;
    let line = format!("\"{}\"\n", "x".repeat(4_000));
    let more = async || {
        // More than the ring and all the buffers between here and there.
        for _ in 0..4 {
            let post =
                log.post("/log").header("content-type", "application/x-ndjson").body(line.repeat(1_000));
            assert_eq!(post.send().await.unwrap().status(), 200);
        }
    };
    more().await;
    let mut events = Events::follow(&log, "/log/tail?since=1h", None).await;
    more().await;
    for seq in 1..=8_000 {
        let (kind, id, _) = events.next().await.unwrap();
        assert_eq!((kind.as_str(), id.rsplit_once(':').unwrap().1), ("", seq.to_string().as_str()));
    }
    log.say("new").await;
    assert_eq!(events.texts(1).await, ["new"]);
    log.stop().await;
}
