use std::time::{Duration, Instant};

use hubspoke_etcd::{Compare, Config, Etcd, Lease, LeaseState, Op, Txn};
use hubspoke_testkit::{etcd, eventually};

use crate::{client, config};

async fn held(lease: &Lease) -> (i64, i64) {
    let mut state = lease.state();
    let state = *state.wait_for(|state| state.held().is_some()).await.unwrap();
    match state {
        LeaseState::Held { lease, revision } => (lease, revision),
        LeaseState::Lost => unreachable!(),
    }
}

#[tokio::test]
async fn a_key_lasts_as_long_as_its_lease_is_kept() {
    let Some(cluster) = etcd::start(1).await else { return };
    let etcd = Etcd::new(Config { lease: Duration::from_secs(2), ..config(&cluster) }).unwrap();
    let key = etcd.key("registries/1");
    let lease = Lease::start(&etcd, key.clone(), "a");
    let (id, revision) = held(&lease).await;
    let found = etcd.get(&key).await.unwrap().unwrap();
    assert_eq!((found.lease, found.mod_revision, &found.value[..]), (id, revision, &b"a"[..]));
    let guarded = || Txn::new().when(Compare::lease(&key, id)).then(Op::put("/x", "1"));
    assert!(etcd.txn(guarded()).await.unwrap().succeeded);

    lease.set("b");
    eventually("changed", async || etcd.get(&key).await.unwrap().unwrap().value == "b").await;
    // Longer than the lease.
    let start = Instant::now();
    eventually("kept", async || {
        assert_eq!(etcd.get(&key).await.unwrap().unwrap().lease, id);
        start.elapsed() > Duration::from_secs(4)
    })
    .await;
    etcd.txn(Txn::new().then(Op::delete(&key))).await.unwrap();
    eventually("written again", async || etcd.get(&key).await.unwrap().is_some()).await;

    lease.close().await;
    assert_eq!(etcd.get(&key).await.unwrap(), None);
    assert!(!etcd.txn(guarded()).await.unwrap().succeeded);
}

#[tokio::test]
async fn a_lost_lease_is_reported_in_time_and_granted_anew() {
    let Some(mut cluster) = etcd::start(1).await else { return };
    let etcd = Etcd::new(Config { lease: Duration::from_secs(2), ..config(&cluster) }).unwrap();
    let lease = Lease::start(&etcd, etcd.key("me"), "a");
    held(&lease).await;
    cluster.signal(0, "STOP").await;
    let start = Instant::now();
    let mut state = lease.state();
    state.wait_for(|state| *state == LeaseState::Lost).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    cluster.signal(0, "CONT").await;
    let (before, _) = held(&lease).await;

    cluster.kill_all().await;
    cluster.wipe();
    cluster.restart_all().await;
    eventually("another lease", async || {
        let found = etcd.get(etcd.key("me")).await.ok().flatten();
        found.is_some_and(|kv| kv.lease != before)
    })
    .await;
}

#[tokio::test]
async fn a_lease_outlives_the_leader() {
    let Some(mut cluster) = etcd::start(3).await else { return };
    let etcd = client(&cluster);
    let lease = Lease::start(&etcd, etcd.key("me"), "a");
    let (id, revision) = held(&lease).await;
    let leader = cluster.leader().await;
    cluster.kill(leader).await;
    cluster.ready().await;
    cluster.restart(leader).await;
    assert_eq!(held(&lease).await, (id, revision));
    let found = etcd.get(etcd.key("me")).await.unwrap().unwrap();
    assert_eq!((found.lease, found.version), (id, 1));
}
