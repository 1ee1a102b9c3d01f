//! Rotation, retention, compression, and files that an operator moves.

use super::*;

#[tokio::test]
async fn rotation_loses_nothing_and_sequence_numbers_continue() {
    let dir = tempfile::tempdir().unwrap();
    let limits = FileLimits { rotate_bytes: Some(2_000), ..FileLimits::default() };
    let mut expected = Vec::new();
    for round in 0..3 {
        let store = Store::open(StoreOptions { limits, ..options(dir.path()) }, "log-a").unwrap();
        for n in 0..50 {
            expected.push(format!("{round}-{n}"));
            append(&store, text(&format!("{round}-{n}"))).await.unwrap();
        }
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        assert_eq!(entries(&store), numbered(&expected));
    }
    assert!(names(dir.path()).len() > 5, "{:?}", names(dir.path()));
}

#[tokio::test]
async fn retention_by_total_removes_the_oldest_while_entries_come() {
    let dir = tempfile::tempdir().unwrap();
    let limits = FileLimits { rotate_bytes: Some(2_000), retain_bytes: Some(6_000), ..FileLimits::default() };
    let store = Store::open(StoreOptions { limits, ..options(dir.path()) }, "log-a").unwrap();
    for n in 0..500 {
        append(&store, text(&n.to_string())).await.unwrap();
    }
    until("the oldest are removed", || store.stored_bytes() <= 6_000).await;
    let left = entries(&store);
    assert_eq!(left.last().unwrap(), &(500, "499".to_owned()));
    assert!(left.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0), "the rest has no gap");
}

#[tokio::test]
async fn an_idle_file_is_rotated_and_removed_by_age_but_the_last_sequence_number_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let age = Some(Duration::from_millis(1));
    let limits = FileLimits { rotate_age: age, retain_age: age, ..FileLimits::default() };
    let store = Store::open(StoreOptions { limits, ..options(dir.path()) }, "log-a").unwrap();
    append(&store, text("one")).await.unwrap();
    until("it is rotated", || fs::metadata(dir.path().join("services.log")).unwrap().len() == 0).await;
    drop(store);
    let store = Store::open(StoreOptions { limits, ..options(dir.path()) }, "log-b").unwrap();
    assert_eq!(append(&store, text("two")).await.unwrap().first, 2);
    assert_eq!(store.instance(), "log-a");
}

#[tokio::test]
async fn closed_segments_are_compressed_and_stay_readable() {
    let dir = tempfile::tempdir().unwrap();
    let limits = FileLimits { rotate_bytes: Some(2_000), compress: true, ..FileLimits::default() };
    let store = Store::open(StoreOptions { limits, ..options(dir.path()) }, "log-a").unwrap();
    for n in 0..40 {
        append(&store, text(&n.to_string())).await.unwrap();
    }
    let all: Vec<_> = (0..40).map(|n| n.to_string()).collect();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    until("all are compressed", || {
        assert_eq!(entries(&store), numbered(&all));
        let closed = store.snapshot().closed;
        !closed.is_empty() && closed.iter().all(Segment::compressed)
    })
    .await;
    drop(store);
    let store = Store::open(StoreOptions { limits, ..options(dir.path()) }, "log-a").unwrap();
    assert_eq!(append(&store, text("next")).await.unwrap().first, 41);
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_created_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("services.log");
    let store = Store::open(options(dir.path()), "log-a").unwrap();
    append(&store, text("one")).await.unwrap();
    fs::rename(&file, dir.path().join("elsewhere")).unwrap();
    until("the file is back", || file.exists()).await;
    assert_eq!(append(&store, text("two")).await.unwrap().first, 2);
    assert!(fs::read_to_string(&file).unwrap().contains("two"));
}

/// Each file with a segment's name is on the list, even if rotation, compression and retention run at the same time.
#[tokio::test]
async fn no_file_is_left_off_the_list() {
    let dir = tempfile::tempdir().unwrap();
    let limits = FileLimits {
        rotate_bytes: Some(20_000),
        retain_bytes: Some(30_000),
        compress: true,
        ..FileLimits::default()
    };
    let store = Store::open(StoreOptions { limits, ..options(dir.path()) }, "log-a").unwrap();
    let started = std::time::Instant::now();
    // Two rounds of maintenance, each of which removes some segments and compresses another.
    while started.elapsed() < Duration::from_millis(2_500) {
        append(&store, text(&"x".repeat(2_000))).await.unwrap();
    }
    until("only listed files are there", || {
        let listed = store.snapshot().closed;
        let mut known: Vec<_> =
            listed.iter().map(|one| one.path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        known.extend([".services.log.lock".to_owned(), "services.log".to_owned()]);
        known.sort();
        store.stored_bytes() <= 30_000 && listed.iter().all(Segment::compressed) && names(dir.path()) == known
    })
    .await;
}
