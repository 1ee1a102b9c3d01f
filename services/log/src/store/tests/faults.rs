//! The writer on a disk that fails by a script, and what is left after a power cut.

use std::collections::BTreeMap;
use std::io;

use proptest::prelude::*;

use super::super::faulty::{Fault, FaultScript};
use super::*;

fn open(dir: &Path, ack: AckMode, script: &Arc<FaultScript>) -> Store {
    Store::open_with(StoreOptions { ack, ..options(dir) }, "log-a", script.disks()).unwrap()
}

#[tokio::test]
async fn a_recovered_batch_is_synced_before_its_retry_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    // As a kill between write and sync leaves it: in the page cache only.
    append(&Store::open(options(dir.path()), "log-a").unwrap(), keyed("k", &["one"])).await.unwrap();
    let script = Arc::new(FaultScript::default());
    let store = open(dir.path(), AckMode::Synced, &script);
    assert!(append(&store, keyed("k", &["one"])).await.unwrap().duplicate);
    assert!(String::from_utf8(script.durable.lock().clone()).unwrap().contains("\"one\""));
}

#[tokio::test]
async fn only_a_successful_write_makes_the_log_healthy_again() {
    let dir = tempfile::tempdir().unwrap();
    let script = Arc::new(FaultScript::default());
    let store = open(dir.path(), AckMode::Written, &script);
    append(&store, keyed("k", &["one"])).await.unwrap();
    script.next([Fault::Fail]);
    assert_eq!(append(&store, text("two")).await, Err(AppendError::Disk));
    // Twice: any effect of the first is visible after the second.
    for _ in 0..2 {
        assert!(append(&store, keyed("k", &["one"])).await.unwrap().duplicate);
    }
    assert!(!store.healthy());
    append(&store, text("three")).await.unwrap();
    eventually("it is healthy again", async || store.healthy()).await;
    assert_eq!(entries(&store), numbered(&["one", "three"]));
}

#[tokio::test]
async fn a_failed_write_cuts_off_no_acknowledged_entry_even_if_others_wrote_in_between() {
    let dir = tempfile::tempdir().unwrap();
    let script = Arc::new(FaultScript::default());
    let store = open(dir.path(), AckMode::Written, &script);
    append(&store, text("one")).await.unwrap();
    let mut file = fs::File::options().append(true).open(dir.path().join("services.log")).unwrap();
    io::Write::write_all(&mut file, "a long note of somebody else\n".repeat(20).as_bytes()).unwrap();
    append(&store, text("two")).await.unwrap();
    script.next([Fault::Short(10), Fault::Full]);
    assert_eq!(append(&store, text("three")).await, Err(AppendError::DiskFull));
    append(&store, text("four")).await.unwrap();
    assert_eq!(entries(&store), numbered(&["one", "two", "four"]));
    drop(store);
    let store = Store::open(options(dir.path()), "log-a").unwrap();
    assert_eq!(entries(&store), numbered(&["one", "two", "four"]));
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        6 => Just(Fault::None),
        2 => (1_usize..200).prop_map(Fault::Short),
        1 => Just(Fault::Full),
        1 => Just(Fault::Fail),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    /// Batches come in groups, the disk fails now and then, and finally the power is cut. That leaves what
    /// was synced, and of what was written later any part, or empty blocks.
    #[test]
    fn synced_loses_nothing_in_a_power_cut(
        groups in proptest::collection::vec(proptest::collection::vec(1_usize..4, 1..6), 1..8),
        faults in proptest::collection::vec(fault(), 0..40),
        more in 0_usize..400,
        zeros in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let script = Arc::new(FaultScript::default());
        let store = open(dir.path(), AckMode::Synced, &script);
        script.next(faults);
        let mut acknowledged: BTreeMap<u64, String> = BTreeMap::new();
        let mut batches = Vec::new();
        for (g, group) in groups.iter().enumerate() {
            let mut pending = Vec::new();
            for (b, len) in group.iter().enumerate() {
                let texts: Vec<String> = (0..*len).map(|n| format!("{g}.{b}.{n}")).collect();
                let batch = || keyed(&format!("{g}.{b}"), &texts.iter().map(String::as_str).collect::<Vec<_>>());
                pending.push((texts.clone(), store.append(batch(), Timestamp::now).unwrap()));
                batches.push(batch());
            }
            for (texts, pending) in pending {
                if let Ok(receipt) = runtime.block_on(pending) {
                    acknowledged.extend((receipt.unwrap().first..).zip(texts));
                }
            }
        }
        // The power is cut now: what the writer does at its end does not count.
        let mut left = script.durable.lock().clone();
        let written = fs::read(dir.path().join("services.log")).unwrap();
        drop(store);
        if let Some(rest) = written.strip_prefix(&left[..]) {
            left.extend(rest.iter().take(more));
        }
        left.extend(vec![0; if zeros { more } else { 0 }]);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("services.log"), left).unwrap();

        let store = Store::open(options(dir.path()), "log-a").unwrap();
        let found: BTreeMap<u64, String> = entries(&store).into_iter().collect();
        for (seq, text) in &acknowledged {
            prop_assert_eq!(found.get(seq), Some(text));
        }
        // Senders without an acknowledgement retry: then each entry is there once.
        for batch in &batches {
            runtime.block_on(append(&store, batch.clone())).unwrap();
        }
        let found = entries(&store);
        let expected: usize = groups.iter().flatten().sum();
        prop_assert_eq!(found.len(), expected);
        let texts: std::collections::BTreeSet<_> = found.iter().map(|(_, text)| text).collect();
        prop_assert_eq!(texts.len(), expected);
        prop_assert!(found.iter().zip(1..).all(|((seq, _), n)| *seq == n), "no gap");
    }
}
