//! `GET /log/tail`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hubspoke_protocol::sse::{Event, Parser};
use reqwest::Response;
use serde_json::{Value, json};

use super::fixture::{Log, chunk};

/// A follower.
struct Tail {
    reply: Response,
    parser: Parser,
    events: VecDeque<Event>,
    last_id: String,
}

impl Tail {
    async fn follow(log: &Log, path: &str, last: Option<&str>) -> Self {
        let mut get = log.get(path).timeout(Duration::from_secs(60));
        if let Some(last) = last {
            get = get.header("Last-Event-ID", last);
        }
        let reply = get.send().await.unwrap();
        assert_eq!(reply.status(), 200);
        assert_eq!(reply.headers()["content-type"], "text/event-stream");
        Self { reply, parser: Parser::new(1 << 20), events: VecDeque::new(), last_id: String::new() }
    }

    /// The next event; `None` at the end.
    async fn event(&mut self) -> Option<Event> {
        while self.events.is_empty() {
            let mut events = Vec::new();
            self.parser.feed(&chunk(&mut self.reply).await?, &mut events).unwrap();
            self.events.extend(events);
        }
        self.events.pop_front()
    }

    /// The next event: its name, sequence number and data; `None` at the end.
    async fn next(&mut self) -> Option<(String, u64, Value)> {
        let Event { name, id, data } = self.event().await?;
        let seq = id.rsplit_once(':').unwrap().1.parse().unwrap();
        self.last_id = id;
        Some((name, seq, serde_json::from_str(&data).unwrap()))
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
async fn new_entries_reach_all_followers_and_filters_apply() {
    let log = Log::start().await;
    log.append("before").await;
    let mut all = Tail::follow(&log, "/log/tail", None).await;
    let mut some = Tail::follow(&log, "/log/tail?contains=b", None).await;
    for text in ["a", "b", "c", "bb"] {
        log.append(text).await;
    }
    assert_eq!(all.texts(4).await, ["a", "b", "c", "bb"]);
    assert_eq!(some.texts(2).await, ["b", "bb"]);
    log.stop().await;
}

#[tokio::test]
async fn a_follower_that_reconnects_misses_nothing() {
    let log = Log::start().await;
    log.append("zero").await;
    let mut tail = Tail::follow(&log, "/log/tail", None).await;
    log.append("one").await;
    assert_eq!(tail.texts(1).await, ["one"]);
    let id = tail.last_id;
    log.append("two").await;
    log.append("three").await;
    let mut tail = Tail::follow(&log, "/log/tail", Some(&id)).await;
    log.append("four").await;
    assert_eq!(tail.texts(3).await, ["two", "three", "four"]);
    let mut past = Tail::follow(&log, "/log/tail?since=1h", None).await;
    assert_eq!(past.texts(5).await, ["zero", "one", "two", "three", "four"]);
    let mut last = Tail::follow(&log, "/log/tail?limit=2", None).await;
    log.append("five").await;
    assert_eq!(last.texts(3).await, ["three", "four", "five"]);
    assert_eq!(log.get("/log/tail?order=desc").send().await.unwrap().status(), 400);
    log.stop().await;
}

/// The gateway picks an instance for each connection, so a client may come back to another one.
#[tokio::test]
async fn a_follower_of_another_instance_is_shown_the_gap() {
    let log = Log::start().await;
    log.append("one").await;
    let own = log.find("/log").await[0]["instance"].as_str().unwrap().to_owned();
    let gap = |after: &str| Some(json!({"after": after, "instance": own}));
    for (query, last, expected) in [
        ("", Some("log-other:17".to_owned()), gap("log-other:17")),
        ("?since=1h", Some("log-other:17".to_owned()), gap("log-other:17")),
        ("?cursor=log-other:17", None, gap("log-other:17")),
        ("", Some(format!("{own}:17")), gap(&format!("{own}:17"))),
        ("", Some(format!("{own}:1")), None),
        ("", Some(format!("log-other:17,{own}:1")), None),
        // As `hub logs -f` asks an instance that has joined.
        ("?since=0s&cursor=log-other:17", None, None),
        ("", None, None),
    ] {
        let mut tail = Tail::follow(&log, &format!("/log/tail{query}"), last.as_deref()).await;
        log.append("after").await;
        let mut first = tail.event().await.unwrap();
        let shown = (first.name == "gap").then(|| serde_json::from_str::<Value>(&first.data).unwrap());
        assert_eq!(shown, expected, "{query} {last:?}");
        if shown.is_some() {
            assert_eq!(first.id, "", "it can still resume where it was");
            first = tail.event().await.unwrap();
        }
        assert_eq!(first.name, "message", "{query} {last:?}");
    }
    log.stop().await;
}

#[tokio::test]
async fn a_tail_ends_at_shutdown() {
    let log = Log::start().await;
    let mut tail = Tail::follow(&log, "/log/tail", None).await;
    log.append("last").await;
    assert_eq!(tail.texts(1).await, ["last"]);
    let started = Instant::now();
    log.stop().await;
    assert!(started.elapsed() < Duration::from_secs(8), "well within shutdown_grace");
    assert_eq!(tail.next().await, None);
}

#[tokio::test]
async fn a_slow_follower_learns_what_it_missed_and_the_writer_does_not_wait() {
    let log = Log::start().await;
    let mut slow = Tail::follow(&log, "/log/tail", None).await;
    log.append("first").await;
    assert_eq!(slow.texts(1).await, ["first"]);
    // More than fits into the ring and all buffers in between.
    log.fill(8_000, 4_000).await;
    let mut last = 1;
    let mut dropped = 0;
    while last < 8_001 {
        let (name, seq, data) = slow.next().await.unwrap();
        if name == "dropped" {
            dropped += data["dropped"].as_u64().unwrap();
            assert_eq!(data, json!({"dropped": seq - last}), "the count matches the sequence numbers");
        } else {
            assert_eq!(seq, last + 1);
        }
        last = seq;
    }
    assert!(dropped > 0);
    log.stop().await;
}

#[tokio::test]
async fn entries_that_leave_memory_while_the_backlog_is_read_are_not_lost() {
    let log = Log::start().await;
    // Each time more than fits into the ring and all buffers in between.
    log.fill(4_000, 4_000).await;
    let mut tail = Tail::follow(&log, "/log/tail?since=1h", None).await;
    log.fill(4_000, 4_000).await;
    for seq in 1..=8_000 {
        let (name, found, _) = tail.next().await.unwrap();
        assert_eq!((name.as_str(), found), ("message", seq));
    }
    log.append("new").await;
    assert_eq!(tail.texts(1).await, ["new"]);
    log.stop().await;
}
