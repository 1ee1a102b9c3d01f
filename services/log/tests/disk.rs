//! A disk that fills up: a real file system of 1 MiB, where this user may mount one.
//!
//! In a process of its own, and one after the other: a child between its start and `mount` holds copies of this
//! process's locks, so that a store could not be opened again at that moment.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that fails should say where"
)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use hubspoke_log::entry::{Batch, EntryMeta};
use hubspoke_log::store::{AckMode, AppendError, Store, StoreOptions};
use jiff::Timestamp;
use serde_json::Value;

struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(dir.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then_some(Self(dir))
    }

    fn open(&self, ack: AckMode) -> Store {
        let mut options = StoreOptions::new(self.0.path().join("services.log"));
        options.ack = ack;
        Store::open(options, "log-a").unwrap()
    }

    fn entries(&self) -> Vec<(u64, String)> {
        entries(&self.0.path().join("services.log"))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "umount");
    }
}

fn entries(file: &Path) -> Vec<(u64, String)> {
    let text = fs::read_to_string(file).unwrap();
    let entry = |line| {
        let entry: Value = serde_json::from_str(line).unwrap();
        (entry["seq"].as_u64().unwrap(), entry["msg"].as_str().unwrap().to_owned())
    };
    text.lines().map(entry).collect()
}

fn text(text: &str) -> Batch {
    Batch::one(&EntryMeta::default(), text.as_bytes(), None)
}

/// The number of a stored entry.
async fn append(store: &Store, entry: &str) -> Result<u64, AppendError> {
    Ok(store.append(text(entry), Timestamp::now())?.await?.expect("not in queued mode").first)
}

#[tokio::test]
async fn a_full_disk_fails_the_entries_concerned_and_recovers_by_itself() {
    for ack in [AckMode::Written, AckMode::Synced] {
        let Some(small) = Small::mount() else {
            eprintln!("skipped: this user can't mount a small file system");
            return;
        };
        entries_concerned_fail(&small, ack).await;
    }
    many_at_once_fail_quickly(&Small::mount().unwrap()).await;
    queued_mode_tells_those_who_come_after(&Small::mount().unwrap()).await;
}

async fn entries_concerned_fail(small: &Small, ack: AckMode) {
    let filler = small.0.path().join("filler");
    fs::write(&filler, vec![0; 600 << 10]).unwrap();
    let store = small.open(ack);
    let mut stored = Vec::new();
    let mut failed = 0;
    for n in 0..100 {
        let entry = format!("{n}:{}", "x".repeat(10_000));
        match append(&store, &entry).await {
            Ok(seq) => stored.push((seq, entry)),
            Err(error) => {
                assert_eq!(error, AppendError::DiskFull);
                failed += 1;
            }
        }
    }
    assert!(stored.len() > 10 && failed > 10, "{} stored, {failed} failed", stored.len());
    assert_eq!(small.entries(), stored);
    fs::remove_file(filler).unwrap();
    stored.push((append(&store, "room again").await.unwrap(), "room again".to_owned()));
    assert_eq!(small.entries(), stored, "nothing of what failed is left");
    assert!(stored.iter().zip(1..).all(|((seq, _), n)| *seq == n), "no gap in the numbers");
    drop(store);
    let store = small.open(ack);
    assert_eq!((store.torn_bytes(), small.entries()), (0, stored));
}

/// A group in which some entries fit and some don't: each gets its own answer, and none waits long for it.
async fn many_at_once_fail_quickly(small: &Small) {
    let store = small.open(AckMode::Written);
    let large = "x".repeat(200_000);
    let mut pending = Vec::new();
    for n in 0..100 {
        let entry = if n % 2 == 0 { format!("{n}:{large}") } else { n.to_string() };
        pending.push((entry.clone(), store.append(text(&entry), Timestamp::now()).unwrap()));
    }
    let mut stored = Vec::new();
    for (entry, pending) in pending {
        match tokio::time::timeout(Duration::from_secs(20), pending).await.expect("no answer") {
            Ok(receipt) => stored.push((receipt.unwrap().first, entry)),
            Err(error) => assert_eq!(error, AppendError::DiskFull),
        }
    }
    assert!(stored.iter().filter(|(_, entry)| entry.len() < 10).count() >= 40, "small entries find room");
    assert_eq!(small.entries(), stored);
}

async fn queued_mode_tells_those_who_come_after(small: &Small) {
    let store = small.open(AckMode::Queued);
    let deadline = Instant::now() + Duration::from_secs(20);
    // The writer fails some time after the disk is full; those who were told before that are the price of this mode.
    while store.healthy() {
        assert!(Instant::now() < deadline, "the disk never fills up");
        match store.append(text(&"x".repeat(100_000)), Timestamp::now()) {
            Ok(pending) => drop(pending.await),
            Err(error) => assert_eq!(error, AppendError::QueueFull),
        }
    }
    // From then on each is told the truth.
    for _ in 0..10 {
        let pending = loop {
            match store.append(text(&"x".repeat(100_000)), Timestamp::now()) {
                Ok(pending) => break pending,
                Err(error) => assert_eq!(error, AppendError::QueueFull),
            }
            assert!(Instant::now() < deadline, "the queue never drains");
            tokio::task::yield_now().await;
        };
        assert_eq!(pending.await, Err(AppendError::DiskFull));
    }
}
