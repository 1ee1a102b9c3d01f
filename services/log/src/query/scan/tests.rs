//! Scans of real files, compared with what was written.

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::entry::{Batch, EntryMeta};
use crate::store::{FileLimits, Store, StoreOptions};

#[derive(Default)]
struct Collect(Vec<u64>);

impl EntrySink for Collect {
    fn entry(&mut self, seq: u64, _: &[u8]) -> ControlFlow<()> {
        self.0.push(seq);
        ControlFlow::Continue(())
    }

    fn end_of_block(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn goes_on(&mut self) -> bool {
        true
    }
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + i64::try_from(second).unwrap()).unwrap()
}

/// A store of `count` entries, one a minute, each with a text of its number and `pad` bytes.
fn store(dir: &std::path::Path, count: u64, pad: usize, limits: FileLimits) -> Store {
    let options =
        StoreOptions { limits, queue_bytes: 64 << 20, ..StoreOptions::new(dir.join("services.log")) };
    let store = Store::open(options, "log-1").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        for n in 1..=count {
            let text = format!("n{n}. {}", "x".repeat(pad));
            let batch = Batch::one(&EntryMeta::default(), text.as_bytes(), None);
            let pending = store.append(batch, || at(60 * n)).unwrap();
            if n % 50 == 0 || n == count {
                pending.await.unwrap();
            }
        }
    });
    store
}

fn run(store: &Store, query: &str) -> Vec<u64> {
    let query = Query::parse(query, at(0)).unwrap();
    let mut found = Collect::default();
    let range = query.seq_range(store.instance());
    scan(store.snapshot(), &query, range, &mut found).unwrap();
    found.0
}

/// Gives each closed segment the modification time of its last entry.
fn date_files(store: &Store) {
    let closed = store.snapshot().closed;
    for (segment, next) in closed.iter().zip(closed.iter().skip(1)) {
        let file = std::fs::File::options().write(true).open(&segment.path).unwrap();
        file.set_modified(SystemTime::from(at(60 * (next.first_seq - 1)))).unwrap();
    }
}

fn small_files() -> FileLimits {
    FileLimits { rotate_bytes: Some(3_000), ..FileLimits::default() }
}

#[test]
fn order_limit_and_cursor_work_across_many_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), 400, 20, small_files());
    assert!(store.snapshot().closed.len() > 5);
    assert_eq!(run(&store, ""), (301..=400).rev().collect::<Vec<_>>());
    assert_eq!(run(&store, "order=asc&limit=3"), [1, 2, 3]);
    assert_eq!(run(&store, "order=asc&limit=0"), (1..=400).collect::<Vec<_>>());
    assert_eq!(run(&store, "order=asc&limit=2&cursor=log-1:200"), [201, 202]);
    assert_eq!(run(&store, "order=desc&limit=2&cursor=log-1:200"), [199, 198]);
    assert_eq!(
        run(&store, "order=desc&limit=2&cursor=log-9:200"),
        [400, 399],
        "another instance's cursor does not count"
    );
    assert!(run(&store, "order=asc&cursor=log-1:400").is_empty());
    assert_eq!(run(&store, "limit=2&cursor=log-1:200"), [201, 202], "a cursor follows");
    assert!(run(&store, "order=desc&cursor=log-1:1").is_empty());
    assert_eq!(run(&store, "contains=n123."), [123]);
    assert_eq!(run(&store, "regex=^n12[34]\\.&order=asc"), [123, 124]);
}

#[test]
fn large_files_are_entered_near_the_first_match() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), 3_000, 1_000, FileLimits::default());
    assert!(BlockReader::active(store.snapshot().active, store.snapshot().committed_len).count() >= 3);
    assert_eq!(run(&store, "order=asc&limit=0"), (1..=3_000).collect::<Vec<_>>());
    assert_eq!(run(&store, "limit=0"), (1..=3_000).rev().collect::<Vec<_>>());
    for seq in [1, 2, 900, 1_500, 2_999] {
        assert_eq!(run(&store, &format!("order=asc&limit=1&cursor=log-1:{seq}")), [seq + 1]);
        let time = at(60 * seq);
        assert_eq!(run(&store, &format!("order=asc&limit=1&since={time}")), [seq]);
        assert_eq!(
            run(&store, &format!("limit=1&until={time}")),
            Vec::from_iter((seq > 1).then_some(seq - 1))
        );
    }
}

