//! Recorded histories of concurrent clients at several registries, under faults: what a registry shows never goes back,
//! and a start that was removed is never shown again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use hubspoke_protocol::{CatalogView, InstanceState, ServiceInfo};
use hubspoke_testkit::FakeMember;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::super::fixture::{TestRegistry, quick};
use super::agree;

/// What one reader of one registry saw: revision, and the starts at each address.
type Reading = (u64, u64, BTreeSet<(String, String)>);

fn reading(view: &CatalogView) -> Reading {
    let live = view.services.values().flatten().filter(|it| it.state != InstanceState::Removed);
    let starts = live.map(|it| (it.info.addr.clone(), it.info.id().to_owned())).collect();
    (view.revision.epoch, view.revision.n, starts)
}

/// Checks what all readers saw. `gone` are the starts whose deregistration was answered, each with a revision at which
/// that was so.
fn check(histories: &[Vec<Reading>], gone: &BTreeMap<(String, String), u64>) {
    for history in histories {
        for pair in history.windows(2) {
            let (before, after) = (&pair[0], &pair[1]);
            assert_eq!(before.0, after.0, "one epoch");
            assert!(before.1 <= after.1, "revisions never go back");
        }
        for (_, revision, starts) in history {
            for start in starts {
                let removed = gone.get(start).is_some_and(|at| revision >= at);
                assert!(!removed, "{start:?} is shown at {revision}, though it was removed");
            }
        }
    }
    // At one revision all registries show the same.
    let mut at: BTreeMap<u64, &BTreeSet<(String, String)>> = BTreeMap::new();
    for (_, revision, starts) in histories.iter().flatten() {
        assert_eq!(at.entry(*revision).or_insert(starts), &starts, "at revision {revision}");
    }
}

#[tokio::test]
async fn what_registries_show_never_goes_back() {
    let Some(mut etcd) = hubspoke_testkit::etcd::start(3).await else { return };
    let seed = std::env::var("HUBSPOKE_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    let seconds = std::env::var("HUBSPOKE_TEST_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let end = Instant::now() + Duration::from_secs(seconds);
    let registries = Arc::new([
        TestRegistry::on_etcd(&etcd, quick()).await,
        TestRegistry::on_etcd(&etcd, quick()).await,
        TestRegistry::on_etcd(&etcd, quick()).await,
    ]);
    let stop = Arc::new(AtomicBool::new(false));
    let member = FakeMember::start().await;
    let mut readers = Vec::new();
    for n in 0..3 {
        let (registries, stop) = (registries.clone(), stop.clone());
        readers.push(tokio::spawn(async move {
            let mut history = Vec::new();
            while !stop.load(Relaxed) {
                history.push(reading(&registries[n].view().await));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            history
        }));
    }
    let mut writers = Vec::new();
    for client in 0..4_u64 {
        let (registries, stop, control) = (registries.clone(), stop.clone(), member.addr.clone());
        writers.push(tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed ^ client);
            let (mut gone, mut starts) = (BTreeMap::new(), 0);
            while !stop.load(Relaxed) {
                starts += 1;
                // Few addresses, so that starts replace each other.
                let addr = format!("127.0.0.1:{}", random.random_range(1..6));
                let id = format!("{client}-{starts}");
                let info = ServiceInfo {
                    id: Some(id.clone()),
                    control_addr: Some(control.clone()),
                    ..ServiceInfo::new("log", &addr)
                };
                let registry = &registries[random.random_range(0..3)];
                if registry.register(&info).await.status != 200 {
                    continue;
                }
                let registry = &registries[random.random_range(0..3)];
                let reply = registry.deregister(&info).await;
                // 409: another one has replaced it, so it is gone since some revision before this answer's.
                if [200, 409].contains(&reply.status.as_u16()) {
                    gone.insert((addr, id), reply.revision.n);
                }
            }
            gone
        }));
    }
    let mut random = StdRng::seed_from_u64(seed);
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(random.random_range(300..900))).await;
        let node = random.random_range(0..3);
        etcd.kill(node).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(100..600))).await;
        etcd.restart(node).await;
    }
    stop.store(true, Relaxed);
    let mut gone = BTreeMap::new();
    for writer in writers {
        gone.extend(writer.await.unwrap());
    }
    let mut histories = Vec::new();
    for reader in readers {
        histories.push(reader.await.unwrap());
    }
    let readings: usize = histories.iter().map(Vec::len).sum();
    assert!(readings > 50 && !gone.is_empty(), "{readings} readings, {} removals, seed {seed}", gone.len());
    let checked = std::panic::catch_unwind(|| check(&histories, &gone));
    assert!(checked.is_ok(), "seed {seed}");
    agree(&[&registries[0], &registries[1], &registries[2]]).await;
}
