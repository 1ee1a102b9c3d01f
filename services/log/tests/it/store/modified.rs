//! Other programs change the file while it is written.

use std::io::Write as _;

use super::*;

fn file(dir: &Path) -> fs::File {
    fs::File::options().append(true).open(dir.join("services.log")).unwrap()
}

#[tokio::test]
async fn a_file_that_others_truncate_is_continued_without_holes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&options(dir.path()), "log-a").await;
    for n in 0..3 {
        append(&store, text(&n.to_string())).await.unwrap();
    }
    file(dir.path()).set_len(0).unwrap();
    append(&store, text("three")).await.unwrap();
    assert_eq!(entries(dir.path()), [(4, "three".to_owned())]);
    assert!(!fs::read(dir.path().join("services.log")).unwrap().contains(&0));
    // In the middle of an entry, and noticed without a new one.
    append(&store, text("four")).await.unwrap();
    let len = store.stored_bytes();
    file(dir.path()).set_len(len - 5).unwrap();
    eventually("it is reopened", async || store.stored_bytes() < len - 5).await;
    append(&store, text("five")).await.unwrap();
    assert_eq!(entries(dir.path()), [(4, "three".to_owned()), (6, "five".to_owned())]);
}

#[tokio::test]
async fn text_that_others_append_hides_no_entry() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&options(dir.path()), "log-a").await;
    append(&store, text("one")).await.unwrap();
    for (n, note) in ["a note\n", "one without a newline", "{\"ts\":\"half an entry"].into_iter().enumerate()
    {
        file(dir.path()).write_all(note.as_bytes()).unwrap();
        append(&store, text("next")).await.unwrap();
        let entries = entries(dir.path());
        assert_eq!(entries.len(), n + 2, "{entries:?}");
        assert_eq!(entries.last().unwrap(), &(n as u64 + 2, "next".to_owned()));
    }
    let content = fs::read_to_string(dir.path().join("services.log")).unwrap();
    assert!(content.contains("\na note\n") && content.contains("\none without a newline\n"));
    assert!(!content.contains("half an entry"), "cut off as after a crash");
    assert_eq!(store.stored_bytes(), content.len() as u64);
}
