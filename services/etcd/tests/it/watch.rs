use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hubspoke_etcd::{Change, Config, Etcd, Op, Snapshot, Txn, Update, Watch};
use hubspoke_testkit::etcd::{self, EtcdCluster, Proxy};

use crate::{client, config, put};

/// What a reader of a watch knows.
#[derive(Default)]
struct Reader {
    keys: BTreeMap<String, String>,
    revision: i64,
    snapshots: Vec<Snapshot>,
    lost: usize,
}

impl Reader {
    /// Takes one update; revisions only grow, unless another history begins.
    fn take(&mut self, update: Update) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        match update {
            Update::Snapshot(snapshot) => {
                assert!(snapshot.other_history || snapshot.revision >= self.revision);
                self.revision = snapshot.revision;
                let keys = snapshot.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value)));
                self.keys = keys.collect();
                self.snapshots.push(snapshot);
            }
            Update::Changes { revision, changes } => {
                assert!(revision > self.revision, "{revision} after {}", self.revision);
                self.revision = revision;
                for change in changes {
                    match change {
                        Change::Put(kv) => {
                            assert_eq!(kv.mod_revision, revision);
                            self.keys.insert(text(&kv.key), text(&kv.value));
                        }
                        Change::Deleted { key } => {
                            self.keys.remove(&text(&key)).expect("it was known");
                        }
                    }
                }
            }
            Update::Alive { revision } => {
                assert!(revision >= self.revision);
                self.revision = revision;
            }
            Update::Lost { .. } => self.lost += 1,
        }
    }

    async fn until(&mut self, watch: &mut Watch, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let read = async {
            while !done(self) {
                let update = watch.next().await;
                self.take(update);
            }
        };
        assert!(tokio::time::timeout(hubspoke_testkit::DEADLINE, read).await.is_ok(), "{what}");
    }

    async fn until_key(&mut self, watch: &mut Watch, key: &str, value: &str) {
        self.until(watch, key, |reader| reader.keys.get(key).is_some_and(|found| found == value)).await;
    }
}

/// A client that is cut off by cutting off a proxy.
async fn through_proxy(cluster: &EtcdCluster) -> (Proxy, Etcd) {
    let proxy = Proxy::start(cluster.addr(0)).await;
    let etcd = Config { endpoints: vec![proxy.url()], lease: Duration::from_secs(2), ..Config::default() };
    (proxy, Etcd::new(etcd).unwrap())
}

fn quick(cluster: &EtcdCluster) -> Etcd {
    Etcd::new(Config { lease: Duration::from_secs(2), ..config(cluster) }).unwrap()
}

#[tokio::test]
async fn changes_come_once_and_revisions_whole() {
    let Some(cluster) = etcd::start(1).await else { return };
    let etcd = client(&cluster);
    put(&etcd, "/w/old", "1").await;
    put(&etcd, "/wide", "1").await;
    let mut watch = Watch::start(&etcd, "/w/");
    let mut reader = Reader::default();
    reader.until_key(&mut watch, "/w/old", "1").await;
    assert_eq!(reader.keys.len(), 1, "{:?}", reader.keys);
    // Some MiB at one revision, so that it comes in fragments.
    let big =
        (0..100).fold(Txn::new(), |txn, key| txn.then(Op::put(format!("/w/{key:03}"), "x".repeat(10_000))));
    let revision = etcd.txn(big).await.unwrap().revision;
    loop {
        match watch.next().await {
            Update::Changes { revision: seen, changes } => {
                assert_eq!((seen, changes.len()), (revision, 100));
                break;
            }
            update => assert!(matches!(update, Update::Alive { .. }), "{update:?}"),
        }
    }
    etcd.txn(Txn::new().then(Op::delete_prefix("/w/"))).await.unwrap();
    match watch.next().await {
        Update::Changes { changes, .. } => assert_eq!(changes.len(), 101),
        update => panic!("{update:?}"),
    }
}

#[tokio::test]
async fn a_watch_continues_after_the_leader_is_killed_and_misses_nothing() {
    let Some(mut cluster) = etcd::start(3).await else { return };
    let etcd = quick(&cluster);
    let mut watches: Vec<_> =
        (0..3).map(|_| (Watch::start(&quick(&cluster), "/w/"), Reader::default())).collect();
    for round in 0..3 {
        let leader = cluster.leader().await;
        cluster.kill(leader).await;
        for key in 0..10 {
            put(&etcd, &format!("/w/{key}"), &round.to_string()).await;
        }
        cluster.restart(leader).await;
        put(&etcd, "/w/end", &round.to_string()).await;
        for (watch, reader) in &mut watches {
            reader.until_key(watch, "/w/end", &round.to_string()).await;
            assert_eq!(reader.keys.len(), 11);
            assert!(reader.keys.values().all(|value| *value == round.to_string()), "{:?}", reader.keys);
        }
    }
    for (_, reader) in &watches {
        assert_eq!(reader.snapshots.len(), 1, "listed once");
    }
}

