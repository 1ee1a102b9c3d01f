//! What a crash or a foreign hand leaves. (A full disk is in `tests/disk.rs`.)

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