#[test]
fn a_clock_set_back_does_not_change_the_order_of_arrival() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions::new(dir.path().join("services.log")), "log-1").unwrap();
    for second in [100, 200, 150, 300] {
        let batch = Batch::one(&EntryMeta::default(), b"x", None);
        let pending = store.append(batch, || at(second)).unwrap();
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(pending).unwrap();
    }
    assert_eq!(run(&store, "cursor=log-1:0"), [1, 2, 3, 4]);
    assert_eq!(run(&store, "order=asc"), [1, 3, 2, 4]);
    assert_eq!(run(&store, &format!("order=asc&since={}", at(160))), [2, 4]);
    assert_eq!(run(&store, &format!("until={}", at(160))), [3, 1]);
}

/// Entries that arrive at these seconds, with the seconds of their events.
fn late_store(dir: &std::path::Path, entries: &[(u64, u64)]) -> Store {
    let store = Store::open(StoreOptions::new(dir.join("services.log")), "log-1").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for (arrival, event) in entries {
        let time = Some(at(*event)).filter(|_| event != arrival);
        let batch = Batch::one(&EntryMeta { time, ..EntryMeta::default() }, b"x", None);
        runtime.block_on(store.append(batch, || at(*arrival)).unwrap()).unwrap();
    }
    store
}

#[test]
fn entries_are_sorted_and_found_by_the_times_of_their_events() {
    let dir = tempfile::tempdir().unwrap();
    // The second and the fourth come late, after what they have caused.
    let store = late_store(dir.path(), &[(10, 10), (20, 5), (30, 30), (40, 12), (50, 50)]);
    assert_eq!(run(&store, "order=asc"), [2, 1, 4, 3, 5]);
    assert_eq!(run(&store, ""), [5, 3, 4, 1, 2]);
    assert_eq!(run(&store, "limit=2"), [5, 3]);
    assert_eq!(run(&store, "order=asc&limit=2"), [2, 1]);
    assert_eq!(run(&store, &format!("order=asc&since={}&until={}", at(11), at(31))), [4, 3]);
    // With a cursor by arrival, so that none is missed.
    assert_eq!(run(&store, "cursor=log-1:0"), [1, 2, 3, 4, 5]);
    assert_eq!(run(&store, "cursor=log-1:5&order=desc"), [4, 3, 2, 1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn late_entries_are_sorted_whatever_the_order_and_the_limit(
        delays in proptest::collection::vec((0_u64..20, prop_oneof![Just(0_u64), 0_u64..60]), 1..60),
        desc in any::<bool>(),
        limit in 0_u64..70,
        since in 0_u64..600,
    ) {
        let mut arrival = 100;
        let mut entries = Vec::new();
        for (step, delay) in delays {
            arrival += step;
            entries.push((arrival, arrival - delay));
        }
        let dir = tempfile::tempdir().unwrap();
        let store = late_store(dir.path(), &entries);
        let mut expected: Vec<(u64, u64)> = (1..).zip(&entries).map(|(seq, (_, event))| (*event, seq)).collect();
        expected.retain(|(event, _)| *event >= since);
        expected.sort_unstable();
        if desc {
            expected.reverse();
        }
        if limit > 0 {
            expected.truncate(usize::try_from(limit).unwrap());
        }
        let expected: Vec<u64> = expected.into_iter().map(|(_, seq)| seq).collect();
        let order = if desc { "desc" } else { "asc" };
        prop_assert_eq!(run(&store, &format!("order={order}&limit={limit}&since={}", at(since))), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn pages_of_any_size_have_each_entry_once(limit in 1_u64..40, desc in any::<bool>(), count in 1_u64..120) {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path(), count, 5, small_files());
        let order = if desc { "desc" } else { "asc" };
        let mut seen = Vec::new();
        loop {
            let cursor = seen.last().map(|seq| format!("&cursor=log-1:{seq}")).unwrap_or_default();
            let page = run(&store, &format!("order={order}&limit={limit}{cursor}"));
            prop_assert!(page.len() as u64 <= limit);
            if page.is_empty() {
                break;
            }
            seen.extend(page);
        }
        if desc {
            seen.reverse();
        }
        prop_assert_eq!(seen, (1..=count).collect::<Vec<_>>());
    }

    #[test]
    fn time_bounds_agree_with_plain_comparison(since in 0_u64..130, until in 0_u64..130, desc in any::<bool>()) {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path(), 120, 5, small_files());
        date_files(&store);
        drop(store);
        let store = self::store(dir.path(), 0, 0, small_files());
        let order = if desc { "desc" } else { "asc" };
        let query = format!("limit=0&order={order}&since={}&until={}", at(60 * since), at(60 * until));
        let mut expected: Vec<u64> = (1..=120).filter(|n| (since..until).contains(n)).collect();
        if desc {
            expected.reverse();
        }
        prop_assert_eq!(run(&store, &query), expected);
    }
}