#[tokio::test]
async fn a_silent_watch_is_noticed_and_a_quiet_one_is_not_touched() {
    let Some(cluster) = etcd::start(3).await else { return };
    let etcd = quick(&cluster);
    put(&etcd, "/w/a", "1").await;
    let mut watch = Watch::start(&etcd, "/w/");
    let mut reader = Reader::default();
    reader.until_key(&mut watch, "/w/a", "1").await;
    let start = Instant::now();
    let mut alive = 0;
    while start.elapsed() < Duration::from_secs(4) {
        match watch.next().await {
            Update::Alive { .. } => alive += 1,
            update => panic!("{update:?}"),
        }
    }
    assert!(alive > 3, "{alive}");

    let used = etcd.endpoint().unwrap();
    let node = cluster.endpoints().iter().position(|url| **url == *used).unwrap();
    cluster.signal(node, "STOP").await;
    let start = Instant::now();
    reader.until(&mut watch, "lost", |reader| reader.lost > 0).await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let other = quick(&cluster);
    put(&other, "/w/a", "2").await;
    reader.until_key(&mut watch, "/w/a", "2").await;
    cluster.signal(node, "CONT").await;
    assert_eq!(reader.snapshots.len(), 1);
}

#[tokio::test]
async fn after_compaction_the_list_is_read_anew() {
    let Some(cluster) = etcd::start(1).await else { return };
    let etcd = quick(&cluster);
    put(&etcd, "/w/a", "1").await;
    put(&etcd, "/w/b", "1").await;
    let mut watch = Watch::start(&etcd, "/w/");
    let mut reader = Reader::default();
    reader.until_key(&mut watch, "/w/a", "1").await;
    // A compaction while the stream is up changes nothing.
    put(&etcd, "/w/a", "2").await;
    cluster.compact().await;
    reader.until_key(&mut watch, "/w/a", "2").await;
    assert_eq!(reader.snapshots.len(), 1);

    // What happens while it is away is gone when it comes back.
    let (proxy, through) = through_proxy(&cluster).await;
    let other = quick(&cluster);
    let mut watch = Watch::start(&through, "/w/");
    let mut reader = Reader::default();
    reader.until(&mut watch, "alive", |reader| reader.revision > 0).await;
    proxy.cut();
    put(&other, "/w/a", "3").await;
    other.txn(Txn::new().then(Op::delete("/w/b"))).await.unwrap();
    put(&other, "/w/c", "1").await;
    cluster.compact().await;
    proxy.restore();
    reader.until_key(&mut watch, "/w/c", "1").await;
    assert_eq!(reader.snapshots.len(), 2);
    assert!(!reader.snapshots[1].other_history);
    assert!(!reader.keys.contains_key("/w/b"));
    put(&other, "/w/d", "1").await;
    reader.until_key(&mut watch, "/w/d", "1").await;
}

#[tokio::test]
async fn a_restored_backup_is_another_history_however_far_it_has_come_since() {
    let Some(mut cluster) = etcd::start(1).await else { return };
    let etcd = quick(&cluster);
    for writes_after in [0, 1, 2, 40] {
        put(&etcd, "/w/kept", "1").await;
        let (proxy, through) = through_proxy(&cluster).await;
        let mut watch = Watch::start(&through, "/w/");
        let mut reader = Reader::default();
        cluster.kill_all().await;
        let backup = cluster.backup();
        cluster.restart_all().await;
        // Of the two, one was never in the backup, and one was changed since.
        put(&etcd, "/w/ghost", "1").await;
        put(&etcd, "/w/kept", "2").await;
        reader.until_key(&mut watch, "/w/kept", "2").await;

        proxy.cut();
        cluster.kill_all().await;
        cluster.restore(&backup);
        cluster.restart_all().await;
        let other = quick(&cluster);
        for write in 0..writes_after {
            put(&other, &format!("/w/new{write}"), "1").await;
        }
        proxy.restore();
        let snapshots = reader.snapshots.len();
        reader.until(&mut watch, "another history", |reader| reader.snapshots.len() > snapshots).await;
        assert!(reader.snapshots.last().unwrap().other_history, "{writes_after}");
        put(&other, "/w/end", &writes_after.to_string()).await;
        reader.until_key(&mut watch, "/w/end", &writes_after.to_string()).await;
        assert!(!reader.keys.contains_key("/w/ghost"));
        other.txn(Txn::new().then(Op::delete_prefix("/w/"))).await.unwrap();
    }
}

#[tokio::test]
async fn an_emptied_cluster_is_another_history() {
    let Some(mut cluster) = etcd::start(1).await else { return };
    let etcd = quick(&cluster);
    let mut watch = Watch::start(&etcd, "/w/");
    let mut reader = Reader::default();
    for round in ["1", "2", "3"] {
        put(&etcd, "/w/a", round).await;
        reader.until_key(&mut watch, "/w/a", round).await;
        cluster.kill_all().await;
        cluster.wipe();
        cluster.restart_all().await;
        reader.until(&mut watch, "emptied", |reader| reader.keys.is_empty()).await;
        assert!(reader.snapshots.last().unwrap().other_history);
    }
}

#[tokio::test]
async fn a_dropped_watch_ends() {
    let Some(cluster) = etcd::start(1).await else { return };
    let etcd = quick(&cluster);
    let metrics = || cluster.metric("etcd_debugging_mvcc_watch_stream_total");
    let mut watch = Watch::start(&etcd, "/w/");
    Reader::default().until(&mut watch, "alive", |reader| reader.revision > 0).await;
    hubspoke_testkit::eventually("a stream", async || metrics().await == 1.0).await;
    drop(watch);
    hubspoke_testkit::eventually("no stream", async || metrics().await == 0.0).await;
}
