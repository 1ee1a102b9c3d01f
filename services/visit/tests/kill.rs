//! kill -9 at full load, again and again: a number that was given out is never given again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that fails should say where"
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::{any, post};
use reqwest::Client;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const ROUNDS: usize = 3;
const VISITORS: usize = 8;
/// Visits after which a round is ended: more than a block of numbers.
const PER_ROUND: usize = 1_200;

/// Registry and log in one: knows where the process is, by what it has registered last.
#[derive(Clone, Default)]
struct Hub {
    url: String,
    visit: Arc<Mutex<Option<String>>>,
    entries: Arc<Mutex<Vec<String>>>,
}

impl Hub {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let hub = Self { url: format!("http://{addr}"), ..Self::default() };
        let lists = format!(r#"{{"log":[{{"Name":"log","Addr":"{addr}"}}]}}"#);
        let (visit, entries) = (Arc::clone(&hub.visit), Arc::clone(&hub.entries));
        let register = move |body: axum::body::Bytes| async move {
            let info: Value = serde_json::from_slice(&body).unwrap();
            *visit.lock().unwrap() = Some(info["Addr"].as_str().unwrap().to_owned());
            lists
        };
        let take = move |entry: String| async move { entries.lock().unwrap().push(entry) };
        let app = Router::new().route("/services", any(register)).route("/log", post(take));
        tokio::spawn(async move { axum::serve(listener, app).await });
        hub
    }
}

/// The visit binary as its own process, killed like one that crashes.
struct Process(Child);

impl Process {
    fn start(dir: &Path, hub: &Hub) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_visit"));
        command.env_clear().current_dir(dir).stderr(Stdio::null());
        command.envs([("HUB_LISTEN", "127.0.0.1:0"), ("HUB_REGISTRY__URL", &hub.url)]);
        command.envs([("HUB_VISIT__STATE", "file"), ("HUB_VISIT__FILE", "visit.count")]);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap(); // SIGKILL
        self.0.wait().unwrap();
    }
}

/// Visits until enough were counted; gives each number that came.
async fn visitor(hub: Hub, numbers: Arc<Mutex<Vec<u64>>>) {
    let http = Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
    while numbers.lock().unwrap().len() < ROUNDS * PER_ROUND {
        let addr = hub.visit.lock().unwrap().clone();
        let number = async {
            let reply = http.get(format!("http://{}/visit", addr?)).send().await.ok()?;
            if reply.status() != 200 {
                return None;
            }
            // Cut off, perhaps; then nobody has it.
            reply.text().await.ok()?.parse().ok()
        };
        match number.await {
            Some(number) => numbers.lock().unwrap().push(number),
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_gives_no_number_again() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start().await;
    let numbers = Arc::default();
    let mut visitors = JoinSet::new();
    for _ in 0..VISITORS {
        visitors.spawn(visitor(hub.clone(), Arc::clone(&numbers)));
    }
    let mut process = Process::start(dir.path(), &hub);
    for round in 1..=ROUNDS {
        let deadline = Instant::now() + Duration::from_secs(60);
        while numbers.lock().unwrap().len() < round * PER_ROUND {
            assert!(Instant::now() < deadline, "no visit is counted any more");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(process);
        process = Process::start(dir.path(), &hub);
    }
    visitors.join_all().await;
    let numbers = numbers.lock().unwrap().clone();
    let once: BTreeSet<u64> = numbers.iter().copied().collect();
    assert_eq!(once.len(), numbers.len(), "a number was given twice");
    // A crash leaves a gap, at most a block.
    let last = *once.last().unwrap();
    assert!(
        last <= (numbers.len() + VISITORS * ROUNDS) as u64 + ROUNDS as u64 * hubspoke_visit::counter::BLOCK,
        "{last}"
    );
    // No entry is of a number that somebody else has.
    let entries = hub.entries.lock().unwrap().clone();
    let logged: BTreeSet<&String> = entries.iter().collect();
    assert_eq!(logged.len(), entries.len(), "a number was logged twice");
    assert!(once.iter().all(|number| logged.contains(&format!("visit {number}"))));
}
