//! Rotation, retention, and files that an operator moves.

use std::time::Duration;

use super::*;

#[tokio::test]
async fn rotation_loses_nothing_and_sequence_numbers_continue() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.limits.rotate_bytes = Some(2_000);
    let mut expected = Vec::new();
    for round in 0..3 {
        let store = open(&options, "log-a").await;
        for n in 0..50 {
            expected.push(format!("{round}-{n}"));
            append(&store, text(&format!("{round}-{n}"))).await.unwrap();
        }
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        assert_eq!(entries(dir.path()), numbered(&expected));
    }
    assert!(names(dir.path()).len() > 5, "{:?}", names(dir.path()));
}

#[tokio::test]
async fn retention_by_total_removes_the_oldest_while_entries_come() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.limits.rotate_bytes = Some(2_000);
    options.limits.retain_bytes = Some(6_000);
    let store = open(&options, "log-a").await;
    for n in 0..500 {
        append(&store, text(&n.to_string())).await.unwrap();
    }
    eventually("the oldest are removed", async || store.stored_bytes() <= 6_000).await;
    let left = entries(dir.path());
    assert_eq!(left.last().unwrap(), &(500, "499".to_owned()));
    assert!(left.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0), "the rest has no gap");
}

#[tokio::test]
async fn an_idle_file_is_rotated_and_removed_by_age_but_the_last_sequence_number_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let age = Some(Duration::from_millis(1));
    let mut options = options(dir.path());
    options.limits.rotate_age = age;
    options.limits.retain_age = age;
    let store = open(&options, "log-a").await;
    append(&store, text("one")).await.unwrap();
    eventually("it is rotated", async || fs::metadata(dir.path().join("services.log")).unwrap().len() == 0)
        .await;
    drop(store);
    let store = open(&options, "log-b").await;
    assert_eq!(append(&store, text("two")).await.unwrap().first, 2);
    assert_eq!(store.instance(), "log-a");
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_created_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("services.log");
    let store = open(&options(dir.path()), "log-a").await;
    append(&store, text("one")).await.unwrap();
    fs::rename(&file, dir.path().join("elsewhere")).unwrap();
    eventually("the file is back", async || file.exists()).await;
    assert_eq!(append(&store, text("two")).await.unwrap().first, 2);
    assert!(fs::read_to_string(&file).unwrap().contains("two"));
}
