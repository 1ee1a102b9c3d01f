use std::time::{Duration, Instant};

use hubspoke_etcd::{Compare, Config, Error, Etcd, Op, OpResult, Txn};
use hubspoke_testkit::etcd;

use crate::{client, config, put};

#[tokio::test]
async fn transactions_compare_write_and_read() {
    let Some(cluster) = etcd::start(1).await else { return };
    let etcd = client(&cluster);
    let key = etcd.key("a");
    assert_eq!(key, "/hubspoke/a");
    assert_eq!(etcd.get(&key).await.unwrap(), None);
    let create = || Txn::new().when(Compare::absent(&key)).then(Op::put(&key, "1")).or_else(Op::get(&key));
    let created = etcd.txn(create()).await.unwrap();
    assert!(created.succeeded);
    assert_eq!(created.results, [OpResult::Put]);
    let refused = etcd.txn(create()).await.unwrap();
    assert!(!refused.succeeded);
    let found = refused.first_read().unwrap();
    assert_eq!((&found.value[..], found.mod_revision, found.version), (&b"1"[..], created.revision, 1));
    let guarded = Txn::new()
        .when(Compare::mod_revision(&key, created.revision))
        .when(Compare::exists(&key))
        .when(Compare::value(&key, "1"))
        .when(Compare::create_revision(&key, created.revision))
        .when(Compare::version(&key, 1))
        .when(Compare::lease(&key, 0))
        .then(Op::delete(&key));
    let deleted = etcd.txn(guarded.clone()).await.unwrap();
    assert_eq!(deleted.results, [OpResult::Deleted(1)]);
    assert!(!etcd.txn(guarded).await.unwrap().succeeded);
    let old = etcd.list(etcd.prefix(), Some(created.revision)).await.unwrap();
    assert_eq!(old.kvs.len(), 1, "as it was");
    let later = etcd.list(etcd.prefix(), Some(deleted.revision + 100)).await;
    assert!(matches!(later, Err(Error::FutureRevision)));
    cluster.compact().await;
    let old = etcd.list(etcd.prefix(), Some(created.revision)).await;
    assert!(matches!(old, Err(Error::Compacted)), "{old:?}");
}

#[tokio::test]
async fn nested_transactions_are_decided_one_by_one_at_one_revision() {
    let Some(cluster) = etcd::start(1).await else { return };
    let etcd = client(&cluster);
    put(&etcd, "/b", "taken").await;
    let create = |key: &str| {
        Op::txn(Txn::new().when(Compare::absent(key)).then(Op::put(key, "1")).or_else(Op::get(key)))
    };
    let reply = etcd.txn(Txn::new().then(create("/a")).then(create("/b")).then(create("/c"))).await.unwrap();
    let nested: Vec<_> = reply
        .results
        .iter()
        .map(|result| match result {
            OpResult::Txn(reply) => (reply.succeeded, reply.first_read().map(|kv| kv.value.clone())),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(nested, [(true, None), (false, Some("taken".into())), (true, None)]);
    for key in ["/a", "/c"] {
        assert_eq!(etcd.get(key).await.unwrap().unwrap().mod_revision, reply.revision);
    }
}

#[tokio::test]
async fn a_long_list_comes_in_pages_of_one_revision() {
    let Some(cluster) = etcd::start(1).await else { return };
    let etcd = client(&cluster);
    for part in 0..12 {
        let keys = (0..100).map(|key| etcd.key(&format!("{part:02}/{key:03}")));
        let txn = keys.fold(Txn::new(), |txn, key| txn.then(Op::put(key, vec![b'x'; 2_000])));
        etcd.txn(txn).await.unwrap();
    }
    let listing = etcd.list(etcd.prefix(), None).await.unwrap();
    assert_eq!(listing.kvs.len(), 1_200);
    assert!(listing.kvs.windows(2).all(|pair| pair[0].key < pair[1].key));
    let too_many = (0..129).fold(Txn::new(), |txn, key| txn.then(Op::put(format!("/x/{key}"), "")));
    assert!(matches!(etcd.txn(too_many).await, Err(Error::Refused(_))));
}

#[tokio::test]
async fn a_dead_or_silent_endpoint_costs_one_request_a_moment() {
    let Some(mut cluster) = etcd::start(3).await else { return };
    let etcd = client(&cluster);
    put(&etcd, "/a", "1").await;
    for _ in 0..2 {
        let used = etcd.endpoint().unwrap();
        let node = cluster.endpoints().iter().position(|url| **url == *used).unwrap();
        cluster.signal(node, "STOP").await;
        let start = Instant::now();
        assert!(etcd.get("/a").await.unwrap().is_some());
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
        let start = Instant::now();
        assert!(etcd.get("/a").await.unwrap().is_some());
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        cluster.signal(node, "CONT").await;
    }
    let leader = cluster.leader().await;
    cluster.kill(leader).await;
    put(&etcd, "/a", "2").await;
    assert_eq!(&etcd.get("/a").await.unwrap().unwrap().value[..], b"2");
}

#[tokio::test]
async fn without_etcd_a_request_fails_in_time_and_says_whether_it_was_sent() {
    let Some(mut cluster) = etcd::start(3).await else { return };
    let config = Config { request_timeout: Duration::from_millis(800), ..config(&cluster) };
    let etcd = Etcd::new(config.clone()).unwrap();
    let write = || etcd.txn(Txn::new().then(Op::put("/a", "1")));
    write().await.unwrap();
    let leader = cluster.leader().await;
    for node in (0..3).filter(|node| *node != leader) {
        cluster.signal(node, "STOP").await;
    }
    let start = Instant::now();
    let outcome = write().await.unwrap_err();
    assert!(matches!(outcome, Error::OutcomeUnknown(_) | Error::Unavailable(_)), "{outcome:?}");
    let read = etcd.get("/a").await.unwrap_err();
    assert!(matches!(read, Error::Unavailable(_)), "{read:?}");
    assert!(start.elapsed() < Duration::from_secs(3));
    cluster.kill_all().await;
    let fresh = Etcd::new(config).unwrap();
    let unsent = fresh.txn(Txn::new().then(Op::put("/a", "1"))).await.unwrap_err();
    assert!(matches!(unsent, Error::Unavailable(_)), "it can't have been sent: {unsent:?}");
    cluster.restart_all().await;
    put(&etcd, "/a", "2").await;
}
