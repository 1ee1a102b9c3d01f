//! What a crash, a foreign hand or a full disk leaves.

use std::process::Command;

use super::*;

fn content(dir: &Path) -> Vec<u8> {
    fs::read(dir.join("services.log")).unwrap()
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_is_cut_off_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path()), "log-a").unwrap();
    append(&store, text("one")).await.unwrap();
    append(&store, text("two")).await.unwrap();
    let good = content(dir.path()).len();
    append(&store, text("three, with \"quotes\" and a \n newline")).await.unwrap();
    drop(store);
    let whole = content(dir.path());
    for cut in good..whole.len() {
        fs::write(dir.path().join("services.log"), &whole[..cut]).unwrap();
        let store = Store::open(options(dir.path()), "log-b").unwrap();
        assert_eq!(store.torn(), (cut - good) as u64);
        assert_eq!(append(&store, text("four")).await.unwrap().first, 3);
        assert_eq!(entries(&store), numbered(&["one", "two", "four"]), "cut at {cut}");
    }
}

#[tokio::test]
async fn blocks_that_a_power_cut_left_empty_are_cut_off_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path()), "log-a").unwrap();
    append(&store, text("one")).await.unwrap();
    drop(store);
    let mut torn = content(dir.path());
    torn.extend([0; 5_000]);
    fs::write(dir.path().join("services.log"), &torn).unwrap();
    let store = Store::open(options(dir.path()), "log-a").unwrap();
    assert_eq!(store.torn(), 5_000);
    assert_eq!(append(&store, text("two")).await.unwrap().first, 2);
}

#[tokio::test]
async fn text_of_others_in_the_file_is_left_alone_and_stepped_over() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = b"an old log\n{\"ts\":\"x\"}\n\xff\xfe\nlast line without an end";
    fs::write(dir.path().join("services.log"), foreign).unwrap();
    let store = Store::open(options(dir.path()), "log-a").unwrap();
    assert_eq!((store.torn(), store.instance()), (0, "log-a"));
    append(&store, text("one")).await.unwrap();
    drop(store);
    let mut edited = content(dir.path());
    assert!(edited.starts_with(foreign));
    edited.extend(b"an operator's note\n");
    fs::write(dir.path().join("services.log"), &edited).unwrap();
    let store = Store::open(options(dir.path()), "log-b").unwrap();
    append(&store, text("two")).await.unwrap();
    assert_eq!(entries(&store), numbered(&["one", "two"]));
    assert_eq!(store.instance(), "log-a");
}

#[tokio::test]
async fn a_batch_that_a_crash_cut_short_is_stored_when_it_is_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let batch = || {
        let mut batch = Batch::new(Some("k".to_owned()));
        for text in ["a", "b", "c"] {
            batch.push(&Origin::default(), text.as_bytes(), None);
        }
        batch
    };
    let store = Store::open(options(dir.path()), "log-a").unwrap();
    append(&store, batch()).await.unwrap();
    drop(store);
    let whole = content(dir.path());
    let two_lines = whole.iter().enumerate().filter(|(_, b)| **b == b'\n').nth(1).unwrap().0 + 1;
    fs::write(dir.path().join("services.log"), &whole[..two_lines]).unwrap();
    let store = Store::open(options(dir.path()), "log-a").unwrap();
    let receipt = append(&store, batch()).await.unwrap();
    assert_eq!(receipt, Receipt { first: 3, last: 5, duplicate: false });
}

/// A file system of 1 MiB, where this user may mount one.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(dir.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        if !mounted {
            eprintln!("skipped: this user can't mount a small file system");
        }
        mounted.then_some(Self(dir))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "umount");
    }
}

#[tokio::test]
async fn a_full_disk_fails_the_entries_concerned_and_recovers_by_itself() {
    for ack in [Ack::Written, Ack::Synced] {
        let Some(small) = Small::mount() else { return };
        let filler = small.0.path().join("filler");
        fs::write(&filler, vec![0; 600 << 10]).unwrap();
        let store = Store::open(Options { ack, ..options(small.0.path()) }, "log-a").unwrap();
        let mut stored = Vec::new();
        let mut failed = 0;
        for n in 0..100 {
            let entry = format!("{n}:{}", "x".repeat(10_000));
            match append(&store, text(&entry)).await {
                Ok(receipt) => stored.push((receipt.first, entry)),
                Err(error) => {
                    assert_eq!(error, AppendError::DiskFull);
                    failed += 1;
                }
            }
        }
        assert!(stored.len() > 10 && failed > 10, "{} stored, {failed} failed", stored.len());
        assert_eq!(entries(&store), stored);
        fs::remove_file(filler).unwrap();
        stored.push((append(&store, text("room again")).await.unwrap().first, "room again".to_owned()));
        assert_eq!(entries(&store), stored, "no gap in the numbers, and nothing of what failed");
        drop(store);
        let store = Store::open(Options { ack, ..options(small.0.path()) }, "log-a").unwrap();
        assert_eq!((store.torn(), entries(&store)), (0, stored));
        drop(store);
    }
}

#[tokio::test]
async fn in_queued_mode_a_full_disk_is_told_to_those_who_come_after() {
    let Some(small) = Small::mount() else { return };
    let store = Store::open(Options { ack: Ack::Queued, ..options(small.0.path()) }, "log-a").unwrap();
    let large = || text(&"x".repeat(100_000));
    let mut refused = false;
    for _ in 0..100 {
        if let Ok(pending) = store.append(large(), Timestamp::now()) {
            refused |= pending.await == Err(AppendError::DiskFull);
        }
    }
    assert!(refused);
    assert!(!store.healthy());
    drop(store);
}
