//! Entries in two places: one log instance is killed under load and its disk is wiped.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hubspoke_client::log::{FewerCopies, LogCopies};
use hubspoke_client::{Directory, LogClient};
use hubspoke_protocol::{Revision, ServiceInfo, ServiceLists, Snapshot};
use hubspoke_testkit::{DEADLINE, FakeRegistry, eventually, process};
use reqwest::Client;
use serde_json::Value;
use tokio::process::Child;

use super::fixture::ndjson;

const SENDERS: usize = 16;
/// Acknowledged entries between two events.
const PER_ROUND: usize = 300;

/// A log instance in a process of its own, and its disk.
struct LogProcess {
    child: Child,
    info: ServiceInfo,
}

impl LogProcess {
    async fn start(dir: &Path, registry: &FakeRegistry) -> Self {
        let before = registry.members();
        let mut command = process::command(env!("CARGO_BIN_EXE_log"));
        command.current_dir(dir).stderr(Stdio::null());
        command.env("HUB_LISTEN", "127.0.0.1:0").env("HUB_REGISTRY__URL", registry.url());
        command.env("HUB_LOG__FILE", "services.log");
        let child = command.spawn().unwrap();
        let is_new = |info: &ServiceInfo| before.iter().all(|known| known.addr != info.addr);
        eventually("it registers", async || registry.members().iter().any(is_new)).await;
        Self { child, info: registry.members().into_iter().find(is_new).unwrap() }
    }
}

fn wipe(dir: &Path) {
    for file in std::fs::read_dir(dir).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
}

/// Sends entries, each once, until `done`. Returns those that were acknowledged.
async fn sender(
    n: usize,
    client: LogClient,
    done: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
) -> Vec<String> {
    let mut sent = Vec::new();
    for i in 0.. {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let text = format!("{n}:{i}");
        if client.send(text.clone()).await.is_ok() {
            sent.push(text);
            acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }
    sent
}

async fn read_all(http: &Client, log: &ServiceInfo) -> Vec<Value> {
    let reply = http.get(format!("http://{}/log/all?order=asc&limit=0", log.addr)).send().await.unwrap();
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.headers().get("hub-log-missing"), None);
    ndjson(&reply.text().await.unwrap())
}

/// How often each text is there.
fn counts(entries: &[Value]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for entry in entries {
        *counts.entry(entry["msg"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_killed_and_wiped_loses_no_acknowledged_entry() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let registry = FakeRegistry::start().await;
    let mut logs = Vec::new();
    for dir in &dirs {
        logs.push(LogProcess::start(dir.path(), &registry).await);
    }
    let infos = |logs: &[LogProcess]| logs.iter().map(|log| log.info.public()).collect::<Vec<_>>();
    // The senders go on to know the one that is killed, as before its removal.
    let directory = Directory::from(ServiceLists([("log".to_owned(), infos(&logs))].into()));
    let sender_info =
        ServiceInfo { id: Some("visit-1".to_owned()), ..ServiceInfo::new("visit", "127.0.0.1:1") };
    let client = LogClient::new(directory, &sender_info).unwrap();
    let client = client.with_copies(LogCopies::new(2, FewerCopies::Refuse));
    let done = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let mut senders = tokio::task::JoinSet::new();
    for n in 0..SENDERS {
        senders.spawn(sender(n, client.clone(), done.clone(), acknowledged.clone()));
    }
    let until = async |count: usize| {
        eventually("entries are acknowledged", async || acknowledged.load(Ordering::Relaxed) >= count).await;
    };
    until(PER_ROUND).await;
    let lost = logs.remove(0);
    process::kill(lost.child).await;
    wipe(dirs[0].path());
    until(2 * PER_ROUND).await;
    done.store(true, Ordering::Relaxed);
    let sent: Vec<String> = senders.join_all().await.concat();

    let http = Client::builder().no_proxy().timeout(DEADLINE).build().unwrap();
    // An empty one takes its place, and all know each other.
    logs.push(LogProcess::start(dirs[0].path(), &registry).await);
    let known = infos(&logs);
    let mut all = Vec::new();
    for log in &logs {
        push(&http, &log.info, &known).await;
        all = read_all(&http, &log.info).await;
        let counts = counts(&all);
        for text in &sent {
            assert_eq!(counts.get(text), Some(&1), "{text} was acknowledged");
        }
        // What was not acknowledged may be there, but not twice.
        assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    }
    let files = dirs[1..].iter().map(|dir| std::fs::read_to_string(dir.path().join("services.log")).unwrap());
    let stored: usize = files.map(|text| text.lines().count()).sum();
    assert!(stored > all.len(), "there are copies: {stored} lines, {} entries", all.len());
    for log in logs {
        process::kill(log.child).await;
    }
}

/// Tells a log instance of all.
async fn push(http: &Client, log: &ServiceInfo, all: &[ServiceInfo]) {
    let services = ServiceLists([("log".to_owned(), all.to_vec())].into());
    let snapshot = Snapshot { revision: Revision { epoch: 1, n: 100 }, services };
    let push = http.put(format!("http://{}/services", log.addr)).json(&snapshot);
    let reply = push.bearer_auth(log.push_key.as_deref().unwrap()).send().await.unwrap();
    assert_eq!(reply.status(), 200);
}
