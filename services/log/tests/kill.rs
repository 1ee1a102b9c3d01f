//! kill -9 at full load, again and again: every acknowledged entry is there exactly once, in its sender's order.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that fails should say where"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::Value;

const ROUNDS: usize = 5;
const SENDERS: usize = 16;
/// Acknowledged entries after which a round is ended.
const PER_ROUND: usize = 300;

/// The log binary as its own process, killed like one that crashes.
struct Process(Child);

impl Process {
    fn start(dir: &Path, addr: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_log"));
        command.env_clear().current_dir(dir).stderr(Stdio::null());
        command.envs([("HUB_LISTEN", addr), ("HUB_REGISTRY__URL", "http://127.0.0.1:9")]);
        command.envs([("HUB_LOG__ROTATE__SIZE", "50KB"), ("HUB_LOG__FILE", "services.log")]);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap(); // SIGKILL
        self.0.wait().unwrap();
    }
}

/// Sends numbered entries one after the other, each until it is acknowledged, under one key however often.
async fn sender(n: usize, url: String, done: Arc<AtomicBool>, acknowledged: Arc<AtomicUsize>) -> usize {
    let http = Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
    let mut sent = 0;
    while !done.load(Ordering::Relaxed) {
        let entry = format!("{n}:{sent}");
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let post = http.post(&url).header("Idempotency-Key", &entry).body(entry.clone());
            if post.send().await.is_ok_and(|reply| reply.status() == 200) {
                break;
            }
            // Down, or gone in the middle of it: nobody knows whether it is stored.
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert!(Instant::now() < deadline, "{entry} is never taken");
        }
        sent += 1;
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    sent
}

async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !reached() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_nothing_and_repeats_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = free.local_addr().unwrap().to_string();
    drop(free);
    let done = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let mut process = Process::start(dir.path(), &addr);
    let mut senders = Vec::new();
    for n in 0..SENDERS {
        let url = format!("http://{addr}/log");
        senders.push(tokio::spawn(sender(n, url, Arc::clone(&done), Arc::clone(&acknowledged))));
    }
    for round in 1..=ROUNDS {
        until("entries are taken", || acknowledged.load(Ordering::Relaxed) >= round * PER_ROUND).await;
        drop(process);
        process = Process::start(dir.path(), &addr);
    }
    done.store(true, Ordering::Relaxed);
    let mut expected = BTreeMap::new();
    for (n, sender) in senders.into_iter().enumerate() {
        expected.insert(n, sender.await.unwrap());
    }
    drop(process);

    let mut files: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ext| ext == "log"));
    // `services-…` before `services.log`, and the closed ones in order.
    files.sort();
    assert!(files.len() > 1, "rotated under load");
    let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let mut found: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (seq, line) in (1_u64..).zip(text.lines()) {
        let entry: Value = serde_json::from_str(line).unwrap();
        assert_eq!(entry["seq"], seq, "no gap");
        let (sender, n) = entry["msg"].as_str().unwrap().split_once(':').unwrap();
        found.entry(sender.parse().unwrap()).or_default().push(n.parse().unwrap());
    }
    for (sender, sent) in expected {
        assert_eq!(found[&sender], (0..sent).collect::<Vec<_>>(), "sender {sender}");
    }
}
