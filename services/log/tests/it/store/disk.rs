//! A disk that fills up: a real file system of 1 MiB, if this user may mount one.

use std::process::Command;
use std::time::{Duration, Instant};

use super::{AckMode, AppendError, Store, StoreOptions, Timestamp, Value, fs, open, text};
use crate::fixture;

struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(dir.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then_some(Self(dir))
    }

    async fn open(&self, ack: AckMode) -> Store {
        let mut options = StoreOptions::new(self.0.path().join("services.log"));
        options.ack = ack;
        open(&options, "log-a").await
    }

    /// Sequence number and text of every line.
    fn entries(&self) -> Vec<(u64, String)> {
        let entries = fixture::entries(&self.0.path().join("services.log"));
        let entry =
            |entry: &Value| (entry["seq"].as_u64().unwrap(), entry["msg"].as_str().unwrap().to_owned());
        entries.iter().map(entry).collect()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "umount");
    }
}

/// Stores an entry; returns its sequence number.
async fn append(store: &Store, entry: &str) -> Result<u64, AppendError> {
    super::append(store, text(entry)).await.map(|receipt| receipt.first)
}

#[tokio::test]
async fn a_full_disk_fails_the_entries_concerned_and_recovers_by_itself() {
    for ack in [AckMode::Written, AckMode::Synced] {
        let Some(disk) = SmallDisk::mount() else {
            eprintln!("skipped: this user can't mount a small file system");
            return;
        };
        only_entries_without_room_fail(&disk, ack).await;
    }
    entries_in_one_group_get_their_own_answers(&SmallDisk::mount().unwrap()).await;
    queued_mode_reports_a_full_disk_to_later_senders(&SmallDisk::mount().unwrap()).await;
}

async fn only_entries_without_room_fail(disk: &SmallDisk, ack: AckMode) {
    let filler = disk.0.path().join("filler");
    fs::write(&filler, vec![0; 600 << 10]).unwrap();
    let store = disk.open(ack).await;
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
    assert_eq!(disk.entries(), stored);
    fs::remove_file(filler).unwrap();
    stored.push((append(&store, "room again").await.unwrap(), "room again".to_owned()));
    assert_eq!(disk.entries(), stored, "failed entries leave nothing behind");
    assert!(stored.iter().zip(1..).all(|((seq, _), n)| *seq == n), "the sequence numbers have no gap");
    drop(store);
    let store = disk.open(ack).await;
    assert_eq!((store.torn_bytes(), disk.entries()), (0, stored));
}

/// Some entries of the group fit and some don't. No answer takes long.
async fn entries_in_one_group_get_their_own_answers(disk: &SmallDisk) {
    let store = disk.open(AckMode::Written).await;
    let large = "x".repeat(200_000);
    let mut pending = Vec::new();
    for n in 0..100 {
        let entry = if n % 2 == 0 { format!("{n}:{large}") } else { n.to_string() };
        pending.push((entry.clone(), store.append(text(&entry), Timestamp::now).unwrap()));
    }
    let mut stored = Vec::new();
    for (entry, pending) in pending {
        match tokio::time::timeout(Duration::from_secs(20), pending).await.expect("no answer") {
            Ok(receipt) => stored.push((receipt.unwrap().first, entry)),
            Err(error) => assert_eq!(error, AppendError::DiskFull),
        }
    }
    assert!(stored.iter().filter(|(_, entry)| entry.len() < 10).count() >= 40, "small entries find room");
    assert_eq!(disk.entries(), stored);
}

async fn queued_mode_reports_a_full_disk_to_later_senders(disk: &SmallDisk) {
    let store = disk.open(AckMode::Queued).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    // The writer fails some time after the disk is full. Entries acknowledged before that are lost: the price
    // of this mode.
    while store.healthy() {
        assert!(Instant::now() < deadline, "the disk never fills up");
        match store.append(text(&"x".repeat(100_000)), Timestamp::now) {
            Ok(pending) => drop(pending.await),
            Err(error) => assert_eq!(error, AppendError::QueueFull),
        }
    }
    // From then on senders wait for the outcome.
    for _ in 0..10 {
        let pending = loop {
            match store.append(text(&"x".repeat(100_000)), Timestamp::now) {
                Ok(pending) => break pending,
                Err(error) => assert_eq!(error, AppendError::QueueFull),
            }
            assert!(Instant::now() < deadline, "the queue never drains");
            tokio::task::yield_now().await;
        };
        assert_eq!(pending.await, Err(AppendError::DiskFull));
    }
}
