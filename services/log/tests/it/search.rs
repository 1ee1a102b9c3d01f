//! Queries that search for a pattern which takes long.

use std::time::{Duration, Instant};

use bytesize::ByteSize;
use hubspoke_chassis::Config;
use hubspoke_log::LogConfig;
use hubspoke_testkit::eventually;
use reqwest::{RequestBuilder, Response};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::fixture::{Log, problem, texts};

/// Patterns that one of the texts keeps busy for minutes.
const SLOW: [&str; 3] = [r"(?:a?){3000}\W\d\W", r"\b[ab]*a[ab]{500}c\b", r"[ab]*a[ab]{1000}c"];

/// 250,000 letters whose order has no pattern.
fn random_letters() -> String {
    let mut state = 1_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if state & 1 == 0 { 'a' } else { 'b' }
    };
    (0..250_000).map(|_| random()).collect()
}

/// Why a reply that is not whole ends: its status, or its last line if it has begun, says so.
async fn reason(mut reply: Response) -> String {
    if reply.status() != 200 {
        return problem(reply, 503).await;
    }
    let (ended, body) = until_aborted(&mut reply).await;
    assert!(ended, "no client mistakes a part for the whole");
    let last: Value = serde_json::from_str(body.lines().last().unwrap()).unwrap();
    assert_eq!(last["type"], "urn:hubspoke:problem:query-timeout", "{last}");
    last["detail"].as_str().unwrap().to_owned()
}

/// Whether a reply is aborted, and what came before.
async fn until_aborted(reply: &mut Response) -> (bool, String) {
    let mut body = Vec::new();
    let aborted = loop {
        match reply.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            ended => break ended.is_err(),
        }
    };
    (aborted, String::from_utf8(body).unwrap())
}

/// A log with entries of 250,000 letters.
async fn log_with(change: impl FnOnce(&mut Config<LogConfig>)) -> Log {
    let log = Log::start_with(change).await;
    log.append(&(random_letters() + "\u{e4}")).await;
    log.append(&"a".repeat(250_000)).await;
    log
}

fn request(log: &Log, path: &str, pattern: &str) -> RequestBuilder {
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("regex", pattern).finish();
    let and = if path.contains('?') { '&' } else { '?' };
    log.get(&format!("{path}{and}{query}")).timeout(Duration::from_secs(60))
}

async fn search(log: &Log, path: &str, pattern: &str) -> Response {
    request(log, path, pattern).send().await.unwrap()
}

#[tokio::test]
async fn a_query_that_searches_for_too_long_is_ended_and_says_so() {
    let log = log_with(|config| config.own.max_query_time = Duration::from_millis(200)).await;
    for pattern in SLOW {
        // By itself it would take minutes, more than the client waits.
        let detail = reason(search(&log, "/log", pattern).await).await;
        assert!(detail.contains("200ms") && detail.contains("max_query_time"), "{detail}");
    }
    reason(search(&log, "/log/all", SLOW[0]).await).await;
    log.stop().await;
}

#[tokio::test]
async fn a_reply_that_has_begun_ends_with_the_reason_and_is_aborted() {
    let log = log_with(|config| config.own.max_query_time = Duration::from_secs(2)).await;
    // Found at once, and sent while the search goes on.
    log.append("\u{e4}bb").await;
    log.append_lines(format!("\"{}\"\n", "x".repeat(200_000))).await;
    let reply = search(&log, "/log?limit=0", r"^x{9}|bb|(?:a?){3000}\W\d\W").await;
    assert_eq!(reply.status(), 200);
    let detail = reason(reply).await;
    assert!(detail.contains("2s"), "{detail}");
    log.stop().await;
}

/// Compiling in a debug build and filling the cache of a DFA, which ask nobody, take a second of a busy machine.
const SOON: Duration = Duration::from_secs(2);
/// How often a machine may be too busy for that.
const ATTEMPTS: usize = 10;

#[tokio::test]
async fn a_query_whose_client_leaves_ends_at_once() {
    let log = log_with(|config| config.own.max_queries = 1).await;
    for pattern in SLOW {
        // One that goes on takes minutes, and keeps its place for ten seconds each time.
        let mut took = Vec::new();
        while took.last().is_none_or(|last| *last > SOON) {
            assert!(took.len() < ATTEMPTS, "{pattern}: {took:?}");
            let start = || tokio::spawn(request(&log, "/log", pattern).send());
            let mut searching = start();
            eventually("it has the only place", async || {
                if searching.is_finished() {
                    searching = start(); // the place was the other query's
                }
                log.get("/log?limit=1").send().await.unwrap().status() == 503
            })
            .await;
            searching.abort();
            let left = Instant::now();
            eventually("the place is free", async || {
                log.get("/log?limit=1").send().await.unwrap().status() == 200
            })
            .await;
            took.push(left.elapsed());
        }
    }
    log.stop().await;
}

#[tokio::test]
async fn slow_queries_leave_others_their_share() {
    let log = log_with(|_| {}).await;
    let mut searches = JoinSet::new();
    for pattern in SLOW.into_iter().cycle().take(8) {
        searches.spawn(request(&log, "/log", pattern).send());
    }
    let refused = timeout(Duration::from_secs(20), async {
        for _ in 0..4 {
            let reply = searches.join_next().await.unwrap().unwrap().unwrap();
            if reply.status() == 503 {
                assert!(reply.headers().contains_key("retry-after"));
                problem(reply, 503).await;
                return true;
            }
        }
        false
    });
    assert!(refused.await.unwrap(), "more than half of the places were for patterns");
    let mut tail = log.get("/log/tail").send().await.unwrap();
    assert!(tail.chunk().await.unwrap().is_some());
    for _ in 0..3 {
        log.append("new").await;
        assert_eq!(texts(&log.find("/log?limit=1").await), ["new"]);
        assert_eq!(texts(&log.find("/log/all?limit=1").await), ["new"]);
    }
    drop(searches);
    log.stop().await;
}

#[tokio::test]
async fn a_follower_with_a_slow_pattern_is_ended_and_holds_up_nobody() {
    let log = log_with(|_| {}).await;
    let mut slow = search(&log, "/log/tail", SLOW[0]).await;
    assert_eq!(slow.status(), 200);
    let mut plain = log.get("/log/tail").send().await.unwrap();
    log.append(&"a".repeat(250_000)).await;
    log.append("after").await;
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("after") {
        seen.extend(timeout(Duration::from_secs(10), plain.chunk()).await.unwrap().unwrap().unwrap());
    }
    let mut events = Vec::new();
    while let Ok(Some(chunk)) = timeout(Duration::from_secs(20), slow.chunk()).await.unwrap() {
        events.extend_from_slice(&chunk);
    }
    let events = String::from_utf8(events).unwrap();
    assert!(events.contains("event: problem") && events.contains("query-timeout"), "{events}");
    log.stop().await;
}

#[tokio::test]
async fn a_pattern_that_is_too_large_is_refused_with_the_limit() {
    let log = Log::start_with(|config| config.own.max_entry = ByteSize::kib(1)).await;
    for path in ["/log", "/log/all", "/log/tail"] {
        let detail = problem(search(&log, path, r"[\w\s]{1000}").await, 400).await;
        assert!(detail.starts_with("regex: the compiled pattern is larger than"), "{detail}");
        let detail = problem(search(&log, path, &"x".repeat(1_001)).await, 400).await;
        assert_eq!(detail, "regex: the pattern is longer than 1000 bytes");
        problem(search(&log, path, "(").await, 400).await;
    }
    log.stop().await;
}
