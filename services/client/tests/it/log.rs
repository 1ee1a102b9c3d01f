//! Senders against log instances that misbehave.

use std::collections::BTreeSet;
use std::time::Duration;

use hubspoke_client::log::{AttemptError, LOG_SERVICE, LogEntry, LogError, LogLayer, LogQueue, QueueFull};
use hubspoke_client::{Directory, LogClient};
use hubspoke_protocol::{ServiceInfo, ServiceLists};
use hubspoke_testkit::{ClosedPort, DEADLINE, FakeLog, LogRequest, eventually};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tracing_subscriber::layer::SubscriberExt as _;

/// Most bytes in a batch, unless it is a single entry.
const MAX_BATCH_BYTES: usize = 1 << 20;
const NDJSON: &str = "application/x-ndjson";

fn client(instances: Vec<ServiceInfo>) -> LogClient {
    let directory = Directory::from(ServiceLists([(LOG_SERVICE.to_owned(), instances)].into()));
    LogClient::new(directory, &ServiceInfo::new("visit", "127.0.0.1:1")).unwrap()
}

/// A log instance that takes batches, and a client that knows no other one.
async fn one_instance() -> (FakeLog, LogClient) {
    let log = FakeLog::start().await;
    let client = client(vec![log.batch_info()]);
    (log, client)
}

async fn send_concurrently(client: &LogClient, count: usize) -> Vec<Result<String, LogError>> {
    let mut senders = JoinSet::new();
    for n in 0..count {
        let client = client.clone();
        senders.spawn(async move { client.send(n.to_string()).await });
    }
    senders.join_all().await
}

fn numbers(count: usize) -> BTreeSet<String> {
    (0..count).map(|n| n.to_string()).collect()
}

fn set(texts: Vec<String>) -> BTreeSet<String> {
    texts.into_iter().collect()
}

fn entry(text: &str, fields: Value) -> LogEntry {
    LogEntry {
        text: text.to_owned(),
        level: Some("warn"),
        fields: fields.as_object().unwrap().clone(),
        ..LogEntry::default()
    }
}

#[tokio::test]
async fn under_load_entries_share_requests_and_each_arrives_once() {
    let (log, client) = one_instance().await;
    log.delay(Duration::from_millis(5));
    assert!(send_concurrently(&client, 500).await.iter().all(Result::is_ok));
    assert_eq!(log.texts().len(), 500);
    assert_eq!(set(log.texts()), numbers(500));
    assert!(log.requests().len() < 100, "{} requests", log.requests().len());
}

#[tokio::test]
async fn an_instance_without_the_batch_meta_gets_one_text_per_request() {
    let log = FakeLog::start().await;
    let client = client(vec![log.info()]);
    assert!(send_concurrently(&client, 50).await.iter().all(Result::is_ok));
    assert_eq!(set(log.texts()), numbers(50));
    let is_text =
        |request: &LogRequest| request.content_type.starts_with("text/plain") && request.key.is_some();
    assert!(log.requests().iter().all(is_text));
}

#[tokio::test]
async fn an_entry_that_one_instance_fails_to_store_goes_to_another_under_the_same_key() {
    let (broken, healthy) = (FakeLog::start().await, FakeLog::start().await);
    broken.answer_always(Some(503));
    let client = client(vec![broken.batch_info(), healthy.batch_info()]);
    for n in 0..20 {
        client.send(n.to_string()).await.unwrap();
    }
    assert_eq!(set(healthy.texts()), numbers(20));
    let keys = |log: &FakeLog| {
        log.requests().into_iter().map(|request| (request.body, request.key)).collect::<BTreeSet<_>>()
    };
    assert!(!broken.requests().is_empty());
    assert!(keys(&broken).is_subset(&keys(&healthy)));
}

#[tokio::test]
async fn a_refused_batch_is_sent_one_by_one_and_only_entries_at_fault_fail() {
    let (log, client) = one_instance().await;
    log.delay(Duration::from_millis(20)); // so that entries queue behind the first requests
    log.refuse_batches();
    assert!(send_concurrently(&client, 10).await.iter().all(Result::is_ok));
    let is_batch =
        |request: &LogRequest| request.content_type.ends_with("ndjson") && request.body.lines().count() > 1;
    let (batches, single): (Vec<_>, Vec<_>) = log.requests().into_iter().partition(is_batch);
    assert!(!batches.is_empty());
    let keys: BTreeSet<_> = single.iter().map(|request| request.key.clone().unwrap()).collect();
    assert_eq!((single.len(), keys.len()), (10, 10), "each under its own key");
    log.answer_next([400]);
    let error = client.send("x").await.unwrap_err();
    assert!(matches!(error, LogError::Refused { status: 400 }));
    assert_eq!(error.to_string(), "the log service refused the entry with 400 Bad Request");
}

#[tokio::test]
async fn entries_behind_the_last_failure_that_is_named_are_sent_again() {
    let (log, client) = one_instance().await;
    log.refuse_bad_entries();
    let queue = LogQueue::start(client, 1 << 20);
    for text in ["a", "bad", "b", "bad", "c"] {
        queue.push(text).unwrap();
    }
    assert_eq!(queue.flush(DEADLINE).await, 0);
    assert_eq!(queue.lost(), 2);
    assert_eq!(log.texts(), ["a", "bad", "b", "bad", "c", "b", "bad", "c"]);
}

