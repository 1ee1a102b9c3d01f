//! The store on real files: what is acknowledged is there, in order and once, whatever happens in between.

use std::fs;
use std::path::Path;
use std::time::Duration;

use hubspoke_testkit::eventually;

use super::blocks::{BlockReader, lines};
use super::segment::Segment;
use super::*;
use crate::entry::EntryMeta;
use crate::entry::line::{head, parse};

mod faults;
mod files;

fn options(dir: &Path) -> StoreOptions {
    StoreOptions {
        queue_bytes: 1 << 20,
        dedup_keys: 100,
        ring_bytes: 1 << 20,
        ..StoreOptions::new(dir.join("services.log"))
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
    Ok(store.append(batch, Timestamp::now)?.await?.expect("a receipt"))
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
