//! kill -9 at full load, again and again: every acknowledged entry is there exactly once, in its sender's order, and
//! every batch as a whole.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that fails should say where"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::any;
use reqwest::Client;
use serde_json::Value;
use tokio::net::TcpListener;

const ROUNDS: usize = 5;
const SENDERS: usize = 16;
/// Entries of a batch; every second sender sends batches.
const BATCH: usize = 3;
/// Acknowledged entries after which a round is ended.
const PER_ROUND: usize = 300;

/// The log binary as its own process, killed like one that crashes.
struct Process(Child);

/// Where the process is, by what it has registered last: each start gets a port of its own.
type Address = Arc<Mutex<Option<String>>>;

/// A stand-in for the registry.
async fn registry() -> (String, Address) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let address = Address::default();
    let told = Arc::clone(&address);
    let register = move |body: axum::body::Bytes| async move {
        let info: Value = serde_json::from_slice(&body).unwrap();
        *told.lock().unwrap() = Some(info["Addr"].as_str().unwrap().to_owned());
        "{}"
    };
    let app = Router::new().route("/services", any(register));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, address)
}

impl Process {
    fn start(dir: &Path, registry: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_log"));
        command.env_clear().current_dir(dir).stderr(Stdio::null());
        command.envs([("HUB_LISTEN", "127.0.0.1:0"), ("HUB_REGISTRY__URL", registry)]);
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
async fn sender(n: usize, address: Address, done: Arc<AtomicBool>, acknowledged: Arc<AtomicUsize>) -> usize {
    let http = Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
    let mut sent = 0;
    while !done.load(Ordering::Relaxed) {
        let count = if n.is_multiple_of(2) { 1 } else { BATCH };
        let entries: Vec<String> = (sent..sent + count).map(|i| format!("\"{n}:{i}\"\n")).collect();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let addr = address.lock().unwrap().clone();
            if let Some(addr) = addr {
                let post =
                    http.post(format!("http://{addr}/log")).header("Content-Type", "application/x-ndjson");
                let post = post.header("Idempotency-Key", format!("{n}:{sent}")).body(entries.concat());
                if post.send().await.is_ok_and(|reply| reply.status() == 200) {
                    break;
                }
            }
            // Down, or gone in the middle of it: nobody knows whether it is stored.
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert!(Instant::now() < deadline, "{entries:?} are never taken");
        }
        sent += count;
        acknowledged.fetch_add(count, Ordering::Relaxed);
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
    let (registry, address) = registry().await;
    let done = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let mut process = Process::start(dir.path(), &registry);
    let mut senders = Vec::new();
    for n in 0..SENDERS {
        let (address, done, acknowledged) = (address.clone(), done.clone(), acknowledged.clone());
        senders.push(tokio::spawn(sender(n, address, done, acknowledged)));
    }
    for round in 1..=ROUNDS {
        until("entries are taken", || acknowledged.load(Ordering::Relaxed) >= round * PER_ROUND).await;
        drop(process);
        process = Process::start(dir.path(), &registry);
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
    let mut before = Value::Null;
    for (seq, line) in (1_u64..).zip(text.lines()) {
        let entry: Value = serde_json::from_str(line).unwrap();
        assert_eq!(entry["seq"], seq, "no gap");
        let (sender, n) = entry["msg"].as_str().unwrap().split_once(':').unwrap();
        found.entry(sender.parse().unwrap()).or_default().push(n.parse().unwrap());
        if let Some(part) = entry["part"].as_u64().filter(|part| *part > 0) {
            assert_eq!(
                (&before["key"], &before["part"]),
                (&entry["key"], &Value::from(part - 1)),
                "a batch is one"
            );
        }
        before = entry;
    }
    for (sender, sent) in expected {
        assert_eq!(found[&sender], (0..sent).collect::<Vec<_>>(), "sender {sender}");
    }
}
