//! The client against a real etcd. Skipped if there is none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test names its place")]

mod auth;
mod lease;
mod requests;
mod tls;
mod watch;

use hubspoke_etcd::{Config, Etcd, Op, Txn};
use hubspoke_testkit::etcd::EtcdCluster;

/// A client of a cluster.
fn client(cluster: &EtcdCluster) -> Etcd {
    Etcd::new(config(cluster)).unwrap()
}

fn config(cluster: &EtcdCluster) -> Config {
    Config { endpoints: cluster.endpoints(), ..Config::default() }
}

/// Writes a key, again if etcd is not available or does not know whether it has.
async fn put(etcd: &Etcd, key: &str, value: &str) -> i64 {
    let mut result = None;
    hubspoke_testkit::eventually("written", async || {
        let reply = etcd.txn(Txn::new().then(Op::put(key, value.to_owned()))).await;
        result = reply.ok().map(|reply| reply.revision);
        result.is_some()
    })
    .await;
    result.unwrap()
}