#[tokio::test]
async fn large_entries_are_sent_in_batches_that_a_log_instance_accepts() {
    let (log, client) = one_instance().await;
    let queue = LogQueue::start(client, 64 << 20);
    for n in 0..300 {
        let fields = json!({"n": n, "list": ["y".repeat(10_000)]});
        queue.push(entry(&"x".repeat(10_000), fields)).unwrap();
    }
    queue.push("z".repeat(3 << 19)).unwrap();
    assert_eq!(queue.flush(DEADLINE).await, 0);
    let bodies: Vec<String> = log.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies.iter().map(|body| body.lines().count()).sum::<usize>(), 301);
    let oversized = bodies.iter().filter(|body| body.len() > MAX_BATCH_BYTES);
    assert!(oversized.count() <= 1, "only the entry that is too large for a batch");
    assert!(bodies.len() < 20);
}

#[tokio::test]
async fn entries_sent_one_by_one_keep_their_level_and_fields() {
    let (log, client) = one_instance().await;
    log.refuse_batches();
    let queue = LogQueue::start(client, 1 << 20);
    for text in ["a", "b"] {
        queue.push(entry(text, json!({"n": 1}))).unwrap();
    }
    assert_eq!(queue.flush(DEADLINE).await, 0);
    let requests = log.requests();
    let [_, one, two] = &requests[..] else { panic!("{requests:?}") };
    for (request, text) in [one, two].into_iter().zip(["a", "b"]) {
        let entry: Value = serde_json::from_str(&request.body).unwrap();
        assert_eq!(entry, json!({"msg": text, "level": "warn", "fields": {"n": 1}}));
    }
    assert!(one.key.is_some() && two.key.is_some() && one.key != two.key, "each under its own key");
}

#[tokio::test]
async fn the_only_live_instance_is_found_among_many_dead_ones() {
    let log = FakeLog::start().await;
    let dead: Vec<_> = (0..4).map(|_| ClosedPort::new()).collect();
    let mut instances = vec![log.batch_info()];
    instances.extend(dead.iter().map(|port| ServiceInfo::new(LOG_SERVICE, port.addr().to_string())));
    let client = client(instances);
    for n in 0..50 {
        client.send(n.to_string()).await.unwrap();
    }
    assert_eq!(log.texts().len(), 50);
}

#[tokio::test]
async fn if_no_instance_stores_an_entry_the_error_tells_why() {
    let (log, client) = one_instance().await;
    log.answer_always(Some(507));
    let error = client.send("x").await.unwrap_err();
    assert!(matches!(error, LogError::NoInstance { attempts: 1, last: Some(AttemptError::Status(507)) }));
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "answered 507 Insufficient Storage");
}

#[tokio::test]
async fn a_queue_delivers_in_order_and_flushes() {
    let (log, client) = one_instance().await;
    log.answer_next([503; 3]);
    let queue = LogQueue::start(client, 1 << 20);
    for n in 0..1_200 {
        queue.push(n.to_string()).unwrap();
    }
    assert_eq!(queue.flush(DEADLINE).await, 0);
    assert_eq!(log.accepted(), (0..1_200).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(queue.lost(), 0);
    assert!(log.requests().len() < 12);
}

#[tokio::test]
async fn a_full_queue_refuses_and_reports_the_loss_later() {
    let (log, client) = one_instance().await;
    log.delay(Duration::from_millis(50));
    let queue = LogQueue::start(client, 10_000);
    let refused = (0..200).filter(|n| queue.push(n.to_string()) == Err(QueueFull)).count();
    assert!(refused > 0);
    assert_eq!(queue.flush(DEADLINE).await, 0);
    let report = format!("{refused} log entries were lost");
    eventually("the loss is reported", async || log.texts().contains(&report)).await;
}

#[tokio::test]
async fn tracing_events_become_entries_except_those_of_the_sending() {
    let (log, client) = one_instance().await;
    let queue = LogQueue::start(client, 1 << 20);
    let subscriber = tracing_subscriber::registry().with(LogLayer::new(queue.pusher()));
    tracing::subscriber::with_default(subscriber, || {
        let error = LogError::NoInstance { attempts: 1, last: Some(AttemptError::TimedOut) };
        let error = &error as &dyn std::error::Error;
        tracing::warn!(target: "shop", user = 7, name = "ada", error, "it is \"hot\"");
        tracing::info!(target: "hyper::client", "not this");
        tracing::info!(target: "hubspoke_client::log::batchers", "nor this");
    });
    assert_eq!(queue.flush(DEADLINE).await, 0);
    let requests = log.requests();
    let [request] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!(request.content_type, NDJSON);
    let entry: Value = serde_json::from_str(&request.body).unwrap();
    let error = "no log instance stored the entry (1 tried): no answer in time";
    let fields = json!({"user": 7, "name": "ada", "error": error, "target": "shop"});
    assert_eq!(entry, json!({"msg": "it is \"hot\"", "level": "warn", "fields": fields}));
}
