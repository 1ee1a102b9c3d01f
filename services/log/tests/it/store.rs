//! The store on real files: what is acknowledged is there, in order and once, whatever happens in between.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hubspoke_log::entry::{Batch, EntryMeta};
use hubspoke_log::store::{AckMode, AppendError, OpenError, Receipt, Store, StoreOptions};
use hubspoke_testkit::eventually;
use jiff::Timestamp;
use serde_json::Value;

mod crash;
mod disk;
mod files;
mod modified;

fn options(dir: &Path) -> StoreOptions {
    let mut options = StoreOptions::new(dir.join("services.log"));
    options.queue_bytes = 1 << 20;
    options.dedup_keys = 100;
    options.ring_bytes = 1 << 20;
    options
}

/// Opens a store. Its file may be locked for a moment: another test may be starting a process, which has
/// copies of all locks until its program runs.
async fn open(options: &StoreOptions, instance: &str) -> Store {
    let mut store = None;
    eventually("the log file is free", async || match Store::open(options.clone(), instance) {
        Err(OpenError::InUse(_)) => false,
        opened => store.replace(opened.unwrap()).is_none(),
    })
    .await;
    store.unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn keyed(key: &str, texts: &[&str]) -> Batch {
    let mut batch = Batch::new(Some(key.to_owned()));
    texts.iter().for_each(|text| batch.push(&EntryMeta::default(), text.as_bytes(), None));
    batch
}

fn text(msg: &str) -> Batch {
    Batch::one(&EntryMeta::default(), msg.as_bytes(), None)
}

async fn append(store: &Store, batch: Batch) -> Result<Receipt, AppendError> {
    Ok(store.append(batch, Timestamp::now)?.await?.expect("a receipt"))
}

/// Sequence number and text of every entry in the files, in order. Lines that are not entries are skipped.
fn entries(dir: &Path) -> Vec<(u64, String)> {
    let mut found = Vec::new();
    // `services-…` sorts before `services.log`, and the closed ones in order.
    for name in names(dir).into_iter().filter(|name| name.starts_with("services")) {
        // Retention may remove it at any time.
        let Ok(content) = fs::read(dir.join(name)) else { continue };
        for line in content.split_inclusive(|b| *b == b'\n').filter(|line| line.ends_with(b"\n")) {
            let entry: Option<Value> = serde_json::from_slice(line).ok();
            let entry =
                entry.and_then(|entry| Some((entry["seq"].as_u64()?, entry["msg"].as_str()?.to_owned())));
            found.extend(entry);
        }
    }
    found
}

fn numbered(texts: &[&str]) -> Vec<(u64, String)> {
    (1..).zip(texts.iter().map(|&text| text.to_owned())).collect()
}

#[tokio::test]
async fn sequence_numbers_and_instance_continue_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&options(dir.path()), "log-a").await;
    assert_eq!(append(&store, text("one")).await, Ok(Receipt { first: 1, last: 1, duplicate: false }));
    drop(store);
    let store = open(&options(dir.path()), "log-b").await;
    assert_eq!(store.instance(), "log-a");
    let mut batch = Batch::new(None);
    batch.push(&EntryMeta::default(), b"two", None);
    batch.push(&EntryMeta::default(), b"three", None);
    assert_eq!(append(&store, batch).await, Ok(Receipt { first: 2, last: 3, duplicate: false }));
    assert_eq!(entries(dir.path()), numbered(&["one", "two", "three"]));
    let mode = fs::metadata(dir.path().join("services.log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_second_process_on_the_same_file_refuses_to_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&options(dir.path()), "log-a").await;
    assert!(matches!(Store::open(options(dir.path()), "log-b").err(), Some(OpenError::InUse(_))));
    drop(store);
    open(&options(dir.path()), "log-b").await;
}

#[tokio::test]
async fn a_batch_with_a_key_is_stored_once_even_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&options(dir.path()), "log-a").await;
    // Both in the queue at once: the second is still recognized.
    let pending: Vec<_> =
        (0..2).map(|_| store.append(keyed("k1", &["one", "two"]), Timestamp::now).unwrap()).collect();
    let mut duplicates = 0;
    for pending in pending {
        let receipt = pending.await.unwrap().unwrap();
        assert_eq!((receipt.first, receipt.last), (1, 2));
        duplicates += u32::from(receipt.duplicate);
    }
    assert_eq!(duplicates, 1);
    drop(store);
    let store = open(&options(dir.path()), "log-a").await;
    assert!(append(&store, keyed("k1", &["one", "two"])).await.unwrap().duplicate);
    assert!(!append(&store, keyed("k2", &["three"])).await.unwrap().duplicate);
    assert_eq!(entries(dir.path()), numbered(&["one", "two", "three"]));
}

#[tokio::test]
async fn senders_share_writes_and_each_keeps_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(&options(dir.path()), "log-a").await);
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..50 {
        let store = Arc::clone(&store);
        senders.spawn(async move {
            for n in 0..20 {
                append(&store, text(&format!("{sender}:{n}"))).await.unwrap();
            }
        });
    }
    senders.join_all().await;
    let entries = entries(dir.path());
    assert_eq!(entries.len(), 1_000);
    assert!(entries.iter().zip(1..).all(|((seq, _), expected)| *seq == expected), "no gaps");
    for sender in 0..50 {
        let prefix = format!("{sender}:");
        let own: Vec<_> = entries.iter().filter_map(|(_, text)| text.strip_prefix(&prefix)).collect();
        assert!(own.iter().enumerate().all(|(n, text)| *text == n.to_string()), "{own:?}");
    }
    assert!(store.stats().writes.load(Ordering::Relaxed) < 1_000, "group commit works");
}

#[tokio::test]
async fn queued_entries_are_written_at_close_and_later_ones_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.ack = AckMode::Queued;
    let store = open(&options, "log-a").await;
    for n in 0..1_000 {
        assert_eq!(store.append(text(&n.to_string()), Timestamp::now).unwrap().await, Ok(None));
    }
    store.close();
    assert_eq!(store.append(text("late"), Timestamp::now).err(), Some(AppendError::Closed));
    store.ended().await;
    assert_eq!(entries(dir.path()).len(), 1_000);
}
