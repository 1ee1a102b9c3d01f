//! `kill -9` at full load, again and again: every acknowledged entry is there exactly once, in its sender's
//! order, and every batch is complete.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hubspoke_testkit::{FakeRegistry, eventually, process};
use reqwest::Client;
use serde_json::Value;
use tokio::process::Child;

const ROUNDS: usize = 5;
const SENDERS: usize = 16;
/// Entries of a batch; every second sender sends batches.
const BATCH: usize = 3;
/// Acknowledged entries after which the process is killed.
const PER_ROUND: usize = 300;

fn start(dir: &Path, registry: &FakeRegistry) -> Child {
    let mut command = process::command(env!("CARGO_BIN_EXE_log"));
    command.current_dir(dir).stderr(Stdio::null());
    command.env("HUB_LISTEN", "127.0.0.1:0").env("HUB_REGISTRY__URL", registry.url());
    command.envs([("HUB_LOG__ROTATE__SIZE", "50KB"), ("HUB_LOG__FILE", "services.log")]);
    command.spawn().unwrap()
}

/// Sends numbered entries one after the other, each under its own key until it is acknowledged. Returns their
/// number.
async fn sender(
    n: usize,
    registry: FakeRegistry,
    done: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
) -> usize {
    let http = Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
    let mut sent = 0;
    while !done.load(Ordering::Relaxed) {
        let count = if n.is_multiple_of(2) { 1 } else { BATCH };
        let entries: Vec<String> = (sent..sent + count).map(|i| format!("\"{n}:{i}\"\n")).collect();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            // Each start gets another port; the last one that registered is alive.
            if let Some(info) = registry.last() {
                let post = http
                    .post(format!("http://{}/log", info.addr))
                    .header("Content-Type", "application/x-ndjson")
                    .header("Idempotency-Key", format!("{n}:{sent}"));
                if post.body(entries.concat()).send().await.is_ok_and(|reply| reply.status() == 200) {
                    break;
                }
            }
            // Down, or killed before it could answer: nobody knows whether the entries are stored.
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert!(Instant::now() < deadline, "{entries:?} are never acknowledged");
        }
        sent += count;
        acknowledged.fetch_add(count, Ordering::Relaxed);
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_nothing_and_repeats_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let registry = FakeRegistry::core_only().await;
    let done = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let mut log = start(dir.path(), &registry);
    let mut senders = Vec::new();
    for n in 0..SENDERS {
        senders.push(tokio::spawn(sender(n, registry.clone(), done.clone(), acknowledged.clone())));
    }
    for round in 1..=ROUNDS {
        let enough = async || acknowledged.load(Ordering::Relaxed) >= round * PER_ROUND;
        eventually("entries are acknowledged", enough).await;
        process::kill(log).await;
        log = start(dir.path(), &registry);
    }
    done.store(true, Ordering::Relaxed);
    let mut expected = BTreeMap::new();
    for (n, sender) in senders.into_iter().enumerate() {
        expected.insert(n, sender.await.unwrap());
    }
    process::kill(log).await;

    let mut files: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ext| ext == "log"));
    // `services-…` sorts before `services.log`, and the closed ones in order.
    files.sort();
    assert!(files.len() > 1, "rotated under load");
    let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let mut found: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut previous = Value::Null;
    for (seq, line) in (1_u64..).zip(text.lines()) {
        let entry: Value = serde_json::from_str(line).unwrap();
        assert_eq!(entry["seq"], seq, "no gap");
        let (sender, n) = entry["msg"].as_str().unwrap().split_once(':').unwrap();
        found.entry(sender.parse().unwrap()).or_default().push(n.parse().unwrap());
        if let Some(part) = entry["part"].as_u64().filter(|part| *part > 0) {
            let expected = (&entry["key"], &Value::from(part - 1));
            assert_eq!((&previous["key"], &previous["part"]), expected, "a batch is complete");
        }
        previous = entry;
    }
    for (sender, sent) in expected {
        assert_eq!(found[&sender], (0..sent).collect::<Vec<_>>(), "sender {sender}");
    }
}
