//! Files that change under readers: compression, and all kinds of maintenance at once.

use super::*;

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
    eventually("all are compressed", async || {
        assert_eq!(entries(&store), numbered(&all));
        let closed = store.snapshot().closed;
        !closed.is_empty() && closed.iter().all(Segment::compressed)
    })
    .await;
    drop(store);
    let store = Store::open(StoreOptions { limits, ..options(dir.path()) }, "log-a").unwrap();
    assert_eq!(append(&store, text("next")).await.unwrap().first, 41);
}

/// Each file with a segment's name is on the list, even if rotation, compression and retention run at the
/// same time.
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
    eventually("only listed files are there", async || {
        let listed = store.snapshot().closed;
        let mut known: Vec<_> =
            listed.iter().map(|one| one.path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        known.extend([".services.log.lock".to_owned(), "services.log".to_owned()]);
        known.sort();
        store.stored_bytes() <= 30_000 && listed.iter().all(Segment::compressed) && names(dir.path()) == known
    })
    .await;
}
