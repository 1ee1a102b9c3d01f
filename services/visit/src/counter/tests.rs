use std::collections::BTreeSet;
use std::fs;

use super::*;

#[tokio::test]
async fn concurrent_visitors_get_different_numbers() {
    let dir = tempfile::tempdir().unwrap();
    for counter in [VisitCounter::in_memory(), VisitCounter::in_file(&dir.path().join("count")).unwrap()] {
        let mut visitors = tokio::task::JoinSet::new();
        for _ in 0..2_500 {
            let counter = counter.clone();
            visitors.spawn(async move { counter.next().await.unwrap() });
        }
        let numbers: BTreeSet<u64> = visitors.join_all().await.into_iter().collect();
        assert_eq!(numbers, (1..=2_500).collect());
    }
}

#[tokio::test]
async fn a_clean_stop_leaves_no_gap_and_a_crash_repeats_no_number() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("count");
    let counter = VisitCounter::in_file(&path).unwrap();
    assert_eq!(counter.next().await.unwrap(), 1);
    assert_eq!(counter.next().await.unwrap(), 2);
    counter.release().await.unwrap();
    drop(counter);
    let counter = VisitCounter::in_file(&path).unwrap();
    assert_eq!(counter.next().await.unwrap(), 3);
    drop(counter); // like a crash: nothing is released
    let counter = VisitCounter::in_file(&path).unwrap();
    assert_eq!(counter.next().await.unwrap(), 2 + BLOCK + 1);
    counter.release().await.unwrap();
    assert_eq!(counter.next().await.unwrap(), 2 + BLOCK + 2, "a straggler after the release");
    drop(counter);
    assert!(VisitCounter::in_file(&path).unwrap().next().await.unwrap() > 2 + BLOCK + 2);
}

#[tokio::test]
async fn an_invalid_file_and_a_second_process_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("count");
    for content in ["", "x", "-1", "1.5", "18446744073709551616"] {
        fs::write(&path, content).unwrap();
        assert!(matches!(VisitCounter::in_file(&path), Err(StateError::Invalid(_))), "{content:?}");
    }
    fs::write(&path, "7\n").unwrap();
    let counter = VisitCounter::in_file(&path).unwrap();
    assert!(matches!(VisitCounter::in_file(&path), Err(StateError::InUse(_))));
    assert_eq!(counter.next().await.unwrap(), 8);
}

#[tokio::test]
async fn without_a_reservation_no_number_is_given_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("inner").join("count");
    fs::create_dir(dir.path().join("inner")).unwrap();
    let counter = VisitCounter::in_file(&path).unwrap();
    fs::remove_dir_all(dir.path().join("inner")).unwrap();
    assert!(counter.next().await.is_err());
    assert_eq!(counter.last().await, 0);
    fs::create_dir(dir.path().join("inner")).unwrap();
    assert_eq!(counter.next().await.unwrap(), 1);
}
