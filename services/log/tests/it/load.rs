//! Rotation, compression and retention under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use serde_json::Value;

use super::fixture::{Log, chunk, ndjson};

const WRITERS: usize = 4;
const BATCH: usize = 20;

fn seq(entry: &Value) -> u64 {
    entry["seq"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_each_entry_once_and_in_order_while_files_come_and_go() {
    let log = Log::start_with(|config| {
        config.own.rotate.size = ByteSize::kb(50);
        config.own.rotate.compress = true;
        config.own.retain.total = ByteSize::kb(400);
    })
    .await;
    let done = Arc::new(AtomicBool::new(false));
    let stored = Arc::new(AtomicU64::new(0));
    let mut tail = log.http.get(format!("{}/log/tail", log.url)).send().await.unwrap();

    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (http, url) = (log.http.clone(), format!("{}/log", log.url));
        let (done, stored) = (Arc::clone(&done), Arc::clone(&stored));
        writers.spawn(async move {
            let mut sent = 0;
            while !done.load(Ordering::Relaxed) {
                let lines: String = (sent..sent + BATCH).map(|n| format!("\"{writer}:{n}\"\n")).collect();
                let post = http.post(&url).header("content-type", "application/x-ndjson").body(lines);
                assert_eq!(post.send().await.unwrap().status(), 200);
                sent += BATCH;
                stored.fetch_add(BATCH as u64, Ordering::Relaxed);
            }
        });
    }
    let mut readers = tokio::task::JoinSet::new();
    for path in ["/log?order=asc&limit=0", "/log?limit=500"] {
        let (http, url) = (log.http.clone(), format!("{}{path}", log.url));
        let done = Arc::clone(&done);
        readers.spawn(async move {
            let mut read = 0;
            while !done.load(Ordering::Relaxed) || read == 0 {
                let reply = http.get(&url).send().await.unwrap();
                assert_eq!(reply.status(), 200);
                let mut seqs: Vec<u64> = ndjson(&reply.text().await.unwrap()).iter().map(seq).collect();
                if path.ends_with("500") {
                    seqs.reverse();
                    assert!(seqs.windows(2).all(|two| two[0] + 1 == two[1]), "the newest have no gap");
                }
                // The oldest may be removed while they are read; nothing comes twice or out of order.
                assert!(seqs.is_sorted_by(|a, b| a < b));
                read += seqs.len();
            }
        });
    }
    let follower = tokio::spawn(async move {
        let mut last = [None::<usize>; WRITERS];
        let (mut seen, mut events) = (0, Vec::new());
        loop {
            events.extend_from_slice(&chunk(&mut tail).await.unwrap());
            let end = events.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            let whole = String::from_utf8(events.drain(..end).collect()).unwrap();
            assert!(!whole.contains("event: dropped"));
            for data in whole.lines().filter_map(|line| line.strip_prefix("data: ")) {
                let entry: Value = serde_json::from_str(data).unwrap();
                seen += 1;
                assert_eq!(seq(&entry), seen);
                let Some((writer, n)) = entry["msg"].as_str().unwrap().split_once(':') else { return seen };
                let last = &mut last[writer.parse::<usize>().unwrap()];
                let n = n.parse().unwrap();
                assert_eq!(last.map_or(0, |last| last + 1), n, "in the order of each writer");
                *last = Some(n);
            }
        }
    });
    let start = Instant::now();
    let compressed = |name: &str| name.ends_with(".zst");
    let names = || -> Vec<String> {
        let entries = std::fs::read_dir(log.dir.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    // Maintenance runs once a second: some rounds of it, until files have come and gone.
    let first = |name: &str| name.contains("-0000000000000001-");
    let mut first_closed = false;
    loop {
        let names = names();
        first_closed |= names.iter().any(|name| first(name));
        let first_removed = first_closed && !names.iter().any(|name| first(name));
        let compressed = names.iter().any(|name| compressed(name));
        if start.elapsed() > Duration::from_secs(3) && first_removed && compressed {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "nothing is compressed or removed: {names:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    done.store(true, Ordering::Relaxed);
    writers.join_all().await;
    log.append("the last").await;
    readers.join_all().await;
    let total = stored.load(Ordering::Relaxed) + 1;

    // The rest ends with the last entry and has no gap, once retention has run.
    let deadline = Instant::now() + Duration::from_secs(20);
    let left = loop {
        let left = log.find("/log?order=asc&limit=0").await;
        let bytes: u64 = std::fs::read_dir(log.dir.path())
            .unwrap()
            .map(|one| one.unwrap().metadata().unwrap().len())
            .sum();
        if bytes <= 400_000 {
            break left;
        }
        assert!(Instant::now() < deadline, "{bytes} bytes are left");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(seq(&left[0]) > 1, "the oldest are gone");
    assert!(left.iter().map(seq).eq(seq(&left[0])..=total));
    assert_eq!(follower.await.unwrap(), total);
    log.stop().await;
}
