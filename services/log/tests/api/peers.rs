//! Several log instances that know one another: a stand-in for the registry tells them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::any;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::fixture::{Log, ndjson, texts};

/// Answers each registration with all members so far; members learn of later ones when they ask again.
async fn registry() -> (String, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let members: Arc<Mutex<Vec<Value>>> = Arc::default();
    let known = Arc::clone(&members);
    let register = move |method: axum::http::Method, body: axum::body::Bytes| async move {
        let mut known = known.lock().unwrap();
        let info: Value = serde_json::from_slice(&body).unwrap();
        known.retain(|other| other["Addr"] != info["Addr"]);
        if method == axum::http::Method::POST {
            known.push(info);
        }
        axum::Json(json!({"log": *known}))
    };
    let app = Router::new().route("/services", any(register));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, members)
}

async fn start(registry: &str) -> Log {
    Log::start_with(|config| config.common.registry.url = registry.to_owned()).await
}

async fn all(log: &Log, query: &str) -> (Vec<Value>, Option<String>) {
    let reply = log.get(&format!("/log/all?{query}")).send().await.unwrap();
    assert_eq!(reply.status(), 200);
    let missing = reply.headers().get("hub-log-missing").map(|value| value.to_str().unwrap().to_owned());
    (ndjson(&reply.text().await.unwrap()), missing)
}

#[tokio::test]
async fn any_instance_shows_the_entries_of_all_merged_by_time() {
    let (registry, members) = registry().await;
    let mut logs = Vec::new();
    for n in 1..=3 {
        logs.push(start(&registry).await);
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while members.lock().unwrap().len() < n {
            assert!(std::time::Instant::now() < deadline, "never registered");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    for n in 0..12 {
        logs[n % 3].say(&n.to_string()).await;
    }
    // A retry of one entry that reached two instances.
    for log in &logs[..2] {
        let post = log.post("/log").header("Idempotency-Key", "k").body("12");
        assert_eq!(post.send().await.unwrap().status(), 200);
    }
    let ascending: Vec<String> = (0..13).map(|n| n.to_string()).collect();
    // The last to come knows all the others from its registration.
    let (entries, missing) = all(&logs[2], "order=asc").await;
    assert_eq!((texts(&entries), missing), (ascending.iter().map(String::as_str).collect(), None));
    let (entries, _) = all(&logs[2], "limit=3").await;
    assert_eq!(texts(&entries), ["12", "11", "10"]);

    // Each instance goes on behind what was read of it.
    let (page, _) = all(&logs[2], "order=asc&limit=5").await;
    let mut last = std::collections::BTreeMap::new();
    for entry in &page {
        last.insert(entry["instance"].as_str().unwrap().to_owned(), entry["seq"].as_u64().unwrap());
    }
    let cursor: Vec<String> = last.iter().map(|(instance, seq)| format!("{instance}:{seq}")).collect();
    let (rest, _) = all(&logs[2], &format!("order=asc&cursor={}", cursor.join(","))).await;
    assert_eq!(texts(&rest), ascending[5..].iter().map(String::as_str).collect::<Vec<_>>());

    // An instance that is gone, but not forgotten yet, is named.
    let gone = logs.remove(0);
    let addr = gone.url.strip_prefix("http://").unwrap().to_owned();
    drop(gone.stop().await);
    let (entries, missing) = all(logs.last().unwrap(), "order=asc").await;
    assert_eq!(missing, Some(addr));
    assert_eq!(entries.len(), 9);
    for log in logs {
        log.stop().await;
    }
}
