//! Entries that are stored on several log instances.

use std::collections::BTreeMap;

use hubspoke_client::log::{FewerCopies, LOG_SERVICE, LogCopies, LogError, LogQueue};
use hubspoke_client::{Directory, LogClient};
use hubspoke_protocol::{ServiceInfo, ServiceLists};
use hubspoke_testkit::{ClosedPort, DEADLINE, FakeLog};
use serde_json::Value;

fn client(instances: Vec<ServiceInfo>, copies: usize, fewer: FewerCopies) -> LogClient {
    let directory = Directory::from(ServiceLists([(LOG_SERVICE.to_owned(), instances)].into()));
    let client = LogClient::new(directory, &ServiceInfo::new("visit", "127.0.0.1:1")).unwrap();
    client.with_copies(LogCopies::new(copies, fewer))
}

async fn instances<const N: usize>() -> [FakeLog; N] {
    let mut logs = Vec::new();
    for _ in 0..N {
        logs.push(FakeLog::start().await);
    }
    logs.try_into().unwrap_or_else(|_| unreachable!())
}

/// The keys under which a log instance has accepted each text.
fn keys(log: &FakeLog) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    let mut add = |text: &str, key: &str| {
        assert_eq!(keys.insert(text.to_owned(), key.to_owned()), None, "{text} is there twice");
    };
    for request in log.requests().into_iter().filter(|request| request.status == 200) {
        match &request.key {
            Some(key) if request.body.lines().count() == 1 => {
                request.texts().iter().for_each(|text| add(text, key))
            }
            Some(key) => panic!("the batch {key} has no key for each entry"),
            None => {
                for line in request.body.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
                    add(line["msg"].as_str().unwrap(), line["key"].as_str().unwrap());
                }
            }
        }
    }
    keys
}

/// Checks that so many instances have each of the texts, under one key.
fn check<'a>(logs: impl IntoIterator<Item = &'a FakeLog>, copies: usize, texts: usize) {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (text, key) in logs.into_iter().flat_map(keys) {
        found.entry(text).or_default().push(key);
    }
    assert_eq!(found.len(), texts);
    for (text, keys) in found {
        assert_eq!(keys.len(), copies, "{text}");
        assert!(keys.iter().all(|key| *key == keys[0]), "{text}: {keys:?}");
    }
}

#[tokio::test]
async fn copies_go_to_different_instances_under_one_key() {
    let logs = instances::<3>().await;
    let client = client(logs.each_ref().map(FakeLog::batch_info).into(), 2, FewerCopies::Refuse);
    let mut senders = tokio::task::JoinSet::new();
    for n in 0..200 {
        let client = client.clone();
        senders.spawn(async move { client.send(n.to_string()).await.unwrap() });
    }
    let stored_by = senders.join_all().await;
    check(&logs, 2, 200);
    for log in &logs {
        assert!((80..190).contains(&log.texts().len()), "any two, with the same probability");
        assert!(stored_by.iter().any(|id| *id == log.info().instance_id()));
    }
    assert_eq!(client.short(), 0);
}

#[tokio::test]
async fn an_instance_that_fails_is_replaced_by_another() {
    let [broken, one, two] = instances().await;
    broken.answer_always(Some(503));
    let dead = ClosedPort::new();
    let mut known = [&broken, &one, &two].map(FakeLog::batch_info).to_vec();
    known.push(ServiceInfo::new("log", dead.addr().to_string()));
    let client = client(known, 2, FewerCopies::Refuse);
    for n in 0..30 {
        client.send(n.to_string()).await.unwrap();
    }
    assert!(!broken.requests().is_empty());
    check([&one, &two], 2, 30);
}

#[tokio::test]
async fn with_too_few_instances_an_entry_is_refused_or_counted() {
    let [only, full] = instances().await;
    full.answer_always(Some(507));
    let known = || vec![only.batch_info(), full.batch_info()];
    let error = client(known(), 2, FewerCopies::Refuse).send("a").await.unwrap_err();
    assert!(matches!(error, LogError::FewerCopies { stored: 1, wanted: 2, last: Some(_) }), "{error:?}");
    assert_eq!(error.to_string(), "1 of 2 log instances stored the entry");

    let accepting = client(known(), 3, FewerCopies::Accept);
    accepting.send("b").await.unwrap();
    assert_eq!(accepting.short(), 1);
    only.answer_always(Some(503));
    let error = accepting.send("c").await.unwrap_err();
    assert!(matches!(error, LogError::NoInstance { .. }), "one copy is the least: {error:?}");
    only.answer_always(Some(400));
    let error = accepting.send("d").await.unwrap_err();
    assert!(matches!(error, LogError::Refused { status: 400 } | LogError::NoInstance { .. }), "{error:?}");
    assert_eq!(accepting.short(), 1);
}

#[tokio::test]
async fn a_queue_stores_copies_too() {
    let logs = instances::<3>().await;
    // One stores nothing of what it gets first.
    logs[0].answer_next([503]);
    let queue = LogQueue::start(
        client(logs.each_ref().map(FakeLog::batch_info).into(), 2, FewerCopies::Refuse),
        1 << 20,
    );
    for n in 0..100 {
        queue.push(n.to_string()).unwrap();
    }
    assert_eq!(queue.flush(DEADLINE).await, 0);
    check(&logs, 2, 100);

    let only = FakeLog::start().await;
    let accepting = client(vec![only.batch_info()], 2, FewerCopies::Accept);
    let queue = LogQueue::start(accepting.clone(), 1 << 20);
    queue.push("a").unwrap();
    assert_eq!((queue.flush(DEADLINE).await, queue.lost(), accepting.short()), (0, 0, 1));
    check([&only], 1, 1);
}
