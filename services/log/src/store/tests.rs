//! The store on real files: what is acknowledged is there, in order and once, whatever happens in between.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::blocks::{BlockReader, lines};
use super::segment::Segment;
use super::*;
use crate::entry::EntryMeta;
use crate::entry::line::{head, parse};

mod crash;
mod faults;
mod files;
mod modified;

fn options(dir: &Path) -> StoreOptions {
    StoreOptions {
        queue_bytes: 1 << 20,
        dedup_keys: 100,
        ring_bytes: 1 << 20,
        ..StoreOptions::new(dir.join("services.log"))
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
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
    Ok(store.append(batch, Timestamp::now())?.await?.expect("a receipt"))
}

/// Sequence number and text of every entry, in order.
fn entries(store: &Store) -> Vec<(u64, String)> {
    let snapshot = store.snapshot();
    let mut all: Vec<BlockReader> = Vec::new();
    for segment in &snapshot.closed {
        all.extend(BlockReader::open(segment).unwrap());
    }
    all.push(BlockReader::active(snapshot.active, snapshot.committed_len));
    let mut found = Vec::new();
    let mut buf = Vec::new();
    for blocks in all {
        for index in 0..blocks.count() {
            blocks.read(index, &mut buf).unwrap();
            let entry = |line| Some((head(line)?.seq, parse(line)?.msg.into_owned()));
            found.extend(lines(&buf).filter_map(entry));
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
    let store = Store::open(options(dir.path()), "log-a").unwrap();
    assert_eq!(append(&store, text("one")).await, Ok(Receipt { first: 1, last: 1, duplicate: false }));
    drop(store);
    let store = Store::open(options(dir.path()), "log-b").unwrap();
    assert_eq!(store.instance(), "log-a");
    let mut batch = Batch::new(None);
    batch.push(&EntryMeta::default(), b"two", None);
    batch.push(&EntryMeta::default(), b"three", None);
    assert_eq!(append(&store, batch).await, Ok(Receipt { first: 2, last: 3, duplicate: false }));
    assert_eq!(entries(&store), numbered(&["one", "two", "three"]));
    let mode = fs::metadata(dir.path().join("services.log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_second_process_on_the_same_file_refuses_to_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path()), "log-a").unwrap();
    assert!(matches!(Store::open(options(dir.path()), "log-b").err(), Some(OpenError::InUse(_))));
    drop(store);
    Store::open(options(dir.path()), "log-b").unwrap();
}

#[tokio::test]
async fn a_batch_with_a_key_is_stored_once_even_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path()), "log-a").unwrap();
    // Both in the queue at once: the second is still recognized.
    let pending: Vec<_> =
        (0..2).map(|_| store.append(keyed("k1", &["one", "two"]), Timestamp::now()).unwrap()).collect();
    let mut duplicates = 0;
    for pending in pending {
        let receipt = pending.await.unwrap().unwrap();
        assert_eq!((receipt.first, receipt.last), (1, 2));
        duplicates += u32::from(receipt.duplicate);
    }
    assert_eq!(duplicates, 1);
    drop(store);
    let store = Store::open(options(dir.path()), "log-a").unwrap();
    assert!(append(&store, keyed("k1", &["one", "two"])).await.unwrap().duplicate);
    assert!(!append(&store, keyed("k2", &["three"])).await.unwrap().duplicate);
    assert_eq!(entries(&store), numbered(&["one", "two", "three"]));
}

#[tokio::test]
async fn senders_share_writes_and_each_keeps_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(options(dir.path()), "log-a").unwrap());
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
    let entries = entries(&store);
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
    let store = Store::open(StoreOptions { ack: AckMode::Queued, ..options(dir.path()) }, "log-a").unwrap();
    for n in 0..1_000 {
        assert_eq!(store.append(text(&n.to_string()), Timestamp::now()).unwrap().await, Ok(None));
    }
    store.close();
    assert_eq!(store.append(text("late"), Timestamp::now()).err(), Some(AppendError::Closed));
    store.ended().await;
    assert_eq!(entries(&store).len(), 1_000);
}

#[tokio::test]
async fn a_follower_gets_every_committed_entry() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions { ack: AckMode::Synced, ..options(dir.path()) }, "log-a").unwrap();
    let follower = store.follow();
    let mut last_seq = store.last_seq();
    append(&store, text("one")).await.unwrap();
    append(&store, text("two")).await.unwrap();
    last_seq.wait_for(|seq| *seq == 2).await.unwrap();
    let chunks = follower.since(1, usize::MAX);
    let seqs: Vec<_> =
        chunks.iter().flat_map(|chunk| lines(&chunk.lines)).map(|line| head(line).unwrap().seq).collect();
    assert_eq!(seqs, [1, 2]);
}

#[tokio::test]
async fn syncs_are_measured_apart_from_commits() {
    for (ack, syncs) in [(AckMode::Written, ""), (AckMode::Synced, "1")] {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(StoreOptions { ack, ..options(dir.path()) }, "log-a").unwrap());
        let metrics = hubspoke_chassis::Metrics::new("log", "log-a").unwrap();
        crate::metrics::register(&metrics.meter(), &store);
        append(&store, text("one")).await.unwrap();
        let text = metrics.render();
        let count = |name: &str| {
            let name = format!("hub_log_{name}_duration_seconds_count");
            let line = text.lines().find(|line| line.starts_with(&name));
            line.map(|line| line.rsplit(' ').next().unwrap().to_owned()).unwrap_or_default()
        };
        assert_eq!((count("commit").as_str(), count("sync").as_str()), ("1", syncs), "{text}");
    }
}
