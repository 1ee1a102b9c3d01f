//! `kill -9` at full load, again and again: no number is given out twice.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use hubspoke_testkit::{FakeLog, FakeRegistry, eventually, process};
use parking_lot::Mutex;
use reqwest::Client;
use tokio::process::Child;
use tokio::task::JoinSet;

const ROUNDS: usize = 3;
const VISITORS: usize = 8;
/// Visits after which the process is killed: more than a block of numbers.
const PER_ROUND: usize = 1_200;

fn start(dir: &Path, registry: &FakeRegistry) -> Child {
    let mut command = process::command(env!("CARGO_BIN_EXE_visit"));
    command.current_dir(dir).stderr(Stdio::null());
    command.env("HUB_LISTEN", "127.0.0.1:0").env("HUB_REGISTRY__URL", registry.url());
    command.envs([("HUB_VISIT__STATE", "file"), ("HUB_VISIT__FILE", "visit.count")]);
    command.spawn().unwrap()
}

/// Visits until there are enough numbers, and collects them.
async fn visitor(registry: FakeRegistry, numbers: Arc<Mutex<Vec<u64>>>) {
    let http = Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
    while numbers.lock().len() < ROUNDS * PER_ROUND {
        // Each start gets another port; the last one that registered is alive.
        let addr = registry.last().map(|info| info.addr);
        let number = async {
            let reply = http.get(format!("http://{}/visit", addr?)).send().await.ok()?;
            if reply.status() != 200 {
                return None;
            }
            // A number that is cut off has reached nobody.
            reply.text().await.ok()?.parse().ok()
        };
        match number.await {
            Some(number) => numbers.lock().push(number),
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_gives_out_no_number_again() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, log) = (FakeRegistry::core_only().await, FakeLog::start().await);
    registry.set("log", &[log.info()]);
    let numbers = Arc::<Mutex<Vec<u64>>>::default();
    let mut visitors = JoinSet::new();
    for _ in 0..VISITORS {
        visitors.spawn(visitor(registry.clone(), Arc::clone(&numbers)));
    }
    let mut visit = start(dir.path(), &registry);
    for round in 1..=ROUNDS {
        eventually("visits are counted", async || numbers.lock().len() >= round * PER_ROUND).await;
        process::kill(visit).await;
        visit = start(dir.path(), &registry);
    }
    visitors.join_all().await;
    process::kill(visit).await;
    let numbers = numbers.lock().clone();
    let once: BTreeSet<u64> = numbers.iter().copied().collect();
    assert_eq!(once.len(), numbers.len(), "a number was given out twice");
    // A crash leaves a gap of at most a block.
    let last = *once.last().unwrap();
    let started = numbers.len() + VISITORS * ROUNDS;
    assert!(last <= started as u64 + ROUNDS as u64 * hubspoke_visit::counter::BLOCK, "{last}");
    // No entry has the number of another one.
    let entries = log.texts();
    let logged: BTreeSet<&String> = entries.iter().collect();
    assert_eq!(logged.len(), entries.len(), "a number was logged twice");
    assert!(once.iter().all(|number| logged.contains(&format!("visit {number}"))));
}
