//! Files after a crash, or after another program wrote to them.

use super::*;

fn content(dir: &Path) -> Vec<u8> {
    fs::read(dir.join("services.log")).unwrap()
}

#[tokio::test]
async fn an_entry_torn_at_any_byte_is_cut_off_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&options(dir.path()), "log-a").await;
    append(&store, text("one")).await.unwrap();
    append(&store, text("two")).await.unwrap();
    let good = content(dir.path()).len();
    append(&store, text("three, with \"quotes\" and a \n newline")).await.unwrap();
    drop(store);
    let whole = content(dir.path());
    for cut in good..whole.len() {
        fs::write(dir.path().join("services.log"), &whole[..cut]).unwrap();
        let store = open(&options(dir.path()), "log-b").await;
        assert_eq!(store.torn_bytes(), (cut - good) as u64);
        assert_eq!(append(&store, text("four")).await.unwrap().first, 3);
        assert_eq!(entries(dir.path()), numbered(&["one", "two", "four"]), "cut at {cut}");
    }
}

#[tokio::test]
async fn empty_blocks_after_a_power_cut_are_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&options(dir.path()), "log-a").await;
    append(&store, text("one")).await.unwrap();
    drop(store);
    let mut torn = content(dir.path());
    torn.extend([0; 5_000]);
    fs::write(dir.path().join("services.log"), &torn).unwrap();
    let store = open(&options(dir.path()), "log-a").await;
    assert_eq!(store.torn_bytes(), 5_000);
    assert_eq!(append(&store, text("two")).await.unwrap().first, 2);
}

#[tokio::test]
async fn text_that_is_not_an_entry_stays_and_is_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = b"an old log\n{\"ts\":\"x\"}\n\xff\xfe\nlast line without an end";
    fs::write(dir.path().join("services.log"), foreign).unwrap();
    let store = open(&options(dir.path()), "log-a").await;
    assert_eq!((store.torn_bytes(), store.instance()), (0, "log-a"));
    append(&store, text("one")).await.unwrap();
    drop(store);
    let mut edited = content(dir.path());
    assert!(edited.starts_with(foreign));
    edited.extend(b"an operator's note\n");
    fs::write(dir.path().join("services.log"), &edited).unwrap();
    let store = open(&options(dir.path()), "log-b").await;
    append(&store, text("two")).await.unwrap();
    assert_eq!(entries(dir.path()), numbered(&["one", "two"]));
    assert_eq!(store.instance(), "log-a");
}

#[tokio::test]
async fn a_batch_torn_at_any_byte_is_cut_off_whole_and_its_retry_is_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let batch = |key| keyed(key, &["a", "b, which is longer", "c"]);
    let store = open(&options(dir.path()), "log-a").await;
    append(&store, text("before")).await.unwrap();
    append(&store, batch("k1")).await.unwrap();
    let good = content(dir.path()).len();
    append(&store, batch("k2")).await.unwrap();
    drop(store);
    let whole = content(dir.path());
    let all = ["before", "a", "b, which is longer", "c", "a", "b, which is longer", "c"];
    for cut in good..whole.len() {
        fs::write(dir.path().join("services.log"), &whole[..cut]).unwrap();
        let store = open(&options(dir.path()), "log-b").await;
        assert_eq!(store.torn_bytes(), (cut - good) as u64);
        assert!(append(&store, batch("k1")).await.unwrap().duplicate);
        let receipt = append(&store, batch("k2")).await.unwrap();
        assert_eq!(receipt, Receipt { first: 5, last: 7, duplicate: false }, "cut at {cut}");
        assert_eq!(entries(dir.path()), numbered(&all), "cut at {cut}");
    }
}

#[tokio::test]
async fn lines_that_only_look_like_a_torn_batch_stay() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&options(dir.path()), "log-a").await;
    append(&store, keyed("k", &["a", "b", "c"])).await.unwrap();
    drop(store);
    let whole = String::from_utf8(content(dir.path())).unwrap();
    let [a, b, _] = whole.lines().collect::<Vec<_>>()[..] else { panic!("{whole}") };
    for file in [format!("{b}\n"), format!("{a}\na note\n{b}\n"), format!("{b}\n{b}\n")] {
        fs::write(dir.path().join("services.log"), &file).unwrap();
        let store = open(&options(dir.path()), "log-a").await;
        assert_eq!((store.torn_bytes(), content(dir.path())), (0, file.into_bytes()));
        assert_eq!(append(&store, text("next")).await.unwrap().first, 3);
    }
}

/// Only the keys in the unreadable file are forgotten.
#[tokio::test]
async fn the_store_opens_with_a_damaged_segment() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.limits.rotate_bytes = Some(1_400);
    options.limits.compress = true;
    let store = open(&options, "log-a").await;
    for n in 0..40 {
        append(&store, keyed(&format!("k{n}"), &[&n.to_string()])).await.unwrap();
    }
    let closed =
        || names(dir.path()).into_iter().filter(|name| name.starts_with("services-")).collect::<Vec<_>>();
    eventually("all are compressed", async || {
        let closed = closed();
        closed.len() > 1 && closed.iter().all(|name| name.ends_with(".zst"))
    })
    .await;
    drop(store);
    let (path, second) = (dir.path().join(&closed()[0]), closed()[1].clone());
    let other_key = second.split('-').nth(1).unwrap().parse::<u64>().unwrap() - 1;
    let good = fs::read(&path).unwrap();
    for at in [0, 10, good.len() / 2, good.len() - 1] {
        let mut damaged = good.clone();
        damaged[at] ^= 0xff;
        fs::write(&path, damaged).unwrap();
        let store = open(&options, "log-a").await;
        for known in [other_key, 39] {
            let retry = keyed(&format!("k{known}"), &[&known.to_string()]);
            assert!(append(&store, retry).await.unwrap().duplicate, "{at}");
        }
    }
    fs::write(&path, "not zstd at all").unwrap();
    assert_eq!(append(&open(&options, "log-a").await, text("next")).await.unwrap().first, 41);
}
